"""A rule that does not bite is named, whatever it looks like; one that does is not (T18)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vendor_kit
from cloister.attest import lint
from cloister.attest.appraise import appraise
from cloister.attest.composite import DEVICE_KINDS
from cloister.attest.lint import Finding, Severity, lint_policy, uncovered_bytes
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind
from cloister.attest.rules import AtLeast, AtMost, Exact, NoneOf, NotChecked, OneOf, Rule
from cloister.attest.schemes import required_claims
from cloister.attest.vocabulary import vocabulary
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.wire import MAX_INT

if TYPE_CHECKING:
    from collections.abc import Mapping

SNP, TDX, MINE = TeeKind("snp"), TeeKind("tdx"), TeeKind("mine")
GOOD, BAD = "5a" * 48, "5b" * 48
REQUIRED = required_claims()


def findings(
    rules: Mapping[str, Rule], tee: TeeKind = SNP, required: frozenset[str] | None = frozenset()
) -> list[Finding]:
    table = {} if required is None else {tee: required}
    found = lint_policy(Policy(version=1, tees={tee: TeePolicy(rules)}), table)
    return [item for item in found if item.severity is not Severity.NOTE]


def said(rule: Rule, claim: str, tee: TeeKind = SNP, required: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """Return severity and text of what is found about one rule."""
    found = [item for item in findings({claim: rule}, tee, required) if item.claim]
    assert {(item.tee, item.claim) for item in found} <= {(tee, claim)}
    return [(item.severity.value, item.text) for item in found]


@pytest.mark.parametrize(
    ("claim", "rule"),
    [
        ("measurement", OneOf((GOOD,))),
        ("measurement", OneOf((GOOD, BAD))),
        ("measurement", Exact(GOOD)),
        ("measurement", NoneOf((BAD,))),
        ("measurement", OneOf(("00" * 48, "a5" * 48))),
        ("measurement", NoneOf(("00" * 48, "a5" * 48))),
        ("chip_id", NoneOf(("01" * 64, "00" * 64))),
        ("debug", Exact(value=False)),
        ("debug", Exact(value=True)),
        ("vmpl", Exact(0)),
        ("vmpl", AtMost(2)),
        ("vmpl", OneOf((0, 1, 2))),
        ("vmpl", NoneOf((3,))),
        ("product", OneOf(("milan", "genoa"))),
        ("product", NoneOf(("milan",))),
        ("tcb.snp", AtLeast(1)),
        ("tcb.snp", AtLeast(MAX_INT)),
        ("guest_svn", AtMost(MAX_INT - 1)),
        ("guest_svn", OneOf((0, MAX_INT))),
        ("mitigation.launch_3", Exact(value=True)),
        ("csp", OneOf(("CN=cloud",))),
        ("devices.nvidia_gpu", Exact(8)),
        ("devices.nvidia_switch", AtLeast(4)),
    ],
)
def test_a_rule_that_bites_is_not_named(claim: str, rule: Rule) -> None:
    assert said(rule, claim) == []


def test_sets_are_judged_by_their_members() -> None:
    assert said(OneOf(("INTEL-SA-00615",)), "advisory_ids", TDX) == []
    assert said(NoneOf(("INTEL-SA-00615",)), "advisory_ids", TDX) == []
    assert said(OneOf(("5a" * 32,)), "software", TeeKind("psa")) == []
    assert said(OneOf(("affirming", "none")), "status", TeeKind("ear")) == []
    assert said(OneOf(("success",)), "measurements", TeeKind("nras")) == []
    tiers = vocabulary(TeeKind("ear"))["status"].values
    assert said(NoneOf(tiers), "status", TeeKind("ear")) == []  # the empty set has none of them


def test_not_checked_is_named_with_its_reason() -> None:
    assert said(NotChecked("fleet of many"), "chip_id") == [
        ("warning", "does not bite: not checked, fleet of many"),
    ]


@pytest.mark.parametrize(
    ("claim", "rule"),
    [
        ("tcb.snp", AtLeast(0)),
        ("guest_svn", AtMost(MAX_INT)),
        ("vmpl", AtMost(3)),
        ("vmpl", AtMost(MAX_INT)),
        ("vmpl", OneOf((0, 1, 2, 3))),
        ("product", OneOf(("genoa", "milan", "turin"))),
        ("product", NoneOf(("naples",))),
        ("product", NoneOf(("Milan",))),
        ("measurement", NoneOf(("5A" * 48,))),
        ("measurement", NoneOf(("5a" * 32,))),
        ("chip_id", NoneOf(("chip of ward 3",))),
        ("vmpl", NoneOf((9,))),
    ],
)
def test_t18_a_rule_that_refuses_nothing_is_an_error(claim: str, rule: Rule) -> None:
    assert said(rule, claim) == [("error", "does not bite: no claim is refused")]


def test_the_whole_closed_set_of_a_set_does_not_bite() -> None:
    tiers = vocabulary(TeeKind("ear"))["status"].values
    assert said(OneOf(tiers), "status", TeeKind("ear")) == [("error", "does not bite: no claim is refused")]


def test_a_bound_of_zero_is_a_warning_where_a_rule_is_required() -> None:
    required = frozenset({"tcb.tee"})
    assert said(AtLeast(0), "tcb.tee", required=required) == [("warning", "does not bite: no claim is refused")]
    assert said(AtMost(MAX_INT), "tcb.tee", required=required)[0][0] == "error"


@pytest.mark.parametrize(
    ("claim", "rule", "form"),
    [
        ("measurement", Exact("5a" * 32), "48 bytes in lower-case hex"),
        ("measurement", Exact("5A" * 48), "48 bytes in lower-case hex"),
        ("measurement", OneOf(("5a" * 47, "sha384:" + GOOD)), "48 bytes in lower-case hex"),
        ("measurement", AtLeast(1), "48 bytes in lower-case hex"),
        ("measurement", Exact(5), "48 bytes in lower-case hex"),
        ("debug", Exact(0), "true or false"),
        ("debug", Exact("false"), "true or false"),
        ("debug", OneOf((0, 1)), "true or false"),
        ("debug", NoneOf(("true",)), "true or false"),
        ("vmpl", Exact(4), "0 or 1 or 2 or 3"),
        ("vmpl", Exact("0"), "0 or 1 or 2 or 3"),
        ("vmpl", AtLeast(4), "0 or 1 or 2 or 3"),
        ("vmpl", Exact(value=True), "0 or 1 or 2 or 3"),
        ("tcb.snp", Exact("24"), "0 to 9007199254740991"),
        ("tcb.snp", NoneOf(("24",)), "0 to 9007199254740991"),
        ("product", Exact("Milan"), "genoa or milan or turin"),
        ("product", NoneOf(("genoa", "milan", "turin")), "genoa or milan or turin"),
        ("product", NoneOf((1,)), "genoa or milan or turin"),
        ("product_name", AtMost(5), "text"),
        ("mitigation.launch_3", Exact(value=False), "true"),
        ("devices.nvidia_gpu", Exact("8"), "0 to 9007199254740991"),
    ],
)
def test_a_rule_that_nothing_satisfies_is_an_error_that_says_what_claims_look_like(
    claim: str, rule: Rule, form: str
) -> None:
    assert said(rule, claim) == [("error", f"nothing satisfies it: all evidence is refused (want {form})")]


def test_exact_never_satisfies_a_set() -> None:
    assert said(Exact("success"), "measurements", TeeKind("nras"))[0][1].startswith("nothing satisfies it")
    assert said(AtLeast(1), "advisory_ids", TDX)[0][1].startswith("nothing satisfies it")


def test_one_wrong_reference_value_among_right_ones_is_a_warning() -> None:
    short = "5a" * 32
    text = f"{short} does not bite: no evidence says it (want 48 bytes in lower-case hex)"
    assert said(OneOf((GOOD, short)), "measurement") == [("warning", text)]
    assert said(OneOf(("milan", "napels")), "product")[0][0] == "warning"
    assert said(OneOf((0, 7)), "vmpl")[0][0] == "warning"
    assert said(OneOf(("5a" * 32, "5a" * 20)), "software", TeeKind("psa"))[0][0] == "warning"


def test_t12_one_entry_of_a_deny_list_that_denies_nothing_is_an_error() -> None:
    (found,) = said(NoneOf(("milan", "Genoa")), "product")
    assert found == ("error", "Genoa does not bite: no evidence says it (want genoa or milan or turin)")
    (found,) = said(NoneOf(("01" * 64, "02" * 32)), "chip_id")
    assert found == ("error", f"{'02' * 32} does not bite: no evidence says it (want 64 bytes in lower-case hex)")


def test_a_rule_for_a_claim_that_nobody_makes_is_an_error() -> None:
    text = "evidence of this tee makes no such claim: all of it is refused"
    for claim in ("measurment", "mrtd", "tcb.spl", "devices.nvidia_gpus", "pcr.0"):
        assert said(Exact("x"), claim) == [("error", text)], claim
    assert said(NotChecked("typed wrong"), "measurment")[0][0] == "warning"


def test_a_required_claim_without_a_rule_is_an_error() -> None:
    found = findings({"debug": Exact(value=False)}, SNP, REQUIRED[SNP])
    assert {item.claim for item in found} == REQUIRED[SNP] - {"debug"}
    assert {(item.severity, item.text) for item in found} == {
        (Severity.ERROR, "required and without a rule: all evidence is refused")
    }


def test_a_tee_that_no_verifier_knows_is_an_error_and_nothing_more_is_said() -> None:
    found = findings({"debug": Exact(value=False)}, MINE, None)
    assert [(item.severity, item.claim, item.text) for item in found] == [
        (Severity.ERROR, "", "no verifier of this build knows this tee")
    ]


def test_rules_of_a_tee_without_a_vocabulary_are_judged_by_their_own_types() -> None:
    good: list[Rule] = [Exact(5), Exact("a"), Exact(value=True), OneOf(("aa",)), NoneOf((1,)), AtLeast(1), AtMost(5)]
    for rule in good:
        assert said(rule, "whatever", MINE) == []
    for rule in (AtLeast(0), AtMost(MAX_INT)):
        assert said(rule, "whatever", MINE) == [("error", "does not bite: no claim is refused")]
    assert said(OneOf(("a", 1)), "whatever", MINE)[0][0] == "warning"
    assert said(NoneOf(("a", 1)), "whatever", MINE)[0][1].startswith("nothing satisfies it")


def test_what_most_policies_have_is_noted_where_it_is_missing() -> None:
    policy = Policy(version=1, tees={SNP: TeePolicy({"measurement": OneOf((GOOD,))})})
    notes = {item.claim: item.text for item in lint_policy(policy, {SNP: frozenset({"debug"})}) if "most" in item.text}
    assert "id_key_digest" in notes
    assert "measurement" not in notes
    assert "debug" not in notes
    assert "report_id" not in notes
    assert notes["vmpl"] == f"no rule, and most policies have one: {vocabulary(SNP)['vmpl'].meaning}"
    tpm = TeeKind("tpm")
    found = lint_policy(Policy(version=1, tees={tpm: TeePolicy({"ak": NotChecked("x")})}), {tpm: frozenset()})
    assert "secure_boot" in {item.claim for item in found}
    assert not any("*" in item.claim for item in found)


def test_findings_come_in_the_order_of_tees() -> None:
    rules = TeePolicy({"debug": NotChecked("x")})
    found = lint_policy(Policy(version=1, tees={TDX: rules, SNP: rules}), {SNP: frozenset(), TDX: frozenset()})
    assert [item.tee for item in found] == sorted(item.tee for item in found)


@pytest.mark.parametrize("name", vendor_kit.NAMES)
def test_no_rule_of_a_vendors_own_policy_is_an_error(name: str) -> None:
    side = vendor_kit.side(name)
    found = lint_policy(side.policy, {side.tee: side.scheme.required})
    assert [item for item in found if item.severity is Severity.ERROR] == []


_VALUES = st.one_of(st.integers(0, 5), st.sampled_from(["milan", "genoa", "a", "5a" * 48, "00"]))
_LISTS = st.lists(_VALUES, min_size=1, max_size=4, unique_by=repr).map(tuple)
_RULES: st.SearchStrategy[Rule] = st.one_of(
    st.builds(Exact, st.one_of(_VALUES, st.booleans())),
    st.builds(OneOf, _LISTS),
    st.builds(NoneOf, _LISTS),
    st.builds(AtLeast, st.integers(0, 5)),
    st.builds(AtMost, st.integers(0, 5)),
    st.just(NotChecked("why not")),
)


@given(st.sampled_from(["debug", "measurement", "product", "vmpl", "tcb.snp", "product_name", "nothing"]), _RULES)
def test_whatever_the_rule_lint_says_one_kind_of_thing_about_it(claim: str, rule: Rule) -> None:
    texts = [text for _, text in said(rule, claim)]
    whole = [text for text in texts if not text.partition(" does not bite")[1]]
    assert len(whole) <= 1
    assert not whole or texts == whole


MANY = range(256)


@pytest.mark.parametrize(
    ("tee", "claim", "rule"),
    [
        (SNP, "measurement", OneOf(tuple(f"{number:096x}" for number in MANY))),
        (SNP, "measurement", NoneOf(tuple(f"{number:096x}" for number in MANY))),
        (MINE, "level", NoneOf(tuple(MANY))),
        (MINE, "level", OneOf((*MANY[:-1], MAX_INT))),
        (MINE, "level", OneOf(tuple(map(str, MANY)))),
    ],
)
def test_a_long_rule_is_looked_at_a_few_times_and_not_once_for_each_value(
    monkeypatch: pytest.MonkeyPatch, tee: TeeKind, claim: str, rule: Rule
) -> None:
    looks: list[int] = []

    def counted(*given: Any) -> Any:
        looks.append(1)
        return appraise(*given)

    monkeypatch.setattr(lint, "appraise", counted)
    assert said(rule, claim, tee) == []
    assert len(looks) <= 5


# Evidence damaged byte by byte.


def nothing(done: int, total: int) -> None:
    del done, total


def test_bytes_that_nothing_covers_are_found() -> None:
    seen: list[tuple[int, int]] = []

    def accepts(data: bytes) -> bool:
        if data[0] != 0x10:
            raise Malformed("magic")
        if data[1] != 0x11:
            raise Rejected.because("signature_invalid", "byte 1")
        if data[2] != 0x12:
            raise Unavailable("an endorsement of another name")
        return data[3] == 0x13

    honest = bytes(range(0x10, 0x18))
    assert uncovered_bytes(honest, accepts, most=100, progress=lambda *step: seen.append(step)) == (8, 4, ((4, 8),))
    assert seen == [(done, 8) for done in range(1, 9)]


def test_ranges_are_joined_and_end_with_the_evidence() -> None:
    assert uncovered_bytes(bytes(10), lambda _: True, most=3, progress=nothing) == (3, 3, ((0, 10),))
    assert uncovered_bytes(bytes(10), lambda data: data[0] == 0, most=10, progress=nothing)[2] == ((1, 10),)
    apart = uncovered_bytes(
        bytes(6), lambda data: not any(data[index] for index in (0, 3, 5)), most=6, progress=nothing
    )
    assert apart == (6, 3, ((1, 3), (4, 5)))
    assert uncovered_bytes(b"", lambda _: True, most=5, progress=nothing) == (0, 0, ())


def test_every_byte_is_really_changed_and_only_that_one() -> None:
    honest, changed = bytes(range(256)), set()

    def accepts(data: bytes) -> bool:
        (place,) = [index for index in range(256) if data[index] != honest[index]]
        changed.add(place)
        return False

    assert uncovered_bytes(honest, accepts, most=256, progress=nothing) == (256, 0, ())
    assert changed == set(range(256))


@pytest.mark.parametrize("tee", sorted(DEVICE_KINDS))
def test_a_policy_of_devices_and_no_cpu_is_pointed_at(tee: TeeKind) -> None:
    rules = TeePolicy({"device": OneOf(("412921ce551e4eeda3",))})
    alone = lint_policy(Policy(version=1, tees={tee: rules}), REQUIRED)
    assert any(item.text.startswith("devices and no cpu") for item in alone)
    beside = lint_policy(Policy(version=1, tees={tee: rules, SNP: rules}), REQUIRED)
    assert not any(item.text.startswith("devices and no cpu") for item in beside)


def test_a_defect_of_ours_is_not_taken_for_a_refusal() -> None:
    def broken(data: bytes) -> bool:
        raise IndexError(len(data))

    with pytest.raises(IndexError):
        uncovered_bytes(b"abc", broken, most=3, progress=nothing)


def test_all_of_a_simulated_report_is_covered() -> None:
    side = vendor_kit.side("simulated")
    evidence = side.evidence()

    def accepts(data: bytes) -> bool:
        return not side.refusal(evidence=type(evidence)(tee=evidence.tee, payload=data))

    assert uncovered_bytes(evidence.payload, accepts, most=1000, progress=nothing)[1:] == (0, ())
