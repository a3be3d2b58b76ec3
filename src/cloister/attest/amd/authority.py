"""AMD's certification path: ARK, then ASK or ASVK, then VCEK or VLEK (AMD 57230, AMD 58369).

Not done here: whether the certificate fits the report (``fit``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from cloister.attest.amd.memo import Memo
from cloister.attest.amd.products import Product
from cloister.attest.amd.report import SigningKey
from cloister.attest.chain import Certificate, verify_chain
from cloister.attest.crl import RevocationList, verify_crl, verify_not_revoked
from cloister.attest.findings import Findings
from cloister.attest.roots import vendor_certificate
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.amd.vek import Vek
    from cloister.attest.rats import Check

__all__ = ["AmdTrust", "Authority", "pinned_trust", "subject_name"]

MAX_REMEMBERED = 256  # paths, and lists
_SALT_BYTES = 48
_RSA_BITS = 4096
_PSS = "RSASSA-PSS, SHA-384, salt of 48 bytes"
_SUBJECT = "CN={},O=Advanced Micro Devices,ST=CA,L=Santa Clara,C=US,OU=Engineering"


def subject_name(common_name: str) -> str:
    """Return the RFC 4514 name that AMD gives a certificate (AMD 57230)."""
    return _SUBJECT.format(common_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdTrust:
    """The ARK of each line, pinned. ``intermediates`` save a download: they must chain to an ARK like any other."""

    roots: Mapping[Product, Certificate]
    intermediates: tuple[Certificate, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to trust nobody."""
        if not self.roots:
            msg = "amd trust: no root to trust"
            raise UsageError(msg)

    def intermediate(self, product: Product, kind: SigningKey) -> tuple[Certificate, ...]:
        """Return the certificate at hand that issues VCEKs or VLEKs of ``product``, or none."""
        want = subject_name(_issuer_name(product, kind))
        return tuple(item for item in self.intermediates if _name(item) == want)


def pinned_trust() -> AmdTrust:
    """Return AMD's own: the roots of Milan, Genoa and Turin, and the intermediates AMD publishes beside them."""
    return AmdTrust(
        roots={product: vendor_certificate(f"amd-ark-{product.key}") for product in Product},
        intermediates=(
            *(vendor_certificate(f"amd-ask-{product.key}") for product in Product),
            vendor_certificate("amd-asvk-milan"),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Path:
    """Certificates from the leaf to the ARK, and what was found about them whatever the time."""

    certificates: tuple[Certificate, ...]
    checks: tuple[Check, ...]


class Authority:
    """Proves paths and revocation lists, and remembers those that held; windows are looked at each time."""

    def __init__(self, trust: AmdTrust) -> None:
        """Pin ``trust``."""
        self.trust = trust
        self._paths: Memo[_Path] = Memo(MAX_REMEMBERED)
        self._lists: Memo[RevocationList] = Memo(MAX_REMEMBERED)

    def verify_path(
        self,
        vek: Vek,
        issuers: Sequence[Certificate],
        roots: Sequence[Certificate],
        now: datetime,
        findings: Findings,
    ) -> tuple[Certificate, ...] | None:
        """Prove that the pinned ARK of the certificate's line vouches for it; return the path from it to the ARK.

        ``issuers`` and ``roots`` came along or were fetched. Findings: ``untrusted_root``, ``chain_invalid``,
        ``cert_not_yet_valid``, ``cert_expired``, ``algorithm_not_allowed``.
        """
        root = self.trust.roots.get(vek.product)
        if root is None:
            findings.expect(False, "untrusted_root", vek.product.value, want="a pinned root")  # noqa: FBT003 - a failure
            return None
        # 1. A root that came along is the pinned one: somebody who sends another wants it trusted.
        between = [item for item in issuers if item.x509.subject != item.x509.issuer]
        for item in (*roots, *(item for item in issuers if item not in between)):
            if item.der != root.der:
                pinned = item.der in {known.der for known in self.trust.roots.values()}
                code = "chain_invalid" if pinned else "untrusted_root"
                findings.expect(False, code, "root", got=_short(item), want=_short(root))  # noqa: FBT003
        # 2. The path, proven now or before; its windows hold now.
        parts = tuple(item.der for item in (vek.certificate, *between, root))
        try:
            path = self._paths.recall(parts, partial(_proven, vek, between, root, now), partial(_all_valid, now))
        except Rejected as exc:
            findings.refused(exc)
            return None
        for check in path.checks:
            findings.expect(True, check.code, check.subject, got=check.got, want=check.want)  # noqa: FBT003
        return path.certificates

    def verify_revocation(
        self, path: Sequence[Certificate], crls: Sequence[bytes], now: datetime, findings: Findings
    ) -> None:
        """Prove that the ARK's lists, each in its window, name no authority of the path.

        AMD lists what the ARK issued; a chip's certificate has no serial number to list. Findings: those of
        ``verify_crl`` and ``revoked``. Raises ``Malformed``.
        """
        _, *authorities, root = path
        for data in crls:
            try:
                found = self._lists.recall(
                    (data, root.der), partial(_verified_list, data, root, now), partial(_list_valid, now)
                )
                for certificate in (*authorities, root):
                    verify_not_revoked(certificate, found)
            except Rejected as exc:
                findings.refused(exc)
            else:
                findings.expect(True, "revoked", f"list of {_short(root)}")  # noqa: FBT003 - a check that passed


def _proven(vek: Vek, between: Sequence[Certificate], root: Certificate, now: datetime) -> _Path:
    """Return the path with what was found about it, or raise ``Rejected`` with all of it."""
    # Signatures, windows, authority over this depth (RFC 5280 section 6).
    try:
        certificates = verify_chain(vek.certificate, between, [root], now)
    except Rejected as exc:
        raise _unfitting(exc) from exc
    # Nothing beside the path, and in it the names, keys and algorithms that AMD gives.
    findings = Findings("amd certificates")
    stray = [_short(item) for item in between if item not in certificates]
    findings.expect(not stray, "chain_invalid", "certificates beside the path", got=", ".join(stray)[:240], want="none")
    _verify_names(vek, certificates, findings)
    _verify_keys(certificates, findings)
    return _Path(certificates, findings.settle())


def _verified_list(data: bytes, root: Certificate, now: datetime) -> RevocationList:
    """Return a list that the ARK signed and whose window holds ``now``."""
    found = RevocationList.parse(data)
    verify_crl(found, root, now)
    if not _is_amd_pss(found.x509.signature_algorithm_parameters, found.x509.signature_hash_algorithm):
        raise Rejected.because("algorithm_not_allowed", f"crl of {_short(root)}", want=_PSS)
    return found


def _list_valid(now: datetime, found: RevocationList) -> bool:
    end = found.x509.next_update_utc
    return end is not None and found.x509.last_update_utc <= now <= end


def _all_valid(now: datetime, path: _Path) -> bool:
    return all(item.x509.not_valid_before_utc <= now <= item.x509.not_valid_after_utc for item in path.certificates)


def _unfitting(refusal: Rejected) -> Rejected:
    """Return the refusal of a path in words that fit: where no issuer does, certificates do not belong together."""
    reasons = tuple(
        replace(reason, code="chain_invalid") if reason.code == "untrusted_root" else reason
        for reason in refusal.reasons
    )
    return Rejected(refusal.message, reasons=reasons)


def _issuer_name(product: Product, kind: SigningKey) -> str:
    return f"SEV-VLEK-{product.value}" if kind is SigningKey.VLEK else f"SEV-{product.value}"


def _verify_names(vek: Vek, path: Sequence[Certificate], findings: Findings) -> None:
    """Demand a VCEK from the ASK, a VLEK from the ASVK: the one may not issue the other."""
    names = (f"SEV-{vek.kind.name}", _issuer_name(vek.product, vek.kind), f"ARK-{vek.product.value}")
    got = [_name(item) for item in path]
    want = [subject_name(name) for name in names]
    findings.expect(got == want, "chain_invalid", "certificate names", got=" < ".join(got), want=" < ".join(want))


def _verify_keys(path: Sequence[Certificate], findings: Findings) -> None:
    leaf, *authorities = path
    key = leaf.x509.public_key()
    p384 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)
    findings.expect(p384, "algorithm_not_allowed", _short(leaf), got=type(key).__name__, want="a P-384 key")
    for item in authorities:
        issuing = item.x509.public_key()
        rsa_4096 = isinstance(issuing, rsa.RSAPublicKey) and issuing.key_size == _RSA_BITS
        findings.expect(rsa_4096, "algorithm_not_allowed", _short(item), want=f"an RSA key of {_RSA_BITS} bits")
    for item in path:
        inner = item.x509
        signed = _is_amd_pss(inner.signature_algorithm_parameters, inner.signature_hash_algorithm)
        findings.expect(signed, "algorithm_not_allowed", f"signature of {_short(item)}", want=_PSS)


def _is_amd_pss(parameters: object, chosen: hashes.HashAlgorithm | None) -> bool:
    """Tell whether a signature is RSASSA-PSS with SHA-384 and 48 bytes of salt (AMD 57230)."""
    return (
        isinstance(parameters, padding.PSS)
        and isinstance(chosen, hashes.SHA384)
        and parameters._salt_length == _SALT_BYTES  # noqa: SLF001 - the library has no public name for it
    )


def _name(certificate: Certificate) -> str:
    return certificate.x509.subject.rfc4514_string()


def _short(certificate: Certificate) -> str:
    """Return the common name, with which AMD's names begin."""
    return certificate.shown.partition(",")[0]
