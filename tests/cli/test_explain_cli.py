"""``cloister explain``: every code, its cause and its fix, offline; errors lead there."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from click.shell_completion import ShellComplete

from cloister.cli import app
from cloister.codes import CODES

if TYPE_CHECKING:
    from cli_kit import Shell


def test_a_code_is_explained_with_cause_fix_and_who_can_mend_it(shell: Shell) -> None:
    said = shell("explain", "allowance_exhausted", "audit_broken")
    assert said.code == 0
    for word in ("no units are left", "402 (custodian), 402 (enclave)", "docs/reference/errors.md#audit_broken", "who"):
        assert word in said.out


@pytest.mark.parametrize("name", sorted(CODES))
def test_every_code_is_explained_to_a_program(shell: Shell, name: str) -> None:
    (found,) = shell.ok("explain", name)["codes"]
    assert found["code"] == name
    assert found["type"] == f"urn:cloister:problem:{name}"
    assert found["exit_code"] in {1, 2, 3, 4, 5, None}
    assert "](" not in found["cause"] + found["fix"]


def test_the_type_of_a_problem_document_is_a_code_too(shell: Shell) -> None:
    assert shell.ok("explain", "urn:cloister:problem:blocked") == shell.ok("explain", "blocked")


def test_without_a_code_all_are_listed(shell: Shell) -> None:
    assert {item["code"] for item in shell.ok("explain")["codes"]} == set(CODES)
    assert "Evidence does not hold" in shell("explain").out


def test_a_word_that_is_no_code_is_a_mistake_with_the_nearest_beside_it(shell: Shell) -> None:
    said = shell("explain", "blokked")
    assert (said.code, said.err) == (2, "error: blokked: no such code\nhint: did you mean 'blocked'?\n")
    assert "lists all" in shell("explain", "\x1b[2J").err


def test_a_shell_completes_codes() -> None:
    complete = ShellComplete(app, {}, "cloister", "_CLOISTER_COMPLETE")
    found = [item.value for item in complete.get_completions(["explain"], "tcb_")]
    assert found == ["tcb_mismatch", "tcb_out_of_date", "tcb_status_not_allowed"]


def test_a_refusal_names_its_codes_and_where_to_read(shell: Shell) -> None:
    (shell.folder / "model.pt").write_bytes(b"\x80\x04.")
    said = shell("model", "inspect", "model.pt")
    assert said.code == 4
    assert said.err.endswith("more: cloister explain pickle\n")
    assert shell("model", "inspect", "model.pt", "--json").json["error"]["code"] == "pickle"


def test_bytes_that_do_not_parse_have_a_code_for_programs(shell: Shell) -> None:
    (shell.folder / "m.gguf").write_bytes(b"GGUF")
    said = shell("model", "inspect", "m.gguf")
    assert (said.code, "more:" in said.err) == (3, False)
    assert shell("model", "inspect", "m.gguf", "--json").json["error"]["code"] == "malformed"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("trust", "show", "nowhere.json"), "no_such_file"),
        (("trust", "show", "a" * 300), "file_unreadable"),
        (("trust", "simulated-root", "there.json"), "file_exists"),
        (("loan", "status", "--loan-file", "there.json"), "open_to_others"),
        (("loan", "statsu"), "option_wrong"),
        (("loan", "list", "--url", "https://127.0.0.1:1", "--token-file", "token"), "no_answer"),
        (("model", "withdraw", "0" * 64, "--url", "https://127.0.0.1:1", "--token-file", "token"), "not_confirmed"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_what_people_meet_most_has_a_code_of_its_own(shell: Shell, words: tuple[str, ...], code: str) -> None:
    (shell.folder / "there.json").write_text("{}")
    (shell.folder / "there.json").chmod(0o644)
    (shell.folder / "token").write_text("clst_" + "a" * 43)
    (shell.folder / "token").chmod(0o600)
    said = shell(*words)
    assert said.err.endswith(f"more: cloister explain {code}\n") == (code != "option_wrong"), said
    error = shell(*words, "--json").json["error"]
    assert error["code"] == code
    assert str(error["exit_code"]) == CODES[code].fault.value


def test_an_address_that_is_taken_says_so(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        said = shell("relay", "--gateway", "https://127.0.0.1:1", "--listen", place, "--json")
    assert (said.code, said.json["error"]["code"]) == (5, "address_taken")
