"""What a verifier needs from Intel's Provisioning Certification Service, as one JSON object.

Format: docs/spec/evidence-intel.md section 3.

The members are those of ``QuoteCollateralV3`` as verifiers exchange it: signed texts exactly as they were signed, their
signatures and revocation lists as hex, chains as PEM. The object itself is nobody's statement: everything in it is.

Not done here: any signature or window (``verify``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.chain import parse_certificates
from cloister.attest.crl import RevocationList
from cloister.attest.intel.qeidentity import QeIdentity
from cloister.attest.intel.tcbinfo import TcbInfo
from cloister.errors import Malformed
from cloister.wire import Fields

if TYPE_CHECKING:
    from cloister.attest.chain import Certificate

__all__ = ["MAX_COLLATERAL_BYTES", "Collateral", "Signed", "pem_certificates"]

MAX_COLLATERAL_BYTES = 512 * 1024  # bytes of one object; 20 KiB are usual, revocation lists grow
_MAX_PEM_CHARS = 32 * 1024  # characters of one chain
_MAX_TEXT_CHARS = 128 * 1024  # characters of one signed text
_MAX_CRL_CHARS = 256 * 1024  # hex digits of one revocation list
_SIGNATURE_BYTES = 64  # r and s
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signed text: its exact bytes, r and s, and the chain of the key, the key's own certificate first."""

    text: bytes
    signature: bytes
    chain: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """Everything parsed, nothing verified. ``raw`` are the members as they came, for the second verifier.

    A list is None where nothing was published: nobody knows then what is revoked.
    """

    raw: dict[str, str]
    tcb_info: TcbInfo
    tcb_info_signed: Signed
    qe_identity: QeIdentity
    qe_identity_signed: Signed
    root_crl: RevocationList | None
    pck_crl: RevocationList | None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse one object to its end.

        Raises ``Malformed``; ``Rejected`` (``unsupported_format``) for versions of the signed texts we do not read.
        """
        fields = Fields.parse(data, what="intel collateral", cap=MAX_COLLATERAL_BYTES)
        raw = {
            "pck_crl_issuer_chain": _text(fields, "pck_crl_issuer_chain", cap=_MAX_PEM_CHARS),
            "root_ca_crl": _hex(fields, "root_ca_crl", floor=0),
            "pck_crl": _hex(fields, "pck_crl", floor=0),
            "tcb_info_issuer_chain": _text(fields, "tcb_info_issuer_chain", cap=_MAX_PEM_CHARS),
            "tcb_info": _text(fields, "tcb_info", cap=_MAX_TEXT_CHARS),
            "tcb_info_signature": _hex(fields, "tcb_info_signature"),
            "qe_identity_issuer_chain": _text(fields, "qe_identity_issuer_chain", cap=_MAX_PEM_CHARS),
            "qe_identity": _text(fields, "qe_identity", cap=_MAX_TEXT_CHARS),
            "qe_identity_signature": _hex(fields, "qe_identity_signature"),
        }
        if "pck_certificate_chain" in fields:
            fields.take("pck_certificate_chain")  # an answer to quotes without their chain, which we do not verify
        fields.end()
        return cls(
            raw=raw,
            tcb_info=TcbInfo.parse(raw["tcb_info"].encode()),
            tcb_info_signed=_signed(raw, "tcb_info"),
            qe_identity=QeIdentity.parse(raw["qe_identity"].encode()),
            qe_identity_signed=_signed(raw, "qe_identity"),
            root_crl=_crl(raw["root_ca_crl"]),
            pck_crl=_crl(raw["pck_crl"]),
        )


def pem_certificates(data: bytes) -> tuple[Certificate, ...]:
    """Parse a PEM chain; Intel's tools end it with a zero byte. Raises ``Malformed``."""
    return parse_certificates(data.rstrip(b"\x00"))


def _signed(raw: dict[str, str], name: str) -> Signed:
    signature = bytes.fromhex(raw[f"{name}_signature"])
    if len(signature) != _SIGNATURE_BYTES:
        msg = f"intel collateral: {name} signature is {len(signature)} bytes, want {_SIGNATURE_BYTES}"
        raise Malformed(msg)
    chain = pem_certificates(raw[f"{name}_issuer_chain"].encode())
    return Signed(text=raw[name].encode(), signature=signature, chain=chain)


def _crl(digits: str) -> RevocationList | None:
    return RevocationList.parse(bytes.fromhex(digits)) if digits else None


def _text(fields: Fields, name: str, *, cap: int, floor: int = 1) -> str:
    """Return a string as it is: the signed texts are JSON and the chains PEM, with lines of their own."""
    got = fields.take(name)
    if not isinstance(got, str) or not floor <= len(got) <= cap:
        fields.fail(name, f"want a string of {floor} to {cap} characters")
    if not got.isascii():  # so that its bytes are what Intel signed in every encoding
        fields.fail(name, "want ascii")
    return got


def _hex(fields: Fields, name: str, *, floor: int = 1) -> str:
    got = _text(fields, name, cap=_MAX_CRL_CHARS, floor=floor)
    if not _HEX.fullmatch(got):
        fields.fail(name, "want hex")
    return got
