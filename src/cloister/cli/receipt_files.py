"""The files of a dispute: receipts and what they are about, signed reports, signed statements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.cli.evidence_files import read_evidence
from cloister.client.receipts import MAX_FILE_BYTES, VerifiedReceipt
from cloister.crypto.sign import MAX_STATEMENT_BYTES, Statement, VerifyKey
from cloister.errors import CloisterError, Malformed, Rejected, UsageError
from cloister.lending.messages import UsageReport
from cloister.lending.terms import instance_id
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["REPORT_SUFFIX", "content_files", "kept_content", "parse_key", "read_receipts", "read_reports", "receipt_in"]

REPORT_SUFFIX = ".report.json"
_MAX_CONTENT_BYTES = 256 << 20
_MAX_FILES = 100_000  # files of one folder
_KEY_BYTES = 32


def content_files(receipt: Path) -> tuple[Path, Path]:
    """Return where the exact request and response of a receipt are kept: beside it."""
    return receipt.with_name(f"{receipt.name}.request"), receipt.with_name(f"{receipt.name}.response")


def kept_content(receipt: Path) -> tuple[bytes, bytes] | None:
    """Return the request and response beside a receipt, None where they were not kept."""
    files = content_files(receipt)
    if not all(path.exists() for path in files):
        return None
    request, response = (read_evidence(path, what="content", cap=_MAX_CONTENT_BYTES) for path in files)
    return request, response


def receipt_in(path: Path) -> VerifiedReceipt:
    """Return the receipt of a file, its signature proven. Raises ``UsageError``, ``Malformed`` and ``Rejected``."""
    return VerifiedReceipt.parse(read_evidence(path, what="receipt", cap=MAX_FILE_BYTES))


def read_receipts(folder: Path) -> tuple[list[tuple[Path, VerifiedReceipt]], list[tuple[Path, CloisterError]]]:
    """Return the receipts of a folder, and the files that are none: what is altered counts for nothing."""
    found: list[tuple[Path, VerifiedReceipt]] = []
    refused: list[tuple[Path, CloisterError]] = []
    for path in _files(folder):
        if path.suffix in {".request", ".response"}:
            continue
        try:
            found.append((path, receipt_in(path)))
        except CloisterError as exc:
            refused.append((path, exc))
    return found, refused


def read_reports(
    folder: Path, keys: Iterable[VerifyKey]
) -> tuple[list[tuple[Path, UsageReport]], list[tuple[Path, CloisterError]]]:
    """Return the usage reports of a folder that one of ``keys`` signed, and the files that are none."""
    known = tuple(keys)
    found: list[tuple[Path, UsageReport]] = []
    refused: list[tuple[Path, CloisterError]] = []
    for path in _files(folder):
        try:
            data = read_evidence(path, what="usage report", cap=MAX_STATEMENT_BYTES)
            signed = Statement.parse(data, label=UsageReport.LABEL)
            key = next((key for key in known if key.key_id == signed.key_id), None)
            if key is None:
                raise Rejected.because("unknown_key", "usage report", got=signed.key_id)
            report = UsageReport.parse(signed.verify([key]))
            _demand_own(report, key)
            found.append((path, report))
        except CloisterError as exc:
            refused.append((path, exc))
    return found, refused


def _demand_own(report: UsageReport, key: VerifyKey) -> None:
    """Prove that a report is about the instance whose key signed it."""
    if report.instance != instance_id(key.raw):
        raise Rejected.because("wrong_instance", "usage report", got=report.instance)


def parse_key(text: str) -> VerifyKey:
    """Return the custodian's public key from base64url. Raises ``UsageError``."""
    try:
        return VerifyKey(parse_b64u(text, what="custodian key", size=_KEY_BYTES))
    except Malformed as exc:
        raise UsageError(exc.message, hint="the key is in every loan file and trust file") from exc


def _files(folder: Path) -> Iterator[Path]:
    """Yield the plain files of a folder, by name."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as exc:
        msg = f"{folder}: {exc.strerror}"
        raise UsageError(msg) from exc
    if len(paths) > _MAX_FILES:
        msg = f"{folder}: {len(paths)} files, want at most {_MAX_FILES}"
        raise UsageError(msg)
    yield from paths
