"""Who signed an endorsement: proven before it is kept, as far as that is possible without the evidence it is for.

A list of revoked certificates by its pinned authority, TCB info and QE identity by a chain to Intel's pinned root, a
chip's certificate by the pinned ASK, a manifest by a chain to NVIDIA's pinned root, an OCSP answer by the issuer of
the certificate it is about. This keeps a swapped or garbled answer out of the cache (T15); it trusts nothing for
anybody: every scheme proves the same again with its own roots.

Not done here: token keys, which nobody signs: the TLS certificate of their host vouches for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.x509.oid import NameOID

from cloister.attest.amd.authority import pinned_trust
from cloister.attest.amd.certificates import parse_certificates
from cloister.attest.amd.products import Product
from cloister.attest.amd.vek import Vek
from cloister.attest.chain import Certificate, verify_chain
from cloister.attest.crl import RevocationList, verify_crl, verify_not_revoked
from cloister.attest.endorse.names import Kind, Name
from cloister.attest.endorse.window import Window, intel_lists, pck_authorities, window_of
from cloister.attest.intel.chain import TCB_SIGNING_NAME, is_signed
from cloister.attest.intel.collateral import Collateral
from cloister.attest.nvidia.ocsp import Answer, verify_good
from cloister.attest.nvidia.rim import Rim
from cloister.attest.nvidia.rimsignature import verify_rim_chain, verify_rim_signature
from cloister.attest.roots import vendor_certificate
from cloister.attest.rules import NotChecked
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloister.attest.amd.authority import AmdTrust

__all__ = ["STORED", "Vouch", "issuer_of", "production_vouch"]

STORED = NotChecked("a stored answer: its window bounds its age")
_KINDS = {"sgx": ("SGX", "QE"), "tdx": ("TDX", "TD_QE")}
_PCK_AUTHORITY = {"processor": "Intel SGX PCK Processor CA", "platform": "Intel SGX PCK Platform CA"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouch:
    """The vendors' authorities by which endorsements are checked as they arrive; there is no default."""

    intel_root: Certificate
    amd: AmdTrust
    rim_root: Certificate

    def verify(
        self,
        name: Name,
        data: bytes,
        now: datetime,
        *,
        certificates: Sequence[Certificate] = (),
        nonce: bytes | NotChecked = STORED,
    ) -> Window:
        """Prove that ``data`` is the object ``name``, signed by its vendor and in its window at ``now``; return that.

        For an OCSP answer ``certificates`` have the one it is about and its issuer, and ``nonce`` is that of the
        question. Raises ``Malformed``; ``Rejected`` with ``collateral_mismatch`` (an object about something else) and
        the codes of ``chain``, ``crl``, ``intel.chain``, ``nvidia.ocsp`` and ``nvidia.rimsignature``.
        """
        window = window_of(name, data)
        if now not in window:
            code = "collateral_not_yet_valid" if now < window.not_before else "collateral_expired"
            want = f"{window.not_before} to {window.not_after}"
            raise Rejected.because(code, name.text, got=str(now), want=want)
        match name.kind:
            case Kind.INTEL_COLLATERAL:
                self._intel(name, Collateral.parse(data), now)
            case Kind.AMD_CA | Kind.AMD_VLEK_CA:
                self._amd(name, parse_certificates(data), now)
            case Kind.AMD_VCEK:
                self._amd_chip(name, parse_certificates(data, zero_serial=True), now)
            case Kind.AMD_CRL:
                verify_crl(RevocationList.parse(data), self._ark(name), now)
            case Kind.NVIDIA_RIM:
                rim = Rim.parse(data)
                verify_rim_signature(rim)
                verify_rim_chain(rim, (self.rim_root,), now)
            case Kind.NVIDIA_OCSP:
                _verify_answer(name, Answer.parse(data), certificates, now, nonce)
            case Kind.JWKS:
                pass
        return window

    def _intel(self, name: Name, collateral: Collateral, now: datetime) -> None:
        tee, fmspc, authority = name.parts
        # 1. About what was asked for.
        info, identity = collateral.tcb_info, collateral.qe_identity
        _demand_same(name, f"{info.kind} {info.fmspc.hex()} {identity.kind}", _wanted(tee, fmspc))
        # 2. The list of PCK certificates by its authority, that one and all others by the pinned root's list.
        issuer, *others = pck_authorities(collateral)
        verify_chain(issuer, others, (self.intel_root,), now)
        _demand_same(name, _common_name(issuer), _PCK_AUTHORITY[authority])
        root_list, pck_list = intel_lists(collateral)
        verify_crl(root_list, self.intel_root, now)
        verify_not_revoked(issuer, root_list)
        verify_crl(pck_list, issuer, now)
        # 3. Both texts by a TCB signing key of the root's, to the byte.
        for signed in (collateral.tcb_info_signed, collateral.qe_identity_signed):
            signer, *others = signed.chain
            verify_chain(signer, others, (self.intel_root,), now)
            verify_not_revoked(signer, root_list)
            _demand_same(name, _common_name(signer), TCB_SIGNING_NAME)
            if not is_signed(signer.x509.public_key(), signed.signature, signed.text):
                raise Rejected.because("collateral_signature_invalid", name.text)

    def _ark(self, name: Name) -> Certificate:
        root = self.amd.roots.get(Product(name.parts[0].capitalize()))
        if root is None:
            raise Rejected.because("untrusted_root", name.text, got="no root of this line of processors")
        return root

    def _amd(self, name: Name, certificates: Sequence[Certificate], now: datetime) -> None:
        """Prove that each certificate is the product's root, or below it, by way of what AMD publishes beside it."""
        root = self._ark(name)
        for certificate in certificates:
            if certificate.der != root.der:
                verify_chain(certificate, self.amd.intermediates, (root,), now)

    def _amd_chip(self, name: Name, certificates: Sequence[Certificate], now: datetime) -> None:
        """Prove that it is the one certificate of this chip at this TCB."""
        vek = Vek.parse(certificates[0])
        _demand_same(name, f"{vek.product.key}/{vek.hwid.hex()}/{vek.tcb.hex()}", "/".join(name.parts))
        self._amd(name, certificates, now)


def _wanted(tee: str, fmspc: str) -> str:
    info, identity = _KINDS[tee]
    return f"{info} {fmspc.lower()} {identity}"


def _common_name(certificate: Certificate) -> str:
    names = certificate.x509.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _demand_same(name: Name, got: str, want: str) -> None:
    if got != want:
        raise Rejected.because("collateral_mismatch", name.text, got=got[:120], want=want)


def issuer_of(name: Name, certificates: Sequence[Certificate]) -> tuple[Certificate, Certificate] | None:
    """Return the certificate that an OCSP answer is about, and its issuer by name; None where one is not known."""
    about = next((item for item in certificates if f"{item.x509.serial_number:x}" == name.parts[0]), None)
    if about is None:
        return None
    issuer = next((item for item in certificates if item.x509.subject == about.x509.issuer), None)
    return None if issuer is None else (about, issuer)


def _verify_answer(
    name: Name, answer: Answer, certificates: Sequence[Certificate], now: datetime, nonce: bytes | NotChecked
) -> None:
    """Prove that the issuer answered; whatever it says about the certificate is for the scheme."""
    known = issuer_of(name, certificates)
    if known is None:
        raise Rejected.because("revocation_unknown", name.text, want="the certificate and its issuer")
    try:
        verify_good(*known, (answer,), now, nonce=nonce)
    except Rejected as exc:
        if exc.code != "revoked":
            raise


def production_vouch() -> Vouch:
    """Return the vouching by the vendors' pinned certificates."""
    return Vouch(
        intel_root=vendor_certificate("intel-sgx-root"),
        amd=pinned_trust(),
        rim_root=vendor_certificate("nvidia-rim-root"),
    )
