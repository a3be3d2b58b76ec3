"""Policies and what they say about claims: every rule, every mismatch, and nothing skipped in silence (T18)."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.attest.appraise import appraise, mismatch_code
from cloister.attest.policy import MAX_POLICY_BYTES, Policy, TeePolicy, verify_successor
from cloister.attest.rats import Check, ClaimValue, TeeKind, Verdict, VerifiedClaims
from cloister.attest.rules import AtLeast, Exact, NotChecked, OneOf, Rule
from cloister.errors import Malformed, Rejected, UsageError
from cloister.wire import dump_json
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TPM = TeeKind("tpm")
NONE: frozenset[str] = frozenset()
CASES = json.loads((Path(__file__).parents[1] / "vectors" / "policy" / "parse.json").read_text())["cases"]


def _policy(rules: Mapping[str, Rule], *, tee: TeeKind = TPM, version: int = 1) -> Policy:
    return Policy(version=version, tees={tee: TeePolicy(rules)})


def _appraise(
    claims: Mapping[str, ClaimValue], rules: Mapping[str, Rule], required: frozenset[str] = NONE
) -> dict[str, Check]:
    verified = VerifiedClaims(tee=TPM, claims=claims, report_data=b"", checks=())
    checks = appraise(verified, _policy(rules), required)
    assert len({check.subject for check in checks}) == len(checks)
    return {check.subject: check for check in checks}


def _bytes(case: dict[str, Any]) -> bytes:
    text: str = case["text"] if "text" in case else json.dumps(case["policy"])
    return text.encode()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    if case["expect"] == "Malformed":
        with pytest.raises(Malformed):
            Policy.parse(_bytes(case))
        return
    policy = Policy.parse(_bytes(case))
    assert Policy.parse(policy.dump()) == policy
    assert policy.to_json() == json.loads(_bytes(case))
    assert Policy.from_json(policy.to_json()) == policy


def test_most_vectors_are_bad() -> None:
    assert sum(case["expect"] == "Malformed" for case in CASES) > 5 * sum(case["expect"] == "ok" for case in CASES)


def test_the_digest_is_over_the_canonical_bytes_however_the_policy_was_written() -> None:
    first = Policy.parse(b'{"v":1,"version":1,"tees":{"tpm":{"b":{"exact":1},"a":{"exact":"x"}}}}')
    second = Policy.parse(b' {"tees":{"tpm":{"a":{"exact":"x"},"b":{"exact":1}}}, "version":1, "v":1}')
    assert first.digest == second.digest == hashlib.sha256(first.dump()).hexdigest()
    assert first.digest != _policy({"a": Exact("x"), "b": Exact(2)}).digest


def test_ten_thousand_mutations_of_a_policy_only_malformed() -> None:
    honest = dump_json(CASES[0]["policy"])
    for data in mutated(honest):
        try:
            policy = Policy.parse(data)
        except Malformed:
            continue
        assert Policy.parse(policy.dump()) == policy


def test_a_policy_over_its_caps_is_refused() -> None:
    many: list[tuple[int, int, int]] = [(17, 1, 1), (1, 129, 1), (1, 1, 257)]
    for tees, rules, values in many:
        document = {
            "tees": {
                f"t{t}": {f"c{c}": {"one_of": [f"v{v}" for v in range(values)]} for c in range(rules)}
                for t in range(tees)
            },
            "v": 1,
            "version": 1,
        }
        with pytest.raises(Malformed, match="want at most"):
            Policy.parse(json.dumps(document).encode())
    with pytest.raises(Malformed, match="want at most"):
        Policy.parse(b" " * (MAX_POLICY_BYTES + 1))
    with pytest.raises(Malformed):
        Policy.parse(b'{"v":1,"version":1,"tees":{"tpm":{"a":{"exact":"%s"}}}}' % (b"x" * 257))


@pytest.mark.parametrize(
    "make",
    [
        lambda: OneOf(()),
        lambda: OneOf(("",)),
        lambda: OneOf(("a", "a")),
        lambda: OneOf((True,)),
        lambda: OneOf(tuple(str(n) for n in range(257))),
        lambda: Exact(""),
        lambda: Exact("x" * 257),
        lambda: Exact("a\nb"),
        lambda: Exact(-1),
        lambda: Exact(2**53),
        lambda: Exact(1.0),  # type: ignore[arg-type]  # the mistake
        lambda: Exact(None),  # type: ignore[arg-type]  # the mistake
        lambda: AtLeast(True),  # noqa: FBT003 - the mistake
        lambda: AtLeast(-1),
        lambda: NotChecked(""),
        lambda: NotChecked("  "),
        lambda: NotChecked("a\x1b[2J"),
        lambda: NotChecked("x" * 201),
        lambda: TeePolicy({}),
        lambda: TeePolicy({"Bad Name": Exact(1)}),
        lambda: Policy(version=1, tees={}),
        lambda: Policy(version=0, tees={TPM: TeePolicy({"a": Exact(1)})}),
        lambda: Policy(version=True, tees={TPM: TeePolicy({"a": Exact(1)})}),
        lambda: Policy(version=1, tees={TeeKind("*"): TeePolicy({"a": Exact(1)})}),
    ],
)
def test_t18_a_rule_that_would_be_no_rule_cannot_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


def test_rules_do_not_change_after_they_were_made() -> None:
    rule = Exact("a")
    with pytest.raises((FrozenInstanceError, AttributeError)):
        rule.value = "b"  # type: ignore[misc]  # the attack


@pytest.mark.parametrize(
    ("got", "rule", "passes"),
    [
        ("aa", Exact("aa"), True),
        ("aa", Exact("AA"), False),
        ("aa ", Exact("aa"), False),
        (1, Exact(1), True),
        (True, Exact(1), False),
        (1, Exact(value=True), False),
        (0, Exact(value=False), False),
        (False, Exact(0), False),
        ("1", Exact(1), False),
        (False, Exact(value=False), True),
        ("bb", OneOf(("aa", "bb")), True),
        ("cc", OneOf(("aa", "bb")), False),
        (True, OneOf((1, 2)), False),
        (2, OneOf((1, 2)), True),
        ("2", OneOf((1, 2)), False),
        (3, AtLeast(3), True),
        (4, AtLeast(3), True),
        (2, AtLeast(3), False),
        (True, AtLeast(0), False),
        (True, AtLeast(1), False),
        ("9", AtLeast(3), False),
    ],
)
def test_a_claim_is_compared_in_value_and_type(got: ClaimValue, rule: Rule, *, passes: bool) -> None:
    check = _appraise({"claim": got}, {"claim": rule})["claim"]
    assert check.verdict is (Verdict.PASSED if passes else Verdict.FAILED)
    assert check.got
    assert check.want


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        ("measurement", "measurement_mismatch"),
        ("debug", "debug_enabled"),
        ("migratable", "migratable"),
        ("pcr.0", "pcr_mismatch"),
        ("pcr.23", "pcr_mismatch"),
        ("svn", "svn_too_low"),
        ("tcb", "tcb_out_of_date"),
        ("tcb.snp", "tcb_out_of_date"),
        ("tcb_status", "tcb_status_not_allowed"),
        ("td_attributes", "td_attributes_invalid"),
        ("vmpl", "vmpl_mismatch"),
        ("host_data", "host_data_mismatch"),
        ("device", "device_mismatch"),
    ],
)
def test_the_code_of_a_mismatch_names_what_is_wrong(claim: str, code: str) -> None:
    assert mismatch_code(claim) == code
    check = _appraise({claim: "got"}, {claim: Exact("want")})[claim]
    assert (check.code, check.verdict, check.got, check.want) == (code, Verdict.FAILED, "got", "want")


def test_all_mismatches_are_returned_in_natural_order() -> None:
    claims: dict[str, ClaimValue] = {"pcr.10": "x", "pcr.7": "x", "debug": True}
    checks = _appraise(claims, {name: Exact("y") for name in claims})
    assert list(checks) == ["debug", "pcr.7", "pcr.10"]
    assert {check.verdict for check in checks.values()} == {Verdict.FAILED}


def test_t18_a_required_claim_without_a_rule_fails_whether_it_is_there_or_not() -> None:
    for claims in ({"other": 1}, {"other": 1, "measurement": "aa"}):
        check = _appraise(claims, {"other": Exact(1)}, frozenset({"measurement"}))["measurement"]
        assert (check.code, check.verdict, check.want) == ("policy_incomplete", Verdict.FAILED, "a rule")


@pytest.mark.parametrize("rule", [Exact("a"), OneOf(("a",)), AtLeast(0), NotChecked("whatever")])
def test_t18_a_rule_for_an_absent_claim_fails(rule: Rule) -> None:
    check = _appraise({}, {"measurment": rule})["measurment"]
    assert (check.code, check.verdict, check.got) == ("claim_missing", Verdict.FAILED, "")


def test_a_claim_not_checked_shows_why() -> None:
    check = _appraise({"chip_id": "aa"}, {"chip_id": NotChecked("fleet of many hosts")}, frozenset({"chip_id"}))[
        "chip_id"
    ]
    assert (check.verdict, check.got, check.note) == (Verdict.NOT_CHECKED, "aa", "fleet of many hosts")


def test_a_claim_without_a_rule_shows_as_not_checked() -> None:
    check = _appraise({"ak": "aa", "x": 1}, {"x": Exact(1)})["ak"]
    assert (check.verdict, check.note) == (Verdict.NOT_CHECKED, "the policy has no rule for it")


def test_a_tee_the_policy_does_not_name_fails() -> None:
    verified = VerifiedClaims(tee=TeeKind("simulated"), claims={"debug": False}, report_data=b"", checks=())
    checks = appraise(verified, _policy({"debug": Exact(value=False)}), NONE)
    assert [(c.code, c.verdict, c.got, c.want) for c in checks] == [
        ("tee_not_allowed", Verdict.FAILED, "simulated", "tpm")
    ]


def test_t84_a_claim_that_steers_a_terminal_is_shown_escaped() -> None:
    check = _appraise({"model": "\x1b[2J\nok\u202e"}, {"model": Exact("ok")})["model"]
    assert check.got == r"'\x1b[2J\nok\u202e'"


def test_a_long_list_of_reference_values_is_shown_short() -> None:
    rule = OneOf(tuple(f"{n:0256d}" for n in range(256)))
    check = _appraise({"measurement": "x" * 1000}, {"measurement": rule})["measurement"]
    assert check.want.endswith("or 252 more")
    assert len(check.want) <= 1024
    assert len(check.got) <= 1024


_CLAIMS = st.one_of(st.booleans(), st.integers(0, 9), st.sampled_from(["a", "b", "0", "1", "true"]))
_RULES: st.SearchStrategy[Rule] = st.one_of(
    st.builds(Exact, _CLAIMS),
    st.builds(OneOf, st.lists(_CLAIMS.filter(lambda v: not isinstance(v, bool)), min_size=1, unique=True).map(tuple)),
    st.builds(AtLeast, st.integers(0, 9)),
    st.builds(NotChecked, st.just("why not")),
)
_NAMES = st.sampled_from(["debug", "measurement", "pcr.1", "svn", "x"])


@given(
    st.dictionaries(_NAMES, _CLAIMS),
    st.dictionaries(_NAMES, _RULES, min_size=1),
    st.frozensets(_NAMES),
)
def test_nothing_passes_that_no_rule_allows(
    claims: dict[str, ClaimValue], rules: dict[str, Rule], required: frozenset[str]
) -> None:
    checks = _appraise(claims, rules, required)
    assert set(checks) == {*claims, *rules, *required}
    for name, check in checks.items():
        rule, got = rules.get(name), claims.get(name)
        if check.verdict is Verdict.PASSED:
            assert name in claims
            assert isinstance(rule, (Exact, OneOf, AtLeast))
            if isinstance(rule, Exact):
                assert repr(got) == repr(rule.value)
            elif isinstance(rule, OneOf):
                assert repr(got) in map(repr, rule.values)
        elif check.verdict is Verdict.NOT_CHECKED:
            assert name in claims
            assert check.note
            assert isinstance(rule, NotChecked) or (rule is None and name not in required)


def test_t18_an_older_policy_is_never_put_back() -> None:
    old, new = _policy({"a": Exact(1)}, version=5), _policy({"a": Exact(2)}, version=6)
    verify_successor(new, old)
    for candidate in (old, _policy({"a": Exact(2)}, version=5), _policy({"a": Exact(2)}, version=1)):
        with pytest.raises(Rejected) as refused:
            verify_successor(candidate, old)
        assert refused.value.code == "policy_version_old"


def test_the_policy_of_the_specification_parses() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "policy.md").read_text()
    example = page.split("```json\n")[1].split("```")[0]
    policy = Policy.parse(example.encode())
    assert policy.tees[TPM].rules["pcr.0"] == NotChecked("firmware of three vendors in this fleet")


def test_codes_are_those_of_the_shared_vocabulary_where_it_has_one() -> None:
    root = Path(os.environ.get("CLOISTER_EVIDENCE", Path(__file__).parents[2] / ".." / "shared" / "evidence"))
    if not (root / "index.json").exists():
        pytest.skip(f"recorded evidence is not at {root}")
    vocabulary = set(json.loads((root / "index.json").read_text())["reason_codes"])
    claims = ("debug", "measurement", "pcr.7", "service_td", "tcb", "tcb_status", "td_attributes", "vmpl")
    assert {mismatch_code(claim) for claim in claims} <= vocabulary
    ours = {"report_data_mismatch", "chain_invalid", "signature_invalid", "cert_expired", "cert_not_yet_valid"}
    assert ours | {"unsupported_format", "algorithm_not_allowed", "token_expired"} <= vocabulary
