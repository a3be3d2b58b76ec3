"""Whose word counts for the consumers of one loan, as an enclave gets it (docs/spec/identity.md, section 6).

Documents of issuers with the keys that speak for them now, and of their rules those that make somebody a consumer of
this loan. What a custodian lets its own staff do is not for an enclave.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.identity.issuer import Issuer, IssuerKind
from cloister.identity.issuers import Issuers, Trusted, parse_keys
from cloister.wire import Fields, Json, dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cloister.identity.rules import Grants

__all__ = ["MAX_LENT_BYTES", "MAX_LENT_ISSUERS", "dump_lent", "parse_lent"]

MAX_LENT_BYTES = 512 * 1024  # bytes of one document
MAX_LENT_ISSUERS = 32  # issuers of one loan


def dump_lent(issuers: Iterable[tuple[Issuer, bytes | None]], loan: str, consumers: Collection[str]) -> bytes:
    """Return the canonical document for a loan with these consumers.

    Each issuer comes with the keys that were fetched for it, None where its document brings them. Those without a rule
    for one of these consumers are left out, and so are those whose keys nobody has yet.
    """
    items: list[Json] = []
    for issuer, keys in sorted(issuers, key=lambda pair: pair[0].name):
        rules = tuple(rule for rule in issuer.rules if _is_for(rule.grants, loan, consumers))
        if not rules or (keys is None and issuer.keys is None):
            continue
        item: dict[str, Json] = {"issuer": replace(issuer, rules=rules).to_json()}
        if keys is not None:
            item["keys"] = parse_json(keys, what="keys")
        items.append(item)
    return dump_json({"issuers": items, "v": 1})


def _is_for(grants: Grants, loan: str, consumers: Collection[str]) -> bool:
    """Tell whether a rule makes somebody a consumer of this loan."""
    return grants.consumer in consumers and grants.loan in (None, loan)


def parse_lent(data: bytes) -> Issuers:
    """Parse. Raises ``Malformed``, and ``UsageError`` for two issuers of one name."""
    fields = Fields.parse(data, what="issuers", cap=MAX_LENT_BYTES, canonical=True)
    fields.literal("v", 1)
    items = fields.items("issuers", cap=MAX_LENT_ISSUERS)
    fields.end()
    return Issuers(_trusted(item) for item in items)


def _trusted(value: Json) -> Trusted:
    fields = Fields(value, what="issuers")
    issuer = Issuer.take(fields.fields("issuer"))
    keys = fields.optional("keys", lambda name: dump_json(fields.take(name)))
    fields.end()
    if (keys is None) == (issuer.keys is None):
        fields.fail("keys", "want them once: beside the document, or in it")
    if keys is not None and issuer.kind is IssuerKind.CERTIFICATES:
        fields.fail("keys", "not of an authority of certificates")
    spoken = issuer.keys if keys is None else keys
    return Trusted(issuer=issuer, keys=parse_keys(issuer.kind, spoken or b""))
