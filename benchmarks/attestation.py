"""How long one verification takes, per TEE, with endorsements at hand; Intel's beside ``dcap-qvl`` alone.

Everything a custodian does with evidence at a release: parse, chain, revocation, signature, TCB, second verifier, event
log, report data, appraisal. Vendors are synthetic and structurally exact: chains, sizes and algorithms are the real
ones. Interleaved, medians.

    python benchmarks/attestation.py [--rounds N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dcap_qvl

from cloister.attest.binding import ReleaseBinding
from cloister.attest.parts import parse_parts
from cloister.attest.rats import Nonce
from cloister.attest.verifier import Verifier
from cloister.enclave.evidence import EvidenceSource
from cloister.testing.vendors.fleet import MACHINES
from cloister.testing.vendors.intel import SyntheticIntel

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_MS = 5.0  # what one verification may take, for snp, tdx and nitro
SOFTWARE = b'{"v":1}'
BINDING = ReleaseBinding(
    nonce=Nonce(b"n" * 32), custodian=b"c" * 32, instance_pub=b"i" * 32, kem_pub=b"k" * 1216, software=SOFTWARE
)


def _clock() -> datetime:
    return datetime.now(UTC)


def verification(name: str) -> Callable[[], object]:
    """Return one verification on the machine ``name``, endorsements given."""
    machine = MACHINES[name](hashlib.sha256(SOFTWARE).digest(), _clock)
    evidence, binding = EvidenceSource(attester=machine.attester, devices=machine.devices).collect(BINDING)
    verifier = Verifier(machine.schemes)

    def verify() -> object:
        return verifier.verify(evidence, binding, machine.policy, _clock(), machine.endorsements)

    return verify


def dcap_alone(*, tdx: bool) -> Callable[[], object]:
    """Return a verification of the same kind of quote by ``dcap-qvl`` and nothing else."""
    vendor = SyntheticIntel.generate()
    attester = vendor.tdx_attester() if tdx else vendor.sgx_attester()
    payload = attester.collect(bytes(64)).payload
    quote = parse_parts(payload, what="benchmark", caps={"quote": 1 << 16, "ccel": 1 << 19})["quote"]
    (document,) = attester.endorsements.values()
    members = json.loads(document)
    binary = {"root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"}
    given = {name: bytes.fromhex(text) if name in binary else text for name, text in members.items()}
    collateral = dcap_qvl.QuoteCollateralV3(**given)
    root, now = vendor.roots[0].der, int(_clock().timestamp())

    def verify() -> object:
        return dcap_qvl.verify_with_root_ca(quote, collateral, root, now)

    return verify


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    runs: dict[str, Callable[[], object]] = {name: verification(name) for name in sorted(MACHINES)}
    runs |= {"dcap-qvl alone, tdx": dcap_alone(tdx=True), "dcap-qvl alone, sgx": dcap_alone(tdx=False)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if index:  # the first fills what is remembered: certificates that come again with every piece of evidence
                times[name].append((time.perf_counter() - start) * 1000)
    medians = {name: statistics.median(found) for name, found in times.items()}
    print(f"{'verification':24}{'median ms':>10}{'fastest':>10}  beside")
    for name, median in medians.items():
        peer = medians.get(f"dcap-qvl alone, {name.removeprefix('azure-').removesuffix('-vtpm')}")
        beside = f"{median / peer:.1f}x dcap-qvl alone" if peer else ""
        if name in {"snp", "tdx", "nitro"}:
            beside += f"{', ' if beside else ''}{median / LIMIT_MS:.2f}x the limit of {LIMIT_MS:.0f} ms"
        print(f"{name:24}{median:10.2f}{min(times[name]):10.2f}  {beside}")


if __name__ == "__main__":
    main()
