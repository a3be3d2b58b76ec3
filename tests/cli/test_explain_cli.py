"""``cloister explain``: every code, its cause and its fix, offline; errors lead there."""

from __future__ import annotations

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


def test_a_mistake_in_usage_has_a_code_for_programs_and_no_line_more(shell: Shell) -> None:
    assert "more:" not in shell("model", "inspect", "nowhere").err
    assert shell("model", "inspect", "nowhere", "--json").json["error"]["code"] == "usage"


def test_bytes_that_do_not_parse_have_a_code(shell: Shell) -> None:
    (shell.folder / "m.gguf").write_bytes(b"GGUF")
    said = shell("model", "inspect", "m.gguf")
    assert (said.code, said.err.endswith("more: cloister explain malformed\n")) == (3, True)
    assert shell("model", "inspect", "m.gguf", "--json").json["error"]["code"] == "malformed"
