"""Writes vectors.json beside this file: simulated evidence, mostly bad, by a second implementation.

Made from docs/spec/evidence.md alone, without Cloister's code, so that format and page prove each other.
Run ``python tests/vectors/evidence-simulated/generate.py``; the same bytes come out each time.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LABEL = b"application/vnd.cloister.simulated-evidence"
ROOT_SEED, CHIP_ID = b"\x01" * 32, b"\x0c" * 32
NOW = 1_783_000_000
SETTINGS = {"max_batch": 8}


def sha512(data: bytes) -> bytes:
    return hashlib.sha512(data).digest()


def key_of(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def sign(key: Ed25519PrivateKey, payload: bytes) -> bytes:
    return key.sign(b"DSSEv1 %d %b %d %b" % (len(LABEL), LABEL, len(payload), payload))


ROOT = key_of(ROOT_SEED)
CHIP = key_of(b"\x02" * 32)
STRANGER = key_of(b"\x03" * 32)


def software(settings: dict[str, Any] = SETTINGS, code: str = "ab" * 32) -> bytes:
    document = {"code": code, "packages": {"numpy": "2.2.0"}, "python": "3.11.9", "settings": settings, "v": 1}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def measurement(code: str = "ab" * 32) -> bytes:
    return hashlib.sha384(b"cloister/simulated-measurement/v1" + bytes.fromhex(code)).digest()


RELEASE = {
    "nonce": b"\x11" * 32,
    "custodian": b"\x12" * 32,
    "instance_pub": b"\x13" * 32,
    "kem_pub": b"\x14" * 48,
    "software": software(),
    "devices": b"",
}
CHANNEL = {"nonce": b"\x21" * 32, "keyset": b'{"v":1}', "devices": b""}


def report_data(binding: dict[str, bytes]) -> bytes:
    label = b"cloister/attest/v1" if "kem_pub" in binding else b"cloister/report-data/v1"
    return sha512(label + b"".join(len(part).to_bytes(4, "big") + part for part in binding.values()))


def certificate(**change: Any) -> bytes:
    parts = {
        "tag": b"C",
        "issuer": public(ROOT),
        "chip_id": CHIP_ID,
        "chip_key": public(CHIP),
        "not_before": (NOW - 1000).to_bytes(8, "big"),
        "not_after": (NOW + 1000).to_bytes(8, "big"),
        **change,
    }
    return b"".join(parts.values())


def report(**change: Any) -> bytes:
    parts = {
        "tag": b"R",
        "flags": b"\x00",
        "svn": (1).to_bytes(4, "big"),
        "measurement": measurement(),
        "host_data": hashlib.sha256(software()).digest(),
        "chip_id": CHIP_ID,
        "report_data": report_data(RELEASE),
        **change,
    }
    return b"".join(parts.values())


def evidence(
    cert: bytes | None = None,
    rep: bytes | None = None,
    *,
    header: bytes = b"CLOISTER-SIM\x00\x01",
    by_root: Ed25519PrivateKey = ROOT,
    by_chip: Ed25519PrivateKey = CHIP,
) -> bytes:
    cert = certificate() if cert is None else cert
    rep = report() if rep is None else rep
    return header + cert + sign(by_root, cert) + rep + sign(by_chip, rep)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def policy(**change: Any) -> dict[str, Any]:
    rules = {
        "chip_id": {"exact": CHIP_ID.hex()},
        "debug": {"exact": False},
        "host_data": {"one_of": [hashlib.sha256(software()).hexdigest()]},
        "measurement": {"one_of": [measurement().hex()]},
        "migratable": {"exact": False},
        "svn": {"at_least": 1},
        **change,
    }
    rules = {name: rule for name, rule in rules.items() if rule is not None}
    return {"tees": {"simulated": rules}, "v": 1, "version": 1}


HONEST = evidence()
_HEADER, _CERT, _SIG, _REPORT = 14, 113, 64, 182
_REPORT_AT = _HEADER + _CERT + _SIG


def good() -> list[dict[str, Any]]:
    skip = {"not_checked": "a fleet of many chips"}
    return [
        case("honest, release", HONEST, "warning"),
        case("honest, channel", evidence(rep=report(report_data=report_data(CHANNEL))), "warning", binding=CHANNEL),
        case("a newer security version", evidence(rep=report(svn=(2**32 - 1).to_bytes(4, "big"))), "warning"),
        case("a chip id that is not checked", HONEST, "warning", rules=policy(chip_id=skip)),
        case("the first second of the certificate", HONEST, "warning", now=NOW - 1000),
        case("the last second of the certificate", HONEST, "warning", now=NOW + 1000),
    ]


def malformed() -> list[dict[str, Any]]:
    return [
        case("empty", b"", "Malformed"),
        case("header only", HONEST[:_HEADER], "Malformed"),
        case("another magic", b"X" + HONEST[1:], "Malformed"),
        case("last byte missing", HONEST[:-1], "Malformed"),
        case("one byte more", HONEST + b"\x00", "Malformed"),
        case("twice", HONEST * 2, "Malformed"),
        case(
            "report before certificate",
            HONEST[:_HEADER] + HONEST[_REPORT_AT:] + HONEST[_HEADER:_REPORT_AT],
            "Malformed",
        ),
        case("certificate with the tag of a report", evidence(certificate(tag=b"R")), "Malformed"),
        case("report with the tag of a certificate", evidence(rep=report(tag=b"C")), "Malformed"),
        case("unknown flag 0x04", evidence(rep=report(flags=b"\x04")), "Malformed"),
        case("unknown flag 0x80", evidence(rep=report(flags=b"\x80")), "Malformed"),
    ]


def not_genuine() -> list[dict[str, Any]]:
    own = certificate(issuer=public(STRANGER))
    raw = HONEST[:-_SIG] + CHIP.sign(report())
    cases = [
        case("version 0", evidence(header=b"CLOISTER-SIM\x00\x00"), "unsupported_format"),
        case("version 2", evidence(header=b"CLOISTER-SIM\x00\x02"), "unsupported_format"),
        case("T1 home-made root", evidence(own, by_root=STRANGER), "untrusted_root"),
        case("T1 home-made root under the pinned root's name", evidence(by_root=STRANGER), "chain_invalid"),
        case("T14 certificate signed by its own chip", evidence(by_root=CHIP), "chain_invalid"),
        case("T14 not yet valid", HONEST, "cert_not_yet_valid", now=NOW - 1001),
        case("T14 expired", HONEST, "cert_expired", now=NOW + 1001),
        case("T14 never valid", evidence(certificate(not_after=bytes(8))), "cert_expired"),
        case("report signed by another chip", evidence(by_chip=STRANGER), "signature_invalid"),
        case("report signed by the root", evidence(by_chip=ROOT), "signature_invalid"),
        case("report of another chip id", evidence(rep=report(chip_id=b"\x0d" * 32)), "chain_invalid"),
        case("T91 report signed without its label", raw, "signature_invalid"),
        case(
            "chip key of small order", evidence(certificate(chip_key=(1).to_bytes(32, "little"))), "signature_invalid"
        ),
        case("flipped certificate signature", flip(HONEST, _HEADER + _CERT), "chain_invalid"),
        case("flipped report signature", flip(HONEST, len(HONEST) - 1), "signature_invalid"),
    ]
    for name, at in {"chip_id": 33, "chip_key": 65, "not_before": 97, "not_after": 105}.items():
        cases.append(case(f"flipped certificate {name}", flip(HONEST, _HEADER + at), "chain_invalid"))
    offsets = {"flags": 1, "svn": 2, "measurement": 6, "host_data": 54, "chip_id": 86, "report_data": 118}
    for name, at in offsets.items():
        cases.append(case(f"flipped report {name}", flip(HONEST, _REPORT_AT + at), "signature_invalid"))
    return cases


def not_ours() -> list[dict[str, Any]]:
    def bound(**change: bytes) -> dict[str, bytes]:
        return {**RELEASE, **change}

    return [
        case("T2 report data of another nonce", HONEST, "report_data_mismatch", binding=bound(nonce=b"\x99" * 32)),
        case(
            "T3 challenge of another custodian", HONEST, "report_data_mismatch", binding=bound(custodian=b"\x99" * 32)
        ),
        case("T5 KEM key swapped", HONEST, "report_data_mismatch", binding=bound(kem_pub=b"\x99" * 48)),
        case("T6 instance key swapped", HONEST, "report_data_mismatch", binding=bound(instance_pub=b"\x99" * 32)),
        case(
            "T10 software manifest swapped",
            HONEST,
            "report_data_mismatch",
            "software_mismatch",
            binding=bound(software=software({"max_batch": 9})),
        ),
        case("evidence for key release offered to a consumer", HONEST, "report_data_mismatch", binding=CHANNEL),
        case("report data all zero", evidence(rep=report(report_data=bytes(64))), "report_data_mismatch"),
    ]


def not_good() -> list[dict[str, Any]]:
    other = software({"max_batch": 9999})
    changed = {**RELEASE, "software": other}
    tampered = report(
        flags=b"\x03",
        svn=bytes(4),
        measurement=measurement("cd" * 32),
        host_data=hashlib.sha256(other).digest(),
        report_data=report_data(changed),
    )
    reset = report(host_data=hashlib.sha256(other).digest(), report_data=report_data(changed))
    return [
        case("T8 security version below the minimum", evidence(rep=report(svn=bytes(4))), "svn_too_low"),
        case("T9 debug", evidence(rep=report(flags=b"\x01")), "debug_enabled"),
        case("T9 migratable", evidence(rep=report(flags=b"\x02")), "migratable"),
        case("another image", evidence(rep=report(measurement=measurement("cd" * 32))), "measurement_mismatch"),
        case("T10 one setting changed", evidence(rep=reset), "host_data_mismatch", binding=changed),
        case("T12 another chip than allowed", HONEST, "chip_id_mismatch", rules=policy(chip_id={"exact": "00" * 32})),
        case("T18 a required claim without a rule", HONEST, "policy_incomplete", rules=policy(svn=None)),
        case("T18 a rule for a claim nobody makes", HONEST, "claim_missing", rules=policy(prc={"exact": "00"})),
        case(
            "everything wrong at once, all of it named",
            evidence(rep=tampered),
            "debug_enabled",
            "host_data_mismatch",
            "measurement_mismatch",
            "migratable",
            "svn_too_low",
            binding=changed,
        ),
    ]


def case(
    name: str,
    payload: bytes,
    *expect: str,
    binding: dict[str, bytes] | None = None,
    rules: dict[str, Any] | None = None,
    now: int | None = None,
) -> dict[str, Any]:
    """Return one vector; what it does not say is as in ``defaults``."""
    entry: dict[str, Any] = {"evidence": payload.hex(), "expect": list(expect), "name": name}
    if binding is not None:
        entry["binding"] = in_hex(binding)
    if rules is not None:
        entry["policy"] = rules
    if now is not None:
        entry["now"] = now
    return entry


def in_hex(binding: dict[str, bytes]) -> dict[str, str]:
    return {part: value.hex() for part, value in binding.items()}


def document() -> dict[str, Any]:
    """Return every vector. ``expect`` is a trust tier, ``Malformed``, or the codes of the rejection."""
    return {
        "cases": [*good(), *malformed(), *not_genuine(), *not_ours(), *not_good()],
        "defaults": {"binding": in_hex(RELEASE), "now": NOW, "policy": policy()},
        "format": 1,
        "root": public(ROOT).hex(),
    }


if __name__ == "__main__":
    path = Path(__file__).parent / "vectors.json"
    path.write_text(json.dumps(document(), indent=1, sort_keys=True) + "\n")
