"""A certificate beside a token: ``TOKEN_FILE.pem``, or ``LOAN_FILE.pem``; key and certificate in one, mode 0600.

Where it lies, commands show it to the custodian with that token, and get another by themselves in the last half of its
life. The key is made here, for each certificate anew, and never leaves this machine.

Not done here: asking for the first one (``custodian certificate issue``), connections (``remote``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.errors import UsageError
from cloister.private_file import read_private
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

__all__ = ["Certified", "Held", "beside", "new_request", "read_held"]

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A fresh key that waits for its certificate. ``csr`` is the request, as the API takes it."""

    csr: str
    key: ec.EllipticCurvePrivateKey

    def joined(self, certificate: str) -> bytes:
        """Return key and certificate as one file's bytes."""
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem + certificate.encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A certificate that is kept: its file, its kind, and its time."""

    path: Path
    kind: str
    name: str
    begins: datetime
    ends: datetime

    def is_waning(self, now: datetime) -> bool:
        """Tell whether it is in the last half of its life."""
        return now >= self.begins + (self.ends - self.begins) / 2

    def is_over(self, now: datetime) -> bool:
        """Tell whether it has ended."""
        return now >= self.ends


def new_request() -> Certified:
    """Return a fresh key and the request for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return Certified(csr=dump_b64u(request.public_bytes(Encoding.DER)), key=key)


def beside(path: Path) -> Path:
    """Return where the certificate of a token file or a loan file lies."""
    return path.with_name(path.name + ".pem")


def read_held(path: Path) -> Held | None:
    """Return the certificate at ``path``, None where there is none. Raises ``UsageError`` for one that is no use."""
    if not path.exists():
        return None
    data = read_private(path, cap=_MAX_BYTES, holds="a private key")
    try:
        leaf = x509.load_pem_x509_certificates(data)[0]
        names: Any = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound) as exc:
        msg = f"{path}: not a key and its certificate in pem"
        raise UsageError(msg, hint="remove it, and ask for another: 'cloister custodian certificate issue'") from exc
    kind, _, name = str(uri).removeprefix("spiffe://").partition("/")[2].partition("/")
    return Held(path=path, kind=kind, name=name, begins=leaf.not_valid_before_utc, ends=leaf.not_valid_after_utc)
