"""``cloister audit`` as an auditor and a data protection officer type it: persons, fields, holds, pruning, exports."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest
import test_audit_cli

from test_docs_compliance import LOOKING, told

if TYPE_CHECKING:
    from cli_kit import Shell
    from test_audit_cli import Office

office = test_audit_cli.office
"""The fixture."""

REASON = "patient 0417 objected"


def block(office: Office) -> None:
    """Add a consumer and block it, for a reason that names somebody."""
    loan = office.shell.ok(
        "loan", "create", "--borrower", "b", "--model", f"scan={office.digest}", "--allowance", "3", "--policy",
        "policy.json", "--out", "ward.json", "--consumer", "ward-b=2", "--tokens", "tokens",
    )["loan"]  # fmt: skip
    office.shell.ok("loan", "block", "ward-b", "--kind", "consumer", "--loan", loan, "--reason", REASON)


def entry_of(shell: Shell, kind: str) -> dict[str, object]:
    lines = [json.loads(line) for line in shell("audit", "list", "--json").out.splitlines()]
    return next(line for line in lines if line["kind"] == kind)  # type: ignore[no-any-return]


@pytest.mark.timeout(240)
def test_a_person_is_resolved_opened_held_and_forgotten(office: Office) -> None:
    shell = office.shell
    block(office)
    blocked = entry_of(shell, "blocked")
    pseudonym = str(blocked["subject"])
    assert pseudonym.startswith("p:")
    assert REASON not in shell("audit", "list").out
    assert "reason=(committed)" in shell("audit", "list").out
    assert shell.ok("audit", "resolve", pseudonym) == {"name": "ward-b", "pseudonym": pseudonym}

    opened = shell.ok("audit", "open", blocked["index"], "reason", "--out", "reason.proof")
    assert (opened["value"], opened["closed"]) == (REASON, [])
    assert (shell.folder / "reason.proof").stat().st_mode & 0o077 == 0
    shell.ok("audit", "open", "--check", "reason.proof", "--key", office.key)
    proof = (shell.folder / "reason.proof").read_text()
    (shell.folder / "lie.proof").write_text(proof.replace(REASON, "patient 0418 objected"))
    said = shell("audit", "open", "--check", "lie.proof", "--key", office.key, "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "not_committed")

    hold = shell.ok("audit", "hold", "add", "subject:ward-b", "--reason", "case 12")["hold"]
    said = shell("audit", "forget", "ward-b", "--yes", "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "held")
    assert hold in shell("audit", "hold", "list").out
    shell.ok("audit", "hold", "lift", hold)
    assert shell.ok("audit", "forget", "ward-b", "--yes")["salts"] == 1
    assert shell.ok("audit", "resolve", pseudonym)["name"] is None
    said = shell("audit", "open", blocked["index"], "reason", "--out", "again.proof", "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "forgotten")
    shell.ok("audit", "open", "--check", "reason.proof", "--key", office.key)  # what was given away stays proven
    assert shell.ok("audit", "verify", "--key", office.key)["pruned"] == 0
    assert shell.ok("audit", "prune", "--yes") == {"held": 0, "pruned": {}}
    assert {item["class"] for item in shell.ok("audit", "retention")["classes"]} >= {"security", "billing", "access"}


@pytest.mark.timeout(240)
def test_an_export_of_each_form_is_proven_gone_on_with_and_bent(office: Office) -> None:
    """One office for all of them: it takes longer to open than they take."""
    block(office)
    for name in ("jsonl", "ocsf", "cef", "otel"):
        demand_export(office, name)
        for path in office.shell.folder.glob("*day*"):
            path.unlink()


def demand_export(office: Office, name: str) -> None:
    shell, folder = office.shell, office.shell.folder
    first = shell.ok("audit", "export", "--out", "monday", "--format", name, "--key", office.key)
    check = ("--key", office.key)
    assert shell.ok("audit", "verify", "monday", "--manifest", "monday.manifest", *check)["entries"] == first["size"]
    assert REASON not in (folder / "monday").read_text()
    assert shell("audit", "export", "--out", "monday", "--format", name).code == 2
    office.lend(f"{name}.json")
    words = ("audit", "export", "--out", "tuesday", "--format", name, "--since", "monday.manifest", *check)
    second = shell.ok(*words)
    assert second["first"] == first["size"]
    found = shell.ok("audit", "verify", "tuesday", "--manifest", "tuesday.manifest", *check)
    assert (found["first"], found["entries"]) == (first["size"], second["entries"])
    # an export that broke off in the middle of a record goes on
    whole = (folder / "tuesday").read_bytes()
    (folder / "tuesday").unlink()
    (folder / "tuesday.part").write_bytes(whole[: len(whole) * 2 // 3])
    again = shell.ok(*words, "--resume")
    assert 0 < again["records"] < again["entries"]
    assert (folder / "tuesday").read_bytes() == whole
    # one byte of what a format adds, and one record
    (folder / "bent").write_bytes(whole.replace(b"a", b"b", 1))
    assert shell("audit", "verify", "bent", "--manifest", "tuesday.manifest", *check).code in {3, 4}
    (folder / "cut").write_bytes(whole[: whole.index(b"\n") + 1])
    said = shell("audit", "verify", "cut", "--manifest", "tuesday.manifest", *check, "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "audit_cut")


@pytest.mark.timeout(240)
def test_every_command_of_the_auditors_page_that_only_looks_does_what_it_says(office: Office) -> None:
    lines = list(told())
    assert {name for name in LOOKING for line in lines if line.startswith(name)} == set(LOOKING)
    for line in lines:
        words = shlex.split(line.replace("12", "2").replace("LOAN", office.loan).replace("KEY", office.key))
        said = office.shell(*words)
        assert said.code == 0, (line, said)
    office.shell.ok("audit", "verify", "log.ocsf", "--manifest", "log.ocsf.manifest", "--key", office.key)
