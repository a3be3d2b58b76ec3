"""A simulated TEE: same code path as a real one, own root, loud, in no production table (docs/adr/0005).

Its evidence has a chip certificate signed by the simulated root and a report signed by the chip, in the
binary format of docs/spec/evidence.md section 5. Whoever has the root's seed can make any evidence: it
protects nothing and is for learning and tests. Handed in by ``--insecure-simulated-root FILE`` only.

Not done here: anything that keeps a secret.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Check, Evidence, TeeKind, Verdict, VerifiedClaims
from cloister.attest.rules import AtLeast, Exact, NotChecked, OneOf, Rule
from cloister.crypto.sign import Label, VerifyKey
from cloister.errors import Rejected, UsageError
from cloister.testing.simulated_root import WARNING, SimulatedRoot, load_root_key
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.software import SoftwareManifest

__all__ = [
    "SIMULATED",
    "WARNING",
    "SimulatedAttester",
    "SimulatedRoot",
    "SimulatedScheme",
    "load_root_key",
    "simulated_measurement",
    "simulated_policy",
]

SIMULATED = TeeKind("simulated")

REPORT_DATA_BYTES = 64
CHIP_ID_BYTES = 32
_MEASUREMENT_BYTES = 48
_DIGEST_BYTES = 32
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_MAGIC = b"CLOISTER-SIM\x00"
_VERSION = 1
_CERTIFICATE_TAG = b"C"  # root and chip sign under one label: the first byte keeps the two apart
_REPORT_TAG = b"R"
_DEBUG, _MIGRATABLE = 0x01, 0x02
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(2100, 1, 1, tzinfo=UTC)


def simulated_measurement(software: SoftwareManifest | str) -> str:
    """Return the launch measurement of a code digest (hex): SHA-384, so that it is no code digest by accident."""
    code = software if isinstance(software, str) else software.code
    return hashlib.sha384(b"cloister/simulated-measurement/v1" + bytes.fromhex(code)).hexdigest()


def simulated_policy(software: SoftwareManifest | str, version: int = 1) -> Policy:
    """Return a policy for exactly this software, or, given a measurement (hex), for this code with any settings."""
    if isinstance(software, str):
        measurement = software
        host_data: Rule = NotChecked("any settings of this code")
    else:
        measurement = simulated_measurement(software)
        host_data = OneOf((software.digest.hex(),))
    rules: dict[str, Rule] = {
        "chip_id": NotChecked("simulated chips have no identity worth checking"),
        "debug": Exact(value=False),
        "host_data": host_data,
        "measurement": OneOf((measurement,)),
        "migratable": Exact(value=False),
        "svn": AtLeast(1),
    }
    return Policy(version=version, tees={SIMULATED: TeePolicy(rules)})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What the chip signs."""

    flags: int
    svn: int
    measurement: bytes
    host_data: bytes
    chip_id: bytes
    report_data: bytes

    def dump(self) -> bytes:
        return b"".join(
            (
                _REPORT_TAG,
                self.flags.to_bytes(1, "big"),
                self.svn.to_bytes(4, "big"),
                self.measurement,
                self.host_data,
                self.chip_id,
                self.report_data,
            )
        )


_REPORT_BYTES = 6 + _MEASUREMENT_BYTES + _DIGEST_BYTES + CHIP_ID_BYTES + REPORT_DATA_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class _Certificate:
    """What the root signs: this key belongs to this chip, from then to then."""

    issuer: VerifyKey
    chip_id: bytes
    chip_key: VerifyKey
    not_before: int
    not_after: int

    def dump(self) -> bytes:
        return b"".join(
            (
                _CERTIFICATE_TAG,
                self.issuer.raw,
                self.chip_id,
                self.chip_key.raw,
                self.not_before.to_bytes(8, "big"),
                self.not_after.to_bytes(8, "big"),
            )
        )


_CERTIFICATE_BYTES = 1 + _KEY_BYTES + CHIP_ID_BYTES + _KEY_BYTES + 8 + 8


def _parse_certificate(data: bytes) -> _Certificate:
    reader = Reader(data, what="simulated chip certificate")
    reader.expect(_CERTIFICATE_TAG)
    certificate = _Certificate(
        issuer=VerifyKey(reader.take(_KEY_BYTES)),
        chip_id=reader.take(CHIP_ID_BYTES),
        chip_key=VerifyKey(reader.take(_KEY_BYTES)),
        not_before=reader.u64(),
        not_after=reader.u64(),
    )
    reader.end()
    return certificate


def _parse_report(data: bytes) -> _Report:
    reader = Reader(data, what="simulated report")
    reader.expect(_REPORT_TAG)
    flags = reader.u8()
    if flags & ~(_DEBUG | _MIGRATABLE):
        reader.fail(f"unknown flags {flags:#04x}")
    report = _Report(
        flags=flags,
        svn=reader.u32(),
        measurement=reader.take(_MEASUREMENT_BYTES),
        host_data=reader.take(_DIGEST_BYTES),
        chip_id=reader.take(CHIP_ID_BYTES),
        report_data=reader.take(REPORT_DATA_BYTES),
    )
    reader.end()
    return report


class SimulatedScheme:
    """Verifies simulated evidence against one pinned root."""

    tee: Final = SIMULATED
    report_data_bytes: Final = REPORT_DATA_BYTES
    software_claims: Final = frozenset({"host_data"})
    required: Final = frozenset({"chip_id", "debug", "host_data", "measurement", "migratable", "svn"})

    def __init__(self, root: VerifyKey) -> None:
        """Pin ``root``; there is no default."""
        self._root = root

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return nothing: the chain travels inside the evidence."""
        del evidence
        return ()

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that a chip of this root signed the report.

        Raises ``Malformed``; ``Rejected`` with ``unsupported_format``, ``untrusted_root``,
        ``chain_invalid``, ``cert_not_yet_valid``, ``cert_expired`` or ``signature_invalid``.
        """
        del endorsements
        # 1. Exact sizes, to the end.
        reader = Reader(evidence.payload, what="simulated evidence")
        reader.expect(_MAGIC)
        version = reader.u8()
        if version != _VERSION:
            raise Rejected.because("unsupported_format", "simulated evidence", got=str(version), want=str(_VERSION))
        certificate_bytes = reader.take(_CERTIFICATE_BYTES)
        certificate_signature = reader.take(_SIGNATURE_BYTES)
        report_bytes = reader.take(_REPORT_BYTES)
        report_signature = reader.take(_SIGNATURE_BYTES)
        reader.end()
        certificate = _parse_certificate(certificate_bytes)
        report = _parse_report(report_bytes)
        # 2. The pinned root signed the chip's certificate, and it is valid now.
        self._verify_certificate(certificate, certificate_bytes, certificate_signature, now)
        # 3. That chip, and no other, signed the report.
        certificate.chip_key.verify(Label.SIMULATED_EVIDENCE, report_bytes, report_signature)
        if report.chip_id != certificate.chip_id:
            raise Rejected.because(
                "chain_invalid", "simulated report", got=report.chip_id.hex(), want=certificate.chip_id.hex()
            )
        return _claims(report)

    def _verify_certificate(self, certificate: _Certificate, data: bytes, signature: bytes, now: datetime) -> None:
        if certificate.issuer != self._root:
            raise Rejected.because(
                "untrusted_root", "simulated root", got=certificate.issuer.key_id, want=self._root.key_id
            )
        try:
            self._root.verify(Label.SIMULATED_EVIDENCE, data, signature)
        except Rejected as exc:
            raise Rejected.because("chain_invalid", "simulated chip certificate") from exc
        seconds = int((now - _EPOCH).total_seconds())
        if seconds < certificate.not_before:
            raise Rejected.because(
                "cert_not_yet_valid", "simulated chip certificate", got=str(seconds), want=str(certificate.not_before)
            )
        if seconds > certificate.not_after:
            raise Rejected.because(
                "cert_expired", "simulated chip certificate", got=str(seconds), want=str(certificate.not_after)
            )


def _claims(report: _Report) -> VerifiedClaims:
    return VerifiedClaims(
        tee=SIMULATED,
        claims={
            "chip_id": report.chip_id.hex(),
            "debug": bool(report.flags & _DEBUG),
            "host_data": report.host_data.hex(),
            "measurement": report.measurement.hex(),
            "migratable": bool(report.flags & _MIGRATABLE),
            "svn": report.svn,
        },
        report_data=report.report_data,
        checks=(
            Check(code="simulated", subject="hardware", verdict=Verdict.NOT_CHECKED, note=WARNING),
            Check(code="chain_invalid", subject="chip certificate chain", verdict=Verdict.PASSED),
            Check(code="signature_invalid", subject="report signature", verdict=Verdict.PASSED),
        ),
    )


class SimulatedAttester:
    """Collects evidence of a simulated chip that runs ``software``. Any claim can be had: that is the point."""

    tee: Final = SIMULATED
    report_data_bytes: Final = REPORT_DATA_BYTES

    def __init__(
        self,
        root: SimulatedRoot,
        software: SoftwareManifest,
        chip_id: bytes,
        *,
        debug: bool = False,
        migratable: bool = False,
        svn: int = 1,
        not_before: datetime = _NOT_BEFORE,
        not_after: datetime = _NOT_AFTER,
    ) -> None:
        """Start a chip of ``root`` with ``chip_id`` (32 bytes); the times bound its certificate."""
        if len(chip_id) != CHIP_ID_BYTES:
            msg = f"simulated chip: id is {len(chip_id)} bytes, want {CHIP_ID_BYTES}"
            raise UsageError(msg)
        self._chip = root.chip(chip_id)
        self._chip_id = chip_id
        self._software = software
        self._flags = (_DEBUG if debug else 0) | (_MIGRATABLE if migratable else 0)
        self._svn = svn
        certificate = _Certificate(
            issuer=root.public,
            chip_id=chip_id,
            chip_key=self._chip.verify_key,
            not_before=int((not_before - _EPOCH).total_seconds()),
            not_after=int((not_after - _EPOCH).total_seconds()),
        ).dump()
        self._chain = certificate + root.sign(certificate)

    def collect(self, report_data: bytes) -> Evidence:
        """Return evidence that carries ``report_data``, which must fill the field exactly (``binding.fold``)."""
        if len(report_data) != REPORT_DATA_BYTES:
            msg = f"simulated report data: {len(report_data)} bytes, want {REPORT_DATA_BYTES}"
            raise UsageError(msg)
        report = _Report(
            flags=self._flags,
            svn=self._svn,
            measurement=bytes.fromhex(simulated_measurement(self._software)),
            host_data=self._software.digest,
            chip_id=self._chip_id,
            report_data=report_data,
        ).dump()
        signature = self._chip.sign(Label.SIMULATED_EVIDENCE, report)
        header = _MAGIC + _VERSION.to_bytes(1, "big")
        return Evidence(tee=SIMULATED, payload=header + self._chain + report + signature)
