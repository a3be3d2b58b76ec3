"""What docs say of attestation: reason codes are those of the code, a TEE has its section, a cell its note."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from cloister.attest.appraise import mismatch_code
from cloister.attest.rats import TeeKind
from cloister.attest.schemes import KINDS, required_claims

ROOT = Path(__file__).parent.parent
ATTEST = ROOT / "src" / "cloister" / "attest"
PAGE = (ROOT / "docs" / "attestation.md").read_text(encoding="utf-8")
COMPARISON = (ROOT / "docs" / "attestation-comparison.md").read_text(encoding="utf-8")
COLUMNS = ["check", "got against want", "source", "code", "demanded"]
PROJECTS = {
    "Cloister",
    "go-sev-guest",
    "go-tdx-guest",
    "dcap-qvl",
    "Trustee",
    "Veraison",
    "nvtrust",
    "attestation-sdk",
}
PLAIN = {"yes", "no"}
NOTED = {"option", "part", "?"}

Table = tuple[list[str], list[list[str]]]


def _tables(text: str) -> list[Table]:
    """Return every table as its head and its rows."""
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    found = []
    for block in blocks:
        head, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        assert {len(row) for row in rows} == {len(head)} == {len(rule)}, head
        found.append((head, rows))
    return found


CHECKS = [row for head, rows in _tables(PAGE) if head == COLUMNS for row in rows]
COMPARED = [(head, rows) for head, rows in _tables(COMPARISON) if head[0] == "check"]


def _literals() -> set[str]:
    """Return every string that the attestation code spells, docstrings left out."""
    found = set()
    for path in ATTEST.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found |= {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts
        }
    return found


LITERALS = _literals()
FAMILIES = {text.partition(".")[0] for text in LITERALS if re.fullmatch(r"[a-z][a-z0-9_]*(\..*)?", text)}
OF_CLAIMS = {mismatch_code(family) for family in FAMILIES}


@pytest.mark.parametrize("code", sorted({code for row in CHECKS for code in re.findall(r"`([a-z0-9_]+)`", row[3])}))
def test_a_reason_code_of_the_page_is_one_of_the_code(code: str) -> None:
    assert code in LITERALS | OF_CLAIMS


@pytest.mark.parametrize("row", CHECKS, ids=lambda row: f"{row[0]}: {row[1][:40]}")
def test_a_check_says_where_it_is_from_what_it_is_called_and_who_may_leave_it_out(row: list[str]) -> None:
    assert all(row)
    assert re.search(r"`[a-z_]+`|malformed|unavailable", row[3])
    assert re.match(r"(always|default|required|policy|said|with collateral|where (it|a|one|there) )", row[4])


@pytest.mark.parametrize("tee", sorted(KINDS))
def test_a_tee_has_a_section_with_a_table(tee: str) -> None:
    sections = [
        section for section in re.split(r"^## ", PAGE, flags=re.MULTILINE) if f"`{tee}`" in section.split("\n")[0]
    ]
    assert len(sections) == 1
    assert [head for head, _ in _tables(sections[0])] == [COLUMNS]


@pytest.mark.parametrize("tee", ["cca", "gce-vtpm", "nitro", "nvidia-gpu", "psa", "sgx", "snp", "tdx", "tpm"])
def test_the_code_of_every_required_claim_is_in_the_section_of_its_tee(tee: str) -> None:
    section = PAGE.split(f"`{tee}`\n", 1)[1].split("\n## ", 1)[0]
    wanted = {mismatch_code(claim) for claim in required_claims()[TeeKind(tee)]}
    assert wanted <= set(re.findall(r"`([a-z0-9_]+)`", section))


def test_a_claim_of_a_rule_on_the_page_is_one_that_a_scheme_makes() -> None:
    rules = re.findall(r'`"([a-z][a-z0-9_.]*)": \{"(?:exact|one_of|none_of|at_least|at_most)"', PAGE)
    assert len(rules) > 10
    assert [name for name in rules if name.partition(".")[0] not in FAMILIES] == []


def test_paths_of_the_page_are_there() -> None:
    paths = re.findall(r"`((?:attest|benchmarks)/[\w./]+)`", PAGE)
    assert paths
    assert [path for path in paths if not any((base / path).exists() for base in (ROOT, ATTEST.parent))] == []


def test_the_comparison_names_these_projects_and_no_other() -> None:
    named = {row[0] for head, rows in _tables(COMPARISON) if head[0] == "name" for row in rows}
    assert named == PROJECTS
    assert {name for head, _ in COMPARED for name in head[1:]} == PROJECTS
    assert all(head[1] == "Cloister" for head, _ in COMPARED)


def test_a_cell_of_the_comparison_is_yes_or_no_or_has_a_note() -> None:
    for _, rows in COMPARED:
        for row in rows:
            for cell in row[1:]:
                word, _, note = cell.partition(" ")
                assert word in (NOTED if note else PLAIN), row
                assert not note or re.fullmatch(r"\[\d+\]", note), row


def test_notes_of_the_comparison_are_numbered_in_order_and_all_used() -> None:
    notes = [int(number) for number in re.findall(r"^(\d+)\. ", COMPARISON.split("## Notes", 1)[1], re.MULTILINE)]
    assert notes == list(range(1, len(notes) + 1))
    cells = [int(number) for number in re.findall(r"\[(\d+)\] \|", COMPARISON)]
    assert set(cells) == set(notes)
    first = list(dict.fromkeys(cells))
    assert all(before < after for before, after in pairwise(first))


def test_the_comparison_says_when_it_was_made_and_goes_both_ways() -> None:
    assert re.search(r"As of \d{4}-\d{2}-\d{2}\.", COMPARISON)
    less = [
        row[0]
        for _, rows in COMPARED
        for row in rows
        if row[1] == "no" and re.search("yes|option|part", " ".join(row[2:]))
    ]
    more = [row[0] for _, rows in COMPARED for row in rows if row[1] == "yes" and set(row[2:]) == {"no"}]
    assert len(less) > 5
    assert len(more) > 5
