"""``cloister attest passport``: have an attestation service say what this machine is, to carry it to somebody."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.attest.binding import ServiceBinding
from cloister.attest.devices import dump_devices
from cloister.cli.attest_collect import AUTO, GPU_FIELD_BYTES, TEES, choose_kind, machine_at, read_certificates
from cloister.cli.evidence_files import read_evidence
from cloister.cli.terminal import Terminal, Verb, demand_writable, pass_terminal, read_secret, write_file
from cloister.wire import dump_time

if TYPE_CHECKING:
    from cloister.attest.rats import Evidence, Nonce
    from cloister.enclave.attesters import Attester
    from cloister.enclave.attesters.machine import Machine
    from cloister.enclave.attesters.table import Given

__all__ = ["passport"]

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)
_MAX_DATA_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where evidence of this machine comes from."""

    tee: str
    root: Path
    tpm: str
    ak_certificate: Path | None
    psa: str
    gpu: bool


@click.command(cls=Verb)
@click.argument("issuer", metavar="ISSUER")
@click.option("--out", type=_file, required=True, help="Write the token here, mode 0600. Required.")
@click.option("--audience", help="Whom the result is for: one that the policy lists.")
@click.option("--policy", help="Id of a policy of the service [default: the service's default].")
@click.option("--data", type=_file, help="File whose bytes the result shall vouch for: a public key.")
@click.option("--caller-token-file", metavar="FILE", help="API token of the service; - for stdin.")
@click.option("--ca", type=_file, help="Authorities of the service's certificate, in PEM [default the system's].")
@click.option(
    "--tee", default=AUTO, show_default=True, type=click.Choice([AUTO, *TEES]), help="auto: what 'detect' chooses."
)
@click.option("--root", type=_folder, default=Path("/"), show_default=True, help="Tree of the machine.")
@click.option("--tpm", default="", help="Where the TPM is: unix:PATH, or a device [default dev/tpmrm0 below the root].")
@click.option("--ak-certificate", type=_file, help="Certificates of a TPM's key, or above a GCE vTPM's (PEM).")
@click.option("--psa", default="", help="Where PSA tokens come from: unix:PATH.")
@click.option("--gpu", is_flag=True, help="Every GPU's evidence too.")
@click.option("--force", is_flag=True, help="Replace the file.")
@pass_terminal
def passport(
    terminal: Terminal,
    /,
    *,
    issuer: str,
    out: Path,
    audience: str | None,
    policy: str | None,
    data: Path | None,
    caller_token_file: str | None,
    ca: Path | None,
    force: bool,
    **place: Any,
) -> None:
    """Have the attestation service at ISSUER verify this machine, and keep its result to carry to others.

    Takes a challenge, collects evidence over it, sends both, and proves the answer before it is written: by the
    service's keys, for this audience, over this challenge.
    """
    from cloister.verifier.asking import Asking  # noqa: PLC0415 - brings the web client along
    from cloister.verifier.reader import Reader, fetch_keys  # noqa: PLC0415 - the same
    from cloister.wire import dump_b64u  # noqa: PLC0415 - with them

    demand_writable([out], force=force)
    bound = b"" if data is None else read_evidence(data, what="data", cap=_MAX_DATA_BYTES)
    token = None if caller_token_file is None else read_secret(caller_token_file, what="caller's token")
    asking = Asking(issuer, token=token, ca=ca)
    nonce = asking.challenge()
    evidence, devices = _collected(_Place(**place), nonce, bound)
    result = asking.attest(evidence, nonce, data=bound, devices=devices, policy=policy, audience=audience)
    reader = Reader(issuer=issuer, keys=fetch_keys(issuer, ca=ca), audience=audience, nonce=dump_b64u(nonce))
    ear = reader.verify(result, datetime.now(UTC))
    write_file(out, result.encode() + b"\n", private=True, force=force)
    said = {"expires_at": dump_time(ear.expires_at), "out": str(out), "status": ear.tier.value, "tee": ear.tee}
    terminal.result(said, lambda draw: draw.print(f"{ear.tee}: {ear.tier.value}, until {said['expires_at']}, in {out}"))


def _collected(place: _Place, nonce: Nonce, data: bytes) -> tuple[Evidence, tuple[Evidence, ...]]:
    """Return the CPU's evidence and the devices', bound from both ends (docs/spec/attestation-service.md section 2)."""
    from cloister.enclave.attesters.table import Given  # noqa: PLC0415 - brings every interface along

    machine = machine_at(place.root, place.tpm)
    devices: tuple[Evidence, ...] = ()
    if place.gpu:
        from cloister.enclave.attesters.nvml import collect_gpus  # noqa: PLC0415 - brings ctypes along

        field = ServiceBinding(nonce=nonce, data=data).device_field(GPU_FIELD_BYTES)
        devices = tuple(collect_gpus(machine.nvml(), field))
    binding = ServiceBinding(nonce=nonce, data=data, devices=dump_devices(devices))
    given = Given(certificates=read_certificates(place.ak_certificate), psa=place.psa)
    return _cpu(place.tee, machine, given, binding), devices


def _cpu(tee: str, machine: Machine, given: Given, binding: ServiceBinding) -> Evidence:
    from cloister.enclave.attesters.table import TPM_KINDS, cpu_attester, tpm_attester  # noqa: PLC0415 - as above

    def collect(attester: Attester) -> Evidence:
        return attester.collect(binding.field(attester.report_data_bytes))

    kind, _ = choose_kind(machine, tee)
    if kind not in TPM_KINDS:
        return collect(cpu_attester(kind, machine, given))
    with contextlib.closing(machine.open_tpm()) as transport:
        return collect(tpm_attester(kind, transport, machine, given))
