"""``cloister attest verify``, ``inspect`` and ``sample``: every answer, on synthetic evidence, hostile files too."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cli_kit import ESCAPE
from click.shell_completion import ShellComplete
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from evidence_kit import HOSTILE, NONCE, PINNED, Sample, hostile

import tpm_kit
from cloister.attest.arm.anchors import parse_anchors
from cloister.attest.describe.table import DESCRIBERS
from cloister.attest.dossier.payload import PAYLOADS
from cloister.attest.dossier.table import DOSSIERS
from cloister.attest.endorse.bundle import Bundle, Entry
from cloister.attest.endorse.names import parse_name
from cloister.attest.endorse.window import ALWAYS, Window, window_of
from cloister.attest.schemes import KINDS as PRODUCTION
from cloister.cli import app
from cloister.cli.attest_inspect import FILE_KINDS
from cloister.cli.attest_sample import SAMPLE_KINDS
from cloister.cli.evidence_case import roles_of
from cloister.cli.evidence_options import KINDS, POLICY_KINDS
from cloister.crypto.sign import SigningKey
from cloister.errors import CloisterError, UsageError
from cloister.testing.vendors.samples import SAMPLES, WARNING, Roots
from cloister.wire import dump_json

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Said, Shell

NOW = datetime.now(UTC)


# What the options offer is what there is.


def test_the_options_offer_every_kind_there_is_and_no_other() -> None:
    assert set(KINDS) == set(DOSSIERS) | set(PAYLOADS)
    assert set(POLICY_KINDS) == set(PRODUCTION) == set(PAYLOADS)
    assert set(FILE_KINDS) == {item.kind for item in DESCRIBERS}
    assert set(SAMPLE_KINDS) == set(SAMPLES)
    for names in (KINDS, POLICY_KINDS, FILE_KINDS, SAMPLE_KINDS):
        assert list(names) == sorted(names)


@pytest.mark.parametrize("tee", DOSSIERS)
def test_every_role_in_the_table_is_looked_at_and_no_other(tee: str) -> None:
    dossier = DOSSIERS[tee]
    for role in dossier.roles:
        files = dossier.files(b"\x00" * 100, {role: b"\x00" * 100})
        assert "nobody looks at" not in _why(tee, files), role
    files = dossier.files(b"\x00" * 100, {})
    assert "nobody looks at" in _why(tee, {**dict.fromkeys(dossier.roles, b""), **files, "stranger": b""})


def _why(tee: str, files: dict[str, bytes]) -> str:
    try:
        DOSSIERS[tee].open(files, {})
    except CloisterError as exc:
        return exc.message
    return ""


# Samples


@pytest.mark.parametrize("tee", SAMPLE_KINDS)
def test_a_sample_is_accepted_under_its_own_roots_and_no_others(shell: Shell, tee: str) -> None:
    sample = Sample(shell, tee)
    said = shell("attest", "verify", *sample.given, "--json")
    if tee in PINNED:
        assert said.code == 4
        assert {"chain_invalid", "untrusted_root"} & {reason["code"] for reason in said.json["reasons"]}
        assert said.json["claims"] == {}
    else:
        assert said.code == 5
        assert "whom to trust is yours to say" in said.json["error"]["message"]
    for policy in ((), ("--policy", sample.policy)):
        said = shell("attest", "verify", *sample.trusted, "--nonce", NONCE, *policy, "--json")
        assert said.code == 0, said
        assert WARNING in said.err
        assert said.json["verdict"] == "ok"
        assert said.json["reasons"] == []
        assert said.json["claims"]["report_data"].startswith(NONCE)
        assert {check["verdict"] for check in said.json["checks"]} <= {"passed", "not_checked"}


@pytest.mark.parametrize("tee", SAMPLE_KINDS)
def test_inspect_explains_every_part_of_a_sample(shell: Shell, tee: str) -> None:
    sample = Sample(shell, tee)
    found = shell.ok("attest", "inspect", sample.evidence)
    assert found["kind"] == "parts"
    assert all(field["meaning"] and field["meaning"] != "a part that is explained nowhere" for field in found["fields"])
    said = shell("attest", "inspect", sample.evidence)
    assert said.code == 0
    assert said.out.endswith("Nothing above is verified: it is what the bytes say.\n")


def test_a_sample_says_loudly_that_it_protects_nothing(shell: Shell) -> None:
    said = shell("attest", "sample", "--tee", "psa", "--out", "psa")
    assert said.code == 0
    assert WARNING in said.err
    assert WARNING in (shell.folder / "psa" / "roots.json").read_text()
    assert "cloister attest verify --tee psa" in said.err
    assert shell.ok("attest", "sample", "--tee", "psa", "--out", "other")["warning"] == WARNING


def test_a_sample_goes_into_a_new_folder_only(shell: Shell) -> None:
    Sample(shell, "psa")
    for words in (
        ("--tee", "psa", "--out", "psa"),
        ("--tee", "psa", "--out", "missing/psa"),
        ("--tee", "psa", "--out", "new", "--nonce", "xy"),
        ("--tee", "psa", "--out", "new", "--nonce", "5a" * 65),
        ("--tee", "tpm", "--out", "new"),
    ):
        said = shell("attest", "sample", *words)
        assert said.code == 2, words
    assert not (shell.folder / "new").exists()
    (shell.folder / "file").touch()
    assert shell("attest", "sample", "--tee", "psa", "--out", "file/psa").code in {2, 5}


def test_roots_of_a_sample_are_for_its_kind_alone(shell: Shell) -> None:
    psa, cca = Sample(shell, "psa"), Sample(shell, "cca")
    said = shell("attest", "verify", *psa.given, "--insecure-synthetic-roots", cca.folder / "roots.json")
    assert said.code == 2
    assert "roots of cca, want psa" in said.err
    document = cca.roots
    for damaged in (
        {**document, "v": 2},
        {**document, "kind": "roots"},
        {**document, "anchors": []},
        {**document, "tee": "snp"},
        {**document, "certificates": {"root": "none"}},
        {**document, "certificates": {"root": 1}},
    ):
        (shell.folder / "damaged.json").write_bytes(dump_json(damaged))
        said = shell("attest", "verify", *cca.given, "--insecure-synthetic-roots", "damaged.json")
        assert said.code == 3, damaged
    gpu = Sample(shell, "nvidia-gpu")
    lacking = {**gpu.roots, "certificates": {"root": gpu.roots["certificates"]["root"]}}
    (shell.folder / "damaged.json").write_bytes(dump_json(lacking))
    assert shell("attest", "verify", *gpu.given, "--insecure-synthetic-roots", "damaged.json").code == 3
    doubled = {**gpu.roots, "certificates": {name: pem * 2 for name, pem in gpu.roots["certificates"].items()}}
    (shell.folder / "damaged.json").write_bytes(dump_json(doubled))
    assert shell("attest", "verify", *gpu.given, "--insecure-synthetic-roots", "damaged.json").code == 3


# Every exit code


def test_the_table_shows_each_check_and_what_was_compared_with_nothing(shell: Shell) -> None:
    said = shell("attest", "verify", *Sample(shell, "psa").trusted)
    assert said.code == 0
    assert "✓  psa token signature" in said.out
    assert "proven, and compared with nothing" in said.out
    assert "psa evidence accepted: " in said.out
    assert not ESCAPE.search(said.out)


def test_every_reason_is_shown_in_words_and_as_json(shell: Shell) -> None:
    sample = Sample(shell, "psa")
    rules = json.loads(sample.policy.read_bytes())
    rules["tees"]["psa"] |= {"debug": {"exact": True}, "instance_id": {"exact": "00"}, "weather": {"exact": "fine"}}
    (shell.folder / "strict.json").write_bytes(dump_json(rules))
    words = ("attest", "verify", *sample.trusted, "--nonce", "00", "--policy", "strict.json")
    said = shell(*words)
    assert said.code == 4
    assert "psa evidence rejected: 4 of" in said.out
    codes = ["report_data_mismatch", "debug_enabled", "instance_id_mismatch", "claim_missing"]
    assert all(f": {code} (got " in said.out for code in codes)
    assert [reason["code"] for reason in shell(*words, "--json").json["reasons"]] == codes


def test_bytes_that_are_no_evidence_are_malformed(shell: Shell) -> None:
    sample = Sample(shell, "psa")
    for size in (0, 1, 20, len(sample.evidence.read_bytes()) - 1):
        cut = shell.folder / "cut"
        cut.write_bytes(sample.evidence.read_bytes()[:size])
        said = shell("attest", "verify", "--tee", "psa", "--evidence", cut, *sample.trusted[4:], "--json")
        assert said.code == 3
        assert said.json["error"]["fault"] == "malformed"


def test_a_missing_endorsement_decides_nothing(shell: Shell) -> None:
    sample = Sample(shell, "sgx")
    words = ("--tee", "sgx", "--evidence", sample.evidence, "--insecure-synthetic-roots", sample.folder / "roots.json")
    said = shell("attest", "verify", *words, "--json")
    assert said.code == 5
    assert "endorsement intel/sgx/" in said.json["error"]["message"]
    assert said.json["error"]["hint"] == "see docs/reference/endorsements.md"
    (shell.folder / "empty").mkdir()
    assert shell("attest", "verify", *words, "--endorsements", "empty").code == 5
    assert shell("attest", "verify", *words, "--endorsements", "nowhere").code == 2
    said = shell("attest", "verify", *sample.trusted, "--at", "2020-01-01")
    assert said.code == 5
    assert "now is 2020-01-01T00:00:00Z" in said.err


def test_an_endorsement_may_be_named_as_a_role(shell: Shell) -> None:
    sample = Sample(shell, "sgx")
    (name,) = shell.ok("attest", "sample", "--tee", "sgx", "--out", "other")["endorsements"]
    words = ("--tee", "sgx", "--evidence", sample.evidence, "--insecure-synthetic-roots", sample.folder / "roots.json")
    role = f"{name}={sample.folder / 'endorsements' / name}"
    assert shell("attest", "verify", *words, "--role", role).code == 0
    assert shell("attest", "verify", *words, "--role", role, "--role", role).code == 2
    assert shell("attest", "verify", *words, "--role", f"amd/zen/crl={sample.evidence}").code == 2


def _policy(shell: Shell, sample: Sample, name: str, text: str) -> Said:
    (shell.folder / name).write_text(text)
    return shell("attest", "verify", *sample.trusted, "--policy", name, "--json")


def test_a_policy_is_ours_in_json_or_toml_and_complete_as_for_a_release(shell: Shell) -> None:
    sample = Sample(shell, "psa")
    rules = 'debug = {exact = false}\nsecured = {exact = true}\nimplementation_id = {not_checked = "any"}\n'
    whole = f'v = 1\nversion = 1\n[tees.psa]\n{rules}software = {{not_checked = "any"}}\n'
    assert _policy(shell, sample, "policy.toml", whole).code == 0
    said = _policy(shell, sample, "policy.toml", f"v = 1\nversion = 1\n[tees.psa]\n{rules}")
    assert [reason["code"] for reason in said.json["reasons"]] == ["policy_incomplete"]
    said = _policy(shell, sample, "policy.toml", "v = 1\nversion = 1\n[tees.snp]\ndebug = {exact = false}\n")
    assert [reason["code"] for reason in said.json["reasons"]] == ["tee_not_allowed"]
    assert _policy(shell, sample, "policy.toml", "v = 1\n").code == 3
    assert _policy(shell, sample, "policy.json", '{"tees": {}, "v": 1, "version": 1}').code == 3
    assert _policy(shell, sample, "policy.json", "{").code == 3
    assert _policy(shell, sample, "policy.json", "[]").code == 3


def test_the_flat_object_of_an_index_is_understood_and_never_passed_over(shell: Shell) -> None:
    sample = Sample(shell, "psa")
    assert _policy(shell, sample, "flat.json", '{"secured": true, "nonce": "5a5a"}').code == 0
    said = _policy(shell, sample, "flat.json", '{"min_client_id": 7, "secured": false, "challenge": "00"}')
    codes = {reason["code"] for reason in said.json["reasons"]}
    assert codes == {"report_data_mismatch", "client_id_mismatch", "secured_mismatch"}
    for text in ('{"debug": [false]}', '{"What Is This": 1}', '{"nonce": 7}', '{"nonce": "xy"}', '{"secured": 0.5}'):
        assert _policy(shell, sample, "flat.json", text).code == 5, text


# Evidence as files, anchors, bundles


def test_a_bare_token_is_judged_from_its_files(shell: Shell) -> None:
    sample = Sample(shell, "psa", nonce="5a" * 32)
    (shell.folder / "token").write_bytes(sample.parts["token"])
    (anchor,) = parse_anchors(dump_json(sample.roots["anchors"]))
    assert not isinstance(anchor.key, bytes)
    pem = anchor.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (shell.folder / "key.pem").write_bytes(pem)
    base = ("attest", "verify", "--tee", "psa", "--role", "key=key.pem")
    nonce = f"{'5a' * 32}{'00' * 32}"
    for evidence in ("token", sample.evidence):
        said = shell(*base, "--evidence", evidence, "--nonce", nonce, "--json")
        assert said.code == 0, said
        assert said.json["claims"]["nonce"] == nonce
        assert shell(*base, "--evidence", evidence, "--nonce", "00").code == 4
    # Collected, the nonce is filled up as the attester filled it; a bare token's is compared as it is.
    assert shell(*base, "--evidence", sample.evidence, "--nonce", "5a" * 32).code == 0
    assert shell(*base, "--evidence", "token", "--nonce", "5a" * 32).code == 4
    said = shell("attest", "verify", "--tee", "psa", "--evidence", "token")
    assert said.code == 5
    assert "no file key" in said.err
    (shell.folder / "other.pem").write_bytes(pem[:60] + b"A" + pem[61:])
    assert shell("attest", "verify", "--tee", "psa", "--evidence", "token", "--role", "key=other.pem").code in {3, 4}


@pytest.mark.parametrize("tee", ["psa", "cca"])
def test_anchors_that_somebody_names_count(shell: Shell, tee: str) -> None:
    sample = Sample(shell, tee)
    (shell.folder / "anchors.json").write_bytes(dump_json(sample.roots["anchors"]))
    words = ("attest", "verify", "--tee", tee, "--evidence", sample.evidence, "--nonce", NONCE)
    said = shell(*words, "--arm-anchor", "anchors.json")
    assert said.code == 0
    assert WARNING not in said.err
    (shell.folder / "others.json").write_bytes(dump_json(Sample(_Elsewhere(shell), tee).roots["anchors"]))
    said = shell(*words, "--arm-anchor", "others.json", "--json")
    assert said.code == 4
    assert "untrusted_root" in {reason["code"] for reason in said.json["reasons"]}
    assert shell(*words, "--arm-anchor", "others.json", "--arm-anchor", "anchors.json").code == 0


class _Elsewhere:
    """The same shell, with a folder below its own for another sample of the same kind."""

    def __init__(self, shell: Shell) -> None:
        self.folder = shell.folder / "elsewhere"
        self.folder.mkdir()
        self._shell = shell

    def ok(self, *words: str | Path) -> object:
        *front, out = words
        return self._shell.ok(*front, self.folder / out)


def test_a_tpm_wants_to_know_whose_enrolment_counts(shell: Shell) -> None:
    tpm, authority = tpm_kit.SoftTpm(), tpm_kit.Authority()
    evidence = tpm.evidence(bytes.fromhex(NONCE).ljust(32, b"\x00"), (authority.certify(tpm),))
    (shell.folder / "tpm").write_bytes(evidence.dump())
    (shell.folder / "ca.pem").write_bytes(authority.certificate)
    (shell.folder / "other.pem").write_bytes(tpm_kit.Authority().certificate)
    words = ("attest", "verify", "--tee", "tpm", "--evidence", "tpm", "--at", f"{tpm_kit.NOW.isoformat()}")
    said = shell(*words, "--tpm-authority", "ca.pem", "--nonce", NONCE, "--json")
    assert said.code == 0, said
    assert said.json["claims"]["software"] == tpm_kit.SOFTWARE.hex()
    assert shell(*words, "--tpm-authority", "ca.pem", "--nonce", "00").code == 4
    assert shell(*words, "--tpm-authority", "other.pem").code == 4
    said = shell(*words)
    assert said.code == 5
    assert said.err.endswith("hint: pass --tpm-authority\n")
    assert shell(*words, "--tpm-authority", "ca.pem", "--role", "pcrs=ca.pem").code == 2
    found = shell.ok("attest", "inspect", "tpm")
    assert found["kind"] == "tpm"
    assert {"quote: extraData", "software", "pcrs: PCR 7"} <= {field["name"] for field in found["fields"]}


def _bundle(sample: Sample, key: SigningKey | None, *, days: int = 1) -> bytes:
    window = Window(NOW - timedelta(days=2), NOW + timedelta(days=days))
    window = Window(*(item.replace(microsecond=0) for item in (window.not_before, window.not_after)))
    entries = []
    folder = sample.folder / "endorsements"
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, data = parse_name(str(path.relative_to(folder))), path.read_bytes()
        own = window_of(name, data)
        entries.append(Entry(name=name, data=data, source="a test", window=window if own == ALWAYS else own))
    made = Bundle(version=1, window=window, entries=tuple(sorted(entries, key=lambda item: item.name.text)))
    return made.dump() if key is None else made.sign(key)


def test_a_bundle_serves_whoever_pins_its_key(shell: Shell) -> None:
    sample, key = Sample(shell, "sgx"), SigningKey.generate()
    (shell.folder / "bundle").write_bytes(_bundle(sample, key))
    words = ("attest", "verify", "--tee", "sgx", "--evidence", sample.evidence, *sample.trusted[6:])
    pinned = ("--key", key.verify_key.dump())
    assert shell(*words, "--bundle", "bundle", *pinned).code == 0
    assert shell(*words, "--bundle", "bundle").code == 2
    assert shell(*words, *pinned).code == 2
    said = shell(*words, "--bundle", "bundle", "--key", SigningKey.generate().verify_key.dump())
    assert said.code == 5
    assert "unknown_key" in said.err
    (shell.folder / "draft").write_bytes(_bundle(sample, None))
    assert shell(*words, "--bundle", "draft", *pinned).code == 5
    (shell.folder / "late").write_bytes(_bundle(sample, key, days=-1))
    said = shell(*words, "--bundle", "late", *pinned)
    assert said.code == 5
    assert "bundle_expired" in said.err
    assert shell(*words, "--bundle", sample.evidence, *pinned).code == 3
    other = Sample(shell, "nitro")
    (shell.folder / "bundle").write_bytes(_bundle(Sample(shell, "tdx"), key))
    assert shell("attest", "verify", *other.trusted, "--bundle", "bundle", *pinned).code == 0  # it needs nothing of it
    said = shell(*words, "--bundle", "bundle", *pinned)
    assert said.code == 5
    assert "not in the bundle of version 1" in said.err


def test_parts_may_be_given_one_by_one(shell: Shell) -> None:
    sample = Sample(shell, "gce-vtpm")
    for role, data in sample.parts.items():
        (shell.folder / role).write_bytes(data)
    words = ["attest", "verify", "--tee", "gce-vtpm", "--evidence", "quote", "--nonce", NONCE, *sample.trusted[4:]]
    for role in sample.parts:
        words += ["--role", f"{role}={role}"] if role != "quote" else []
    assert shell(*words).code == 0
    assert shell(*words, "--role", "quote=quote").code == 2
    said = shell("attest", "verify", *sample.trusted, "--role", "pcrs=pcrs")
    assert said.code == 2
    assert "a payload already" in said.err


@pytest.mark.parametrize(("tee", "kind"), [("nvidia-gpu", "nvidia"), ("azure-tdx-vtpm", "azure-vtpm")])
def test_a_payload_is_told_by_which_kind_it_goes(shell: Shell, tee: str, kind: str) -> None:
    said = shell("attest", "verify", "--tee", kind, "--evidence", Sample(shell, tee).evidence)
    assert said.code == 2
    assert f"want --tee {' or '.join(DOSSIERS[kind].collected)}" in said.err
    assert tee in DOSSIERS[kind].collected


# Wrong options


def test_another_word_for_a_kind_is_answered_with_the_nearest(shell: Shell) -> None:
    for words in (
        ("attest", "verify", "--tee", "snpp", "--evidence", "x"),
        ("policy", "new", "--tee", "SNP", "--evidence", "x"),
        ("attest", "inspect", "--kind", "snpp", "x"),
        ("attest", "sample", "--tee", "snpp", "--out", "x"),
    ):
        said = shell(*words, "--json")
        assert said.code == 2
        assert said.json["error"]["fault"] == "usageerror"
        assert words[3] == "SNP" or "did you mean 'snp'" in said.json["error"]["message"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--role", "colateral={0}"), "did you mean collateral"),
        (("--role", "weather={0}"), "sgx has collateral"),
        (("--role", "collateral"), "want ROLE=FILE"),
        (("--role", "={0}"), "want ROLE=FILE"),
        (("--role", "collateral="), "want ROLE=FILE"),
        (("--role", "collateral={0}", "--role", "collateral={0}"), "given twice"),
        (("--role", "quote={0}"), "has no such file"),
        (("--nonce", "5a5"), "even number of hex digits"),
        (("--nonce", ""), "empty"),
        (("--at", "yesterday"), "want a time"),
        (("--at", "2026-13-01"), "want a time"),
    ],
)
def test_options_out_of_form_are_usage_errors(shell: Shell, words: tuple[str, ...], said: str) -> None:
    sample = Sample(shell, "sgx")
    spelled = [word.format(sample.evidence) for word in words]
    found = shell("attest", "verify", "--tee", "sgx", "--evidence", sample.evidence, *spelled)
    assert found.code == 2, found
    assert said in found.err


@pytest.mark.parametrize(
    ("tee", "words"),
    [
        ("tdx-eventlog", ("--maa-host", "a.example")),
        ("tdx-eventlog", ("--role", "amd/milan/crl=file")),
        ("token", ("--endorsements", ".")),
        ("token", ("--insecure-synthetic-roots", "file")),
        ("snp", ("--audience", "us")),
        ("psa", ("--tpm-authority", "file")),
        ("psa", ("--arm-anchor", "file", "--insecure-synthetic-roots", "file")),
    ],
)
def test_an_option_that_nobody_would_look_at_is_refused(shell: Shell, tee: str, words: tuple[str, ...]) -> None:
    (shell.folder / "file").write_bytes(b"x")
    said = shell("attest", "verify", "--tee", tee, "--evidence", "file", *words)
    assert said.code == 2
    assert f"{tee}: nothing to do for " in said.err


def test_a_time_without_an_offset_is_in_utc(shell: Shell) -> None:
    sample = Sample(shell, "psa")
    for text in ("2026-11-28", "2026-11-28T00:00:00Z", "2026-11-28T02:00:00+02:00"):
        assert shell.ok("attest", "verify", *sample.trusted, "--at", text)["at"] == "2026-11-28T00:00:00Z"


# Hostile files, poor environments (list 7.6)


@pytest.mark.parametrize("kind", HOSTILE)
def test_95_evidence_that_is_no_plain_file_is_refused_at_once(shell: Shell, kind: str) -> None:
    path = hostile(shell.folder, kind)
    (shell.folder / "plain").write_bytes(b"x")
    for words in (
        ("attest", "verify", "--tee", "sgx", "--evidence", path),
        ("attest", "verify", "--tee", "sgx", "--evidence", "plain", "--role", f"collateral={path}"),
        ("attest", "verify", "--tee", "sgx", "--evidence", "plain", "--policy", path),
        ("attest", "verify", "--tee", "sgx", "--evidence", "plain", "--insecure-synthetic-roots", path),
        ("attest", "verify", "--tee", "sgx", "--evidence", "plain", "--bundle", path, "--key", "A" * 43),
        ("attest", "verify", "--tee", "psa", "--evidence", "plain", "--arm-anchor", path),
        ("attest", "verify", "--tee", "tpm", "--evidence", "plain", "--tpm-authority", path),
        ("attest", "inspect", path),
    ):
        said = shell(*words, "--json")
        assert said.code == 2, (words, said)
        assert said.json["error"]["exit_code"] == 2


def test_95_a_file_that_is_too_long_is_refused_before_it_is_read(shell: Shell) -> None:
    with (shell.folder / "huge").open("wb") as file:
        file.truncate(1 << 40)
    said = shell("attest", "inspect", "huge")
    assert said.code == 2
    assert "more than 4194304 bytes" in said.err


def test_103_a_poor_encoding_is_enough_and_105_a_reader_may_go_away(shell: Shell) -> None:
    sample = Sample(shell, "psa")
    words = ("attest", "verify", *sample.trusted)
    done = shell.process(*words, env={**shell.environment(), "LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done
    assert b"psa evidence accepted" in done.stdout
    for words, code in ((("inspect", sample.evidence), b"0"), (("verify", *sample.given), b"5")):
        line = f"{sys.executable} -m cloister attest {' '.join(map(str, words))} --json | true; echo ${{PIPESTATUS[0]}}"
        piped = subprocess.run(  # noqa: S603 - our own command line
            ["/bin/bash", "-c", line],
            cwd=shell.folder,
            env=shell.environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert piped.stdout.strip() == code
        assert not piped.stderr


def test_inspect_knows_nothing_of_what_is_no_evidence(shell: Shell) -> None:
    (shell.folder / "text").write_text("good morning")
    said = shell("attest", "inspect", "text", "--json")
    assert said.code == 3
    assert said.json["error"]["hint"] == "name it with --kind"
    assert shell("attest", "inspect", "text", "--kind", "snp").code == 3
    sample = Sample(shell, "cca")
    (shell.folder / "token").write_bytes(sample.parts["token"])
    assert shell.ok("attest", "inspect", "token", "--kind", "cca") == shell.ok("attest", "inspect", "token")


def test_a_shell_completes_kinds_and_the_roles_of_the_kind() -> None:
    def offered(*words: str) -> set[str]:
        *before, last = words
        found = ShellComplete(app, {}, "cloister", "_CLOISTER_COMPLETE").get_completions(before, last)
        return {item.value for item in found}

    assert offered("attest", "verify", "--tee", "tdx") == {"tdx", "tdx-eventlog"}
    assert offered("attest", "verify", "--tee", "tdx", "--role", "") == {"ccel=", "collateral="}
    assert offered("attest", "verify", "--tee", "tdx", "--role", "cc") == {"ccel="}
    assert offered("attest", "verify", "--role", "") == set()
    assert offered("attest", "inspect", "--kind", "psa") == {"psa"}


def test_roles_are_those_of_both_ways_to_judge() -> None:
    assert roles_of("tdx") == ("ccel", "collateral")
    assert roles_of("nvidia") == ("chain", "driver_rim", "ocsp", "vbios_rim")
    assert roles_of("tpm") == ("ak_public_tpmt", "eventlog", "pcrs", "signature_tpmt")
    assert roles_of("stranger") == ()


def test_roots_of_a_sample_are_read_as_they_were_written(shell: Shell) -> None:
    for tee in ("cca", "nvidia-gpu"):
        data = (Sample(shell, tee).folder / "roots.json").read_bytes()
        assert Roots.parse(data).dump() == data


def test_a_sample_of_a_kind_nobody_makes_is_refused() -> None:
    from cloister.testing.vendors.samples import sample  # noqa: PLC0415 - here only

    with pytest.raises(UsageError, match="no synthetic vendor makes"):
        sample("tpm", b"", NOW)
