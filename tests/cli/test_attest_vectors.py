"""``cloister attest vectors``: an index judged entry by entry, whatever is wrong with some of them."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from evidence_kit import HOSTILE, hostile

from cloister.attest.dossier import table
from cloister.attest.dossier.index import MAX_ENTRIES
from cloister.testing.vendors.arm import PsaDevice, PsaToken
from evidence_index import FOLDER, index

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Said, Shell

DEVICE = PsaDevice.generate()
NONCE = b"\x5a" * 32
recorded = pytest.mark.skipif(not index(), reason="no recorded evidence beside the checkout")


@pytest.fixture
def folder(shell: Shell) -> Path:
    """Return a folder with a PSA token and the key of its device."""
    path = shell.folder / "recorded"
    (path / "psa").mkdir(parents=True)
    (path / "psa" / "token").write_bytes(DEVICE.token(PsaToken(nonce=NONCE)))
    assert not isinstance(DEVICE.key, bytes)
    pem = DEVICE.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (path / "psa" / "key").write_bytes(pem)
    return path


def entry(name: str = "good", **members: Any) -> dict[str, Any]:
    """Return an entry that is judged ok and says nothing of what it expects; ``members`` replace or, if None, drop."""
    whole = {
        "files": {"key": "psa/key", "token": "psa/token"},
        "id": name,
        "policy": {"nonce": NONCE.hex()},
        "tee": "psa",
        "verify_time": None,
        **members,
    }
    return {key: value for key, value in whole.items() if value is not ...}


def judged(shell: Shell, folder: Path, *entries: Any, code: int = 0, **document: Any) -> dict[str, Any]:
    """Judge an index; return the results by id."""
    (folder / "index.json").write_text(json.dumps({"format": 1, "entries": entries, **document}))
    said = shell("attest", "vectors", folder, "--json")
    assert said.code == code, said
    assert list(said.json) == ["results"]
    return {item["id"]: item for item in said.json["results"]}


def test_the_verdict_comes_from_evidence_files_time_and_policy_alone(shell: Shell, folder: Path) -> None:
    found = judged(
        shell, folder, entry(), entry("nonce", policy={"nonce": "00"}), entry("debug", policy={"debug": True})
    )
    assert set(found["good"]) == {"claims", "id", "reasons", "verdict"}
    assert found["good"]["verdict"] == "ok"
    assert found["good"]["reasons"] == []
    assert found["good"]["claims"]["nonce"] == NONCE.hex()
    assert found["nonce"]["reasons"] == ["nonce_mismatch"]
    assert found["nonce"]["claims"] == found["good"]["claims"]  # what the bytes say, true or not
    assert found["debug"]["verdict"] == "debug_enabled"


def test_entries_that_say_what_they_expect_are_compared(shell: Shell, folder: Path) -> None:
    right = entry("right", expect="ok", all_reasons=[], claims={"n_sw": 1, "nonce": NONCE.hex()})
    refused = entry("refused", policy={"nonce": "00"}, expect="signature_invalid", all_reasons=["nonce_mismatch"])
    judged(shell, folder, right, refused, entry("silent", expect=None, all_reasons=None, claims=None))
    for wrong in (
        entry("wrong", expect="chain_invalid"),
        entry("wrong", expect="ok", policy={"nonce": "00"}),
        entry("wrong", expect="ok", claims={"n_sw": 2}),
        entry("wrong", expect="ok", claims={"unheard": 1}),
        entry("wrong", expect="ok", claims={"n_sw": True}),
    ):
        judged(shell, folder, right, wrong, code=4)
        said = shell("attest", "vectors", folder)
        assert said.code == 4
        assert "2 entries judged: 1 not as expected, 0 undecided" in said.out
        assert "  - wrong: " in said.out


@pytest.mark.parametrize(
    "members",
    [
        {"tee": "abacus"},
        {"files": {"token": "psa/token"}},
        {"files": {"key": "psa/key", "token": "psa/nothing"}},
        {"files": {"key": "psa/key", "token": "psa"}},
        {"files": {"key": "psa/key", "token": "../recorded/../../etc/passwd"}},
        {"files": {"key": "psa/key", "token": "/etc/passwd"}},
        {"files": {"key": "psa/key", "token": "psa/out"}},
        {"files": {"key": "psa/key", "token": "psa/circle"}},
        {"files": {"key": "psa/key", "token": "x" * 399}},
        {"files": {"key": "psa/key", "token": "psa/token", "spare": "psa/key"}},
        {"policy": {"weather": "fine"}},
        {"policy": {"nonce": 7}},
        {"policy": {"debug": []}},
    ],
)
def test_what_cannot_be_decided_is_undecided_and_the_others_are_judged(
    shell: Shell, folder: Path, members: dict[str, Any]
) -> None:
    (folder / "psa" / "out").symlink_to("/etc/passwd")
    (folder / "psa" / "circle").symlink_to("circle")
    found = judged(shell, folder, entry("before"), entry("odd", **members), entry("after"))
    assert [found[name]["verdict"] for name in ("before", "odd", "after")] == ["ok", "undecided", "ok"]
    assert found["odd"]["reasons"] == ["undecided"]
    assert found["odd"]["claims"] == {}
    assert found["odd"]["detail"]
    assert "root:" not in found["odd"]["detail"]  # nothing of the file it named


@pytest.mark.parametrize(
    "broken",
    [
        7,
        None,
        {},
        entry("odd", tee=7),
        entry("odd", tee=...),
        entry("odd", files=["token"]),
        entry("odd", files={"token": 7}),
        entry("odd", files={"token": ""}),
        entry("odd", files={"token": "a\x00b"}),
        entry("odd", files=...),
        entry("odd", verify_time="soon"),
        entry("odd", verify_time="2026-01-01T00:00:00"),
        entry("odd", verify_time=5),
        entry("odd", policy=[]),
        entry("odd", expect=5),
        entry("odd", all_reasons="ok"),
        entry("odd", claims=[]),
        entry("x" * 201),
        entry("a\x1b[2J"),
        entry("good"),
    ],
)
def test_a_broken_entry_spoils_no_other_and_is_never_as_expected(shell: Shell, folder: Path, broken: Any) -> None:
    found = judged(shell, folder, entry("good"), broken, entry("after"), code=4)
    assert len(found) == 3
    (odd,) = set(found) - {"good", "after"}
    assert odd in {"odd", "#2", "good#2"}
    assert found[odd]["verdict"] == "undecided"
    assert found["good"]["verdict"] == found["after"]["verdict"] == "ok"


def test_members_that_nobody_needs_and_null_are_passed_over(shell: Shell, folder: Path) -> None:
    bare = {"id": "bare", "tee": "psa", "files": {"key": "psa/key", "token": "psa/token"}}
    null = entry("null", policy=None, verify_time=None, note="x", derived=False, source={"url": "x"})
    timed = entry("timed", verify_time="2026-01-01T00:00:00Z")
    found = judged(shell, folder, bare, null, timed, reason_codes=["x"], set="y")
    assert [item["verdict"] for item in found.values()] == ["ok"] * 3


@pytest.mark.parametrize("kind", HOSTILE)
def test_95_a_file_that_is_no_plain_file_is_undecided_at_once(shell: Shell, folder: Path, kind: str) -> None:
    path = hostile(folder, kind)
    inside = os.path.relpath(path, folder)
    found = judged(shell, folder, entry("odd", files={"key": "psa/key", "token": inside}), entry())
    assert found["odd"]["verdict"] == "undecided"
    assert found["good"]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 3),
        ("[]", 3),
        ("{", 3),
        ('{"format": 2, "entries": []}', 3),
        ('{"format": 1, "format": 1, "entries": []}', 3),
        ('{"format": 1}', 3),
        ('{"format": 1, "entries": {}}', 3),
        (json.dumps({"format": 1, "entries": [{}] * (MAX_ENTRIES + 1)}), 3),
        ("[" * 5000, 3),
        ('{"format": 1, "entries": []}', 0),
    ],
)
def test_an_index_out_of_form_is_malformed(shell: Shell, folder: Path, text: str, code: int) -> None:
    (folder / "index.json").write_text(text)
    said = shell("attest", "vectors", folder, "--json")
    assert said.code == code
    assert set(said.json) == ({"error"} if code else {"results"})


def test_a_folder_without_an_index_is_a_usage_error(shell: Shell, folder: Path) -> None:
    for path in (folder, folder / "missing", folder / "psa" / "token"):
        assert shell("attest", "vectors", path, "--json").code == 2
    (folder / "index.json").mkdir()
    assert shell("attest", "vectors", folder, "--json").code == 2


def test_a_bug_in_one_verifier_does_not_hide_what_the_others_say(
    shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(files: object, expectations: object) -> Any:
        raise KeyError(files, expectations)

    broken = table.Dossier(open_case=fails, main="token")
    monkeypatch.setattr(table, "DOSSIERS", {**table.DOSSIERS, "broken": broken})
    (folder / "index.json").write_text(json.dumps({"format": 1, "entries": [entry("odd", tee="broken"), entry()]}))
    said: Said = shell("attest", "vectors", folder, "--json")
    assert said.code == 0
    assert "odd: KeyError inside of the verifier" in said.err
    assert [item["verdict"] for item in said.json["results"]] == ["undecided", "ok"]


# Recorded evidence


@recorded
def test_every_recorded_entry_is_judged_as_it_expects(shell: Shell) -> None:
    said = shell("attest", "vectors", FOLDER)
    assert said.code == 0, said.out[-2000:]
    assert f"{len(index())} entries judged: 0 not as expected, 0 undecided" in said.out


@recorded
def test_what_an_entry_expects_has_no_part_in_its_verdict(shell: Shell) -> None:
    folder = shell.folder / "blind"
    shutil.copytree(FOLDER, folder)
    kept = ("files", "id", "policy", "tee", "verify_time")
    blind = [{name: item[name] for name in kept} for item in index()]
    (folder / "index.json").write_text(json.dumps({"format": 1, "entries": blind}))
    results = {item["id"]: item for item in shell.ok("attest", "vectors", folder)["results"]}
    for item in index():
        result = results[item["id"]]
        assert result["verdict"] in (item["all_reasons"] or ["ok"]), item["id"]
        assert result["claims"] == item["claims"], item["id"]


@recorded
def test_inspect_explains_every_recorded_file_that_is_evidence(shell: Shell) -> None:
    mains = {(item["files"].get(table.DOSSIERS[item["tee"]].main), item["expect"]) for item in index()}
    paths = {path: expect for path, expect in mains if path}
    assert len(paths) > 50
    for path, expect in paths.items():
        said = shell("attest", "inspect", FOLDER / path, "--json")
        assert said.code == (3 if expect in {"malformed", "unsupported_format"} and said.code == 3 else 0), path
        assert said.code or all(field["meaning"] for field in said.json["fields"]), path
