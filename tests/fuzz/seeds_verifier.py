"""What strangers send to an attestation service, and what it reads of its own disk."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cloister.testing.simulated import simulated_policy
from cloister.verifier.callers import parse_callers
from cloister.verifier.requests import parse_attest, parse_verify
from cloister.verifier.ring import KeyPlan, Ring
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from targets import Target

_EVIDENCE = {"payload": dump_b64u(b"evidence" * 20), "tee": "snp"}


def _attests() -> list[bytes]:
    honest = {"evidence": _EVIDENCE, "nonce": dump_b64u(bytes(32)), "policy": "enclaves"}
    whole = {
        **honest, "audience": "sts.example", "binding": "service", "data": dump_b64u(b"key"), "detail": "brief",
        "devices": [{"payload": dump_b64u(bytes(64)), "tee": "nvidia-gpu"}], "refusal": "token",
    }  # fmt: skip
    return [json.dumps(item).encode() for item in (honest, whole)]


def _verifies() -> list[bytes]:
    honest = {"binding": "carried", "evidence": _EVIDENCE, "nonce": dump_b64u(bytes(8))}
    return [json.dumps(item).encode() for item in (honest, {**honest, "policy": simulated_policy("ab" * 48).to_json()})]


def _rings() -> list[bytes]:
    plan = KeyPlan(life=timedelta(days=2), ahead=timedelta(days=1), keep=timedelta(hours=1))
    return [Ring().advance({"ES256"}, plan, datetime(2026, 1, 1, tzinfo=UTC)).dump()]


TARGETS: dict[str, Target] = {
    "attestation-callers": (parse_callers, lambda: [b"one " + b"0" * 64 + b"\n# a remark\ntwo " + b"1" * 64 + b"\n"]),
    "attestation-keys": (Ring.parse, _rings),
    "attestation-request": (parse_attest, _attests),
    "attestation-verify": (parse_verify, _verifies),
}
