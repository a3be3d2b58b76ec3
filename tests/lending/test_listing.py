"""Whom a lease lets ask: known by token, blocked when named no more, replaced with its token."""

from __future__ import annotations

import hashlib

import pytest

from cloister.errors import Rejected
from cloister.lending.listing import Listing
from cloister.lending.terms import Consumer, ConsumerId


def consumer(name: str, token: bytes) -> Consumer:
    return Consumer(id=ConsumerId(name), token_sha256=hashlib.sha256(token).digest())


def refused(listing: Listing, token: bytes | None) -> str:
    with pytest.raises(Rejected) as caught:
        listing.find(token)
    return caught.value.code


def test_a_token_is_its_consumers_and_no_other_ones() -> None:
    alice, bob = consumer("alice", b"a"), consumer("bob", b"b")
    listing = Listing((alice, bob), None)
    assert (listing.find(b"a"), listing.find(b"b")) == (alice, bob)
    assert {refused(listing, token) for token in (None, b"", b"c", alice.token_sha256)} == {"unauthorized"}


def test_a_consumer_of_the_grant_alone_is_known_and_blocked() -> None:
    alice, bob = consumer("alice", b"a"), consumer("bob", b"b")
    listing = Listing((alice,), (alice, bob))
    assert listing.find(b"b") == bob
    listing.demand(alice)
    with pytest.raises(Rejected) as caught:
        listing.demand(bob)
    assert caught.value.code == "blocked"


def test_a_replaced_token_is_nobodys() -> None:
    older, newer = consumer("alice", b"old"), consumer("alice", b"new")
    listing = Listing((newer,), (older,))
    assert listing.find(b"new") == newer
    assert refused(listing, b"old") == "unauthorized"


def test_an_empty_list_lets_nobody_in_and_no_list_everybody() -> None:
    assert refused(Listing((), ()), b"a") == "unauthorized"
    assert Listing(None, (consumer("alice", b"a"),)).find(b"a") is None
    Listing(None, None).demand(consumer("alice", b"a"))


def test_it_is_of_the_very_words_it_was_made_of() -> None:
    alice = (consumer("alice", b"a"),)
    listing = Listing(alice, None)
    assert listing.is_of(alice, None)
    assert not listing.is_of((consumer("alice", b"a"),), None)
    assert not listing.is_of(alice, alice)
