"""The consoles as they are used: on a pseudo-terminal, against a custodian and an enclave that really run."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cli_kit import Shell
from pty_kit import CURSOR_ON, HOME, Pty
from test_story_cli import Town, picture

from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def console(shell: Shell, *words: str, **options: Any) -> Pty:
    """Start a console on a terminal of its own."""
    environment = shell.environment(LANG="C.UTF-8", **options.pop("more", {}))
    return Pty([*words], folder=shell.folder, environment=environment, **options)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the folder of a custodian that runs; making one takes longer than to look at it."""
    folder, port = tmp_path_factory.mktemp("custodian"), free_port()
    with pytest.MonkeyPatch.context() as patch:
        shell = Shell(folder, patch, None)  # type: ignore[arg-type] - it runs processes alone
        made = shell.process("custodian", "init", "--port", str(port))
        assert made.returncode == 0, made.stderr
        with shell.start("custodian", "serve") as server:
            server.until_port(port)
            yield folder


@pytest.fixture
def custodian(running: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Return a shell beside which a custodian runs."""
    places = {"CLOISTER_CUSTODIAN_HOME": "home", "CLOISTER_CUSTODIAN_KEY_FILE": "vault.key"}
    shell.variables = {name: str(running / place) for name, place in places.items()}
    for name, value in shell.variables.items():
        monkeypatch.setenv(name, value)
    return shell


@pytest.fixture
def town(shell: Shell) -> Iterator[Town]:
    """Yield a custodian and an enclave that shows its metrics."""
    shell.variables["CLOISTER_ENCLAVE_METRICS"] = f"127.0.0.1:{free_port()}"
    made = Town(shell)
    try:
        with made.tap:
            yield made
    finally:
        made.close()


@pytest.mark.timeout(180)
def test_the_three_consoles_show_what_really_happens(town: Town) -> None:
    shell = town.shell
    picture(shell.folder / "a.png", left=0, right=255)
    with (
        console(shell, "custodian", "top", rows=30) as top,
        console(shell, "loan", "watch", "--loan-file", "loan.json", rows=40) as watch,
        console(shell, "enclave", "top", "--ready-file", "ready.json", "--interval", "0.5") as inside,
    ):
        top.until("1 loan, 1 live instance, 3 units left")
        watch.until("3 left of 3 granted")
        inside.until("0 of 3 units served")
        assert town.infer("--input", "a.png").code == 0
        inside.until("1 of 3 units served")
        inside.until("exchanges lately")
        top.until("2 units left")
        watch.until("2 left of 3 granted; 1 spent")
        shell.ok("loan", "request", "--loan-file", "loan.json", "--units", "7", "--reason", "the ward is full")
        top.until("more requested")
        watch.until("the ward is full")
        shell.ok("loan", "block", town.loan)
        top.until("blocked")
        watch.until(lambda text: text.splitlines()[1].startswith("blocked"))
        inside.until("no answer")
        for one in (top, watch, inside):
            assert one.end() == 0
            assert one.is_restored()


def test_one_frame_for_scripts_and_a_document_a_line_for_programs(custodian: Shell) -> None:
    said = custodian.process("custodian", "top")  # no terminal
    assert said.returncode == 0, said.stderr
    lines = said.stdout.decode().splitlines()
    assert lines[0].startswith("cloister custodian top  https://localhost:")
    assert lines[1].startswith("0 loans, 0 live instances, 0 units left")
    assert "no loans yet: 'cloister loan create' makes one" in lines
    assert b"\x1b" not in said.stdout
    document = json.loads(custodian("custodian", "top", "--json", "--once").out)
    assert (document["loans"], document["instances"], document["alarms"]) == ([], [], [])
    assert custodian("custodian", "top", "--once").code == 0
    assert custodian("loan", "watch", "loan-none", "--once").code == 4
    assert custodian("loan", "watch", "--once").code == 2
    words = [sys.executable, "-m", "cloister", "custodian", "top", "--json", "--interval", "0.5"]
    with subprocess.Popen(words, cwd=custodian.folder, env=custodian.environment(), stdout=subprocess.PIPE) as process:  # noqa: S603 - our own command line
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert seen[0]["at"] < seen[1]["at"]
        process.stdout.close()
        assert process.wait(timeout=30) == 0


def test_keys_size_and_an_end_that_leaves_the_terminal_as_it_was(custodian: Shell) -> None:
    with console(custodian, "custodian", "top") as top:
        top.until("live")
        assert len(top.screen.splitlines()) == 24
        top.press("s")
        top.until("sorted by least left")
        top.press("/abc")
        top.until("filter: abc_")
        top.press("\x1b")
        top.until("q quit")
        top.resize(120, 40)
        top.until(lambda text: len(text.splitlines()) == 40)
        assert all(len(line) <= 120 for line in top.screen.splitlines())
        top.press("\x1a")  # Ctrl-Z is nothing here
        top.press("s")
        top.until("sorted by fastest spent")
        assert top.end() == 0
        assert top.is_restored()
        assert top.data.rindex(CURSOR_ON) > top.data.rindex(HOME)


def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was(custodian: Shell) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        with console(custodian, "custodian", "top") as top:
            top.until("live")
            assert top.end(number=number) == code
            assert top.is_restored()


def test_no_colour_ascii_and_a_terminal_that_can_do_nothing(custodian: Shell) -> None:
    with console(custodian, "custodian", "top", more={"NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}) as top:
        top.until("live")
        assert top.end() == 0
        assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", top.data)
        top.data.decode("ascii")
    with console(custodian, "custodian", "top", more={"TERM": "dumb"}) as top:
        top.until("no loans yet")
        assert top.end(keys="") == 0
        assert b"\x1b" not in top.data


def test_a_custodian_that_goes_and_comes_back_is_said_and_found_again(shell: Shell) -> None:
    port = free_port()
    shell.ok("custodian", "init", "--port", str(port))
    with shell.start("custodian", "serve") as server:
        server.until_port(port)
        top = console(shell, "custodian", "top", "--interval", "0.5", rows=30)
        top.until("live")
        server.stop()
    with top:
        top.until("no answer: custodian https://localhost")
        assert "stale" in top.screen.splitlines()[0]
        assert "0 loans" in top.screen, "what was heard stays"
        with shell.start("custodian", "serve") as server:
            server.until_port(port)
            top.until("live")
            top.until(lambda text: text.count("custodian started") == 2)
            assert top.end() == 0


def test_a_token_that_is_good_no_more_is_said(custodian: Shell) -> None:
    file = custodian.folder / "auditor.token"
    custodian.ok("custodian", "token", "create", "--role", "auditor", "--name", "night shift", "--out", file)
    with console(custodian, "custodian", "top", "--token-file", str(file), "--interval", "0.5") as top:
        top.until("live")
        tokens = custodian.ok("custodian", "token", "list")["tokens"]
        (mine,) = [one["id"] for one in tokens if one["name"] == "night shift"]
        custodian.ok("custodian", "token", "revoke", mine)
        top.until("no answer: bearer token: unauthenticated")
        assert "hint: " in top.screen
        assert top.end() == 0
    refused = custodian("custodian", "top", "--once", "--token-file", file)
    assert (refused.code, refused.out) == (4, "")


def test_a_viewer_sees_all_but_the_log(custodian: Shell) -> None:
    file = custodian.folder / "viewer.token"
    custodian.ok("custodian", "token", "create", "--role", "viewer", "--name", "screen in the hall", "--out", file)
    with console(custodian, "custodian", "top", "--token-file", str(file)) as top:
        assert top.until("no events:").splitlines()[0].endswith("polling")
        assert top.end() == 0
    quiet = custodian("custodian", "top", "--once", "--no-events", "--token-file", file)
    assert quiet.code == 0
    assert "events are not asked for" in quiet.out
