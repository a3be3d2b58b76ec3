"""The notebooks of examples/ are clean files that run as they stand, against real parties."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from examples_kit import EXAMPLES, ROOT, environment, frozen_package

FOLDER = EXAMPLES / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
WITHIN_S = 200  # on two busy cores; alone the three take half a minute
IN_ORDER = ("consumer", "attestation", "custodian")  # the last one stops the enclave


def text_of(notebook: Any, kind: str) -> str:
    """Return everything that a notebook showed in one form."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    shown = [output.get("data", {}).get(kind, "") for output in outputs]
    return "\n".join("".join(part) for part in shown)


def printed(notebook: Any) -> str:
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return "".join("".join(output.get("text", "")) for output in outputs)


@pytest.mark.timeout(4 * WITHIN_S)
def test_the_notebooks_run_as_they_stand(tmp_path: Path) -> None:
    surroundings = environment(frozen_package(tmp_path), CLOISTER_PARTIES=str(tmp_path / "run"))
    with (tmp_path / "said").open("wb") as said:
        parties = subprocess.Popen(  # noqa: S603 - a script of ours
            [sys.executable, str(FOLDER / "parties.py"), str(tmp_path / "run")],
            env=surroundings,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        until(parties, tmp_path)
        consumer, attestation, custodian = (run(name, tmp_path, surroundings) for name in IN_ORDER)
    finally:
        parties.send_signal(signal.SIGTERM)
        parties.wait(30)
    place = urlsplit(json.loads((tmp_path / "run" / "parties.json").read_text())["custodian_url"])
    with pytest.raises(ConnectionRefusedError):  # whoever started the servers ended them
        socket.create_connection((str(place.hostname), place.port or 0), 5)
    assert "SIMULATED TEE: no hardware stands behind this" in text_of(consumer, "text/html")
    assert "100 of 100 answered" in text_of(consumer, "text/html")
    assert "<progress" in text_of(consumer, "text/html")
    assert "signature verified" in text_of(consumer, "text/html")
    assert "column 7: 1 of 100 values are missing" in printed(consumer)
    assert "another answer: response: commitment_mismatch" in printed(consumer)
    for code in ("unsupported_tee", "measurement_mismatch", "model_mismatch", "operator_mismatch", "untrusted_root"):
        assert code in printed(attestation)
    assert "Is there hardware behind it?" in text_of(attestation, "text/html")
    assert "General Hospital" in text_of(custodian, "text/html")
    assert "entries" in text_of(custodian, "text/plain")
    token = (tmp_path / "run" / "consumer" / "clinic.token").read_text().strip()
    for notebook in (consumer, attestation, custodian):
        assert token not in json.dumps(notebook), "a notebook keeps what it showed"
        assert "<script" not in text_of(notebook, "text/html")


def until(parties: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the parties say where they are."""
    end = time.monotonic() + WITHIN_S
    while not (folder / "run" / "parties.json").exists():
        assert parties.poll() is None, (folder / "said").read_text()
        assert time.monotonic() < end, (folder / "said").read_text()
        time.sleep(0.2)


def run(name: str, folder: Path, surroundings: dict[str, str]) -> Any:
    """Run one notebook in a kernel of its own; return it with what it showed."""
    out = folder / f"{name}.ipynb"
    done = subprocess.run(  # noqa: S603 - a script of ours
        [sys.executable, str(Path(__file__).parent / "notebook_runner.py"), str(FOLDER / out.name), str(out)],
        env=surroundings,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text(encoding="utf-8"))


def test_there_is_one_for_each_role_and_one_on_attestation() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(IN_ORDER)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.name))
def test_a_notebook_is_committed_clean(path: Path) -> None:
    """No outputs, no counts, ids that stay, nothing of whose machine it was written on; one form of the file."""
    text = path.read_text(encoding="utf-8")
    value = json.loads(text)
    assert text == json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert [cell["id"] for cell in value["cells"]] == [f"{path.stem}-{at + 1:02}" for at in range(len(value["cells"]))]
    assert value["metadata"]["language_info"] == {"name": "python"}
    for cell in value["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.name))
def test_a_notebook_says_at_once_that_its_tee_protects_nothing(path: Path) -> None:
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    assert first["cell_type"] == "markdown"
    assert "**The TEE here is simulated and protects nothing.**" in "".join(first["source"])
    assert path.name in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
