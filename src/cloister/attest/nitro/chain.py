"""The certificates of a Nitro document: from the pinned root to the key that signed it.

"Nitro Enclaves Attestation Process", sections 3.2.3 and 3.2.4. The order of the bundle is fixed: root first, then
downwards. Revocation lists are named in the certificates and AWS says to leave them out (section 3.2.4): what limits
the damage are the windows of the chain, three hours for the enclave and a day for its instance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from cloister.attest.chain import Certificate, verify_chain
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloister.attest.nitro.document import NitroDocument

__all__ = ["NitroChain", "parse_chain", "verify_signer"]

NitroChain = tuple[Certificate, ...]
"""Signing certificate first, root last."""


def parse_chain(document: NitroDocument) -> NitroChain:
    """Parse every certificate of the document. Raises ``Malformed``."""
    return tuple(Certificate.parse(item) for item in (document.certificate, *reversed(document.cabundle)))


def verify_signer(chain: NitroChain, roots: Sequence[Certificate], now: datetime) -> None:
    """Prove that a pinned root vouches for the signing certificate along exactly this chain.

    Raises ``Rejected``: ``untrusted_root``, ``chain_invalid``, ``cert_not_yet_valid``, ``cert_expired``,
    ``algorithm_not_allowed``. Does not look at the document's signature.
    """
    leaf, *between, root = chain
    if root.der not in [item.der for item in roots]:
        raise Rejected.because("untrusted_root", root.shown, want=" or ".join(item.shown for item in roots))
    path = verify_chain(leaf, between, roots, now)
    if [item.der for item in path] != [item.der for item in chain]:  # section 3.2.3: order and no strays
        got = " < ".join(item.shown for item in path)[:240]
        raise Rejected.because("chain_invalid", "cabundle", got=got, want="the chain in its order")
    _verify_leaf(leaf)


def _verify_leaf(leaf: Certificate) -> None:
    """Demand a certificate that signs and is no authority (section 3.2.3.3)."""
    found = {item.oid: item.value for item in leaf.x509.extensions}
    usage = found.get(ExtensionOID.KEY_USAGE)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature:
        raise Rejected.because("chain_invalid", leaf.shown, got="key usage", want="digitalSignature")
    basic = found.get(ExtensionOID.BASIC_CONSTRAINTS)
    if isinstance(basic, x509.BasicConstraints) and (basic.ca or basic.path_length is not None):
        raise Rejected.because("chain_invalid", leaf.shown, got="an authority", want="ca false")
