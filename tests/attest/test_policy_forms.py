"""A policy in JSON, in TOML and as the schema that editors use sees it: all three say the same."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.attest.appraise import _CODES, mismatch_code
from cloister.attest.policy import MAX_POLICY_BYTES, Policy
from cloister.attest.rats import TeeKind
from cloister.attest.rules import AtLeast, AtMost, Exact, NoneOf, NotChecked, OneOf, Rule, dump_rule
from cloister.attest.schemes import KINDS
from cloister.errors import Malformed
from mutations import mutated

CASES = json.loads((Path(__file__).parents[1] / "vectors" / "policy" / "parse.json").read_text())["cases"]
RULES: list[Rule] = [
    Exact("a"),
    Exact(value=False),
    OneOf(("a", 1)),
    NoneOf(("a", "b")),
    AtLeast(0),
    AtMost(2**53 - 1),
    NotChecked("why not"),
]
JSON_POLICY = b"""{"v": 1, "version": 3, "tees": {
  "snp": {"measurement": {"one_of": ["aa", "bb"]}, "debug": {"exact": false}, "tcb.snp": {"at_least": 24},
          "product": {"none_of": ["milan"]}, "chip_id": {"not_checked": "fleet of many hosts"}},
  "nitro": {"pcr.0": {"exact": "cc"}, "age": {"at_most": 300}}}}"""
TOML_POLICY = b"""
# Ward 3, reviewed twice.
v = 1
version = 3

[tees.snp]
measurement = {one_of = [
  "aa",  # release 7
  'bb',  # release 8
]}
debug.exact = false
"tcb.snp" = {at_least = 0x18}
chip_id.not_checked = "fleet of many hosts"

[tees.snp.product]
none_of = ["milan"]

[tees.nitro]
"pcr.0" = {exact = "cc"}
age = {at_most = 3_00}
"""


def toml(rule: str) -> bytes:
    return f"v = 1\nversion = 1\n[tees.snp]\n{rule}\n".encode()


def test_a_policy_in_toml_is_the_same_policy() -> None:
    assert Policy.parse_toml(TOML_POLICY) == Policy.parse(JSON_POLICY)
    assert Policy.parse_toml(TOML_POLICY).digest == Policy.parse(JSON_POLICY).digest


def test_comments_and_line_ends_change_nothing() -> None:
    bare = b"\n".join(line.partition(b"#")[0] for line in TOML_POLICY.splitlines())
    assert bare != TOML_POLICY
    assert Policy.parse_toml(bare).digest == Policy.parse_toml(TOML_POLICY).digest
    assert Policy.parse_toml(TOML_POLICY.replace(b"\n", b"\r\n")) == Policy.parse_toml(TOML_POLICY)


@pytest.mark.parametrize(
    "rule",
    [
        "age = {at_most = 1979-05-27T07:32:00Z}",
        "age = {exact = 1979-05-27}",
        "age = {exact = 07:32:00}",
        "age = {one_of = [1979-05-27]}",
        "age = {at_most = 300.0}",
        "age = {at_most = 3e2}",
        "age = {at_most = inf}",
        "age = {at_most = nan}",
        "age = {one_of = [1.5]}",
        "age = {at_most = -1}",
        "age = {at_most = +9007199254740992}",
        "age = {at_most = " + "9" * 5000 + "}",
        "age = {at_most = 1}\nage = {at_most = 2}",
        "age = {at_most = 1, at_most = 2}",
        "age = {at_most = 1}\n[tees.snp]\ndebug = {exact = false}",
        "pcr.0 = {exact = 'aa'}",
        "age = 300",
        "age = {}",
        "age = {exact = ''}",
        "age = {one_of = []}",
        "age = {none_of = [true]}",
        "age = {exact = '''a\nb'''}",
        "debug = {exact = False}",
        "debug = {exact = yes}",
        'x = {exact = "\\ud800"}',
        'x = {exact = "\\u001b[2J"}',
        "a" * 40 + " = {exact = 1}",
        "[tees.mine]",
    ],
)
def test_t18_toml_that_json_could_not_say_is_malformed(rule: str) -> None:
    with pytest.raises(Malformed):
        Policy.parse_toml(toml(rule))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\xef\xbb\xbf" + TOML_POLICY,
        b"v = 1",
        JSON_POLICY,
        TOML_POLICY.replace(b"v = 1\n", b"v = true\n", 1),
        TOML_POLICY.replace(b"v = 1\n", b"v = 1\nv = 1\n", 1),
        TOML_POLICY + b"[allow]\nall = true\n",
        TOML_POLICY[:-3],
        b"x = " + b"[" * 5000 + b"]" * 5000,
        b"x = " + b"{a = " * 2000 + b"1" + b"}" * 2000,
        b".".join([b"a"] * 1000) + b" = 1",
        b".".join([b"a"] * 130_000) + b" = 1",
    ],
    ids=range(13),
)
def test_what_is_no_policy_in_toml_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Policy.parse_toml(data)


def test_toml_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(Malformed, match=f"{MAX_POLICY_BYTES + 1} bytes, want at most {MAX_POLICY_BYTES}"):
        Policy.parse_toml(b"#" * (MAX_POLICY_BYTES + 1))


def test_a_slip_in_toml_is_named_with_its_line() -> None:
    with pytest.raises(Malformed, match="line 4"):
        Policy.parse_toml(toml("debug = {exact = false"))
    with pytest.raises(Malformed) as refused:
        Policy.parse_toml(b"\xff\x1b[2J" * 100)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 200


def test_mutations_of_a_policy_in_toml_only_malformed() -> None:
    for data in mutated(TOML_POLICY, count=3000):
        try:
            policy = Policy.parse_toml(data)
        except Malformed:
            continue
        assert Policy.parse(policy.dump()) == policy


@pytest.mark.parametrize("case", [case for case in CASES if "policy" in case], ids=lambda case: case["name"])
def test_toml_is_refused_where_json_is(case: dict[str, Any]) -> None:
    """Written as TOML by hand: strings, numbers, arrays and inline tables are spelled alike."""
    try:
        data = _toml(case["policy"])
    except TypeError:  # null is nothing that toml can say
        assert case["expect"] == "Malformed"
        return
    if case["expect"] == "Malformed":
        with pytest.raises(Malformed):
            Policy.parse_toml(data)
    else:
        assert Policy.parse_toml(data) == Policy.parse(json.dumps(case["policy"]).encode())


def _toml(policy: Any) -> bytes:
    if not isinstance(policy, dict):
        return b"x = " + _inline(policy).encode()
    return "\n".join(f"{json.dumps(name)} = {_inline(value)}" for name, value in policy.items()).encode()


def _inline(value: Any) -> str:
    if value is None:
        raise TypeError(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_inline(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


# The schema.

SCHEMA = json.loads(
    resources.files("cloister.attest.vocabulary").joinpath("policy.schema.json").read_text(encoding="utf-8")
)
BEYOND_A_SCHEMA = {
    "the format as a fraction": "a schema takes 1.0 for an integer",
    "a version as a fraction": "a schema takes 1.0 for an integer",
    "a bound as a fraction": "a schema takes 1.0 for an integer",
    "a bound as a power": "a schema takes 3e2 for an integer",
    "double tee": "whoever reads JSON for a schema keeps the last of two members",
    "double claim": "whoever reads JSON for a schema keeps the last of two members",
    "double rule": "whoever reads JSON for a schema keeps the last of two members",
    "a character nobody assigned in a value": "no pattern knows what the next Unicode will call printable",
}
"""Vectors that a schema accepts and a reader refuses, and why."""


def accepted_by_the_schema(value: Any) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(value)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_schema_accepts_what_a_reader_accepts(case: dict[str, Any]) -> None:
    text = case["text"] if "text" in case else json.dumps(case["policy"])
    try:
        value = json.loads(text, parse_constant=float)
    except ValueError:  # not even JSON: no schema is asked
        assert case["expect"] == "Malformed"
        return
    accepts = accepted_by_the_schema(value)
    if case["name"] in BEYOND_A_SCHEMA:
        assert (accepts, case["expect"]) == (True, "Malformed")
    else:
        assert accepts == (case["expect"] == "ok")


def test_every_difference_between_schema_and_reader_is_a_vector() -> None:
    assert set(BEYOND_A_SCHEMA) <= {case["name"] for case in CASES}


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_schema_knows_every_kind_of_rule(rule: Rule) -> None:
    assert accepted_by_the_schema({"v": 1, "version": 1, "tees": {"tpm": {"claim": dump_rule(rule)}}})
    assert set(SCHEMA["$defs"]["rule"]["properties"]) == {
        name
        for item in RULES
        for name in dump_rule(item)  # type: ignore[union-attr]  # objects all
    }


def test_the_limits_of_the_schema_are_those_of_the_reader() -> None:
    for tees, rules, values in ((17, 1, 1), (1, 129, 1), (1, 1, 257), (16, 1, 1), (1, 128, 1), (1, 1, 256)):
        document = {
            "tees": {
                f"t{tee}": {f"c{rule}": {"none_of": [f"v{value}" for value in range(values)]} for rule in range(rules)}
                for tee in range(tees)
            },
            "v": 1,
            "version": 1,
        }
        try:
            Policy.parse(json.dumps(document).encode())
        except Malformed:
            assert not accepted_by_the_schema(document)
        else:
            assert accepted_by_the_schema(document)


_LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-1, 2), st.sampled_from(["a", "", "x y"]))
_KINDS = st.sampled_from(["exact", "one_of", "none_of", "at_least", "at_most", "not_checked"])
_ANY_RULE = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KINDS, inner, max_size=2)),
    max_leaves=6,
)


@given(_ANY_RULE)
def test_whatever_the_rule_schema_and_reader_agree(rule: Any) -> None:
    document = {"v": 1, "version": 1, "tees": {"tpm": {"claim": rule}}}
    try:
        Policy.parse(json.dumps(document).encode())
    except Malformed:
        assert not accepted_by_the_schema(document)
    else:
        assert accepted_by_the_schema(document)


# The page.

PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "policy.md").read_text(encoding="utf-8")


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def test_the_toml_of_the_specification_parses() -> None:
    policy = Policy.parse_toml(PAGE.split("```toml\n")[1].split("```")[0].encode())
    assert set(policy.tees[TeeKind("tpm")].rules) == {"software", "pcr.7"}


def test_every_code_of_the_specification_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \| `([a-z_]+)` \|$", PAGE.split("| claim | code |")[1], re.MULTILINE)
    documented = {claim: code for claims, code in rows for claim in names(claims)}
    assert documented == dict(_CODES)
    assert all(mismatch_code(claim) == mismatch_code(f"{claim}.part") == code for claim, code in documented.items())


def test_every_kind_of_evidence_has_its_page() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \| \[", PAGE.split("| TEE | claims")[1], re.MULTILINE)
    assert {name for row in rows for name in names(row)} == {*KINDS, "simulated"}


def test_every_rule_is_on_the_page() -> None:
    rows = re.findall(r'^\| `\{"([a-z_]+)":', PAGE, re.MULTILINE)
    assert set(rows) == set(SCHEMA["$defs"]["rule"]["properties"])
