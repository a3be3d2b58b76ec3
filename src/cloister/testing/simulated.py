"""A simulated TEE: same code path as a real one, own root, loud, in no production table (docs/adr/0005).

Its evidence has a chip certificate signed by the simulated root and a report signed by the chip, in the
binary format of docs/spec/evidence.md section 4. Whoever has the root's seed can make any evidence: it
protects nothing and is for learning and tests. Handed in by ``--insecure-simulated-root FILE`` only.

Not done here: anything that keeps a secret.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from cloister.attest.appraise import AtLeast, Exact, NotChecked, OneOf, Policy, Rule, TeePolicy
from cloister.attest.rats import Check, Evidence, TeeKind, Verdict, VerifiedClaims
from cloister.crypto.sign import Label, SigningKey, VerifyKey
from cloister.errors import Malformed, Rejected, UsageError
from cloister.wire import Fields, Reader, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
WARNING = "SIMULATED TEE: no hardware protects this enclave; whoever runs it can read everything in it"

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
_MAX_FILE_BYTES = 4096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(2100, 1, 1, tzinfo=UTC)


class SimulatedRoot:
    """The root of trust of a simulated vendor. It never prints its seed."""

    __slots__ = ("_key",)

    def __init__(self, seed: bytes) -> None:
        """Take a 32-byte seed."""
        self._key = SigningKey(seed)

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh root."""
        return cls(SigningKey.generate().seed())

    @property
    def public(self) -> VerifyKey:
        """The key that verifiers pin."""
        return self._key.verify_key

    def chip(self, chip_id: bytes) -> SigningKey:
        """Return the signing key of a chip: the same each time, as if fused in."""
        return SigningKey(hashlib.sha256(b"cloister/simulated-chip/v1" + self._key.seed() + chip_id).digest())

    def sign(self, payload: bytes) -> bytes:
        """Sign a chip certificate."""
        return self._key.sign(Label.SIMULATED_EVIDENCE, payload)

    def save(self, path: Path) -> None:
        """Write the root, seed included, to a new file that only its owner can read."""
        _write(path, {"public": self.public.dump(), "seed": dump_b64u(self._key.seed())}, mode=0o600)

    def save_public(self, path: Path) -> None:
        """Write what verifiers need to a new file."""
        _write(path, {"public": self.public.dump()}, mode=0o644)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a root back. Raises ``UsageError`` for a file that has no seed or is not there."""
        public, seed = _read(path)
        if seed is None:
            msg = f"{path}: has the public half of a simulated root only"
            raise UsageError(msg, hint="the attester needs the file that SimulatedRoot.save wrote")
        root = cls(seed)
        if root.public != public:
            msg = f"{path}: simulated root: seed and public key do not belong together"
            raise Malformed(msg)
        return root

    def __repr__(self) -> str:
        """Show the public name only."""
        return f"SimulatedRoot({self.public.key_id})"


def load_root_key(path: Path) -> VerifyKey:
    """Return the key to pin from either file, with or without the seed."""
    return _read(path)[0]


def _write(path: Path, members: dict[str, str], *, mode: int) -> None:
    document = dump_json({"kind": "cloister-simulated-root", "v": 1, "warning": WARNING, **members}) + b"\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as exc:
        msg = f"{path}: cannot write a simulated root: {exc.strerror}"
        raise UsageError(msg) from exc
    with contextlib.closing(os.fdopen(handle, "wb")) as file:
        file.write(document)


def _read(path: Path) -> tuple[VerifyKey, bytes | None]:
    try:
        data = path.read_bytes()
    except OSError as exc:
        msg = f"{path}: cannot read a simulated root: {exc.strerror}"
        raise UsageError(msg) from exc
    fields = Fields.parse(data, what="simulated root", cap=_MAX_FILE_BYTES)
    fields.literal("v", 1)
    fields.literal("kind", "cloister-simulated-root")
    fields.literal("warning", WARNING)
    public = VerifyKey.take(fields, "public")
    seed = fields.b64u("seed", size=_KEY_BYTES) if "seed" in fields else None
    fields.end()
    return public, seed


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
