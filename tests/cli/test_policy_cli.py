"""``cloister policy``: proposed from evidence that is proven, explained, and linted to the byte."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
from evidence_kit import HOSTILE, NONCE, Sample, hostile

from cloister.attest.policy import Policy
from cloister.cli.attest_sample import SAMPLE_KINDS
from cloister.wire import dump_json

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Shell


def proposed(shell: Shell, sample: Sample) -> Path:
    """Return the policy proposed from a sample."""
    path = shell.folder / f"{sample.tee}.json"
    shell.ok("policy", "new", *sample.trusted, "--out", path)
    return path


def errors(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for item in findings if item["severity"] == "error"]


@pytest.mark.parametrize("tee", SAMPLE_KINDS)
def test_a_proposal_accepts_its_evidence_is_clean_and_can_be_explained(shell: Shell, tee: str) -> None:
    sample = Sample(shell, tee)
    path = proposed(shell, sample)
    assert shell("attest", "verify", *sample.trusted, "--policy", path, "--nonce", NONCE).code == 0
    found = shell.ok("policy", "lint", path)
    assert errors(found["findings"]) == []
    assert "evidence" not in found
    explained = shell.ok("policy", "explain", path)
    assert {rule["tee"] for rule in explained["rules"]} == {tee}
    assert all(rule["meaning"] and rule["wants"] and rule["code"] for rule in explained["rules"])
    said = shell("policy", "explain", path)
    assert f"Every other tee is refused: this policy names {tee}." in said.out


def test_a_proposal_goes_to_stdout_or_to_a_file_and_never_over_another(shell: Shell) -> None:
    sample = Sample(shell, "psa")
    printed = shell("policy", "new", *sample.trusted, "--version", "7")
    assert Policy.parse(printed.out.encode()).version == 7
    path = proposed(shell, sample)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    first = path.read_bytes()
    assert shell("policy", "new", *sample.trusted, "--version", "2", "--out", path).code == 2
    assert path.read_bytes() == first
    said = shell("policy", "new", *sample.trusted, "--version", "2", "--out", path, "--force")
    assert said.code == 0
    assert f"wrote {path}" in said.out
    assert Policy.parse(path.read_bytes()).version == 2
    assert shell("policy", "new", *sample.trusted, "--out", "missing/policy.json").code == 2
    assert shell("policy", "new", *sample.trusted, "--version", "0").code == 2


def test_evidence_that_is_refused_is_no_example(shell: Shell) -> None:
    sample = Sample(shell, "sgx")
    said = shell("policy", "new", *sample.given, "--out", "policy.json", "--json")
    assert said.code == 4
    assert "untrusted_root" in {reason["code"] for reason in said.json["error"]["reasons"]}
    assert not (shell.folder / "policy.json").exists()
    assert shell("policy", "new", *sample.trusted, "--at", "2020-01-01", "--out", "policy.json").code == 5


def write(shell: Shell, rules: dict[str, Any], *, tee: str = "psa", name: str = "policy.json") -> Path:
    path = shell.folder / name
    path.write_bytes(dump_json({"tees": {tee: rules}, "v": 1, "version": 1}))
    return path


def test_lint_names_rules_that_guard_nothing_or_refuse_everything(shell: Shell) -> None:
    sample = Sample(shell, "psa")
    rules = json.loads(proposed(shell, sample).read_bytes())["tees"]["psa"]
    for claim, rule in (
        ("software", None),
        ("weather", {"exact": "fine"}),
        ("secured", {"exact": "true"}),
        ("implementation_id", {"exact": "no hex"}),
        ("implementation_id", {"at_least": 0}),
    ):
        changed = {**rules, claim: rule} if rule else {name: rules[name] for name in rules if name != claim}
        said = shell("policy", "lint", write(shell, changed), "--json")
        assert said.code == 4, (claim, rule, said)
        assert claim in {item["claim"] for item in errors(said.json["findings"])}
    said = shell("policy", "lint", write(shell, {**rules, "software": {"not_checked": "any of this maker"}}))
    assert said.code == 0
    assert "not checked, any of this maker" in said.out
    said = shell("policy", "lint", write(shell, {"debug": {"exact": False}}, tee="abacus"))
    assert said.code == 4
    assert "no verifier of this build knows this tee" in said.out


def test_a_policy_without_findings_says_so(shell: Shell) -> None:
    rules = json.loads(proposed(shell, Sample(shell, "psa")).read_bytes())["tees"]["psa"]
    rules["instance_id"] = {"one_of": ["01" + "00" * 32]}
    said = shell("policy", "lint", write(shell, rules))
    assert said.code == 0
    assert said.out == "every rule bites\n"


def test_nothing_of_a_signed_token_is_left_uncovered(shell: Shell) -> None:
    sample = Sample(shell, "psa")
    path = proposed(shell, sample)
    found = shell.ok("policy", "lint", path, *sample.trusted)["evidence"]
    size = len(sample.evidence.read_bytes())
    assert found == {"accepted": [], "bytes": size, "tried": size}
    said = shell("policy", "lint", path, *sample.trusted, "--most", "50")
    assert "covered by nothing, and still accepted: none" in said.out
    assert f" of {size} bytes of the evidence damaged" in said.out


@pytest.mark.parametrize("tee", ["tdx", "nvidia-gpu"])
def test_bytes_that_lint_names_really_are_uncovered_and_others_are_not(shell: Shell, tee: str) -> None:
    sample = Sample(shell, tee)
    path = proposed(shell, sample)
    found = shell.ok("policy", "lint", path, *sample.trusted, "--most", "80")["evidence"]
    data = sample.evidence.read_bytes()
    step = -(-len(data) // 80)
    named = {offset for start, end in found["accepted"] for offset in range(start, end, step)}
    # A quote's header has uncovered bytes at fixed places; those of a GPU lie where its keys happen to fall.
    assert named or tee != "tdx"
    tried = set(range(0, len(data), step))
    assert named < tried
    for offset in [*sorted(named)[:4], *sorted(tried - named)[::12]]:
        damaged = shell.folder / "damaged"
        damaged.write_bytes(data[:offset] + bytes((data[offset] ^ 0x41,)) + data[offset + 1 :])
        words = ("--tee", tee, "--evidence", damaged, *sample.trusted[4:])
        assert (shell("attest", "verify", *words, "--policy", path).code == 0) == (offset in named), offset


def test_evidence_for_lint_has_to_be_accepted_and_whole(shell: Shell) -> None:
    sample = Sample(shell, "psa")
    path = proposed(shell, sample)
    strict = json.loads(path.read_bytes())
    strict["tees"]["psa"]["debug"] = {"exact": True}
    (shell.folder / "strict.json").write_bytes(dump_json(strict))
    said = shell("policy", "lint", "strict.json", *sample.trusted)
    assert said.code == 4
    assert "the policy refuses this evidence as it is" in said.err
    for words in (("--tee", "psa"), ("--evidence", sample.evidence), ("--endorsements", ".")):
        assert shell("policy", "lint", path, *words).code == 2
    assert shell("policy", "lint", path, *sample.trusted, "--most", "0").code == 2


def test_json_and_toml_have_one_digest(shell: Shell) -> None:
    path = write(shell, {"debug": {"exact": False}})
    (shell.folder / "policy.toml").write_text(
        "version = 1\nv = 1\n[tees]\npsa = {debug = {exact = false}}  # no debugging\n"
    )
    one, two = shell.ok("policy", "digest", path), shell.ok("policy", "digest", "policy.toml")
    assert one == two
    assert one["digest"] == Policy.parse(path.read_bytes()).digest
    assert shell("policy", "digest", path).out == f"{one['digest']}\n"
    (shell.folder / "policy.txt").write_bytes((shell.folder / "policy.toml").read_bytes())
    assert shell("policy", "digest", "policy.txt").code == 3


def test_the_schema_is_one_json_document_either_way(shell: Shell) -> None:
    assert json.loads(shell("policy", "schema").out) == shell.ok("policy", "schema")


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"[]", b"{}", b'{"tees": {"psa": {}}, "v": 1, "version": 1}', b"[" * 9999]
)
def test_a_policy_out_of_form_is_malformed(shell: Shell, text: bytes) -> None:
    for name in ("policy.json", "policy.toml"):
        (shell.folder / name).write_bytes(text)
        for verb in ("digest", "explain", "lint"):
            said = shell("policy", verb, name, "--json")
            assert said.code == 3, (verb, name)
            assert said.json["error"]["fault"] == "malformed"


@pytest.mark.parametrize("kind", HOSTILE)
def test_95_a_policy_that_is_no_plain_file_is_refused_at_once(shell: Shell, kind: str) -> None:
    path = hostile(shell.folder, kind)
    for verb in ("digest", "explain", "lint"):
        assert shell("policy", verb, path, "--json").json["error"]["exit_code"] == 2
    assert shell("policy", "new", "--tee", "sgx", "--evidence", path).code == 2
