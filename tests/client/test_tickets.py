"""Answers of a ticketed model: counted by the custodian one by one, or refused by the consumer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from client_town import Enclave, Town, scan, unchecked

from cloister.client import Client, TicketNotProven
from cloister.client.receipts import VerifiedReceipt, receipt_of
from cloister.client.tickets import MAX_TICKET_BYTES
from cloister.crypto.sign import SigningKey, Statement
from cloister.lending.messages import Ticket
from cloister.lending.receipt import verify_receipt
from cloister.lending.terms import instance_id
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from cloister.channel.bhttp import BinaryRequest, BinaryResponse
    from cloister.channel.keyset import Keyset

OTHER = SigningKey(bytes(range(32)))


@dataclass
class TicketedEnclave(Enclave):
    """An enclave whose one model takes tickets; it asks nobody and has the custodian's key, as no enclave does."""

    ticket_change: Callable[[Ticket], Ticket | None] = lambda ticket: ticket
    ticket_key: SigningKey | None = None
    paid: int = 0

    def keyset(self) -> Keyset:
        keyset = super().keyset()
        return self.keyset_change(
            replace(keyset, models=tuple(replace(model, ticketed=True) for model in keyset.models))
        )

    def _receipted(self, request: BinaryRequest, labels: np.ndarray, units: int) -> BinaryResponse:
        response = super()._receipted(request, labels, units)
        receipt = verify_receipt(receipt_of(response.trailers)[0], self.key.verify_key)
        self.paid += 1
        ticket = self.ticket_change(
            Ticket(
                instance=receipt.instance, epoch=1, index=self.paid, req_digest=bytes(32), request=receipt.request,
                model=receipt.model, units=receipt.units, ttl=timedelta(seconds=30), block_version=0,
            )
        )  # fmt: skip
        if ticket is None:
            return response
        statement = Statement.sign(self.ticket_key or self.custodian, Ticket.LABEL, ticket.dump())
        return replace(response, trailers=(*response.trailers, ("cloister-ticket", dump_b64u(statement.dump()))))


class TicketTown(Town):
    """A town whose enclave is ticketed."""

    enclave: TicketedEnclave

    def __init__(self) -> None:
        super().__init__()
        self.enclave = TicketedEnclave(
            clock=self.clock, root=self.root, custodian=self.custodian, software=self.software
        )


@pytest.fixture
def town() -> TicketTown:
    return TicketTown()


def refused(client: Client, image: int = 1) -> list[str]:
    """Ask, and return the codes that the client refuses the answer with."""
    with pytest.raises(TicketNotProven) as caught:
        client.infer("digits", scan(image))
    assert caught.value.hint
    assert caught.value.receipt is not None
    assert VerifiedReceipt.parse(caught.value.receipt.dump()).receipt.index > 0  # what shows who lost the units
    return [reason.code for reason in caught.value.reasons]


def test_an_answer_of_a_ticketed_model_comes_with_its_proven_ticket(town: TicketTown) -> None:
    with town.client() as client:
        answers = [client.infer("digits", scan(index)) for index in (3, 4)]
    assert [answer.ticket and answer.ticket.index for answer in answers] == [1, 2]
    for answer in answers:
        kept = VerifiedReceipt.parse(answer.receipt.dump())
        assert kept.prove_ticket(town.custodian.verify_key) == answer.ticket


def test_an_answer_of_another_model_has_none_and_its_file_says_nothing_of_tickets() -> None:
    with Town().client() as client:
        answer = client.infer("digits", scan(3))
    assert answer.ticket is None
    assert b"ticket" not in answer.receipt.dump()
    with pytest.raises(TicketNotProven):
        answer.receipt.prove_ticket(OTHER.verify_key)


def test_an_answer_without_its_ticket_is_refused(town: TicketTown) -> None:
    town.enclave.ticket_change = lambda _: None
    with town.client() as client:
        assert refused(client) == ["ticket_missing"]


@pytest.mark.parametrize(
    ("members", "count"),
    [
        ({"request": bytes(32)}, 1),
        ({"instance": instance_id(OTHER.verify_key.raw)}, 1),
        ({"model": "ef" * 32}, 1),
        ({"units": 2}, 1),
        ({"units": 2, "request": bytes(32), "model": "ef" * 32}, 3),
    ],
    ids=["another request", "another instance", "another model", "more units", "everything"],
)
def test_a_ticket_for_another_inference_is_refused_with_all_that_differs(
    town: TicketTown, members: dict[str, Any], count: int
) -> None:
    town.enclave.ticket_change = lambda ticket: replace(ticket, **members)
    with town.client() as client:
        assert refused(client) == ["ticket_mismatch"] * count


def test_a_ticket_of_an_earlier_answer_pays_for_no_later_one(town: TicketTown) -> None:
    given: list[Ticket] = []

    def first(ticket: Ticket) -> Ticket:
        given.append(ticket)
        return given[0]

    town.enclave.ticket_change = first
    with town.client() as client:
        client.infer("digits", scan(1))
        assert refused(client) == ["ticket_mismatch"]  # other salt, other commitment


def test_one_ticket_shown_for_the_same_question_twice_is_found_by_its_index(town: TicketTown) -> None:
    town.enclave.salt = bytes(32)  # so that the commitment of both requests is one
    town.enclave.ticket_change = lambda ticket: replace(ticket, index=1)
    with town.client() as client:
        client.infer("digits", scan(1))
        assert refused(client) == ["ticket_reused"]


def test_an_answer_given_again_under_its_key_brings_its_ticket_again(town: TicketTown) -> None:
    with town.client() as client:
        first, again = (client.infer("digits", scan(1), idempotency_key="one") for _ in range(2))
    assert first.ticket == again.ticket


@pytest.mark.parametrize("key", [OTHER, None], ids=["a stranger", "the enclave itself"])
def test_only_the_custodian_signs_tickets(town: TicketTown, key: SigningKey | None) -> None:
    town.enclave.ticket_key = key or town.enclave.key
    with town.client() as client:
        assert refused(client) == ["unknown_key"]


def test_a_consumer_that_pins_no_custodian_holds_tickets_against_the_attested_key(town: TicketTown) -> None:
    nobody = unchecked()
    with town.client(custodian=nobody, operators=nobody) as client:
        answer = client.infer("digits", scan(1))
        assert answer.ticket is not None
        town.enclave.ticket_key = OTHER
        assert refused(client) == ["unknown_key"]


def _trailer(change: Callable[[str], tuple[str, ...]]) -> Callable[[BinaryResponse], BinaryResponse]:
    """Return what replaces the ticket's trailer by others."""

    def changed(response: BinaryResponse) -> BinaryResponse:
        lines = [
            (name, value)
            for name, old in response.trailers
            for value in (change(old) if name == "cloister-ticket" else (old,))
        ]
        return replace(response, trailers=tuple(lines))

    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda ticket: (ticket, ticket),
        lambda ticket: (ticket[:-1] + "=",),
        lambda _: ("",),
        lambda _: ("e30",),
        lambda ticket: (ticket[:200],),
        lambda _: ("A" * (2 * MAX_TICKET_BYTES),),
    ],
    ids=["twice", "no base64url", "empty", "no statement", "cut", "too long"],
)
def test_what_is_no_ticket_is_the_same_typed_refusal(
    town: TicketTown, change: Callable[[str], tuple[str, ...]]
) -> None:
    town.enclave.change = _trailer(change)
    with town.client() as client:
        assert refused(client) == ["ticket_malformed"]


def test_a_receipt_in_the_tickets_place_is_refused(town: TicketTown) -> None:
    def swap(response: BinaryResponse) -> BinaryResponse:
        return _trailer(lambda _: (dict(response.trailers)["cloister-receipt"],))(response)

    town.enclave.change = swap
    with town.client() as client:
        assert refused(client) == ["wrong_statement"]


def test_a_wrong_ticket_is_refused_also_where_the_model_takes_none(town: TicketTown) -> None:
    town.enclave.keyset_change = lambda keyset: replace(
        keyset, models=tuple(replace(model, ticketed=False) for model in keyset.models)
    )
    with town.client() as client:
        assert client.infer("digits", scan(1)).ticket is not None
        town.enclave.ticket_change = lambda ticket: replace(ticket, units=2)
        assert refused(client) == ["ticket_mismatch"]
