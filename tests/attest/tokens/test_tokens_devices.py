"""Attacks on tokens that come with tokens of devices: left out, added, swapped, of another request, not in order."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.appraise import appraise
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind, Verdict
from cloister.attest.tokens.bundle import MAX_BUNDLE_BYTES, Bundle
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.tokens import TokenVendor, claims
from cloister.wire import dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.attest.rats import VerifiedClaims

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
NRAS = TokenVendor.generate(TeeKind("nras"))
SCHEME, ENDORSEMENTS, POLICY = NRAS.scheme(), NRAS.endorsements, NRAS.policy()
NONCE = bytes(range(32))


def gpu(index: int = 0, **members: Any) -> dict[str, Any]:
    said = {**claims.gpu_claims(NONCE, index), "iss": NRAS.issuer, "exp": int(NOW.timestamp()) + 60}
    return {
        **said,
        **{name.replace("_", "-") if name.startswith("x_") else name: value for name, value in members.items()},
    }


def verified(token: bytes) -> VerifiedClaims:
    payload = dump_parts({"token": token})
    return SCHEME.verify(Evidence(tee=TeeKind("nras"), payload=payload), ENDORSEMENTS, NOW)


def refusal(token: bytes) -> set[str]:
    with pytest.raises(Rejected) as caught:
        verified(token)
    return {reason.code for reason in caught.value.reasons}


def failed(token: bytes) -> set[str]:
    """Return the claims that the vendor's policy refuses."""
    checks = appraise(verified(token), POLICY, SCHEME.required)
    return {check.subject for check in checks if check.verdict is Verdict.FAILED}


def bundle(*gpus: dict[str, Any], **overall: Any) -> bytes:
    return NRAS.bundle({**NRAS.claims(NONCE, NOW), **overall}, list(gpus))


def edited(edit: Callable[[list[Any]], None]) -> bytes:
    """Return a bundle of two GPUs with its array changed after signing."""
    parts = json.loads(bundle(gpu(0), gpu(1)))
    edit(parts)
    return dump_json(parts)


def test_devices_in_order_satisfy_the_policy() -> None:
    token = bundle(gpu(0), gpu(1))
    found = verified(token).claims
    assert (found["devices"], found["device_count"]) == (("GPU-0", "GPU-1"), 2)
    assert (found["debug"], found["secure_boot"], found["verdicts_failed"]) == (False, True, 0)
    assert verified(token).report_data == NONCE
    assert failed(token) == set()


def test_a_device_left_out_is_noticed() -> None:
    assert refusal(edited(lambda parts: parts[1].pop("GPU-1"))) == {"submodule_mismatch"}


def test_an_overall_token_without_its_devices_is_refused() -> None:
    overall = json.loads(bundle(gpu()))[0][1].encode()
    assert refusal(overall) == {"submodule_mismatch"}


def test_a_device_nobody_speaks_of_is_noticed() -> None:
    assert refusal(edited(lambda parts: parts[1].update({"GPU-2": parts[1]["GPU-1"]}))) == {"submodule_mismatch"}
    assert refusal(bundle(gpu(), submods={})) == {"submodule_mismatch"}


def test_devices_swapped_are_noticed() -> None:
    def swap(parts: list[Any]) -> None:
        parts[1] = {"GPU-0": parts[1]["GPU-1"], "GPU-1": parts[1]["GPU-0"]}

    assert refusal(edited(swap)) == {"submodule_mismatch"}


def test_a_device_that_somebody_else_signed_is_refused() -> None:
    other = TokenVendor.generate(TeeKind("nras"))
    forged = other.sign(gpu()).decode()
    assert refusal(edited(lambda parts: parts[1].update({"GPU-1": forged}))) == {"signature_invalid"}


def test_a_device_of_another_request_or_issuer_or_time_is_refused() -> None:
    assert refusal(bundle(gpu(0), gpu(1, eat_nonce="00" * 32))) == {"nonce_mismatch"}
    assert refusal(bundle(gpu(0), gpu(1, iss="https://attacker.example"))) == {"issuer_mismatch"}
    assert refusal(bundle(gpu(0), gpu(1, exp=int(NOW.timestamp())))) == {"token_expired"}
    assert refusal(bundle(gpu(0), gpu(1, nbf=int((NOW + timedelta(hours=1)).timestamp())))) == {"token_not_yet_valid"}


@pytest.mark.parametrize("digest", ["hex", "base64url"])
@pytest.mark.parametrize("name", ["SHA-256", "SHA256", "SHA-384", "SHA-512"])
def test_digests_are_read_as_they_are_written(name: str, digest: str) -> None:
    token = NRAS.sign(gpu())
    value = hashlib.new(name.replace("SHA-", "sha").lower(), token).digest()
    text = value.hex() if digest == "hex" else dump_b64u(value)
    overall = NRAS.sign({**NRAS.claims(NONCE, NOW), "submods": {"GPU-0": ["DIGEST", [name, text]]}})
    whole = dump_json([["JWT", overall.decode()], {"GPU-0": token.decode()}])
    assert verified(whole).claims["device_count"] == 1
    wrong = NRAS.sign({**NRAS.claims(NONCE, NOW), "submods": {"GPU-0": ["DIGEST", [name, text[:-1]]]}})
    assert refusal(dump_json([["JWT", wrong.decode()], {"GPU-0": token.decode()}])) == {"submodule_mismatch"}


@pytest.mark.parametrize(
    "submods", [{"GPU-0": "a"}, {"GPU-0": ["DIGEST", ["MD5", "00"]]}, {"GPU-0": ["JWT", ["SHA-256", "00"]]}]
)
def test_submodules_that_are_no_digests_are_malformed(submods: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        verified(bundle(gpu(), submods=submods))


BAD_DEVICES: list[tuple[dict[str, Any], set[str]]] = [
    ({"dbgstat": "enabled"}, {"debug"}),
    ({"dbgstat": None}, {"debug"}),
    ({"secboot": False}, {"secure_boot"}),
    ({"secboot": None}, {"secure_boot"}),
    ({"measres": "fail"}, {"measurements"}),
    ({"measres": None}, {"measurements"}),
    ({"hwmodel": "GA100"}, {"hwmodel"}),
    ({"x_nvidia_gpu_arch_check": False}, {"verdicts_failed"}),
    ({"x_nvidia_gpu_driver_rim_signature_verified": None}, {"verdicts_failed"}),
    ({"x_nvidia_gpu_attestation_report_cert_chain": {"x-nvidia-cert-status": "expired"}}, {"verdicts_failed"}),
    ({"x_nvidia_gpu_attestation_report_cert_chain": {"x-nvidia-cert-ocsp-status": "revoked"}}, {"verdicts_failed"}),
]


@pytest.mark.parametrize(("members", "want"), BAD_DEVICES)
def test_one_device_out_of_order_fails_them_all(members: dict[str, Any], want: set[str]) -> None:
    assert failed(bundle(gpu(0), gpu(1, **members), gpu(2))) == want


def test_the_overall_verdict_counts_too() -> None:
    assert failed(bundle(gpu(), **{"x-nvidia-overall-att-result": False})) == {"result"}


def test_a_failed_verdict_is_named() -> None:
    found = verified(bundle(gpu(0), gpu(1, x_nvidia_gpu_arch_check=False))).claims
    assert found["failed"] == ("GPU-1 x-nvidia-gpu-arch-check",)


def test_a_single_token_of_the_first_version_is_its_own_device() -> None:
    said = {**gpu(), **NRAS.claims(NONCE, NOW)}
    found = verified(NRAS.sign(said)).claims
    assert (found["devices"], found["measurements"]) == (("device",), ("success",))


def test_a_token_of_no_device_says_nothing_of_devices() -> None:
    found = verified(NRAS.sign(NRAS.claims(NONCE, NOW))).claims
    assert not {"devices", "debug", "secure_boot"} & set(found)


ONE = NRAS.sign(gpu()).decode()
BAD_BUNDLES: list[Any] = [
    [],
    [["JWT", ONE]],
    [["JWT", ONE], {}],
    [["JWT", ONE], []],
    [["CWT", ONE], {"GPU-0": ONE}],
    [["JWT", 5], {"GPU-0": ONE}],
    [["JWT", ONE], {"GPU-0": 5}],
    [["JWT", ONE], {"GPU 0": ONE}],
    [["JWT", ONE], {"": ONE}],
    [["JWT", ONE], {"GPU-0": "\u00e9"}],
    [["JWT", ONE], {"GPU-0": ["JWT", ONE]}],
    [["JWT", ONE], {"GPU-0": "a" * 131073}],
    [["JWT", ONE], {f"GPU-{index}": ONE for index in range(33)}],
    [["JWT", ONE], {"GPU-0": ONE}, {}],
]


@pytest.mark.parametrize("parts", BAD_BUNDLES, ids=range(len(BAD_BUNDLES)))
def test_a_bundle_out_of_form_is_malformed(parts: Any) -> None:
    with pytest.raises(Malformed):
        Bundle.parse(dump_json(parts))


@pytest.mark.parametrize("data", [b"[", b"[[", b"[NaN]", b"[" * 5000, b"[" + b" " * MAX_BUNDLE_BYTES])
def test_bytes_that_are_no_bundle_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Bundle.parse(data)
