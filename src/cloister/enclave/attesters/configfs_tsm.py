"""Evidence through configfs-tsm: TDX, SEV-SNP and CCA guests of Linux 6.7 and later.

Linux, Documentation/ABI/testing/configfs-tsm-report. A directory below ``tsm/report`` is one request: write what the
report shall carry, read the report. The kernel counts the writes to it (``generation``), so that a second writer
who changed the request under our hands is noticed: what it made is thrown away and asked for again.

Not done here: the quote of a TDX guest without this interface (``/dev/tdx_guest`` gives a report that no one but
the quoting enclave of the same machine can verify), services of an SVSM.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.enclave.attesters.field import demand_field
from cloister.enclave.attesters.files import cannot, read_part
from cloister.errors import Malformed, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.enclave.attesters.files import Filesystem

__all__ = ["CCEL", "MAX_CCEL_BYTES", "MAX_OUTBLOB_BYTES", "PROVIDERS", "REPORTS", "TsmAttester", "tsm_provider"]

REPORTS = "sys/kernel/config/tsm/report"
CCEL = "sys/firmware/acpi/tables/data/CCEL"
"""The event log of a TDX guest (ACPI 6.5 section 5.2.34, Confidential Computing Event Log)."""

_SNP, _TDX, _CCA = TeeKind("snp"), TeeKind("tdx"), TeeKind("cca")
PROVIDERS: Final = {"arm_cca_guest": _CCA, "sev_guest": _SNP, "tdx_guest": _TDX}
"""Names of the kernel's modules, which ``provider`` gives."""

MAX_OUTBLOB_BYTES = 32 * 1024  # bytes of outblob and of auxblob: TSM_REPORT_OUTBLOB_MAX, include/linux/tsm.h
MAX_CCEL_BYTES = 384 * 1024  # bytes of an event log with its padding; 64 KiB are usual
_ROLES = {_CCA: "token", _SNP: "report", _TDX: "quote"}
_MAX_TEXT_BYTES = 4096
_MAX_PRIVLEVEL = 3  # TSM_REPORT_PRIVLEVEL_MAX, include/linux/tsm.h
_REPORT_DATA_BYTES = 64  # TSM_REPORT_INBLOB_MAX, include/linux/tsm.h
_ATTEMPTS = 5
_RACES = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR})  # EAGAIN: somebody wrote since the report was made


@contextmanager
def _entry(files: Filesystem) -> Iterator[str]:
    """Make a directory of our own and remove it again, whatever happens."""
    entry = f"{REPORTS}/cloister-{secrets.token_hex(8)}"
    try:
        files.mkdir(entry)
    except OSError as exc:
        raise cannot(f"configfs-tsm: cannot make a directory in /{REPORTS}", exc) from exc
    try:
        yield entry
    except BaseException:
        with contextlib.suppress(OSError):
            files.rmdir(entry)
        raise
    try:
        files.rmdir(entry)
    except OSError as exc:
        raise cannot(f"configfs-tsm: cannot remove /{entry}", exc) from exc


def tsm_provider(files: Filesystem) -> str:
    """Return the kernel's module behind configfs-tsm. Raises ``Unavailable``, ``Malformed``."""
    with _entry(files) as entry:
        return _text(files, f"{entry}/provider")


def _text(files: Filesystem, path: str) -> str:
    data = read_part(files, path, cap=_MAX_TEXT_BYTES, what="configfs-tsm")
    text = data.decode("ascii", errors="replace").strip()
    if not text.isprintable() or not text.isascii():
        msg = f"configfs-tsm: /{path} is no line of ascii"
        raise Malformed(msg)
    return text


def _number(files: Filesystem, path: str) -> int:
    text = _text(files, path)
    if not text.isdigit() or len(text) > 9:  # noqa: PLR2004 - far above every number the kernel gives here
        msg = f"configfs-tsm: /{path} is no number"
        raise Malformed(msg)
    return int(text)


class TsmAttester:
    """Reports of a CPU through configfs-tsm. ``tee`` is what the caller expects; another provider is no answer.

    Contract of ``collect``: ``UsageError`` for report data that are not 64 bytes or a privilege level the kernel does
    not grant; ``Unavailable`` where the interface is missing, may not be used, gives no report or is raced
    without end; ``Malformed`` for answers that are out of form or too long.
    """

    report_data_bytes: Final = _REPORT_DATA_BYTES

    def __init__(self, files: Filesystem, tee: TeeKind, *, privlevel: int | None = None) -> None:
        """Attest a ``tdx``, ``snp`` or ``cca`` guest.

        ``privlevel`` is the VMPL an SNP report is for; without one it is the lowest this kernel may ask for.
        """
        if tee not in _ROLES:
            msg = f"configfs-tsm: {tee} has no reports here, want {', '.join(sorted(_ROLES))}"
            raise UsageError(msg)
        if privlevel is not None and (tee != _SNP or not 0 <= privlevel <= _MAX_PRIVLEVEL):
            msg = f"configfs-tsm: privlevel {privlevel} for {tee}, want none, or 0 to {_MAX_PRIVLEVEL} for snp"
            raise UsageError(msg)
        self._files = files
        self._tee = tee
        self._privlevel = privlevel

    @property
    def tee(self) -> TeeKind:
        """The kind of evidence."""
        return self._tee

    def collect(self, report_data: bytes) -> Evidence:
        """Return a report over ``report_data``; see the class for what is raised."""
        demand_field(report_data, _REPORT_DATA_BYTES, what=f"{self._tee} report data")
        for _ in range(_ATTEMPTS):
            with _entry(self._files) as entry:
                parts = self._parts(entry, report_data)
            if parts is not None:
                return Evidence(tee=self._tee, payload=dump_parts(parts | self._event_log()))
        msg = f"configfs-tsm: another writer raced {_ATTEMPTS} times"
        raise Unavailable(msg, retry_after_s=1)

    def _parts(self, entry: str, report_data: bytes) -> dict[str, bytes] | None:
        """Return what one request gave, nothing where somebody else wrote to it meanwhile."""
        # 1. The kernel speaks for the TEE we are to attest.
        provider = _text(self._files, f"{entry}/provider")
        if PROVIDERS.get(provider) != self._tee:
            msg = f"configfs-tsm: provider {provider[:64] or 'none'}, want one for {self._tee}"
            raise Unavailable(msg)
        # 2. Options first: each write counts, and the last one, the data, makes the request whole.
        options = {"privlevel": str(self._granted(entry)).encode()} if self._tee == _SNP else {}
        requests = options | {"inblob": report_data}
        try:
            for name, data in requests.items():
                self._files.write(f"{entry}/{name}", data)
            # 3. The report, and what the host sends along with it.
            report = self._blob(entry, "outblob")
            aux = self._blob(entry, "auxblob") if self._tee == _SNP else b""
        except OSError as exc:
            if exc.errno in _RACES:
                return None
            raise cannot("configfs-tsm: no report", exc) from exc
        # 4. Nobody else wrote: the kernel counted exactly our writes.
        if _number(self._files, f"{entry}/generation") != len(requests):
            return None
        if not report:
            msg = "configfs-tsm: the report is empty"
            raise Unavailable(msg)
        return {_ROLES[self._tee]: report} | ({"certs": aux} if aux else {})

    def _granted(self, entry: str) -> int:
        """Return the privilege level to ask for. Raises ``UsageError`` where the kernel would refuse it."""
        floor = _number(self._files, f"{entry}/privlevel_floor")
        if floor > _MAX_PRIVLEVEL:
            msg = f"configfs-tsm: privlevel_floor {floor}, want at most {_MAX_PRIVLEVEL}"
            raise Malformed(msg)
        level = floor if self._privlevel is None else self._privlevel
        if level < floor:
            msg = f"configfs-tsm: privlevel {level}, this guest may ask for {floor} and above"
            raise UsageError(msg)
        return level

    def _blob(self, entry: str, name: str) -> bytes:
        data = self._files.read(f"{entry}/{name}", cap=MAX_OUTBLOB_BYTES)
        if len(data) > MAX_OUTBLOB_BYTES:
            msg = f"configfs-tsm: {name} has more than {MAX_OUTBLOB_BYTES} bytes"
            raise Malformed(msg)
        return data

    def _event_log(self) -> dict[str, bytes]:
        """Return a TDX guest's event log; firmware that keeps none has no file."""
        if self._tee != _TDX or not self._files.exists(CCEL):
            return {}
        return {"ccel": read_part(self._files, CCEL, cap=MAX_CCEL_BYTES, what="tdx event log")}
