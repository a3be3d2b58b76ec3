"""The vocabulary says what the schemes claim: every claim of every vendor, and no claim that nobody makes."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import evidence_index
import vendor_kit
from cloister.attest.dossier.table import dossier_for
from cloister.attest.intel.tcb import TcbStatus
from cloister.attest.policy import CLAIM_NAME
from cloister.attest.rats import TeeKind, TrustTier, VerifiedClaims
from cloister.attest.schemes import KINDS, required_claims
from cloister.attest.vocabulary import TYPES, USES, ClaimInfo, describe_claim, described_tees, vocabulary
from cloister.errors import Malformed, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.attest.rats import ClaimValue

FOLDER = resources.files("cloister.attest.vocabulary")
TEES = sorted(described_tees())
FILES = [*TEES, *(f"shared/{item.name.removesuffix('.toml')}" for item in FOLDER.joinpath("shared").iterdir())]
MEMBERS = {"meaning", "type", "rule", "want", "why", "values", "bytes"}
NO_POLICY = {"azure-akcert", "nvidia-rim", "tdx-eventlog", "tpm-akcert"}
"""What is judged from files and is no evidence of a TEE: no policy names it."""
NOBODY_MAKES = {
    ("azure-snp-vtpm", "csp"): "Azure's chips sign with their own keys; the scheme under it knows clouds' keys too",
}
"""Names in the files that neither a synthetic vendor nor recorded evidence makes, and why they are there."""


@cache
def entries(name: str) -> dict[str, dict[str, Any]]:
    table: dict[str, Any] = tomllib.loads(FOLDER.joinpath(*f"{name}.toml".split("/")).read_text(encoding="utf-8"))
    return {claim: entry for claim, entry in table.items() if claim != "include"}


@cache
def recorded() -> tuple[VerifiedClaims, ...]:
    """Return what is proven of every recorded entry that verifies, whatever a policy says of it."""
    found = []
    for entry in evidence_index.index():
        try:
            case = dossier_for(entry["tee"]).open(evidence_index.files_of(entry), entry["policy"])
            found.append(case.verify(evidence_index.at(entry)))
        except (Malformed, Rejected, Unavailable):
            continue
    return tuple(item for item in found if item.tee not in NO_POLICY)


def members(value: ClaimValue) -> tuple[str | int | bool, ...]:
    return value if isinstance(value, tuple) else (value,)


def wrong(claims: VerifiedClaims) -> Iterator[str]:
    """Yield what the vocabulary does not say, or says otherwise than the claims are."""
    for name, value in claims.claims.items():
        info = describe_claim(claims.tee, name)
        python = {"boolean": bool, "integer": int, "words": tuple}.get(info.type, str)
        if not info.meaning:
            yield f"{name} is not described"
        elif type(value) is not python:
            yield f"{name} is {value!r}, described as {info.type}"
        elif type(value) is int and value < 0:
            assert name == "client_id"  # RFC 9783 section 4.1.2: a policy cannot name it
        else:
            yield from (f"{name} is {item!r}, want {info.form}" for item in members(value) if not info.may_be(item))


@pytest.mark.parametrize("name", vendor_kit.NAMES)
def test_every_claim_of_a_synthetic_vendor_is_described_as_it_is(name: str) -> None:
    claims = vendor_kit.claims(name)
    assert list(wrong(claims)) == []
    assert all(CLAIM_NAME.fullmatch(item) for item in claims.claims)
    assert name.startswith(claims.tee)


def test_every_claim_of_recorded_evidence_is_described_as_it_is() -> None:
    if not evidence_index.index():
        pytest.skip(f"no recorded evidence at {evidence_index.FOLDER}")
    assert sorted({f"{item.tee}: {text}" for item in recorded() for text in wrong(item)}) == []


def test_every_kind_of_evidence_has_a_vocabulary() -> None:
    assert described_tees() >= KINDS
    assert {vendor_kit.side(name).tee for name in vendor_kit.NAMES} == described_tees()


@pytest.mark.parametrize("tee", TEES)
def test_every_required_claim_is_described_with_a_rule(tee: str) -> None:
    kind = TeeKind(tee)
    required = {
        name for side in map(vendor_kit.side, vendor_kit.NAMES) if side.tee == kind for name in side.scheme.required
    }
    assert required >= required_claims().get(kind, frozenset())
    for name in required:
        info = describe_claim(kind, name)
        assert info.meaning
        assert info.rule != "omit", name


@pytest.mark.parametrize("tee", TEES)
def test_no_claim_is_described_that_nobody_makes(tee: str) -> None:
    known = vocabulary(TeeKind(tee))
    made = {name for item in map(vendor_kit.claims, vendor_kit.NAMES) if item.tee == tee for name in item.claims}
    made |= {name for item in recorded() if item.tee == tee for name in item.claims}
    described = {name if name in known else f"{name.partition('.')[0]}.*" for name in made}
    excused = {name for kind, name in NOBODY_MAKES if kind == tee}
    assert described & excused == set()
    assert set(known) - described - excused == set()


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_members_that_its_words_want(name: str) -> None:
    for claim, entry in entries(name).items():
        assert set(entry) <= MEMBERS
        assert CLAIM_NAME.fullmatch(claim.replace(".*", ".0")), claim
        assert entry["type"] in TYPES
        assert entry["rule"] in USES
        assert re.fullmatch(r"\S.{8,97}\.", entry["meaning"]), claim
        assert ("why" in entry) == (entry["rule"] == "skip")
        assert "want" in entry or entry["rule"] not in {"exact", "keep"}
        assert "want" not in entry or entry["rule"] in {"exact", "keep", "minimum", "maximum"}
        assert entry["rule"] not in {"minimum", "maximum"} or entry["type"] == "integer"
        assert "bytes" not in entry or entry["type"] in {"hex", "words"}
        assert entry.get("bytes", [1]) == sorted(set(entry.get("bytes", [1])))
        values = entry.get("values", ["one"])
        assert values
        assert len(values) == len(set(values))


@pytest.mark.parametrize("tee", TEES)
def test_what_a_rule_wants_is_something_that_evidence_can_say(tee: str) -> None:
    for name, info in vocabulary(TeeKind(tee)).items():
        assert info.want is None or info.may_be(info.want), name
        assert not info.values or info.type in {"text", "integer", "boolean", "words"}
        assert {type(item) for item in info.values} <= {{"integer": int, "boolean": bool}.get(info.type, str)}
        assert len(info.why) <= 200


def test_closed_sets_are_those_of_the_code() -> None:
    statuses = {status.value for status in TcbStatus}
    places = {(tee, name) for tee in TEES for name in vocabulary(TeeKind(tee)) if name.startswith("tcb_status")}
    assert len(places) >= 4
    for tee, name in places:
        assert set(vocabulary(TeeKind(tee))[name].values) == statuses
    assert set(vocabulary(TeeKind("ear"))["status"].values) == {tier.value for tier in TrustTier}


def test_debug_and_migration_are_refused_wherever_they_are_told() -> None:
    for tee in TEES:
        for name, info in vocabulary(TeeKind(tee)).items():
            if name.rpartition(".")[2] in {"debug", "migratable"}:
                assert (info.type, info.rule, info.want) == ("boolean", "exact", False), (tee, name)


def test_a_file_includes_others_and_of_two_tables_the_later_counts() -> None:
    azure, tdx = vocabulary(TeeKind("azure-tdx-vtpm")), vocabulary(TeeKind("tdx"))
    assert set(tdx) < set(azure)
    assert azure["report_type"].values == ("tdx",)
    assert vocabulary(TeeKind("maa"))["mrtd"] != tdx["mrtd"]


def test_a_claim_nobody_described_has_its_type_and_no_meaning() -> None:
    values: list[tuple[ClaimValue | None, str]] = [(True, "boolean"), (1, "integer"), ("a", "text"), ((), "words")]
    for value, kind in [*values, (None, "text")]:
        assert describe_claim(TeeKind("snp"), "nobody", value) == ClaimInfo(meaning="", type=kind, rule="omit")
    assert vocabulary(TeeKind("mine")) == {}
    assert vocabulary(TeeKind("shared/token")) == {}
    assert not describe_claim(TeeKind("mine"), "debug").meaning


def test_a_member_of_a_family_is_described_unless_it_has_words_of_its_own() -> None:
    tpm = TeeKind("tpm")
    assert describe_claim(tpm, "pcr.12") == vocabulary(tpm)["pcr.*"]
    assert describe_claim(tpm, "pcr.23") != vocabulary(tpm)["pcr.*"]
    assert not describe_claim(tpm, "pcr").meaning or describe_claim(tpm, "pcr") == vocabulary(tpm)["pcr.*"]


def test_the_number_of_devices_is_described_for_kinds_that_there_are() -> None:
    for tee in ("snp", "tdx", "mine"):
        assert describe_claim(TeeKind(tee), "devices.nvidia_gpu").type == "integer"
        assert not describe_claim(TeeKind(tee), "devices.nvidia_gpus").meaning
        assert not describe_claim(TeeKind(tee), "devices").meaning


@pytest.mark.parametrize(
    ("info", "good", "bad"),
    [
        (
            ClaimInfo(meaning="", type="hex", rule="pin", bytes=(2, 4)),
            ["00ff", "00112233"],
            ["", "00", "00FF", 1, True],
        ),
        (ClaimInfo(meaning="", type="hex", rule="pin"), ["", "0", "ab"], ["AB", "0x1", 5]),
        (ClaimInfo(meaning="", type="text", rule="pin"), ["", "AB"], [0, False]),
        (ClaimInfo(meaning="", type="text", rule="pin", values=("a", "b")), ["a"], ["A", "", 1]),
        (ClaimInfo(meaning="", type="integer", rule="pin"), [0, 2**53 - 1], [True, "1", -1, 2**53]),
        (ClaimInfo(meaning="", type="integer", rule="pin", values=(0, 1)), [0, 1], [2, True, False]),
        (ClaimInfo(meaning="", type="boolean", rule="pin"), [True, False], [0, 1, "true"]),
        (ClaimInfo(meaning="", type="words", rule="pin", bytes=(1,)), ["aa"], ["a", "AA", 1]),
    ],
)
def test_a_value_that_no_evidence_can_say_is_told_from_one_it_can(
    info: ClaimInfo, good: list[Any], bad: list[Any]
) -> None:
    assert all(map(info.may_be, good))
    assert not any(map(info.may_be, bad))
    assert info.form


# The pages: what they name is described, and what is described they name.

DOCS = Path(__file__).parents[2] / "docs" / "spec"
SNP, TDX, VTPM = (
    ("evidence-snp.md", "## 5. Claims"),
    ("evidence-intel.md", "## 5. Claims"),
    ("evidence-vtpm.md", "### Claims"),
)
PAGES = {
    "azure-snp-vtpm": (SNP, VTPM),
    "azure-tdx-vtpm": (TDX, VTPM),
    "cca": (("evidence-arm.md", "### Claims"),),
    "confidential-space": (("evidence-token.md", "## 4. Claims"),),
    "ear": (("evidence-token.md", "## 4. Claims"),),
    "gce-vtpm": (VTPM,),
    "ita": (("evidence-token.md", "## 4. Claims"),),
    "maa": (("evidence-token.md", "## 4. Claims"),),
    "nitro": (("evidence-nitro.md", "### Claims"),),
    "nras": (("evidence-token.md", "## 4. Claims"),),
    "nvidia-gpu": (("evidence-nvidia.md", "## 6. Claims"),),
    "nvidia-switch": (("evidence-nvidia.md", "## 6. Claims"),),
    "psa": (("evidence-arm.md", "### Claims"),),
    "sgx": (TDX,),
    "simulated": (("evidence.md", "## 5. Simulated evidence"),),
    "snp": (SNP,),
    "tdx": (TDX,),
    "tpm": (("evidence-tpm.md", "### Claims"),),
}
_NAME = re.compile(
    r"`([a-z][a-z0-9_]*(?:\.(?:[a-z0-9_]+|\*|N|NAME|[a-z]+_N))?|\.[a-z0-9_]+)`(?: to `(\.?[a-z0-9_.]+)`)?"
)


def section(page: str, heading: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    level = heading.partition(" ")[0]
    return re.split(rf"^#{{2,{len(level)}}} ", text.split(f"{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def names_in(text: str) -> set[str]:
    """Return the claims a text names: `rtmr0` to `rtmr3`, `policy.smt`, `.cxl_allow`, `pcr.N`, `measurement.NAME`."""
    found: set[str] = set()
    family = ""
    for first, last in _NAME.findall(text):
        name = family + first if first.startswith(".") else first
        family = name.partition(".")[0]
        found.add(re.sub(r"\.(?:N|NAME|[a-z]+_N)$", ".*", name))
        if last:
            stem, start, end = re.sub(r"\d+$", "", name), *(int(re.findall(r"\d+$", item)[0]) for item in (name, last))
            found |= {f"{stem}{index}" for index in range(start, end + 1)}
    return found


@pytest.mark.parametrize("tee", TEES)
def test_what_is_described_stands_on_the_page_of_the_tee(tee: str) -> None:
    named = {name for page, heading in PAGES[tee] for name in names_in(section(page, heading))}
    families = {f"{name.partition('.')[0]}.*" for name in named if "." in name}
    for name in vocabulary(TeeKind(tee)):
        family = f"{name.partition('.')[0]}.*"
        assert name in named or family in named or (name.endswith(".*") and name in families), name


@pytest.mark.parametrize("page", sorted({page for pages in PAGES.values() for page in pages}), ids=lambda page: page[0])
def test_what_the_table_of_a_page_names_is_described(page: tuple[str, str]) -> None:
    tees = [TeeKind(tee) for tee, pages in PAGES.items() if page in pages]
    rows = re.findall(r"^\| (`[^|]*) \|", section(*page), re.MULTILINE)
    for name in {name for row in rows for name in names_in(row)}:
        known = {item for tee in tees for item in vocabulary(tee)}
        family = f"{name.partition('.')[0]}."
        described = any(describe_claim(tee, name).meaning for tee in tees)
        assert described or (name.endswith(".*") and any(item.startswith(family) for item in known)), name
