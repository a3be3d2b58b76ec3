"""Everything that some evidence needs, asked for in the order in which it becomes known.

What a scheme needs is known by its evidence alone but for one thing: who signed a manifest is known once the manifest
is there, and then somebody has to say that this signer was not revoked. So there are two rounds at most.

Not done here: where things come from (``Endorsements``), which things (``Verifier.needs``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.devices import parse_devices
from cloister.attest.nvidia.collateral import rim_name, rim_parts
from cloister.attest.nvidia.evidence import NvidiaEvidence
from cloister.attest.nvidia.rim import Rim
from cloister.attest.parts import dump_parts, parse_parts
from cloister.attest.rats import MAX_EVIDENCE_BYTES, Evidence
from cloister.attest.schemes.nvidia import NVIDIA_GPU, NVIDIA_SWITCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.endorse import Endorsements
    from cloister.attest.verifier import Verifier

__all__ = ["gather"]

_PARTS = ("chain", "driver_rim", "ocsp", "report", "vbios_rim")


def gather(
    verifier: Verifier, source: Endorsements, evidence: Evidence, devices: bytes, now: datetime
) -> Mapping[str, bytes]:
    """Return the endorsements that ``verifier`` needs for a CPU's evidence and its devices'.

    Raises what ``needs`` raises (``Malformed``, ``Rejected``), and ``Unavailable``.
    """
    found = _fetch(verifier, source, evidence, devices, now)
    for item in (evidence, *parse_devices(devices)):
        whole = _with_manifests(item, found)
        if whole is not None:
            more = [name for name in verifier.needs(whole) if name not in found]
            found |= source.fetch(more, now, tuple(_certificates(whole))) if more else {}
    return found


def _fetch(
    verifier: Verifier, source: Endorsements, evidence: Evidence, devices: bytes, now: datetime
) -> dict[str, bytes]:
    names = verifier.needs(evidence, devices)
    if not names:
        return {}
    known = [item for part in (evidence, *parse_devices(devices)) for item in _certificates(part)]
    return dict(source.fetch(names, now, known))


def _certificates(evidence: Evidence) -> Iterator[Certificate]:
    """Yield the certificates about which somebody may have to be asked. Nothing vouches for them yet."""
    if evidence.tee in {NVIDIA_GPU, NVIDIA_SWITCH}:
        parts = NvidiaEvidence.parse(evidence.payload)
        yield from parts.chain.certificates
        for rim in parts.rims.values():
            yield from rim.certificates


def _with_manifests(evidence: Evidence, found: Mapping[str, bytes]) -> Evidence | None:
    """Return a device's evidence as if its manifests had come along; None where there is nothing to add."""
    if evidence.tee not in {NVIDIA_GPU, NVIDIA_SWITCH}:
        return None
    parts = NvidiaEvidence.parse(evidence.payload)
    names = {part: rim_name(part, parts) for part in rim_parts(parts) if part not in parts.rims}
    fetched = {part: Rim.parse(found[name]).data for part, name in names.items() if name in found}
    if not fetched:
        return None
    sent = parse_parts(evidence.payload, what="nvidia evidence", caps=dict.fromkeys(_PARTS, MAX_EVIDENCE_BYTES))
    return Evidence(tee=evidence.tee, payload=dump_parts({**sent, **fetched}))
