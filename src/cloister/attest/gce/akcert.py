"""The certificate Google issues for a vTPM's attestation key (NV index 0x01c10000 RSA, 0x01c10002 ECC).

    EK/AK CA Root -> EK/AK CA Intermediate -> L=zone, O=Google Compute Engine, OU=project, CN=instance

Source: google/go-tpm-tools, client/keys.go (NV indices) and server/instance_info.go (what an AK certificate says);
the form is RFC 5280's. Endorsement keys have certificates of the same authorities.

Not done here: what the key signed (``tpm.quoted``). Revocation: Google publishes no list for these keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.x509.oid import NameOID

from cloister.attest.chain import Certificate, verify_chain
from cloister.attest.gce.instance import GceInstance, instance_of
from cloister.attest.tpm.akcert import verify_signing_leaf
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["verify_gce_ak_certificate"]


def verify_gce_ak_certificate(
    leaf: Certificate, between: Sequence[Certificate], roots: Sequence[Certificate], now: datetime
) -> GceInstance:
    """Prove that Google certifies an attestation key of an instance in production at ``now``; return the instance.

    Raises ``Malformed``; ``Rejected``: the codes of ``verify_chain``; ``chain_invalid`` for a certificate of another
    purpose, without an instance, of a test environment, or whose subject names another instance.
    """
    verify_chain(leaf, between, roots, now)
    verify_signing_leaf(leaf)
    instance = instance_of(leaf)
    if instance is None or not instance.production:
        got = "no instance" if instance is None else "not in production"
        raise Rejected.because("chain_invalid", leaf.shown, got=got, want="an instance in production")
    named = {NameOID.COMMON_NAME: str(instance.instance), NameOID.ORGANIZATIONAL_UNIT_NAME: instance.project}
    for oid, want in (named | {NameOID.LOCALITY_NAME: instance.zone}).items():
        values = [str(item.value) for item in leaf.x509.subject.get_attributes_for_oid(oid)]
        if values != [want]:
            raise Rejected.because("chain_invalid", leaf.shown, got=", ".join(values)[:128], want=want)
    return instance
