"""Reference values: signed by who answers for them, never older, never empty, and no door by themselves (T18)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind
from cloister.attest.reference import (
    MAX_REFERENCE_BYTES,
    ReferenceValues,
    into_policy,
    sign_reference,
    verify_reference,
)
from cloister.attest.rules import AtLeast, AtMost, Exact, NoneOf, NotChecked, OneOf, Rule
from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.errors import Malformed, Rejected, UsageError
from cloister.wire import dump_json
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

SNP, TDX = TeeKind("snp"), TeeKind("tdx")
KEY, OTHER = SigningKey(b"k" * 32), SigningKey(b"o" * 32)
VALUES = ReferenceValues(
    name="ward 3 firmware",
    version=3,
    made_at=datetime(2026, 11, 28, tzinfo=UTC),
    tees={SNP: {"measurement": ("aa", "bb"), "guest_svn": (3, 4)}},
    inputs={"firmware": "11" * 32, "vcpus": "4"},
)


def document(**members: Any) -> bytes:
    """Return a set with some members otherwise; ``...`` takes one away."""
    made = {**json.loads(VALUES.dump()), **members}
    return json.dumps({name: value for name, value in made.items() if value is not ...}).encode()


def policy(**rules: Rule) -> Policy:
    return Policy(version=5, tees={SNP: TeePolicy(rules or {"debug": Exact(value=False)})})


def applied(old: Policy, **claims: tuple[str | int, ...]) -> dict[str, Rule]:
    made = into_policy(replace(VALUES, tees={SNP: claims}), old, version=6)
    assert (made.version, set(made.tees)) == (6, {SNP})
    return dict(made.tees[SNP].rules)


def test_a_set_is_read_as_it_was_written_and_its_bytes_are_canonical() -> None:
    assert ReferenceValues.parse(VALUES.dump()) == VALUES
    assert dump_json(json.loads(VALUES.dump())) == VALUES.dump()
    assert ReferenceValues.parse(document()) == VALUES


def test_a_signed_set_is_verified_with_the_key_that_is_pinned() -> None:
    signed = sign_reference(VALUES, KEY)
    assert verify_reference(signed, [KEY.verify_key]) == VALUES
    assert verify_reference(signed, [OTHER.verify_key, KEY.verify_key]) == VALUES
    assert verify_reference(signed, [KEY.verify_key], newer_than=2) == VALUES


def refusal(signed: bytes, *keys: SigningKey, newer_than: int = 0) -> str:
    with pytest.raises(Rejected) as refused:
        verify_reference(signed, [key.verify_key for key in keys], newer_than=newer_than)
    return refused.value.code


def test_a_set_that_somebody_else_signed_is_refused() -> None:
    assert refusal(sign_reference(VALUES, OTHER), KEY) == "unknown_key"
    assert refusal(sign_reference(VALUES, KEY)) == "unknown_key"


@pytest.mark.parametrize("version", [3, 4, 2**53 - 1])
def test_t18_a_set_that_is_not_newer_is_refused(version: int) -> None:
    assert refusal(sign_reference(VALUES, KEY), KEY, newer_than=version) == "reference_version_old"


def test_a_policy_or_any_other_statement_of_the_same_key_is_no_set() -> None:
    other = next(label for label in Label if label is not Label.REFERENCE_VALUES)
    assert refusal(Statement.sign(KEY, other, VALUES.dump()).dump(), KEY) == "wrong_statement"


def test_a_payload_put_into_somebody_elses_signature_is_refused() -> None:
    signed = json.loads(sign_reference(VALUES, KEY))
    newer = json.loads(sign_reference(replace(VALUES, version=9), OTHER))
    swapped = dump_json({**signed, "payload": newer["payload"]})
    assert refusal(swapped, KEY) == "signature_invalid"


def test_signed_bytes_that_are_no_set_are_malformed_after_the_signature() -> None:
    for payload in (b"{}", b"not json", document(), dump_json(json.loads(document(tees={})))):
        signed = Statement.sign(KEY, Label.REFERENCE_VALUES, payload).dump()
        with pytest.raises(Malformed):
            verify_reference(signed, [KEY.verify_key])
        assert refusal(signed, OTHER) == "unknown_key"


@pytest.mark.parametrize(
    "members",
    [
        {"v": 2},
        {"v": True},
        {"v": ...},
        {"version": 0},
        {"version": 2**53},
        {"version": "3"},
        {"name": ""},
        {"name": "x" * 201},
        {"name": "a\x1b[2J"},
        {"made_at": "yesterday"},
        {"made_at": "2026-11-28T00:00:00"},
        {"made_at": 0},
        {"tees": {}},
        {"tees": []},
        {"tees": {"snp": {}}},
        {"tees": {"snp": []}},
        {"tees": {"SNP": {"measurement": ["aa"]}}},
        {"tees": {"*": {"measurement": ["aa"]}}},
        {"tees": {f"t{index}": {"measurement": ["aa"]} for index in range(17)}},
        {"tees": {"snp": {"measurement": []}}},
        {"tees": {"snp": {"measurement": "aa"}}},
        {"tees": {"snp": {"measurement": ["aa", ""]}}},
        {"tees": {"snp": {"measurement": ["x" * 257]}}},
        {"tees": {"snp": {"measurement": ["aa\n"]}}},
        {"tees": {"snp": {"measurement": ["a\u202eb"]}}},
        {"tees": {"snp": {"measurement": ["aa", "aa"]}}},
        {"tees": {"snp": {"measurement": [None]}}},
        {"tees": {"snp": {"measurement": [["aa"]]}}},
        {"tees": {"snp": {"debug": [False]}}},
        {"tees": {"snp": {"debug": ["aa", True]}}},
        {"tees": {"snp": {"guest_svn": [1.5]}}},
        {"tees": {"snp": {"guest_svn": [-1]}}},
        {"tees": {"snp": {"guest_svn": [2**53]}}},
        {"tees": {"snp": {"measurement": [str(index) for index in range(257)]}}},
        {"tees": {"snp": {f"c{index}": ["aa"] for index in range(129)}}},
        {"tees": {"snp": {"Measurement": ["aa"]}}},
        {"tees": {"snp": {"a.b.c": ["aa"]}}},
        {"inputs": []},
        {"inputs": {"": "x"}},
        {"inputs": {"Upper": "x"}},
        {"inputs": {"firmware": 1}},
        {"inputs": {"firmware": "x" * 401}},
        {"inputs": {"firmware": "\x1b"}},
        {"inputs": {f"i{index}": "x" for index in range(33)}},
        {"inputs": ...},
        {"signed_by": "me"},
    ],
    ids=lambda members: str(members)[:60],
)
def test_t18_a_set_that_is_not_in_form_is_malformed(members: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        ReferenceValues.parse(document(**members))


def test_a_set_over_its_limit_is_malformed() -> None:
    with pytest.raises(Malformed, match="want at most"):
        ReferenceValues.parse(document() + b" " * MAX_REFERENCE_BYTES)


def test_doubles_and_what_is_no_json_are_malformed() -> None:
    double = document().replace(b'"name"', b'"name": "another", "name"', 1)
    for data in (b"", b"[]", b"{", double, document()[:-1]):
        with pytest.raises(Malformed):
            ReferenceValues.parse(data)


def test_ten_thousand_mutations_of_a_set_only_malformed_and_what_parses_becomes_rules() -> None:
    for data in mutated(VALUES.dump()):
        try:
            values = ReferenceValues.parse(data)
        except Malformed:
            continue
        assert ReferenceValues.parse(values.dump()) == values
        into_policy(values, policy(), version=6)  # whatever was read can be a rule


def test_mutations_of_a_signed_set_are_refused() -> None:
    signed = sign_reference(VALUES, KEY)
    for data in mutated(signed, count=2000):
        try:
            values = verify_reference(data, [KEY.verify_key])
        except (Malformed, Rejected):
            continue
        assert values == VALUES  # only spaces were changed


@pytest.mark.parametrize(
    "make",
    [
        lambda: replace(VALUES, tees={}),
        lambda: replace(VALUES, tees={SNP: {}}),
        lambda: replace(VALUES, tees={SNP: {"measurement": ()}}),
        lambda: replace(VALUES, tees={SNP: {"measurement": ("",)}}),
        lambda: replace(VALUES, version=0),
        lambda: replace(VALUES, name=""),
        lambda: replace(VALUES, made_at=datetime(2026, 11, 28)),  # noqa: DTZ001 - the mistake
    ],
)
def test_what_nobody_could_read_is_never_signed(make: Callable[[], ReferenceValues]) -> None:
    with pytest.raises(UsageError):
        sign_reference(make(), KEY)


# Into a policy.


def test_every_claim_of_the_set_gets_a_rule_and_other_rules_stay() -> None:
    rules = applied(policy(debug=Exact(value=False)), measurement=("aa", "bb"), guest_svn=(3,))
    assert rules == {"debug": Exact(value=False), "measurement": OneOf(("aa", "bb")), "guest_svn": OneOf((3,))}


@pytest.mark.parametrize("old", [NotChecked("until they are computed"), OneOf(("old", "aa")), Exact("old")])
def test_values_take_the_place_of_those_that_the_policy_lists(old: Rule) -> None:
    assert applied(policy(measurement=old), measurement=("aa",)) == {"measurement": OneOf(("aa",))}


def test_a_tee_that_the_policy_does_not_name_stays_refused() -> None:
    values = replace(VALUES, tees={TDX: {"mrtd": ("aa",)}, SNP: {"measurement": ("aa",)}})
    made = into_policy(values, policy(), version=6)
    assert set(made.tees) == {SNP}
    assert into_policy(replace(VALUES, tees={TDX: {"mrtd": ("aa",)}}), policy(), version=6).tees == policy().tees


@pytest.mark.parametrize(
    ("old", "given", "left"),
    [
        (NoneOf(("bad",)), ("bad", "aa"), ("aa",)),
        (NoneOf((1,)), ("aa", 1, 2), (2,)),
        (AtLeast(5), (4, 5, 6), (5, 6)),
        (AtMost(5), (4, 5, 6), (4, 5)),
        (AtLeast(5), ("7", 7), (7,)),
    ],
)
def test_t12_a_deny_list_and_a_bound_stay_in_force(
    old: Rule, given: tuple[str | int, ...], left: tuple[str | int, ...]
) -> None:
    assert applied(policy(claim=old), claim=given) == {"claim": OneOf(left)}


@pytest.mark.parametrize(
    ("old", "given"),
    [
        (NoneOf(("bad",)), ("bad",)),
        (AtLeast(5), (1, 4)),
        (AtMost(5), (6,)),
        (Exact(value=False), (0, "false")),
        (Exact(value=True), (1,)),
    ],
)
def test_t18_values_that_the_policys_own_rule_refuses_do_not_replace_it(
    old: Rule, given: tuple[str | int, ...]
) -> None:
    with pytest.raises(UsageError, match="snp claim: the policy's own rule refuses every value"):
        applied(policy(claim=old), claim=given)


def test_an_empty_set_made_in_memory_becomes_no_rule() -> None:
    with pytest.raises(UsageError):
        applied(policy(), measurement=())
