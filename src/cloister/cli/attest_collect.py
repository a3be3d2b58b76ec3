"""``cloister attest collect`` and ``detect``: evidence of this machine, and which TEE it is in."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.attest.binding import fold
from cloister.attest.parts import parse_parts
from cloister.attest.rats import MAX_EVIDENCE_BYTES, NONCE_BYTES, TeeKind
from cloister.attest.tpm.evidence import TPM, TpmEvidence
from cloister.attest.tpm.measured import dump_pcrs
from cloister.cli.terminal import Terminal, Verb, demand_writable, exit_code, pass_terminal, write_file
from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from cloister.attest.rats import Evidence
    from cloister.enclave.attesters import Attester
    from cloister.enclave.attesters.detect import Finding
    from cloister.enclave.attesters.machine import Machine
    from cloister.enclave.attesters.table import Given
    from cloister.wire import Json

__all__ = [
    "AUTO",
    "GPU_FIELD_BYTES",
    "TEES",
    "choose_kind",
    "collect",
    "detect",
    "machine_at",
    "read_certificates",
]

AUTO = "auto"
GPU = "nvidia-gpu"
TEES = (
    "azure-snp-vtpm",
    "azure-tdx-vtpm",
    "cca",
    "confidential-space",
    "gce-vtpm",
    "nitro",
    "psa",
    "sgx",
    "snp",
    "tdx",
    "tpm",
)
"""Kinds of TEE that an attester of ours knows; tests hold it to the attesters' table."""

GPU_FIELD_BYTES = 32
_ROLES = (
    *("ak_public_tpmt", "ccel", "certs", "chain", "document", "eventlog", "hcl_report", "intermediate", "leaf", "pcrs"),
    *("quote", "report", "signature_tpmt", "software", "td_quote", "token"),
)
"""Every role that an attester here fills."""

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)


def machine_at(root: Path, tpm: str) -> Machine:
    """Return the machine in the tree ``root``, with its TPM where it was named."""
    from cloister.enclave.attesters.machine import Machine  # noqa: PLC0415 - brings every interface along

    return Machine(root=root, tpm=tpm)


@click.command(cls=Verb)
@click.option("--root", type=_folder, default=Path("/"), show_default=True, help="Tree to look at.")
@click.option("--tpm", default="", help="Where the TPM is: unix:PATH, or a device [default dev/tpmrm0 below the root].")
@pass_terminal
def detect(terminal: Terminal, /, *, root: Path, tpm: str) -> int:
    """Say for every interface whether this machine has it, which TEE would be used, and why.

    Exit code 0: one was chosen. 2: several are equally strong. 5: there is none.
    """
    from cloister.enclave.attesters.detect import choose, look  # noqa: PLC0415 - brings every interface along

    findings = look(machine_at(root, tpm))
    code, chosen, hint = 0, "", ""
    try:
        choice = choose(findings)
        chosen, why = choice.tee, f"{choice.tee} by {choice.interface}: {choice.why}"
    except (Unavailable, UsageError) as exc:
        code, hint = exit_code(exc), exc.hint or ""
        why = exc.message if isinstance(exc, UsageError) else "no tee found"  # the table has the reasons

    def draw(out: Console) -> None:
        rows = [(item.interface, item.tee or "-", item.note) for item in findings]
        out.print(terminal.table(("interface", "tee", "found"), rows))
        out.print(f"chosen: {why}" if chosen else f"none chosen: {why}")
        if hint:
            terminal.say(f"hint: {hint}")

    terminal.result({"chosen": chosen or None, "interfaces": [_finding(item) for item in findings], "why": why}, draw)
    return code


def _finding(item: Finding) -> Json:
    return {
        "interface": item.interface,
        "note": item.note,
        "strength": item.strength.words if item.strength else None,
        "tee": item.tee,
    }


@click.command(cls=Verb)
@click.option(
    "--tee", default=AUTO, show_default=True, type=click.Choice([AUTO, *TEES, GPU]), help="auto: what 'detect' chooses."
)
@click.option("--nonce", help="Hex; shorter than the field, it is filled with zeros [default random].")
@click.option("--report-data", help="Hex, exactly as long as the field.")
@click.option("--root", type=_folder, default=Path("/"), show_default=True, help="Tree of the machine.")
@click.option("--tpm", default="", help="Where the TPM is: unix:PATH, or a device [default dev/tpmrm0 below the root].")
@click.option("--ak-certificate", type=_file, help="Certificates of a TPM's key, or above a GCE vTPM's (PEM).")
@click.option("--audience", default="", help="Who will verify a Confidential Space token.")
@click.option("--psa", default="", help="Where PSA tokens come from: a file, or unix:PATH.")
@click.option("--gpu", is_flag=True, help="Every GPU's evidence too, in OUT.gpu0, OUT.gpu1, ...")
@click.option("--out", type=_file, help="Write the evidence here.")
@click.option("--raw", type=_folder, help="Write each part here, as a file named by its role.")
@click.option("--force", is_flag=True, help="Replace files.")
@pass_terminal
def collect(
    terminal: Terminal,
    /,
    *,
    tee: str,
    nonce: str | None,
    report_data: str | None,
    root: Path,
    tpm: str,
    ak_certificate: Path | None,
    audience: str,
    psa: str,
    gpu: bool,
    out: Path | None,
    raw: Path | None,
    force: bool,
) -> None:
    """Collect evidence of this machine's TEE over a nonce, for 'attest verify' or somebody else's verifier.

    The nonce goes where the TEE carries report data; of more than 32 bytes a GPU carries the first 32.
    """
    from cloister.enclave.attesters.table import Given  # noqa: PLC0415 - brings every interface along

    if out is None and raw is None:
        msg = "nothing to write to"
        raise UsageError(msg, hint="pass --out FILE, --raw FOLDER, or both")
    demand_writable([out], force=force)
    machine = machine_at(root, tpm)
    asked = _Asked.parse(nonce, report_data)
    kind, why = choose_kind(machine, tee)
    taken: list[_Taken] = []
    if kind != GPU:
        given = Given(certificates=read_certificates(ak_certificate), audience=audience, psa=psa)
        taken.append(_take(kind, machine, given, asked))
    if gpu or kind == GPU:
        taken += _take_gpus(machine, asked, alone=kind == GPU)
    for item in taken:
        item.write(out, raw, force=force)
    result: Json = {
        "evidence": [item.to_json(out) for item in taken],
        "report_data": asked.value.hex(),
        "tee": kind,
        "why": why,
    }

    def draw(console: Console) -> None:
        for item in taken:
            console.print(f"{item.evidence.tee}: {len(item.evidence.payload)} bytes of evidence")
        console.print(f"{kind}: {why}")
        console.print(f"report data {asked.value.hex()}")

    terminal.result(result, draw)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the evidence shall carry: exactly a field, or a nonce that is filled up to one."""

    value: bytes
    exact: bool

    @classmethod
    def parse(cls, nonce: str | None, report_data: str | None) -> Self:
        """Read the options; a fresh nonce where neither is given."""
        if nonce is not None and report_data is not None:
            msg = "--nonce and --report-data: want one of them"
            raise UsageError(msg)
        if report_data is not None:
            return cls(value=_hex("--report-data", report_data), exact=True)
        value = secrets.token_bytes(NONCE_BYTES) if nonce is None else _hex("--nonce", nonce)
        return cls(value=value, exact=False)

    def field(self, size: int) -> bytes:
        """Return a field of ``size`` bytes. Raises ``UsageError`` where it does not fit."""
        if len(self.value) > size or (self.exact and len(self.value) != size):
            want = f"{size}" if self.exact else f"at most {size}"
            msg = f"report data: {len(self.value)} bytes, want {want}"
            raise UsageError(msg)
        return self.value.ljust(size, b"\x00")

    def folded(self, size: int) -> bytes:
        """Return a device's field: the first bytes of what the CPU carries (``binding.fold``)."""
        return fold(self.value, field_bytes=size)


def _hex(option: str, text: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as exc:
        msg = f"{option}: want an even number of hex digits"
        raise UsageError(msg) from exc
    if not value:
        msg = f"{option}: empty"
        raise UsageError(msg)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """Evidence that was collected, and its parts as files by role. ``suffix`` tells a device's files apart."""

    evidence: Evidence
    parts: Mapping[str, bytes]
    suffix: str = ""

    def write(self, out: Path | None, raw: Path | None, *, force: bool) -> None:
        """Write payload and parts."""
        if out is not None:
            write_file(self._out(out), self.evidence.payload, force=force)
        if raw is None:
            return
        folder = raw / self.suffix.removeprefix(".")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            msg = f"{folder}: {exc.strerror}"
            raise Unavailable(msg) from exc
        for role, data in self.parts.items():
            write_file(folder / role, data, force=force)

    def to_json(self, out: Path | None) -> Json:
        """Return what was collected, without its bytes."""
        return {
            "bytes": len(self.evidence.payload),
            "out": str(self._out(out)) if out is not None else None,
            "parts": {role: len(data) for role, data in self.parts.items()},
            "tee": self.evidence.tee,
        }

    def _out(self, out: Path) -> Path:
        return out.with_name(out.name + self.suffix)


def choose_kind(machine: Machine, tee: str) -> tuple[TeeKind, str]:
    """Return the kind to collect, and why."""
    if tee != AUTO:
        return TeeKind(tee), "named by --tee"
    from cloister.enclave.attesters.detect import choose, look  # noqa: PLC0415 - brings every interface along

    choice = choose(look(machine))
    return choice.tee, f"{choice.interface}: {choice.why}"


def _take(kind: TeeKind, machine: Machine, given: Given, asked: _Asked) -> _Taken:
    from cloister.enclave.attesters.azure_vtpm import AzureVtpmAttester  # noqa: PLC0415 - brings the TPM client along
    from cloister.enclave.attesters.table import TPM_KINDS, cpu_attester, tpm_attester  # noqa: PLC0415 - the same

    if kind not in TPM_KINDS:
        evidence = _collect(cpu_attester(kind, machine, given), asked)
        return _Taken(evidence=evidence, parts=_parts(evidence))
    with contextlib.closing(machine.open_tpm()) as transport:
        attester = tpm_attester(kind, transport, machine, given)
        evidence = _collect(attester, asked)
        blob = attester.ak_certificate() if isinstance(attester, AzureVtpmAttester) else b""
    return _Taken(evidence=evidence, parts=_parts(evidence) | ({"nv_blob": blob} if blob else {}))


def _collect(attester: Attester, asked: _Asked) -> Evidence:
    return attester.collect(asked.field(attester.report_data_bytes))


def _take_gpus(machine: Machine, asked: _Asked, *, alone: bool) -> list[_Taken]:
    """Return every GPU's evidence; a single one without a CPU's beside it needs no suffix."""
    from cloister.enclave.attesters.nvml import collect_gpus  # noqa: PLC0415 - brings ctypes along

    nonce = asked.field(GPU_FIELD_BYTES) if alone else asked.folded(GPU_FIELD_BYTES)
    found = collect_gpus(machine.nvml(), nonce)
    bare = alone and len(found) == 1
    return [
        _Taken(evidence=item, parts=_parts(item), suffix="" if bare else f".gpu{index}")
        for index, item in enumerate(found)
    ]


def _parts(evidence: Evidence) -> dict[str, bytes]:
    """Return the parts of evidence we just made, by role."""
    if evidence.tee == TPM:
        return _tpm_parts(TpmEvidence.parse(evidence.payload))
    return parse_parts(
        evidence.payload, what=f"{evidence.tee} evidence", caps=dict.fromkeys(_ROLES, MAX_EVIDENCE_BYTES)
    )


def _tpm_parts(evidence: TpmEvidence) -> dict[str, bytes]:
    parts = {
        "ak_public_tpmt": evidence.ak_public,
        "chain": b"".join(
            x509.load_der_x509_certificate(item).public_bytes(Encoding.PEM) for item in evidence.certificates
        ),
        "eventlog": evidence.event_log,
        "pcrs": dump_pcrs(evidence.pcrs),
        "quote": evidence.attest,
        "signature_tpmt": evidence.signature,
    }
    return {role: data for role, data in parts.items() if data}


def read_certificates(path: Path | None) -> tuple[bytes, ...]:
    """Return the certificates (DER) of a PEM file, none for no file. Raises ``UsageError``."""
    if path is None:
        return ()
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as exc:
        msg = f"{path}: no certificates in pem"
        raise UsageError(msg) from exc
    return tuple(item.public_bytes(Encoding.DER) for item in found)
