"""The tutorial's pages are run as they stand, and README's Python example in the folder where they end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from examples_kit import EXAMPLES, ROOT, environment, frozen_package

from cloister.testing.ports import free_port
from cloister.testing.swtpm import is_installed

if TYPE_CHECKING:
    from pathlib import Path

SHELL = "/bin/sh"
WITHIN_S = 200  # on two busy cores; alone each takes half a minute
PAGES = ROOT / "docs" / "tutorial"
PRELUDE = """set -eu
cloister() {  # a person waits until a server is up; here, what is unavailable is tried again
  left=60
  while :; do
    code=0
    command cloister "$@" || code=$?
    if [ "$code" -ne 5 ] || [ "$left" -eq 0 ]; then return "$code"; fi
    left=$((left - 1))
    sleep 0.5
  done
}
"""


def commands(name: str, *, after: str = "# ", before: str | None = None) -> str:
    """Return the commands of a page, from one heading to another; "# exit code N" becomes a demand."""
    page = (PAGES / name).read_text(encoding="utf-8")
    page = page[page.index(after) :]
    page = page[: page.index(before)] if before else page
    script = "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    return re.sub(
        r"^(.*\S) +# exit code (\d)$", r'code=0; \1 || code=$?; [ "$code" -eq \2 ]', script, flags=re.MULTILINE
    )


def with_ports(script: str, ports: dict[str, int]) -> str:
    """Put free ports in place of a page's; each place once, for a free port may have a page's within it."""
    return re.sub("|".join(ports), lambda found: str(ports[found[0]]), script)


def play(script: str, folder: Path) -> str:
    """Run a script in a folder, end everything it has started, return what it printed."""
    surroundings = environment(frozen_package(folder), EXAMPLES=str(EXAMPLES))
    work = folder / "work"
    work.mkdir()
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(  # noqa: S603 - our own pages
            [SHELL, "-c", PRELUDE + script],
            cwd=work,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(WITHIN_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # the servers it left in the background
            process.wait(10)
    text = (folder / "said").read_text()
    assert code == 0, text
    return text


@pytest.mark.timeout(260)
def test_the_three_roles_of_the_tutorial(tmp_path: Path) -> None:
    script = "".join(
        (
            commands("index.md"),
            commands("custodian.md", before="## More units"),
            commands("borrower.md", before="## Ask for more"),
            commands("consumer.md"),
            commands("borrower.md", after="## Ask for more"),
            commands("custodian.md", after="## More units"),
        )
    )
    script = script.replace("custodian init", "custodian init --port 8443")
    script = script.replace("enclave serve", "enclave serve --listen 127.0.0.1:8440")
    said = play(with_ports(script, {"8443": free_port(), "8440": free_port()}), tmp_path)
    assert "scan-1.png: 5  [1 used, 2 remaining]" in said
    assert "7 remaining: 0" in said
    assert "allowance_exhausted" in said
    assert "scan-0.png: 1  [1 used, 9 remaining]" in said
    assert "blocked; stops within 7 s or 8 units, whichever comes first" in said
    assert "audit_broken" in said


@pytest.mark.timeout(260)
def test_the_page_on_evidence(tmp_path: Path) -> None:
    said = play(commands("attestation.md"), tmp_path)
    assert "untrusted_root" in said
    assert "report_data_mismatch" in said
    assert said.count("tdx evidence accepted: ") == 2
    assert "bytes of the evidence damaged, one at a time" in said
    assert said.endswith("wrote values.json: not signed yet\n")


@pytest.mark.tpm
@pytest.mark.timeout(260)
@pytest.mark.skipif(not is_installed(), reason="swtpm and swtpm_setup are not installed")
def test_the_tpm_page_and_the_example_of_the_readme(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
    assert "https://enclave.example:8443" in example
    custodian, enclave = free_port(), free_port()
    (tmp_path / "readme.py").write_text(example.replace("https://enclave.example:8443", f"http://127.0.0.1:{enclave}"))
    script = commands("tpm.md") + f"python3 {tmp_path}/readme.py\nls seven.receipt\n"
    said = play(with_ports(script, {"8453": custodian, "8450": enclave}), tmp_path)
    assert "verified: tpm, tier warning" in said
    assert "7 remaining: 98" in said
    assert said.endswith("seven.receipt\n")
