"""Contracts and sub-allowances as people write and read them on the command line."""

from __future__ import annotations

import json
import stat
import tomllib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from enclave_models import doubler
from hypothesis import given
from hypothesis import strategies as st

from cloister.attest.software import SoftwareManifest
from cloister.cli.borrower import read_borrower_key
from cloister.cli.contract_file import EXAMPLE, read_contract_file
from cloister.cli.hours import dump_hours, parse_hours
from cloister.cli.limit_words import limits_json, output_rules_json, watches_json
from cloister.client import HeldSubAllowance
from cloister.crypto.sign import SigningKey
from cloister.errors import UsageError
from cloister.lending.clauses import Clauses, Window
from cloister.lending.contract import Contract, SignedContract
from cloister.lending.revocation import verify_list
from cloister.lending.terms import LoanId, ModelDigest, ModelTerms, Terms
from cloister.testing.ports import free_port
from cloister.testing.simulated import simulated_policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli_kit import Shell

LOAN = "loan-" + "a" * 16
POLICY = simulated_policy(SoftwareManifest(code="ab" * 32, python="3.11", packages={}, settings={})).dump()


def window(day: int, start: int, end: int) -> Window:
    return Window(day=day, start=start * 60, end=end * 60)


@pytest.mark.parametrize(
    ("texts", "windows"),
    [
        (["mon-fri 08:00-18:00"], [window(day, 8, 18) for day in range(1, 6)]),
        (["sat 10:00-12:00", "mon 08:00-09:00"], [window(1, 8, 9), window(6, 10, 12)]),
        (["daily 00:00-24:00"], [window(day, 0, 24) for day in range(1, 8)]),
        (["fri-mon 08:00-09:00"], [window(day, 8, 9) for day in (1, 5, 6, 7)]),
        (["sun 22:00-06:00"], [window(1, 0, 6), window(7, 22, 24)]),
        (["mon 22:00-00:00"], [window(1, 22, 24)]),
    ],
)
def test_hours_as_people_write_them(texts: list[str], windows: list[Window]) -> None:
    assert list(parse_hours(texts)) == windows


@pytest.mark.parametrize(
    "text",
    ["", "mon", "08:00-18:00", "mo 08:00-18:00", "mon 8:00-18:00", "mon 08:00-08:00", "mon 24:00-01:00",
     "mon 08:60-09:00", "mon 25:00-26:00", "mon-xyz 08:00-09:00", "mon 08:00-18:00 CET", "mon 08:00 - 18:00"],
)  # fmt: skip
def test_other_hours_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="UTC"):
        parse_hours([text])


@given(st.sets(st.builds(window, st.integers(1, 7), st.integers(0, 11), st.integers(12, 24)), min_size=1))
def test_hours_are_printed_as_they_may_be_typed(windows: set[Window]) -> None:
    assert set(parse_hours(dump_hours(sorted(windows)))) == windows


# contract files


def written(folder: Path, text: str) -> Path:
    path = folder / "contract.toml"
    path.write_text(text)
    return path


def test_the_example_is_a_contract_file(tmp_path: Path) -> None:
    body, policy = read_contract_file(written(tmp_path, EXAMPLE))
    assert policy == tmp_path / "policy.json"
    assert body["clauses"]["precision"] == 3
    assert len(body["clauses"]["hours"]) == 6
    assert body["consumers"] == [{"id": "ward-1"}]
    assert "refund" not in body["clauses"]


def test_every_member_that_the_example_leaves_commented_out_is_one(tmp_path: Path) -> None:
    key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    lines = []
    for line in EXAMPLE.splitlines():
        bare = line.removeprefix("# ")
        uncommented = bare if line.startswith("# ") and (" = " in bare.split("#")[0] or bare.startswith("[")) else line
        lines.append(uncommented.replace('"..."', f'"{key}"'))
    text = "\n".join(lines)
    assert {"borrower_key", "offline", "sub_allowances"} <= set(tomllib.loads(text))
    body, _ = read_contract_file(written(tmp_path, text))
    assert body["clauses"]["offline"] == {"lasts_s": 172_800, "units": 500}
    assert (body["clauses"]["borrower"], body["clauses"]["sub_allowances"]) == (key, True)
    assert body["clauses"]["outputs"] == [{"model": "digits", "output": "scores", "top": 3}]
    assert body["clauses"]["watches"][0] == {"above": 20, "action": "slow", "kind": "near"}
    assert body["clauses"]["consumer_limits"]["each"]["rate"] == {"burst": 20, "per_s": 1, "units": 10}
    assert body["models"][0]["ticketed"] is True


@pytest.mark.parametrize(
    ("find", "put"),
    [
        ("borrower = ", "borower = "),
        ("allowance = 10000", ""),
        ("precision = 3", "precision = 16"),
        ("precision = 3", 'precision = "3"'),
        ('refund = "none"', 'refund = "all"'),
        ('"mon-fri 08:00-18:00"', "8"),
        ('"mon-fri 08:00-18:00"', '"always"'),
        ("[[consumers]]", "[consumers]"),
        ('policy = "policy.json"', "policy = 1"),
        ("[[models]]", "[[models"),
    ],
)
def test_another_contract_file_is_refused_and_says_where_to_look(tmp_path: Path, find: str, put: str) -> None:
    assert find in EXAMPLE
    with pytest.raises(UsageError):
        read_contract_file(written(tmp_path, EXAMPLE.replace(find, put, 1)))


# sub-allowances


def made(shell: Shell, *words: str, name: str = "ward.allowance") -> Any:
    if not (shell.folder / "borrower.key").exists():
        shell.ok("borrower", "key", "--out", "borrower.key")
    return shell.ok("allowance", "new", "--loan", LOAN, "--key", "borrower.key", "--out", name, *words)


def test_a_borrowers_key_is_for_its_owner_alone(shell: Shell) -> None:
    said = shell.ok("borrower", "key", "--out", "borrower.key")
    path = shell.folder / "borrower.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() not in json.dumps(said)
    path.chmod(0o644)
    refused = shell("allowance", "new", "--loan", LOAN, "--key", "borrower.key", "--out", "x")
    assert refused.code == 2
    assert "0644" in refused.err


def test_a_sub_allowance_is_made_narrowed_and_shown(shell: Shell) -> None:
    words = ("--units", "10", "--hours", "mon-fri 08:00-18:00", "--purpose", "triage", "--name", "ward-1")
    made(shell, *words)
    shell.ok("allowance", "narrow", "ward.allowance", "--units", "3", "--model", "digits", "--out", "bed.allowance")
    shown = shell.ok("allowance", "show", "bed.allowance")
    assert [block["units"] for block in shown["blocks"]] == [10, 3]
    path = shell.folder / "bed.allowance"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = HeldSubAllowance.load(path).token
    plain = shell("allowance", "show", "bed.allowance")
    assert "mon-fri 08:00-18:00 (UTC)" in plain.out
    assert secret not in plain.out + json.dumps(shown)


def test_a_sub_allowance_ends_within_a_day_unless_it_says_so(shell: Shell) -> None:
    assert made(shell)["ends"] != made(shell, "--for", "2d", name="other")["ends"]


@pytest.mark.parametrize(
    "words", [("--hours", "always"), ("--model", "No Such Name"), ("--instance", "x"), ("--for", "0"), ("--for", "99d")]
)
def test_a_sub_allowance_out_of_form_is_not_made(shell: Shell, words: tuple[str, ...]) -> None:
    shell.ok("borrower", "key", "--out", "borrower.key")
    said = shell("allowance", "new", "--loan", LOAN, "--key", "borrower.key", "--out", "x", *words)
    assert said.code == 2
    assert not (shell.folder / "x").exists()


def test_a_file_that_others_can_read_is_no_sub_allowance(shell: Shell) -> None:
    made(shell)
    (shell.folder / "ward.allowance").chmod(0o640)
    assert shell("allowance", "show", "ward.allowance").code == 2


def revoked(shell: Shell, *words: str, key: str = "borrower.key", loan: str = LOAN) -> Any:
    return shell("allowance", "revoke", "--loan", loan, "--key", key, "--list", "list.json", *words, "--json")


def test_a_sub_allowance_is_called_back_and_the_list_only_grows(shell: Shell) -> None:
    parent, other = made(shell)["id"], made(shell, name="other.allowance")["id"]
    shell.ok("allowance", "narrow", "ward.allowance", "--out", "bed.allowance")
    child = shell.ok("allowance", "show", "bed.allowance")["ids"]
    assert child[0] == parent
    said = revoked(shell, "bed.allowance")
    first = said.json
    assert (first["number"], first["revoked"]) == (1, [child[1]])
    assert "a first list" in said.err, "for whoever mistyped the name of the list there is"
    said = revoked(shell, "ward.allowance", "--id", other)
    second = said.json
    assert "a first list" not in said.err
    assert (second["number"], second["revoked"]) == (2, sorted([parent, other, child[1]]))
    renewed = revoked(shell, "--for", "1d").json
    assert (renewed["number"], renewed["revoked"]) == (3, second["revoked"])
    key = read_borrower_key(str(shell.folder / "borrower.key")).verify_key
    found = verify_list((shell.folder / "list.json").read_bytes(), borrower=key, loan=LoanId(LOAN))
    assert sorted(found.blocks) == second["revoked"]
    assert other in shell("allowance", "show", "other.allowance").out


def test_a_list_of_somebody_else_is_not_written_over(shell: Shell) -> None:
    made(shell)
    assert revoked(shell, "ward.allowance").code == 0
    before = (shell.folder / "list.json").read_bytes()
    shell.ok("borrower", "key", "--out", "other.key")
    assert revoked(shell, key="other.key").code == 4
    assert revoked(shell, loan="loan-" + "b" * 16).code == 4
    assert revoked(shell, "ward.allowance", loan="loan-" + "b" * 16).code == 2
    assert revoked(shell, "--id", "0a").code == 2
    (shell.folder / "list.json").write_bytes(before[:-1])
    assert revoked(shell, "ward.allowance").code != 0
    assert (shell.folder / "list.json").read_bytes() == before[:-1]


# the contract that a consumer's trust file demands

CUSTODIAN, BORROWER = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)


def agreed(shell: Shell, *, borrower: SigningKey | None = BORROWER, signed: bool = True) -> str:
    """Write a contract, signed by the custodian, and by the borrower where that is said; return its digest."""
    clauses = Clauses(borrower=None if borrower is None else borrower.verify_key)
    terms = Terms(
        loan=LoanId(LOAN),
        borrower="Clinic",
        models=(ModelTerms(name="digits", digest=ModelDigest("ab" * 32)),),
        consumers=None,
        clauses=clauses,
    )
    made = Contract.of(
        terms, custodian=CUSTODIAN.verify_key, policy_digest="cd" * 32, created_at=datetime(2026, 1, 5, tzinfo=UTC)
    )
    document = SignedContract.offer(made, CUSTODIAN)
    if borrower is not None and signed:
        document = document.accept(borrower, custodian=CUSTODIAN.verify_key)
    (shell.folder / "contract.json").write_bytes(document.dump() + b"\n")
    return made.digest


def trusting(shell: Shell, *words: str, key: SigningKey = CUSTODIAN) -> Any:
    (shell.folder / "policy.json").write_bytes(POLICY)
    if not (shell.folder / "root.json").exists():
        shell.ok("trust", "simulated-root", "root", "--public", "root.json")
    return shell(
        "trust", "new", "--policy", "policy.json", "--insecure-simulated-root", "root.json", "--custodian-url",
        "https://c.example", "--custodian-key", key.verify_key.dump(), "--any-operator", "test", "--any-model", "test",
        "--contract", "contract.json", "--out", "trust.json", *words,
    )  # fmt: skip


def test_a_trust_file_pins_the_contract_that_both_have_signed(shell: Shell) -> None:
    digest = agreed(shell)
    assert trusting(shell, "--borrower-key", BORROWER.verify_key.dump()).code == 0
    shown = shell.ok("trust", "show", "trust.json")
    assert shown["contract"] == {"digest": digest}
    assert shown["borrower"] == {"key": BORROWER.verify_key.dump()}
    assert digest in shell("trust", "show", "trust.json").out


def test_a_trust_file_pins_no_contract_that_is_not_agreed_on(shell: Shell) -> None:
    agreed(shell)
    assert trusting(shell, key=BORROWER).code == 4, "drawn up by another custodian"
    assert trusting(shell, "--borrower-key", CUSTODIAN.verify_key.dump()).code == 2, "signed by another borrower"
    agreed(shell, signed=False)
    assert trusting(shell).code == 4, "signed by the custodian only"
    agreed(shell, borrower=None)
    assert trusting(shell).code == 2, "nobody has to countersign it"
    (shell.folder / "contract.json").write_text("{}")
    assert trusting(shell).code != 0
    assert not (shell.folder / "trust.json").exists()


# the contract with a custodian


@pytest.fixture
def custodian(shell: Shell) -> Iterator[Shell]:
    """Yield a shell beside a running custodian with one published model."""
    port = free_port()
    shell.ok("trust", "simulated-root", "root.json", "--public", "root.pub.json")
    shell.ok("custodian", "init", "--port", str(port))
    (shell.folder / "model.onnx").write_bytes(doubler())
    (shell.folder / "policy.json").write_bytes(POLICY)
    with shell.start("custodian", "serve", "--insecure-simulated-root", "root.pub.json") as server:
        server.until_port(port)
        sealed = shell.ok("model", "seal", "model.onnx", "--out", "sealed", "--name", "digits")
        shell.ok("model", "publish", "sealed")
        (shell.folder / "digest").write_text(sealed["digest"])
        yield shell


def test_a_contract_is_written_offered_read_signed_and_amended(custodian: Shell) -> None:
    shell = custodian
    public = shell.ok("borrower", "key", "--out", "borrower.key")["public"]
    example = shell("loan", "contract", "--example").out
    assert example == EXAMPLE
    text = example.replace("0" * 64, (shell.folder / "digest").read_text())
    text = text.replace('# borrower_key = "..."', f'borrower_key = "{public}"')
    written(shell.folder, text)
    said = shell("loan", "create", "--from", "contract.toml", "--out", "clinic.loan", "--tokens", "tokens")
    loan = said.out.split()[0]
    assert "loan accept" in said.err
    # The borrower reads it in plain words and signs; without a word of consent nothing is signed.
    read = shell("loan", "contract", "--loan-file", "clinic.loan")
    assert "mon-fri 08:00-18:00, sat 10:00-12:00 (UTC)" in read.out
    assert "floating outputs rounded to 3 decimal places" in read.out
    assert "waits for the borrower's signature" in read.out
    unasked = shell("loan", "accept", "--loan-file", "clinic.loan", "--key", "borrower.key")
    assert unasked.code == 2
    shell.ok("borrower", "key", "--out", "other.key")
    assert shell("loan", "accept", "--loan-file", "clinic.loan", "--key", "other.key", "--yes").code == 2
    signed = shell("loan", "accept", "--loan-file", "clinic.loan", "--key", "borrower.key", "--yes")
    assert (signed.code, "signed version 1" in signed.out) == (0, True)
    assert "Triage of chest images" in signed.err
    again = shell.ok("loan", "accept", "--loan-file", "clinic.loan", "--key", "borrower.key", "--yes")
    assert again == {"signed": False}
    # A change is an offer first.
    offered = shell.ok(
        "loan", "amend", loan, "--precision", "1", "--drop", "hours", "--output", "digits:y=label",
        "--watch", "near:20=slow",
        "--consumer-rate", "10/s:20", "--consumer-budget", "1000/h", "--consumer-budget", "ward-1=5000/d:fixed",
    )  # fmt: skip
    assert offered["in_force"] is False
    both = shell.ok("loan", "contract", loan)
    clauses = {name: both[name]["contract"]["terms"]["clauses"] for name in ("in_force", "offered")}
    assert (clauses["in_force"]["precision"], clauses["offered"]["precision"]) == (3, 1)
    assert "hours" not in clauses["offered"]
    assert clauses["offered"]["purpose"] == clauses["in_force"]["purpose"]
    assert shell("loan", "show", loan).out.count("units in any 1 h") == 0, "no contract before it is signed"
    signed = shell("loan", "accept", "--loan-file", "clinic.loan", "--key", "borrower.key", "--yes")
    assert "1 where the largest value is, 0 elsewhere" in signed.err
    assert shell.ok("loan", "contract", loan)["offered"] is None
    shown = shell("loan", "show", loan).out
    assert "10 units in 1 s from each enclave" in shown
    assert "5000 units in each 1 d" in shown
    assert "watched: near" in shown


@pytest.mark.parametrize(
    ("rates", "budgets", "clause"),
    [
        ((), (), None),
        (("10/s",), (), {"each": {"rate": {"burst": 10, "per_s": 1, "units": 10}}}),
        (("1/10s",), (), {"each": {"rate": {"burst": 1, "per_s": 10, "units": 1}}}),
        (
            (),
            ("*=9/d:fixed", "*=5/h"),
            {"guests": {"budgets": [{"units": 5, "window_s": 3600}, {"fixed": True, "units": 9, "window_s": 86_400}]}},
        ),
        (("b=1/m:9",), ("a=7/2h",), {
            "named": [
                {"budgets": [{"units": 7, "window_s": 7200}], "id": "a"},
                {"id": "b", "rate": {"burst": 9, "per_s": 60, "units": 1}},
            ],
        }),
    ],
)  # fmt: skip
def test_limits_as_people_write_them(rates: tuple[str, ...], budgets: tuple[str, ...], clause: Any) -> None:
    assert limits_json(rates, budgets) == clause


@pytest.mark.parametrize("text", ["", "10", "10/", "/s", "10/s:", "10/s:fixed", "A=1/s", "10/y", "-1/s", "1/0s"])
def test_other_rates_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        limits_json([text], ())


def test_watches_as_people_write_them() -> None:
    assert watches_json(["regular:150", "near:20=stop"]) == [
        {"above": 20, "action": "stop", "kind": "near"}, {"above": 150, "kind": "regular"},
    ]  # fmt: skip
    for text in ("near", "near:", "near:x", "odd:1", "near:20=note", "near:20:stop"):
        with pytest.raises(UsageError, match="KIND:ABOVE"):
            watches_json([text])


def test_output_rules_as_people_write_them() -> None:
    said = ["m:scores=top:3,minimum:0.01,fill:-1", "m:logits=nothing", "a:y=label"]
    assert output_rules_json(said) == [
        {"model": "a", "output": "y", "show": "label"},
        {"model": "m", "output": "logits", "show": "nothing"},
        {"fill": "-1", "minimum": "0.01", "model": "m", "output": "scores", "top": 3},
    ]
    for text in ("m=top:3", "m:y", "m:y=", "m:y=top", "m:y=most:3", "m:y=top:x"):
        with pytest.raises(UsageError, match="MODEL:OUTPUT=RULE"):
            output_rules_json([text])


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "contract.toml", "--borrower", "x"),
        ("--borrower", "x"),
        ("--borrower", "x", "--model", "a=b", "--allowance", "1", "--policy", "policy.json"),
        ("--borrower", "x", "--model", "a=b", "--allowance", "1", "--policy", "policy.json", "--anybody",
         "--offline", "soon"),
    ],
)  # fmt: skip
def test_a_loan_that_is_not_said_whole_is_not_made(shell: Shell, words: tuple[str, ...]) -> None:
    (shell.folder / "policy.json").write_bytes(POLICY)
    written(shell.folder, EXAMPLE)
    assert shell("loan", "create", *words, "--out", "clinic.loan", "--tokens", "tokens").code == 2
