"""A private software TPM for one test: real commands, real keys, an endorsement key certificate of its own maker.

    with start_swtpm(tmp_path) as swtpm, SocketTransport(swtpm.socket) as transport:
        ...

``swtpm.ek_roots`` are the certificates (PEM) of the maker that ``swtpm_setup`` made up: root and issuing
authority. One client at a time: the next one waits until the first has hung up.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Swtpm", "needs_swtpm", "start_swtpm"]

_START_S = 10

needs_swtpm = pytest.mark.skipif(
    shutil.which("swtpm") is None or shutil.which("swtpm_setup") is None,
    reason="swtpm and swtpm_setup are not installed (apt-get install swtpm swtpm-tools)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swtpm:
    """A running software TPM: the socket of its data channel, its maker's authorities, its state."""

    socket: Path
    ek_roots: tuple[bytes, ...]
    ek_intermediates: tuple[bytes, ...]
    state: Path


def _make(state: Path, ca: Path) -> None:
    """Manufacture a TPM: endorsement keys with certificates from a local authority."""
    state.mkdir(exist_ok=True)
    ca.mkdir(exist_ok=True)
    config = ca / "localca.conf"
    config.write_text(
        f"statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = {ca}/issuercert.pem\ncertserial = {ca}/serial\n"
    )
    options = ca / "localca.options"
    options.write_text("--platform-manufacturer Test\n--platform-version 1.0\n--platform-model Bench\n")
    setup = ca / "setup.conf"
    tool = shutil.which("swtpm_localca") or "swtpm_localca"
    setup.write_text(
        f"create_certs_tool={tool}\ncreate_certs_tool_config={config}\ncreate_certs_tool_options={options}\n"
        "active_pcr_banks=sha1,sha256\n"
    )
    command = ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--create-ek-cert", "--config", str(setup)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    if done.returncode:
        pytest.fail(f"swtpm_setup: {done.stdout}{done.stderr}")


@contextmanager
def start_swtpm(tmp_path: Path, *, name: str = "tpm", again: bool = False) -> Iterator[Swtpm]:
    """Run a software TPM under ``tmp_path``; ``again`` boots the one that was made there before.

    Skips the test where swtpm is not installed.
    """
    if shutil.which("swtpm") is None or shutil.which("swtpm_setup") is None:
        pytest.skip("swtpm and swtpm_setup are not installed (apt-get install swtpm swtpm-tools)")
    state, ca = tmp_path / f"{name}-state", tmp_path / f"{name}-ca"
    if not again:
        _make(state, ca)
    with tempfile.TemporaryDirectory(prefix="swtpm") as short:  # socket paths end at 108 characters
        path = Path(short) / "tpm.sock"
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", f"type=unixio,path={path}"]
        command += ["--flags", "not-need-init,startup-clear", "--log", f"file={tmp_path}/{name}.log"]
        with subprocess.Popen(command) as process:  # noqa: S603
            try:
                _wait(path, process)
                issuer = (ca / "issuercert.pem").read_bytes()
                root = (ca / "swtpm-localca-rootca-cert.pem").read_bytes()
                yield Swtpm(socket=path, ek_roots=(root,), ek_intermediates=(issuer,), state=state)
            finally:
                process.terminate()
                process.wait(timeout=_START_S)


def _wait(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail("swtpm did not start")
        time.sleep(0.01)
