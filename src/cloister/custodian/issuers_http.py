"""Routes of issuers: whose word counts, about callers of the custodian and about consumers."""

from __future__ import annotations

from cloister.custodian.calls import Call, Member, Reply, changed, json_reply, statement_reply
from cloister.custodian.service import introductions, issuers
from cloister.custodian.service.leases import parse_instance_id

__all__ = ["ISSUER_MEMBERS", "issuers_for_instance", "list_issuers", "remove_issuer", "set_issuer"]

ISSUER_MEMBERS = (
    Member(name="kind", type="string", doc="`oidc`, `kubernetes`, `spiffe` or `certificates`"),
    Member(name="issuer", type="string", doc="its exact name: a URL, `spiffe://DOMAIN` or `x509:NAME`"),
    Member(name="rules", type="array", doc="`{subject?, claims?, grants}`, the first that holds counts"),
    Member(name="audiences", type="names", doc="whom tokens must be for", required=False),
    Member(name="algorithms", type="names", doc="signatures that count", required=False),
    Member(
        name="authorized_parties", type="names or object", required=False,
        doc="`oidc`: clients that tokens may be issued to, or `{not_checked: reason}`",
    ),
    Member(name="types", type="names", doc="what `typ` may be", required=False),
    Member(name="max_age_s", type="integer", doc="seconds after its issue that a token counts", required=False),
    Member(name="leeway_s", type="integer", doc="seconds that the issuer's clock may be ahead", required=False),
    Member(name="jwks_uri", type="string", doc="where the keys are, if not where discovery says", required=False),
    Member(name="keys", type="object", doc="the keys by hand: a JWKS or trust bundle", required=False),
    Member(name="authorities", type="string", doc="`certificates`: roots as PEM", required=False),
)  # fmt: skip


def issuers_for_instance(call: Call) -> Reply:
    """Tell an instance, sealed to it, whose word counts for the consumers of its loan."""
    instance = parse_instance_id(call.parameters["instance"])
    return statement_reply(introductions.answer(call.service.context, instance, call.body))


def list_issuers(call: Call) -> Reply:
    """List issuers with their documents, and how it stands with their keys."""
    return json_reply(issuers.issuer_list(call.service.context, call.service.identities.keys))


def set_issuer(call: Call) -> Reply:
    """Register an issuer of callers' identities, in the place of the one of its name."""
    return changed(call, issuers.set_issuer, status=201)


def remove_issuer(call: Call) -> Reply:
    """Trust an issuer no longer."""
    issuer = call.parameters["issuer"]
    return json_reply(call.run(lambda transaction: issuers.remove_issuer(transaction, call.actor, issuer)))
