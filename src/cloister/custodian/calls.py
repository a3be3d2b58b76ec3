"""One HTTP call as a value: who calls, what for, with which body; and what a route is."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias, TypeVarTuple, Unpack

from cloister.custodian.config import MAX_BODY_BYTES
from cloister.custodian.service import OnceKey
from cloister.custodian.service.standing import parse_loan_id
from cloister.custodian.tokens import SYSTEM, Actor, Role
from cloister.errors import Malformed, Rejected
from cloister.wire import Fields, Json, dump_json, lp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography import x509

    from cloister.custodian.duty import Approved, Duty
    from cloister.custodian.service import CustodianService, Transaction
    from cloister.lending.terms import LoanId

__all__ = [
    "ANYBODY",
    "BORROWER",
    "JSON_TYPE",
    "STATEMENT_TYPE",
    "Again",
    "Body",
    "Call",
    "Handler",
    "Member",
    "Reply",
    "Route",
    "Wanted",
    "changed",
    "json_reply",
    "statement_reply",
]

JSON_TYPE = "application/json"
STATEMENT_TYPE = "application/vnd.dsse.envelope.v1+json"
_ONCE_KEY = re.compile(r"[\x21-\x7e]{1,200}")

ANYBODY: frozenset[Role] | None = None
"""A route that needs no token; spelled out, never the default."""
BORROWER = frozenset({Role.BORROWER})


class Body(Enum):
    """What a route reads."""

    NONE = "none"
    JSON = "json"
    STATEMENT = "statement"
    TEXT = "text"


class Wanted(Enum):
    """Whose certificate a route wants where the settings say so, a host's always (``peers``)."""

    NOTHING = "nothing"
    INSTANCE = "instance"
    HOLDER = "holder"
    HOST = "host"


class Again(Enum):
    """What comes of a change that is asked for again, by who did not hear the answer, as the documentation says it.

    One of them takes the client's word for what is the same. For the others a key would add nothing, or do harm.
    """

    KEYED = "Takes `Idempotency-Key`."
    SIGNED = "Sent again: the same signed message counts once."
    SINGLE = "Sent again: refused, for it can be done once."
    SETTLED = "Sent again: finds done what is done, and answers how it stands then."
    FRESH = "Sent again: another challenge, for none is given twice."
    LOGGED = "Sent again: logged again, for no look goes unseen."


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of a JSON body or of a query, for the documentation."""

    name: str
    type: str
    doc: str
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, its sender proven and its route's role granted. ``body`` is raw and bounded."""

    service: CustodianService
    actor: Actor
    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    once_key: str | None = None
    accept: str = ""
    """The media types that the caller likes, as it said so; for a route that has several."""
    certificate: x509.Certificate | None = field(default=None, repr=False)
    """What the caller showed, on a route that is for who shows one."""
    carrier: Callable[[Callable[[Transaction], Json]], Json] | None = field(default=None, repr=False)
    """Carries out what ``run`` is given, in another way than at once: as a proposal, or in an approval."""
    approved: Approved | None = None
    """What two persons decided, in the call that carries it out, and only there."""

    @property
    def loan(self) -> LoanId:
        """The loan in the path. A borrower sees its own and no trace of any other (no existence oracle)."""
        loan = parse_loan_id(self.parameters["loan"])
        if self.actor.role is Role.BORROWER and loan != self.actor.loan:
            raise Rejected.because("not_found", "loan")
        return loan

    def fields(self) -> Fields:
        """Return the members of the body; an absent body is an empty object."""
        return Fields.parse(self.body or b"{}", what="request body", cap=MAX_BODY_BYTES)

    def number(self, name: str, *, default: int, floor: int, cap: int) -> int:
        """Return a query parameter of digits. Raises ``Malformed``."""
        text = self.query.get(name, str(default))
        if not re.fullmatch(r"-?[0-9]{1,16}", text, re.ASCII) or not floor <= int(text) <= cap:
            msg = f"query: {name}: want an integer of {floor} to {cap}"
            raise Malformed(msg)
        return int(text)

    def change(self, work: Callable[[Transaction, Fields], Json]) -> Json:
        """Run a use case over the body's members, which are taken anew each time that it is run."""
        self.fields()  # what is no json object opens no transaction
        return self.run(lambda transaction: work(transaction, self.fields()))

    def run(self, work: Callable[[Transaction], Json]) -> Json:
        """Run a use case in one transaction, once for each Idempotency-Key of this actor."""
        return self.service.run(work, self.once()) if self.carrier is None else self.carrier(work)

    def once(self) -> OnceKey | None:
        """Return the Idempotency-Key with what it is for, None where there is none. Raises ``Malformed``."""
        if self.once_key is None:
            return None
        if not _ONCE_KEY.fullmatch(self.once_key):
            msg = "idempotency-key: want 1 to 200 visible ascii characters"
            raise Malformed(msg)
        return OnceKey(actor=self.actor.id, key=self.once_key, digest=self.digest)

    @property
    def digest(self) -> bytes:
        """The SHA-256 of what is asked for: method, path, body and query, its parameters in any order."""
        query = (part.encode() for pair in sorted(self.query.items()) for part in pair)
        return hashlib.sha256(lp(self.method.encode(), self.path.encode(), self.body, *query)).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer."""

    body: bytes = field(repr=False)
    media_type: str = JSON_TYPE
    status: int = 200


Handler: TypeAlias = "Callable[[Call], Reply]"
Subjects = TypeVarTuple("Subjects")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the API: method, path, who may, what it takes, what it does.

    ``roles`` None means anybody. ``stream`` marks the one route that the app answers itself. ``deep`` lets the
    last parameter hold slashes: it is a path of its own. ``duty`` says when a second person has to approve,
    ``wanted`` whose certificate must be shown, ``again`` what a repeated change comes to; None for what reads.
    """

    method: str
    path: str
    roles: frozenset[Role] | None
    summary: str
    handler: Handler
    body: Body = Body.NONE
    members: tuple[Member, ...] = ()
    query: tuple[Member, ...] = ()
    answers: str = JSON_TYPE
    again: Again | None = None
    limited: bool = False
    stream: bool = False
    deep: bool = False
    duty: Duty | None = None
    wanted: Wanted = Wanted.NOTHING

    @property
    def once(self) -> bool:
        """Whether an Idempotency-Key is honoured. Where it is not, a change that is sent with one is refused."""
        return self.again is Again.KEYED


def json_reply(value: Json, *, status: int = 200) -> Reply:
    """Return a JSON answer."""
    return Reply(body=dump_json(value), status=status)


def changed(
    call: Call,
    use_case: Callable[[Transaction, Actor, Unpack[Subjects], Fields], Json],
    *subjects: *Subjects,
    status: int = 200,
) -> Reply:
    """Return what a use case answers that changes ``subjects``, as the body says, in the caller's name."""
    return json_reply(
        call.change(lambda transaction, body: use_case(transaction, call.actor, *subjects, body)), status=status
    )


def statement_reply(statement: bytes) -> Reply:
    """Return a signed statement as it is."""
    return Reply(body=statement, media_type=STATEMENT_TYPE)


NOBODY: Actor = SYSTEM
"""The actor of routes that need no token; they never act in anybody's name."""
