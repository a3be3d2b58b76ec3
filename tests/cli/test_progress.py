"""Long work shows how far it has come: on a terminal only, cheaply, and it leaves the terminal as it was."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from pty_kit import CURSOR_ON, Pty
from test_story_cli import brighter

from cloister.cli.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Shell

CURSOR_OFF = b"\x1b[?25l"
WORK = """
import sys, threading, time
from cloister.cli.terminal import Terminal, run
import click
@click.command()
@click.option("--json", "as_json", is_flag=True)
@click.argument("how")
def work(how, as_json):
    terminal = Terminal(as_json=as_json)
    if how == "many":
        with terminal.progress("sealing [bold]scan[/]") as report:
            for done in range(200_001):
                report(done * 1024, 200_000 * 1024)
    elif how == "stays":
        with terminal.progress("opening", unit="rows") as report:
            report(1, 3)
            time.sleep(0.3)
            print("halfway", flush=True)
            threading.Event().wait(60)
    elif how == "again":
        with terminal.progress("opening") as report:
            report(5, 5)
            print("served", flush=True)
            report(1, 9)
            time.sleep(0.3)
            report(9, 9)
    else:
        with terminal.working("wrapping"):
            time.sleep(0.3)
    print("over")
sys.exit(run(work, sys.argv[1:]))
"""


def working(shell: Shell, *words: str) -> Pty:
    file = shell.folder / "work.py"
    file.write_text(WORK)
    return Pty([*words], folder=shell.folder, environment=shell.environment(), program=(str(file),))


def shown(pty: Pty) -> bytes:
    assert pty.end(keys="") == 0
    assert b"over" in pty.data
    return pty.data


def test_a_bar_is_drawn_seldom_and_taken_away_again(shell: Shell) -> None:
    with working(shell, "many") as pty:
        data = shown(pty)
    assert b"sealing [bold]scan[/]" in data, "text is text"
    assert b"MiB" in data
    assert data.count(CURSOR_OFF) == data.count(CURSOR_ON)
    assert len(data) < 200_000, "far fewer bytes than reports"


@pytest.mark.parametrize("how", ["many", "wrapping"])
def test_programs_see_none_of_it(shell: Shell, how: str) -> None:
    with working(shell, how, "--json") as pty:
        assert shown(pty).replace(b"\r", b"") == b"over\n"


def test_work_without_an_end_in_sight_says_how_long_it_has_taken(shell: Shell) -> None:
    with working(shell, "wrapping") as pty:
        data = shown(pty)
    assert b"wrapping" in data
    assert b"0:00:0" in data


def test_what_is_done_is_gone_and_comes_back_where_work_begins_anew(shell: Shell) -> None:
    with working(shell, "again") as pty:
        data = shown(pty)
    assert data.count(CURSOR_OFF) == data.count(CURSOR_ON) == 2
    assert data.index(CURSOR_ON) < data.index(b"served")


def test_an_interrupted_bar_leaves_the_cursor(shell: Shell) -> None:
    with working(shell, "stays") as pty:
        pty.until("halfway")
        assert pty.end(number=signal.SIGINT) == 130
        assert pty.data.rindex(CURSOR_ON) > pty.data.rindex(CURSOR_OFF)
        assert b"interrupted" in pty.data
        assert pty.is_restored()


def test_a_real_command_on_a_terminal_and_in_a_file(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(brighter())
    shell.ok("custodian", "init")
    words = ["model", "seal", str(tmp_path / "model.onnx"), "--name", "scan", "--out"]
    with Pty([*words, "one"], folder=shell.folder, environment=shell.environment()) as pty:
        assert pty.end(keys="") == 0
        assert b"sealing scan" in pty.data
        assert b"sealed scan" in pty.data
    piped = shell.process(*words, "two")
    assert piped.returncode == 0
    assert b"\x1b" not in piped.stdout + piped.stderr
    assert b"sealing scan" not in piped.stderr


def test_force_color_brings_no_bar_into_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal = Terminal()
    with terminal.progress("sealing") as report, terminal.working("wrapping"):
        report(1, 2)
        report(2, 2)
    assert capsys.readouterr().err == ""
