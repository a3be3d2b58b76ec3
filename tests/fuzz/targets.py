"""Every parser of what strangers send as a fuzzing target: what to call, and honest inputs to begin with.

Each ``seeds_<vendor or room>.py`` offers ``TARGETS``; those of the house itself are here. A target may raise
``Malformed`` or ``Rejected`` and nothing else: any other exception is a finding.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cloister.attest.devices import dump_devices, parse_devices
from cloister.attest.parts import dump_parts, parse_parts
from cloister.attest.policy import Policy
from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.reference import ReferenceValues
from cloister.testing.simulated import simulated_policy

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FOLDER", "Target", "targets"]

FOLDER = Path(__file__).parent
Target: TypeAlias = "tuple[Callable[[bytes], object], Callable[[], list[bytes]]]"

_CAPS = {"quote": 4096, "ccel": 4096}


def _parts() -> list[bytes]:
    return [dump_parts({"quote": b"q" * 40}), dump_parts({"ccel": b"", "quote": bytes(64)})]


def _devices() -> list[bytes]:
    return [b"", dump_devices([Evidence(tee=TeeKind("nvidia-gpu"), payload=bytes(32)) for _ in range(3)])]


def _policies() -> list[bytes]:
    return [simulated_policy("ab" * 48).dump()]


def _tomls() -> list[bytes]:
    return [b'v = 1\nversion = 3\n[tees.tpm]\n"pcr.7" = {exact = "00"}\ndevice = {one_of = ["a", "b"]}\n']


def _references() -> list[bytes]:
    document = {
        "inputs": {"kernel": "aa"},
        "made_at": "2026-01-01T00:00:00Z",
        "name": "n",
        "tees": {"snp": {"measurement": ["00"]}},
        "v": 1,
        "version": 1,
    }
    return [json.dumps(document).encode()]


HOUSE: dict[str, Target] = {
    "devices": (parse_devices, _devices),
    "parts": (lambda data: parse_parts(data, what="fuzz", caps=_CAPS), _parts),
    "policy-json": (Policy.parse, _policies),
    "policy-toml": (Policy.parse_toml, _tomls),
    "reference-values": (ReferenceValues.parse, _references),
}


def targets() -> dict[str, Target]:
    """Return every target by name. A name twice is a mistake of ours."""
    found = dict(HOUSE)
    for path in sorted(FOLDER.glob("seeds_*.py")):
        offered: dict[str, Target] = importlib.import_module(path.stem).TARGETS
        wrong = {name for name in offered if name in found or not re.fullmatch(r"[a-z0-9-]+", name)}
        if wrong:
            msg = f"fuzzing targets twice or out of form: {sorted(wrong)}"
            raise ValueError(msg)
        found |= offered
    return found
