"""The rules of the terminal: streams, exit codes, JSON, secrets, files, pipes, interrupts (list 7.6)."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from cli_kit import ESCAPE, Shell, commands

import cloister
from cloister.cli.terminal import Terminal, read_secret, write_file
from cloister.errors import Malformed, Reason, Rejected, Unavailable, UsageError


def test_93_help_and_version_go_to_stdout_and_no_arguments_to_stderr(shell: Shell) -> None:
    assert "Commands:" in shell("--help").out
    assert cloister.__version__ in shell("--version").out
    said = shell()
    assert said.code == 2
    assert not said.out
    assert "Usage" in said.err


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_93_every_command_has_help(shell: Shell, path: tuple[str, ...]) -> None:
    said = shell(*path, "--help")
    assert said.code == 0
    assert "Usage: cloister" in said.out
    assert not said.err


def test_94_an_unknown_command_is_answered_with_the_nearest(shell: Shell) -> None:
    said = shell("custodain")
    assert said.code == 2
    assert "did you mean 'custodian'" in said.err
    assert "did you mean 'top-up'" in shell("loan", "topup").err
    said = shell("loan", "list", "--jason")
    assert said.code == 2
    assert "--json" in said.err


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device"])
def test_95_inputs_that_are_no_plain_file_are_refused(shell: Shell, kind: str) -> None:
    path = shell.folder / "input.png"
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/zero")
    for suffix in ("", "x="):
        said = shell("infer", "https://127.0.0.1:1", "--trust", "t.json", "--model", "m", "--input", f"{suffix}{path}")
        assert said.code == 2, said
        assert said.err.startswith("error: ")


def test_95_pickles_and_broken_archives_are_refused(shell: Shell) -> None:
    import numpy as np  # noqa: PLC0415 - here only

    np.save(shell.folder / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (shell.folder / "broken.npz").write_bytes(b"PK\x03\x04 broken")
    (shell.folder / "empty.npy").write_bytes(b"")
    (shell.folder / "deep.json").write_text("[" * 5000)
    for name in ("objects.npy", "broken.npz", "empty.npy", "deep.json"):
        said = shell("infer", "https://127.0.0.1:1", "--trust", "t.json", "--model", "m", "--input", name)
        assert said.code == 2, (name, said)
        assert "Traceback" not in said.err


def test_96_files_are_written_whole_and_never_over_others(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_file(path, b"one", private=True)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="exists already"):
        write_file(path, b"two")
    assert path.read_bytes() == b"one"
    write_file(path, b"two", force=True)
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_97_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from cloister.cli.terminal import write_file\n"
        "from cloister.errors import Unavailable\n"
        "try:\n    write_file(Path(sys.argv[1]), b'x' * 5000)\nexcept Unavailable:\n    sys.exit(5)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out")]
    done = subprocess.run(words, check=False, timeout=30)  # noqa: S603 - our own command line
    assert done.returncode == 5
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_97_an_unwritable_folder_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        write_file(tmp_path / "missing" / "out", b"x")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_98_secrets_that_others_may_read_are_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    path.write_text("secret-token-0123456789\n")
    path.chmod(mode)
    with pytest.raises(UsageError, match="want 0600") as caught:
        read_secret(str(path), what="token")
    assert caught.value.hint == f"chmod 600 {path}"
    assert "secret-token" not in str(caught.value)
    path.chmod(0o600)
    assert read_secret(str(path), what="token").reveal() == "secret-token-0123456789"


def test_98_a_key_file_of_the_vault_that_others_may_read_is_refused(shell: Shell) -> None:
    shell.ok("custodian", "init")
    key = shell.folder / "vault.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    said = shell("custodian", "show")
    assert said.code == 2
    assert "0600" in said.err


def test_99_no_command_takes_a_secret_as_an_argument() -> None:
    """Arguments are shown to everybody by ps."""
    words = ("token", "secret", "passphrase", "password", "private")
    for path, command in commands():
        for option in command.params:
            if getattr(option, "is_flag", False):
                continue  # it takes nothing
            for name in [*option.opts, option.name or ""]:
                if any(word in name for word in words):
                    # Files and folders only, and the id or name of a token.
                    assert name.removeprefix("--") in {
                        "token-file",
                        "token_file",
                        "staff-token-file",
                        "staff_token_file",
                        "model-token-file",
                        "model_token_file",
                        "local-token-file",
                        "caller-token-file",
                        "caller_token_file",
                        "metrics-token-file",
                        "metrics_token_file",
                        "local_token_file",
                        "passphrase-file",
                        "passphrase_file",
                        "tokens",
                    }, (
                        path,
                        name,
                    )
            assert option.envvar is None or "TOKEN" not in str(option.envvar), path


def test_100_a_token_comes_from_stdin_whatever_its_last_line(shell: Shell) -> None:
    base = ["audit", "list", "--url", "https://127.0.0.1:1", "--token-file", "-", "--json"]
    for text in (b"token-0123456789", b"token-0123456789\n", b"token-0123456789\r\n"):
        done = shell.process(*base, input=text)
        assert done.returncode == 5, done  # nobody listens there: the token was accepted
    for text in (b"", b"\n", b"\xff\xfe\x00binary\n"):
        done = shell.process(*base, input=text)
        assert done.returncode == 2, done
        assert json.loads(done.stdout)["error"]["fault"] == "usageerror"
        assert b"Traceback" not in done.stderr
    closed = shell.process(*base, stdin=subprocess.DEVNULL)
    assert closed.returncode == 2


def test_101_an_interrupt_ends_with_130_and_no_traceback(shell: Shell) -> None:
    (shell.folder / "trust.json").write_bytes(TRUST)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", "cloister", "verify", url, "--trust", "trust.json"],
            cwd=shell.folder,
            env=shell.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        silent.settimeout(40)
        connection, _ = silent.accept()
        with connection:
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert not out
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    "variables",
    [{"LANG": "C", "LC_ALL": "C"}, {"TERM": "dumb"}, {"PYTHONWARNINGS": "error"}, {"PYTHONIOENCODING": "ascii"}],
)
def test_103_poor_environments_are_enough(shell: Shell, variables: dict[str, str]) -> None:
    (shell.folder / "trust.json").write_bytes(TRUST)
    environment = {**shell.environment(), **variables}
    environment.pop("HOME")
    for words in (("--help",), ("trust", "show", "trust.json"), ("trust", "show", "missing.json")):
        done = shell.process(*words, env=environment)
        assert done.returncode == (2 if "missing.json" in words else 0), done
        assert b"Traceback" not in done.stderr


def test_105_a_reader_that_goes_away_is_no_error(shell: Shell) -> None:
    command = f"{sys.executable} -m cloister completion bash | head -c 10 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(  # noqa: S603 - our own command line
        ["/bin/bash", "-c", command],
        cwd=shell.folder,
        env=shell.environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == b"0"
    assert not done.stderr


FAILING = (
    ("loan", "list"),
    ("loan", "nonsense"),
    ("loan", "top-up", "loan-x"),
    ("loan", "top-up", "loan-x", "--units", "1.5"),
    ("loan", "top-up", "loan-x", "--units", "-1"),
    ("model", "seal", "missing", "--out", "o", "--name", "n"),
    ("model", "publish", "missing"),
    ("enclave", "serve"),
    ("enclave", "serve", "--tee", "simulated"),
    ("verify", "https://127.0.0.1:1", "--trust", "missing.json"),
    ("verify", "no url", "--trust", "trust.json"),
    ("verify", "http://127.0.0.1:1", "--trust", "trust.json"),
    ("verify", "http://127.0.0.1:1", "--trust", "broken.json"),
    ("infer", "https://127.0.0.1:1", "--trust", "trust.json", "--model", "m", "--input", "missing.png"),
    ("trust", "new"),
    ("trust", "show", "broken.json"),
    ("audit", "verify", "missing.log"),
    ("audit", "verify"),
    ("custodian", "serve"),
    ("custodian", "show"),
    ("completion", "csh"),
    ("loan", "request", "--loan-file", "missing.json", "--units", "1"),
)


@pytest.mark.parametrize("words", FAILING, ids=" ".join)
def test_106_json_is_valid_for_errors_too(shell: Shell, words: tuple[str, ...]) -> None:
    (shell.folder / "trust.json").write_bytes(TRUST)
    (shell.folder / "broken.json").write_bytes(TRUST[:-3])
    said = shell(*words, "--json")
    assert said.code in {2, 3, 4, 5}, said
    error = said.json["error"]
    assert error["exit_code"] == said.code
    assert error["message"]
    assert not ESCAPE.search(said.out + said.err)
    plain = shell(*words)
    assert plain.code == said.code
    assert not plain.out
    assert "error:" in plain.err
    assert not ESCAPE.search(plain.err)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("u", hint="h"), 2),
        (Malformed("m"), 3),
        (Rejected("r", reasons=(Reason(code="a", subject="b"), Reason(code="c", subject="d", got="[bold]"))), 4),
        (Unavailable("n"), 5),
    ],
)
def test_an_error_shows_every_reason_its_hint_and_its_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from cloister.cli.terminal import run  # noqa: PLC0415 - here only

    @click.command()
    def fail() -> None:
        raise error

    assert run(fail, []) == code
    err = capsys.readouterr().err
    assert str(error) in err
    if isinstance(error, Rejected):
        assert "[bold]" in err  # text of others is never markup
        assert "b: a" in err
    assert ("hint: h" in err) == (code == 2)


def test_colours_need_a_terminal_and_no_color_turns_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    terminal = Terminal()
    assert not terminal.err.is_terminal
    monkeypatch.setenv("NO_COLOR", "1")
    assert Terminal().err.no_color


def test_progress_says_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    with terminal.progress("sealing") as report:
        report(1, 2)
        report(2, 2)
    captured = capsys.readouterr()
    assert not captured.out
    assert not captured.err


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: Shell, shell_name: str) -> None:
    said = shell("completion", shell_name)
    assert said.code == 0
    assert "_CLOISTER_COMPLETE" in said.out


POLICY = {
    "tees": {
        "simulated": {
            "chip_id": {"not_checked": "any"},
            "debug": {"exact": False},
            "host_data": {"not_checked": "any"},
            "measurement": {"one_of": ["aa" * 48]},
            "migratable": {"exact": False},
            "svn": {"at_least": 1},
        }
    },
    "v": 1,
    "version": 1,
}
TRUST = json.dumps(
    {
        "v": 1,
        "policy": {**POLICY, "tees": {"sev-snp": {"measurement": {"one_of": ["aa" * 48]}}}},
        "custodian": {"not_checked": "for this test"},
        "operator": {"not_checked": "anybody"},
        "models": {"not_checked": "any"},
        "tls": {"not_checked": "loopback"},
    }
).encode()


HOSTILE = "a\x1b]0;owned\x07b\x1b[2Jc\x9b31md\u202ee[bold]f[/nothing]:key:"


@pytest.mark.parametrize("as_json", [False, True])
def test_t84_text_of_others_never_steers_the_terminal(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:  # noqa: FBT001 - a case
    terminal = Terminal(as_json=as_json)
    terminal.result({"name": HOSTILE}, lambda out: out.print(terminal.table((HOSTILE,), [(HOSTILE,)]), HOSTILE))
    terminal.say(HOSTILE)
    terminal.warn(HOSTILE)
    terminal.line({"name": HOSTILE})
    terminal.error(Rejected(HOSTILE, reasons=(Reason(code="a", subject=HOSTILE),) * 2, hint=HOSTILE))
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert shown.count("[bold]f[/nothing]:key:") >= 4
    if as_json:
        assert json.loads(captured.out.splitlines()[1].partition(": ")[2]) == HOSTILE


def test_t84_a_borrowers_name_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from cloister.cli.loan import draw_loan  # noqa: PLC0415 - here only

    terminal = Terminal()
    shown = {
        "bound": {"seconds": 1, "units": 2}, "loan": "l", "borrower": HOSTILE, "state": HOSTILE,
        "meters": {HOSTILE: dict.fromkeys(("granted", "balance", "held", "spent", "written_off", "owed"), 0)},
        "instances": [], "requests": [{"id": "r", "meter": "loan", "units": 1, "reason": HOSTILE, "state": "open"}],
        "terms": {"max_instances": 1},
    }  # fmt: skip
    draw_loan(terminal, shown, terminal.out)
    out = capsys.readouterr().out
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out)
    assert out.count("[bold]f[/nothing]") >= 3
