"""No page is lost and no path leads nowhere: indices, links outside of docs/, paths in the source, the house's plan."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "cloister"
OUTSIDE = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]


def linked(page: Path) -> set[Path]:
    """Return the files that a page links to, whether they exist or not."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    return {(page.parent / target).resolve() for target in targets if "://" not in target and "mailto:" not in target}


@pytest.mark.parametrize("page", OUTSIDE, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_outside_of_docs_leads_nowhere(page: Path) -> None:
    assert [str(path) for path in linked(page) if not path.exists()] == []


def test_no_page_keeps_the_marks_of_a_merge() -> None:
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    marked = [
        page for page in pages if re.search(r"^(<{7} |>{7} |={7}$)", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert marked == []


@pytest.mark.parametrize("room", ["spec", "adr", "tutorial", "how-to", "explanation"])
def test_every_page_of_a_room_is_in_its_index(room: str) -> None:
    index = DOCS / room / "index.md"
    assert {path.resolve() for path in (DOCS / room).glob("*.md")} - {index.resolve()} <= linked(index)


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the site makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", words).strip().lower())
        number = 0
        while slug + (f"_{number}" if number else "") in found:
            number += 1
        found.add(slug + (f"_{number}" if number else ""))
    return found


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_no_anchor_leads_nowhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text):
        there = page if not target else (page.parent / target).resolve()
        assert anchor in slugs(there), f"{target}#{anchor}"


def test_every_reference_page_is_linked_from_the_front_page() -> None:
    assert {path.resolve() for path in (DOCS / "reference").glob("*.md")} <= linked(DOCS / "index.md")


@pytest.mark.parametrize("record", sorted((DOCS / "adr").glob("0*.md")), ids=lambda record: str(record.stem))
def test_a_decision_has_its_four_parts_and_its_title_in_the_index(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    title = re.match(r"# (\d{4}): (.+)", text)
    assert title
    assert record.name.startswith(title[1])
    assert f"[{title[1]}]({record.name}) | {title[2]} |" in (DOCS / "adr" / "index.md").read_text(encoding="utf-8")
    assert "**Context.**" in text
    assert "**Outcome.**" in text
    assert "**Negative consequences.**" in text


def test_every_page_that_the_source_cites_exists() -> None:
    cited = {
        name
        for path in [*SOURCE.rglob("*.py"), ROOT / "Makefile", ROOT / "pyproject.toml", *(ROOT / "tests").rglob("*.py")]
        for name in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert sorted(name for name in cited if not (ROOT / name).exists()) == []


def test_the_plan_of_the_house_names_every_room() -> None:
    plan = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.name + "/" for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms == set(re.findall(r"^  (\w+/) +F\d", plan, re.MULTILINE))


def test_every_extension_point_is_a_protocol_where_the_plan_says() -> None:
    plan = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `([\w/.]+)` \|.*\| ([^|]*) \|$", plan, re.MULTILINE)
    assert len(rows) > 5
    for name, place, today in rows:
        tree = ast.parse((SOURCE / place).read_text(encoding="utf-8"))
        found = next(item for item in tree.body if isinstance(item, ast.ClassDef) and item.name == name)
        assert any(isinstance(base, ast.Name) and base.id == "Protocol" for base in found.bases), name
        assert ast.get_docstring(found), name
        for path in re.findall(r"`([\w/]+\.py)`", today):
            assert (SOURCE / path).exists(), path
