"""A private software TPM: real commands, real keys, an endorsement key certificate of a maker of its own.

    with start_swtpm(folder) as swtpm, SocketTransport(swtpm.socket) as transport:
        ...

For demos and tests. The maker's authority is made up on the spot, so its certificates prove nothing to
anybody who did not choose to trust ``ek_roots``. One client at a time: the next waits until the first
has hung up.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Swtpm", "is_installed", "start_swtpm"]

_START_S = 10  # seconds until the socket must be there
_SETUP_S = 60  # seconds that making a TPM may take
_HINT = "apt-get install swtpm swtpm-tools"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swtpm:
    """A running software TPM: the socket of its data channel, its maker's certificates (PEM), its state."""

    socket: Path
    ek_roots: tuple[bytes, ...]
    ek_intermediates: tuple[bytes, ...]
    state: Path


def is_installed() -> bool:
    """Tell whether this machine can run a software TPM."""
    return shutil.which("swtpm") is not None and shutil.which("swtpm_setup") is not None


def _manufacture(state: Path, ca: Path) -> None:
    """Make a TPM: endorsement keys with certificates from a local authority."""
    state.mkdir(parents=True, exist_ok=True)
    ca.mkdir(exist_ok=True)
    config, options, setup = ca / "localca.conf", ca / "localca.options", ca / "setup.conf"
    config.write_text(
        f"statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = {ca}/issuercert.pem\ncertserial = {ca}/serial\n"
    )
    options.write_text("--platform-manufacturer Test\n--platform-version 1.0\n--platform-model Bench\n")
    setup.write_text(
        f"create_certs_tool={shutil.which('swtpm_localca') or 'swtpm_localca'}\n"
        f"create_certs_tool_config={config}\ncreate_certs_tool_options={options}\nactive_pcr_banks=sha1,sha256\n"
    )
    command = ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--create-ek-cert", "--config", str(setup)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SETUP_S, check=False)  # noqa: S603 - fixed words
    except (OSError, subprocess.TimeoutExpired) as exc:
        msg = "swtpm_setup: did not run"
        raise Unavailable(msg, hint=_HINT) from exc
    if done.returncode:
        msg = f"swtpm_setup: {(done.stdout + done.stderr).strip()[-400:]}"
        raise Unavailable(msg, hint=_HINT)


@contextmanager
def start_swtpm(folder: Path, *, name: str = "tpm", again: bool = False) -> Iterator[Swtpm]:
    """Run a software TPM whose state is under ``folder``; ``again`` boots the one that was made there before.

    Raises ``Unavailable`` where swtpm is not installed or does not start.
    """
    if not is_installed():
        msg = "swtpm and swtpm_setup are not installed"
        raise Unavailable(msg, hint=_HINT)
    state, ca = folder / f"{name}-state", folder / f"{name}-ca"
    if not again:
        _manufacture(state, ca)
    with tempfile.TemporaryDirectory(prefix="swtpm") as short:  # paths of sockets end at 108 characters
        path = Path(short) / "tpm.sock"
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", f"type=unixio,path={path}"]
        command += ["--flags", "not-need-init,startup-clear", "--log", f"file={folder}/{name}.log"]
        with subprocess.Popen(command) as process:  # noqa: S603 - fixed words
            try:
                _wait(path, process)
                yield Swtpm(
                    socket=path,
                    ek_roots=((ca / "swtpm-localca-rootca-cert.pem").read_bytes(),),
                    ek_intermediates=((ca / "issuercert.pem").read_bytes(),),
                    state=state,
                )
            finally:
                process.terminate()
                process.wait(timeout=_START_S)


def _wait(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while not _listens(path):
        if process.poll() is not None or time.monotonic() > end:
            msg = "swtpm: did not start"
            raise Unavailable(msg)
        time.sleep(0.01)


def _listens(path: Path) -> bool:
    """Tell whether somebody takes calls: the socket's file is there a moment before that."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
