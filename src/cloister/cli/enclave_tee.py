"""Which TEE an enclave command uses: options, attester, reference values.

``auto`` is what ``cloister attest detect`` would choose.

The one place on the borrower's side where a simulated TEE can be let in, by a flag that names its root.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind
from cloister.attest.rules import NotChecked, OneOf, Rule
from cloister.attest.tpm.evidence import TPM
from cloister.cli.attest_collect import AUTO, TEES, read_certificates
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.attest.software import SoftwareManifest
    from cloister.enclave.attesters import Attester
    from cloister.enclave.attesters.machine import Machine

__all__ = ["Tee", "attester_for", "policy_for", "tee_options"]

_BOOT_PCRS = tuple(range(8))  # firmware and its configuration (PFP 1.06 section 3.3)
_file = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tee:
    """The TEE that was chosen, with what it needs."""

    kind: str
    root: Path | None
    chip: str
    tpm: str
    certificates: Path | None
    devices: tuple[str, ...]
    audience: str
    psa: str

    @property
    def is_simulated(self) -> bool:
        """Tell whether this protects nothing."""
        return self.kind == "simulated"

    def warning(self) -> str:
        """Return what must be said loudly."""
        from cloister.testing.simulated import WARNING  # noqa: PLC0415 - in no production process

        return WARNING


def tee_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose a TEE; the command gets ``tee``."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        tee = Tee(
            kind=kwargs.pop("tee_kind"),
            root=kwargs.pop("insecure_simulated_root"),
            chip=kwargs.pop("simulated_chip"),
            tpm=kwargs.pop("tpm"),
            certificates=kwargs.pop("ak_certificate"),
            devices=kwargs.pop("devices"),
            audience=kwargs.pop("audience"),
            psa=kwargs.pop("psa"),
        )
        if tee.is_simulated and tee.root is None:
            msg = "--tee simulated: protects nothing, so it wants --insecure-simulated-root too"
            raise UsageError(msg, hint="'cloister trust simulated-root FILE' makes one")
        return command(*args, tee=tee, **kwargs)

    wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # click keeps options here
    options = (
        click.option("--device", "devices", multiple=True, help="Enrolled device the policy admits; repeat for more."),
        click.option("--psa", default="", help="Where PSA tokens come from: a file, or unix:PATH."),
        click.option("--audience", default="", help="Who verifies a Confidential Space token: the custodian's URL."),
        click.option(
            "--ak-certificate", type=_file, help="Certificates that 'enclave enrol' wrote, or above a GCE vTPM's (PEM)."
        ),
        click.option(
            "--tpm", default="/dev/tpmrm0", show_default=True, help="device:PATH, unix:PATH or a device's path."
        ),
        click.option("--simulated-chip", default="chip-1", show_default=True, help="Name of the simulated chip."),
        click.option("--insecure-simulated-root", type=_file, help="Root of a simulated TEE. Protects nothing."),
        click.option(
            "--tee",
            "tee_kind",
            type=click.Choice([AUTO, *TEES, "simulated"]),
            default="tpm",
            show_default=True,
            help="What proves the software; simulated proves nothing.",
        ),
    )
    decorated: Callable[..., Any] = wrapped
    for option in options:
        decorated = option(decorated)
    return decorated


def attester_for(tee: Tee, software: SoftwareManifest) -> Attester:
    """Return the attester of the chosen TEE; a TPM is measured into first."""
    if tee.is_simulated:
        from cloister.testing.simulated import SimulatedAttester  # noqa: PLC0415 - in no production process
        from cloister.testing.simulated_root import SimulatedRoot  # noqa: PLC0415 - the same

        return SimulatedAttester(SimulatedRoot.load(_root(tee)), software, hashlib.sha256(tee.chip.encode()).digest())
    from cloister.enclave.attesters.table import TPM_KINDS, Given, cpu_attester, tpm_attester  # noqa: PLC0415 - big
    from cloister.enclave.attesters.tpm import measure_software  # noqa: PLC0415 - the same

    machine, kind = _machine(tee)
    given = Given(
        certificates=read_certificates(tee.certificates), software=software.digest, audience=tee.audience, psa=tee.psa
    )
    if kind not in TPM_KINDS:
        return cpu_attester(kind, machine, given)
    if kind == TPM and tee.certificates is None:
        msg = "--tee tpm: want --ak-certificate"
        raise UsageError(msg, hint="'cloister enclave enrol' gets one")
    transport = machine.open_tpm()
    measure_software(transport, software.digest)
    return tpm_attester(kind, transport, machine, given)


def _machine(tee: Tee) -> tuple[Machine, TeeKind]:
    """Return this machine and the kind of TEE to use on it. Raises ``UsageError``, ``Unavailable``."""
    from cloister.enclave.attesters.detect import choose, look  # noqa: PLC0415 - brings every interface along
    from cloister.enclave.attesters.machine import Machine  # noqa: PLC0415 - the same

    machine = Machine(tpm=tee.tpm)
    return machine, choose(look(machine)).tee if tee.kind == AUTO else TeeKind(tee.kind)


def _root(tee: Tee) -> Path:
    if tee.root is None:
        msg = "--tee simulated: want --insecure-simulated-root"
        raise UsageError(msg)
    return tee.root


def policy_for(tee: Tee, software: SoftwareManifest, *, version: int) -> Policy:
    """Return a policy that admits exactly this software, and for a TPM this machine's boot as it is now."""
    if tee.is_simulated:
        from cloister.testing.simulated import simulated_policy  # noqa: PLC0415 - in no production process

        return simulated_policy(software, version)
    from cloister.tpm.commands import Tpm  # noqa: PLC0415 - needed with a TPM only

    machine, kind = _machine(tee)
    if kind != TPM:
        msg = f"--tee {kind}: its reference values are not on this machine"
        raise UsageError(msg, hint="'cloister policy new' writes a policy for it")
    transport = machine.open_tpm()
    try:
        values = Tpm(transport).pcr_read(_BOOT_PCRS)
    finally:
        transport.close()
    rules: dict[str, Rule] = {f"pcr.{index}": OneOf((values[index].hex(),)) for index in _BOOT_PCRS}
    rules["software"] = OneOf((software.digest.hex(),))
    rules["device"] = OneOf(tee.devices) if tee.devices else NotChecked("any device the authority enrolled")
    return Policy(version=version, tees={kind: TeePolicy(rules)})


def enrol_tpm(loan_file: Path, tpm: str, ek_certificate: Path | None) -> tuple[bytes, str]:
    """Enrol this machine's TPM; return the certificate chain (PEM) and the device's id."""
    from cloister.enclave.enrol import enrol  # noqa: PLC0415 - brings the TPM client along
    from cloister.enclave.loanfile import read_loan_file  # noqa: PLC0415 - the same
    from cloister.tpm.transport import open_transport  # noqa: PLC0415 - the same

    with open_transport(tpm) as transport:
        return enrol(transport, read_loan_file(loan_file), ek_certificate)
