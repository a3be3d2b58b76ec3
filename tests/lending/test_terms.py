"""The loan as a value: strict form, one spelling, and which meters an inference falls under."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cloister.errors import Malformed
from cloister.lending.terms import (
    LOAN_METER,
    MAX_CEILING,
    MAX_CONSUMERS,
    MAX_MODELS,
    MAX_TTL_S,
    Consumer,
    ConsumerId,
    LoanId,
    ModelDigest,
    ModelTerms,
    OutageRule,
    Terms,
    consumer_meter,
    meters_in,
    meters_of,
    model_meter,
    unserved_cap,
)
from mutations import mutated

DIGEST = ModelDigest("ab" * 32)
DIGITS = ModelTerms(name="digits", digest=DIGEST, metered=True)
OTHER = ModelTerms(name="other-1.2_x", digest=DIGEST)
CLINIC = Consumer(id=ConsumerId("clinic-1"), token_sha256=b"\x11" * 32, metered=True)
WARD = Consumer(id=ConsumerId("ward"), token_sha256=b"\x12" * 32)
TERMS = Terms(
    loan=LoanId("loan-abcdefghij234567"),
    borrower="Étude & Söhne 病院",
    models=(DIGITS, OTHER),
    consumers=(CLINIC, WARD),
)


def _json(terms: Terms = TERMS) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(terms.dump())
    return value


@pytest.mark.parametrize(
    "terms",
    [
        TERMS,
        replace(TERMS, consumers=None),
        replace(TERMS, consumers=()),
        replace(TERMS, ttl=timedelta(seconds=MAX_TTL_S), rate_cap=5, max_ceiling=1, max_instances=1000, version=7),
    ],
)
def test_terms_round_trip(terms: Terms) -> None:
    assert Terms.from_json(_json(terms)) == terms
    assert Terms.from_json(_json(terms)).dump() == terms.dump()


def test_the_defaults_are_the_documented_ones() -> None:
    assert (TERMS.ttl, TERMS.rate_cap, TERMS.max_ceiling, TERMS.max_instances) == (timedelta(seconds=60), 0, 1000, 4)
    assert TERMS.outage is OutageRule.STOP


@pytest.mark.parametrize("member", sorted(_json()))
def test_every_missing_member_is_malformed(member: str) -> None:
    value = _json()
    del value[member]
    with pytest.raises(Malformed, match=member):
        Terms.from_json(value)


@pytest.mark.parametrize("inside", ["terms", "model", "consumer"])
def test_an_unknown_member_is_malformed(inside: str) -> None:
    value = _json()
    {"terms": value, "model": value["models"][0], "consumer": value["consumers"][0]}[inside]["sudo"] = True
    with pytest.raises(Malformed, match="unknown member"):
        Terms.from_json(value)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("v", 2),
        ("version", 0),
        ("loan", "loan-1"),
        ("loan", "loan-ABCDEFGHIJ234567"),
        ("loan", "loan-abcdefghij23456/"),
        ("borrower", ""),
        ("borrower", "x" * 201),
        ("borrower", "a\r\nb"),
        ("borrower", "\u202eevil"),
        ("borrower", "a\x00b"),
        ("models", []),
        ("models", [_json()["models"][0]] * 2),
        ("models", [{**_json()["models"][0], "name": f"m{n}"} for n in range(MAX_MODELS + 1)]),
        ("consumers", {}),
        ("consumers", [_json()["consumers"][0]] * 2),
        ("consumers", [{**_json()["consumers"][0], "id": f"c{n}"} for n in range(MAX_CONSUMERS + 1)]),
        ("ttl_s", 0),
        ("ttl_s", -1),
        ("ttl_s", MAX_TTL_S + 1),
        ("ttl_s", 10**9),
        ("ttl_s", 60.0),
        ("rate_cap", -1),
        ("rate_cap", MAX_CEILING + 1),
        ("max_ceiling", 0),
        ("max_ceiling", MAX_CEILING + 1),
        ("max_ceiling", "1000"),
        ("max_instances", 0),
        ("max_instances", 1001),
        ("max_instances", True),
        ("outage", "serve"),
        ("outage", ""),
    ],
)
def test_terms_out_of_bounds_are_malformed(member: str, value: object) -> None:
    with pytest.raises(Malformed):
        Terms.from_json({**_json(), member: value})


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "Digits",
        ".",
        "..",
        "../x",
        "a/b",
        "a b",
        "-a",
        "a-",
        "_a",
        "a.",
        "a\n",
        "é",
        "a" * 65,
        "'; drop table loans",
        "%2e",
    ],
)
def test_a_name_that_is_unsafe_in_a_path_or_has_twins_is_malformed(name: str) -> None:
    for place, member in (("models", "name"), ("consumers", "id")):
        value = copy.deepcopy(_json())
        value[place][0][member] = name
        with pytest.raises(Malformed):
            Terms.from_json(value)


@pytest.mark.parametrize("digest", ["", "ab", "AB" * 32, "ab" * 33, "zz" * 32, "ab" * 31 + "a\n"])
def test_a_digest_that_is_no_sha_256_is_malformed(digest: str) -> None:
    for place, member in (("models", "digest"), ("consumers", "token_sha256")):
        value = copy.deepcopy(_json())
        value[place][0][member] = digest
        with pytest.raises(Malformed):
            Terms.from_json(value)


@pytest.mark.parametrize(
    ("model", "consumer", "want"),
    [
        (OTHER, None, ("loan",)),
        (OTHER, WARD, ("loan",)),
        (DIGITS, None, ("loan", "model:digits")),
        (OTHER, CLINIC, ("loan", "consumer:clinic-1")),
        (DIGITS, CLINIC, ("loan", "model:digits", "consumer:clinic-1")),
    ],
)
def test_an_inference_falls_under_every_meter_it_names(
    model: ModelTerms, consumer: Consumer | None, want: tuple[str, ...]
) -> None:
    assert meters_of(model, consumer) == want


def test_meters_of_models_and_consumers_never_meet() -> None:
    assert len({LOAN_METER, model_meter("loan"), consumer_meter(ConsumerId("loan"))}) == 3


@pytest.mark.parametrize(
    ("consumers", "want"),
    [
        (TERMS.consumers, ("loan", "model:digits", "consumer:clinic-1")),
        ((), ("loan", "model:digits")),
        (None, ("loan", "model:digits")),
    ],
)
def test_terms_know_every_meter_they_have(consumers: tuple[Consumer, ...] | None, want: tuple[str, ...]) -> None:
    assert meters_in(replace(TERMS, consumers=consumers)) == want


@pytest.mark.parametrize(
    ("rate_cap", "ttl_s", "max_ceiling", "want"),
    [(0, 60, 1000, 1000), (5, 60, 1000, 300), (5, 60, 100, 100), (1, 1, 1000, 1)],
)
def test_what_one_crash_may_lose_is_bounded_by_ceiling_and_rate(
    rate_cap: int, ttl_s: int, max_ceiling: int, want: int
) -> None:
    terms = replace(TERMS, rate_cap=rate_cap, ttl=timedelta(seconds=ttl_s), max_ceiling=max_ceiling)
    assert unserved_cap(terms) == want


@pytest.mark.parametrize(
    ("max_ceiling", "untrusted_ceiling", "want"),
    [(1000, None, 100), (40, None, 5), (3, None, 3), (1000, 7, 7), (1000, 1000, 1000)],
)
def test_an_untrusted_clock_makes_n_smaller_and_never_larger(
    max_ceiling: int, untrusted_ceiling: int | None, want: int
) -> None:
    terms = replace(TERMS, max_ceiling=max_ceiling, untrusted_ceiling=untrusted_ceiling)
    assert unserved_cap(terms, trusted=False) == want
    assert unserved_cap(replace(terms, rate_cap=1, ttl=timedelta(seconds=2)), trusted=False) <= min(2, want)
    assert Terms.from_json(json.loads(terms.dump())) == terms
    assert ("untrusted_ceiling" in _json(terms)) == (untrusted_ceiling is not None)


@pytest.mark.parametrize("value", [0, -1, 1001, None, True, "5", 1.0])
def test_an_untrusted_ceiling_is_one_to_max_ceiling_or_not_there(value: object) -> None:
    with pytest.raises(Malformed):
        Terms.from_json(_json() | {"untrusted_ceiling": value})


def test_a_model_is_found_by_its_exact_name() -> None:
    assert TERMS.model("digits") is DIGITS
    assert TERMS.model("Digits") is None
    assert TERMS.model("") is None


def test_ten_thousand_mutations_only_malformed() -> None:
    honest = TERMS.dump()
    for data in mutated(honest):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            continue
        try:
            terms = Terms.from_json(value)
        except Malformed:
            continue
        assert Terms.from_json(json.loads(terms.dump())) == terms
