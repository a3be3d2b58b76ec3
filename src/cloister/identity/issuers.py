"""Issuers with their keys, and the one that a token or a certificate is from.

A token is judged by the keys and the conditions of the one issuer it names, never by another's: keys of all issuers
together would let each speak for every other (RFC 8725 section 3.8).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.attest.chain import Certificate, parse_certificates
from cloister.attest.tokens.keyset import MAX_KEYSET_BYTES, KeySet, TokenKey
from cloister.errors import Malformed, Rejected, UsageError
from cloister.identity.issuer import Issuer, IssuerKind
from cloister.identity.spiffe import parse_bundle, parse_spiffe_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cloister.identity.identity import Identity
    from cloister.wire import Json

__all__ = ["Issuers", "Keys", "Trusted", "parse_keys"]

MAX_ISSUERS = 256  # issuers that one party trusts


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What speaks for an issuer: keys of tokens, roots of certificates."""

    tokens: KeySet
    roots: tuple[Certificate, ...] = ()


def parse_keys(kind: IssuerKind, data: bytes) -> Keys:
    """Parse the keys of an issuer: a JWKS, a SPIFFE bundle, or PEM certificates. Raises ``Malformed``."""
    match kind:
        case IssuerKind.SPIFFE:
            tokens, roots = parse_bundle(data)
            return Keys(tokens=tokens, roots=roots)
        case IssuerKind.CERTIFICATES:
            return Keys(tokens=KeySet(keys=()), roots=parse_certificates(data))
        case IssuerKind.OIDC | IssuerKind.KUBERNETES:
            if len(data) > MAX_KEYSET_BYTES or not data.lstrip().startswith(b"{"):
                msg = f"keys: want a jwks of at most {MAX_KEYSET_BYTES} bytes"
                raise Malformed(msg)
            return Keys(tokens=KeySet(keys=tuple(_bare(key) for key in KeySet.parse(data).keys)))


def _bare(key: TokenKey) -> TokenKey:
    """Return the key without certificates: a set is trusted as it stands, and issuers let those in it run out."""
    if key.public is None:
        msg = "keys: a jwk with a certificate and no key"
        raise Malformed(msg)
    return replace(key, x5c=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """An issuer, and the keys that speak for it now."""

    issuer: Issuer
    keys: Keys


class Issuers:
    """Every issuer that one party trusts. A value: another set of issuers or keys is another ``Issuers``."""

    __slots__ = ("_by_name",)

    def __init__(self, trusted: Iterable[Trusted]) -> None:
        """Keep them by name. Raises ``UsageError`` for two of one name, or too many."""
        items = tuple(trusted)
        self._by_name: Mapping[str, Trusted] = {item.issuer.name: item for item in items}
        if len(self._by_name) != len(items) or len(items) > MAX_ISSUERS:
            msg = f"issuers: two of one name, or more than {MAX_ISSUERS}"
            raise UsageError(msg)

    def __iter__(self) -> Iterator[Trusted]:
        """Return them, in the order given."""
        return iter(self._by_name.values())

    def of_claims(self, claims: Mapping[str, Json]) -> Trusted:
        """Return the issuer that unproven claims name: by ``iss``, or by the trust domain of a SPIFFE id.

        Raises ``Rejected`` (``issuer_unknown``).
        """
        name, subject = claims.get("iss"), claims.get("sub")
        found = self._by_name.get(name) if isinstance(name, str) else None
        if found is None and isinstance(subject, str) and subject.startswith("spiffe://"):
            found = self._by_name.get(parse_spiffe_id(subject)[0])
        if found is None or found.issuer.kind is IssuerKind.CERTIFICATES:
            raise Rejected.because("issuer_unknown", "issuer of the token", hint="register the issuer first")
        return found

    def of_identity(self, identity: Identity) -> Trusted:
        """Return the issuer that an identity was proven by. Raises ``Rejected`` (``issuer_unknown``)."""
        found = self._by_name.get(identity.issuer)
        if found is None:
            raise Rejected.because("issuer_unknown", "issuer of the identity")
        return found

    def of_trust_domain(self, domain: str) -> Trusted | None:
        """Return the SPIFFE trust domain of this name, None where it is not known."""
        return self._by_name.get(domain)

    def authorities(self) -> tuple[Trusted, ...]:
        """Return those that issue certificates under names of their own."""
        return tuple(item for item in self._by_name.values() if item.issuer.kind is IssuerKind.CERTIFICATES)
