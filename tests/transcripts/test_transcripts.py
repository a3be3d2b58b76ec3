"""The ten most common tasks of each party, each at most three commands, played against a small real system.

A transcript is a text file: a title behind ``#``, commands behind ``$``, and below each what it prints. ``...`` stands
for anything within a line, and alone in a line for any lines. ``[exit N]`` ends what a command prints that does not
succeed. ``$NAME`` stands for what differs from run to run. A command that ends in ``&`` goes on serving; the next
one waits for its ``--ready-file``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from terminal_kit import run_line
from transcript_town import Town, party_files, until

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PARTIES = ("custodian", "borrower", "consumer")
MOST_COMMANDS = 3
TRANSCRIPTS = sorted(path for party in PARTIES for path in (HERE / party).glob("*.txt"))


@dataclass(frozen=True)
class Step:
    """One command and what it prints."""

    line: str
    prints: str


def steps(path: Path) -> list[Step]:
    """Return the commands of a transcript."""
    title, _, rest = path.read_text(encoding="utf-8").partition("\n")
    assert re.fullmatch(r"# \S.*", title), path
    parts = re.split(r"^\$ ", rest, flags=re.MULTILINE)
    assert not parts[0].strip(), path
    return [Step(line, prints.rstrip("\n")) for line, _, prints in (part.partition("\n") for part in parts[1:])]


def pattern(prints: str) -> re.Pattern[str]:
    """Return what matches everything that a command may print."""
    lines = [r"(?:.*\n)*?" if line == "..." else _line(line) for line in prints.split("\n")] if prints else []
    return re.compile("".join(lines))


def _line(line: str) -> str:
    return ".*?".join(re.escape(part) for part in line.split("...")) + r"\n"


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Yield the one system of this worker."""
    made = Town(tmp_path_factory.mktemp("town"))
    yield made
    made.close()


@pytest.mark.timeout(180)  # the first one sets the system up
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_task_is_done_as_it_is_written(path: Path, town: Town, tmp_path: Path) -> None:
    party = path.parent.name
    party_files(town, party, tmp_path)
    for step in steps(path):
        line = town.filled(step.line)
        if line.endswith("&"):
            town.start(party, line.removesuffix("&"), folder=tmp_path)
            until((tmp_path / line.split("--ready-file ")[1].split()[0]).exists)
            continue
        code, said = run_line(line, folder=tmp_path, environment=town.environment(party))
        told = "".join(f"{text.rstrip()}\n" for text in town.shown(said).rstrip("\n").split("\n")) if said else ""
        told += f"[exit {code}]\n" if code else ""
        assert pattern(step.prints).fullmatch(told), f"$ {step.line}\n{told}"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_task_takes_three_commands_at_most(path: Path) -> None:
    assert 1 <= len(steps(path)) <= MOST_COMMANDS


@pytest.mark.parametrize("party", PARTIES)
def test_each_party_has_its_ten_tasks(party: str) -> None:
    assert len([path for path in TRANSCRIPTS if path.parent.name == party]) >= 10


def test_a_transcript_lets_nothing_through_but_what_it_says() -> None:
    wants = pattern("added 25; balance ...\n...\nloan   ...  active")
    assert wants.fullmatch("added 25; balance 75\nloan   x  active\n")
    assert wants.fullmatch("added 25; balance 75\nmore\nand more\nloan   x  active\n")
    for told in ("", "added 25; balance 75\n", "added 2; balance 75\nloan   x  active\n", "loan   x  active\n"):
        assert not wants.fullmatch(told)
    assert not wants.fullmatch("added 25; balance 75\nloan   x  active\n[exit 4]\n")
    assert pattern("").fullmatch("")
    assert not pattern("").fullmatch("anything\n")
