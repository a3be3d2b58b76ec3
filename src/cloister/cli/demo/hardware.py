"""The scene of other hardware: the same release to synthetic machines, and none to one with a single thing wrong.

The custodian is the process of every scene, asked over TLS. The enclaves' side runs in the demo's own process: only
it has the keys of the vendors that it made up.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cloister.attest.ear import Ear, verify_ear
from cloister.attest.rats import TrustTier
from cloister.cli.demo.cast import OPERATOR
from cloister.cli.demo.lend import start_custodian
from cloister.enclave.boot import boot
from cloister.enclave.config import EnclaveConfig
from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.loanfile import LoanFile, read_loan_file
from cloister.enclave.logs import EventLog
from cloister.enclave.measure import measure_software
from cloister.errors import Rejected
from cloister.testing.vendors.fleet import MACHINES
from cloister.testing.vendors.public import WARNING, PublicVendors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloister.attest.software import SoftwareManifest
    from cloister.cli.demo.cast import Cast
    from cloister.cli.demo.stage import Scene
    from cloister.testing.vendors.fleet import Fault, Machine

__all__ = ["Hardware", "make_hardware", "release_elsewhere"]

_SHOWN = {
    "snp+gpu": "AMD SEV-SNP, 2 NVIDIA GPUs",
    "tdx": "Intel TDX",
    "sgx": "Intel SGX",
    "nitro": "AWS Nitro",
}
_WITHIN = timedelta(seconds=10)
_LOG = "synthetic.log"
_MANY_ENTRIES = "100000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Synthetic machines by kind, and the software that an enclave on them starts."""

    machines: Mapping[str, Machine]
    software: SoftwareManifest


def _now() -> datetime:
    return datetime.now(UTC)


def _config(borrower: Path, kind: str) -> EnclaveConfig:
    return EnclaveConfig(loan=borrower / f"{kind}-loan.json", models=(borrower / "sealed",))


def make_hardware(borrower: Path) -> Hardware:
    """Make a machine of each kind by vendors with new keys; AMD's are of 4,096 bits and take seconds."""
    software = measure_software(_config(borrower, "any"))
    return Hardware(machines={kind: MACHINES[kind](software.digest, _now) for kind in _SHOWN}, software=software)


def release_elsewhere(cast: Cast) -> None:
    """Let the custodian believe synthetic vendors; release to their machines, refuse each with one thing wrong."""
    why = "Evidence of vendors made up on the spot: exact in form, verified by the same code, worth nothing."
    with cast.stage.scene("The same release on other hardware", why) as scene:
        cast.stage.loud(WARNING)
        hardware = cast.hardware.result()
        _believe(cast, hardware)
        scene.custodian("started again, believing the synthetic vendors", style="bold red")
        loans = {kind: _release(cast, scene, kind, hardware) for kind in hardware.machines}
        _prove_logged(cast, scene, hardware, loans)


def _believe(cast: Cast, hardware: Hardware) -> None:
    """Start the custodian again with the vendors' public half: roots and what they publish."""
    cast.vendors = cast.world.root / "synthetic-vendors.pub.json"
    PublicVendors.of(hardware.machines.values()).save(cast.vendors)
    if cast.custodian is not None:
        cast.custodian.stop()
    start_custodian(cast)


def _release(cast: Cast, scene: Scene, kind: str, hardware: Hardware) -> LoanFile:
    """Lend to one machine, prove that it gets the key and that it does not with any of its faults."""
    machine, shown = hardware.machines[kind], _SHOWN[kind]
    enclave = _Enclave(cast=cast, kind=kind, loan=_lend(cast, kind, machine), software=hardware.software)
    ear = asyncio.run(enclave.boot(machine))
    devices = "".join(f", {name}" for name in ear.submodules)
    scene.borrower(f"synthetic {shown}: key released to {ear.tee}{devices} ({ear.tier.value}), model open")
    refused = {name: enclave.refusal(fault) for name, fault in machine.faults.items()}
    scene.custodian("no key: " + "; ".join(", ".join(sorted(codes)) for codes in refused.values()))
    scene.prove(
        f"synthetic {shown}: a key for honest evidence, none with {', '.join(refused)}",
        holds=_tells(ear, machine) and all(refused[name] == fault.codes for name, fault in machine.faults.items()),
        seen=f"{ear.tee} {ear.tier.value}, devices {list(ear.submodules)}; refused: {refused}",
    )
    return enclave.loan


def _lend(cast: Cast, kind: str, machine: Machine) -> LoanFile:
    world, policy = cast.world, cast.world.custodian / f"{kind}-policy.json"
    policy.write_bytes(machine.policy.dump())
    place = _config(world.borrower, kind).loan
    world.run(
        world.custodian, "loan", "create", "--borrower", OPERATOR, "--model", f"digits={cast.digest}",
        "--allowance", "1", "--anybody", "--policy", str(policy), "--out", str(place),
    )  # fmt: skip
    return read_loan_file(place)


def _tells(ear: Ear, machine: Machine) -> bool:
    """Tell whether the custodian's signed result is about this machine with all its devices, by its policy."""
    devices = [device.tee for device in ear.submodules.values()]
    whole = ear.tee == machine.tee and devices == [device.tee for device in machine.devices]
    return whole and ear.tier is TrustTier.AFFIRMING and ear.policy_digest == machine.policy.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Enclave:
    """The enclave's side of one loan, from challenge to the loaded model."""

    cast: Cast
    kind: str
    loan: LoanFile
    software: SoftwareManifest

    async def boot(self, machine: Machine | Fault) -> Ear:
        """Attest, open the model with the key, load it, drop all; return the custodian's result as it was signed."""
        borrower = self.cast.world.borrower
        source = EvidenceSource(attester=machine.attester, devices=machine.devices)
        with (borrower / _LOG).open("a") as stream:
            async with CustodianLink(self.loan, timeout=_WITHIN) as link:
                booted = await boot(
                    _config(borrower, self.kind), self.loan, source=source, software=self.software,
                    engine=OnnxEngine(threads=1), link=link, log=EventLog(_now, stream),
                )  # fmt: skip
        booted.wipe()
        return verify_ear(booted.grant.result, [self.loan.custodian_key], _now())

    def refusal(self, fault: Fault) -> frozenset[str]:
        """Return the codes that the machine is refused with; none where it got a key."""
        try:
            asyncio.run(self.boot(fault))
        except Rejected as refused:
            return frozenset(reason.code for reason in refused.reasons)
        return frozenset()


def _prove_logged(cast: Cast, scene: Scene, hardware: Hardware, loans: Mapping[str, LoanFile]) -> None:
    """Prove that the log has each release and each refusal, in order, with its reasons."""
    entries = cast.world.run_lines(cast.world.custodian, "audit", "list", "--limit", _MANY_ENTRIES)
    wrong = []
    for kind, machine in hardware.machines.items():
        loan = loans[kind].loan
        released = [entry["details"] for entry in entries if entry["kind"] == "key_released"]
        tees = [details["tee"] for details in released if details["loan"] == loan]
        refused = [entry for entry in entries if entry["kind"] == "attestation_refused" and entry["subject"] == loan]
        codes = [entry["details"]["codes"] for entry in refused]
        expected = [fault.codes for fault in machine.faults.values()]
        if tees != [machine.tee] or [frozenset(item.split(",")) for item in codes] != expected:
            wrong.append(f"{kind}: {tees}, {codes}")
    count = sum(len(machine.faults) for machine in hardware.machines.values())
    claim = f"the log has these {len(loans)} releases and {count} refusals, each with its reasons"
    scene.prove(claim, holds=not wrong, seen="; ".join(wrong))
