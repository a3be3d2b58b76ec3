"""``attest bundle`` and ``attest recall`` as a person uses them: an air gap crossed, releases recalled."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from cli_kit import Said, Shell, listens
from custodian_kit import CHEAP
from recall_kit import NAME, Site, published, release, revoking

from cloister.attest.endorse import fetch
from cloister.attest.endorse.fetch import FolderEndorsements
from cloister.attest.endorse.names import amd_ca, amd_crl, jwks
from cloister.attest.parts import dump_parts, parse_parts
from cloister.cli import attest_bundle
from cloister.cli.attest_bundle import bundle
from cloister.cli.attest_recall import recall
from cloister.cli.terminal import run
from cloister.custodian.app import create_app
from cloister.custodian.setup import init_custodian
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.testing.ports import free_port
from cloister.testing.vendors.amd.authority import Issue
from endorse_kit import NOW, TOKENS, VendorServices, amd, intel, key_set, vouch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import click

CRL = amd_crl("milan")


class Words:
    """Runs one command of ours."""

    def __init__(self, shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = shell.folder
        self._capsys = capsys

    def __call__(self, command: click.Command, *words: str | Path) -> Said:
        self._capsys.readouterr()
        code = run(command, [str(word) for word in words])
        captured = self._capsys.readouterr()
        return Said(code, captured.out, captured.err)

    def ok(self, command: click.Command, *words: str | Path) -> Any:
        said = self(command, *words, "--json")
        assert said.code == 0, said
        return said.json


@pytest.fixture
def words(shell: Shell, capsys: pytest.CaptureFixture[str]) -> Words:
    return Words(shell, capsys)


@pytest.fixture
def home(shell: Shell) -> str:
    """Return the public key of a custodian whose home the environment names."""
    made = init_custodian(shell.folder / "home", KeyFile.create(shell.folder / "vault.key"), kdf=CHEAP)
    return made.key.dump()


@pytest.fixture
def library(shell: Shell) -> Path:
    """Return a folder with endorsements that are good today."""
    today = datetime.now(UTC)
    folder = FolderEndorsements(shell.folder / "library")
    folder.write(
        CRL, amd().crl(issue=Issue(not_before=today - timedelta(days=1), not_after=today + timedelta(days=3))), today
    )
    folder.write(amd_ca("milan"), amd().endorsements[amd_ca("milan")], today)
    folder.write(jwks(TOKENS), key_set(), today)
    folder.write(NAME, published()[NAME], today)
    return shell.folder / "library"


def test_a_bundle_crosses_an_air_gap(words: Words, home: str, library: Path) -> None:
    draft, signed = words.folder / "draft", words.folder / "signed"
    names = (CRL, amd_ca("milan"), jwks(TOKENS))
    options = [option for name in names for option in ("--name", name)]
    made = words.ok(bundle, "export", *options, "--from", library, "--version", "4", "--days", "9", "--out", draft)
    assert [item["name"] for item in made["entries"]] == sorted(names)
    assert (made["version"], made["signed_by"]) == (4, None)
    assert words(bundle, "verify", draft, "--key", home).code == 4, "nobody signed it"
    signed_by = words.ok(bundle, "sign", draft, "--out", signed)["signed_by"]
    assert words.ok(bundle, "verify", signed, "--key", home)["signed_by"] == signed_by
    assert words.ok(bundle, "import", signed, "--key", home)["version"] == 4
    assert (words.folder / "home" / "endorsements.bundle").read_bytes() == signed.read_bytes()


def test_what_ends_first_is_shown_first(words: Words, home: str, library: Path) -> None:
    draft = words.folder / "draft"
    words.ok(bundle, "export", "--name", CRL, "--name", amd_ca("milan"), "--from", library, "--out", draft)
    said = words(bundle, "inspect", draft)
    assert said.code == 0
    lines = [line for line in said.out.splitlines() if "amd/" in line]
    assert CRL in lines[0]
    assert amd_ca("milan") in lines[1]
    assert "a draft, signed by nobody" in said.err
    words.ok(bundle, "sign", draft, "--out", words.folder / "signed")
    assert "nothing is proven" in words(bundle, "inspect", words.folder / "signed").err
    assert home


def test_evidence_says_what_goes_into_it(words: Words, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        attest_bundle, "production_schemes", lambda kinds: [intel().tdx_scheme()] if "tdx" in kinds else []
    )
    payload = intel().tdx_attester().collect(bytes(64)).payload
    whole, bare = words.folder / "payload", words.folder / "quote"
    whole.write_bytes(payload)
    bare.write_bytes(parse_parts(payload, what="x", caps={"quote": 1 << 20, "ccel": 1 << 20})["quote"])
    for file in (whole, bare):
        draft = words.folder / f"{file.name}.draft"
        made = words.ok(bundle, "export", "--for", f"tdx={file}", "--from", library, "--out", draft)
        assert [item["name"] for item in made["entries"]] == [NAME]
        assert made["entries"][0]["source"] == f"file {NAME}"
    stranger = words(bundle, "export", "--for", f"sgx={whole}", "--from", library, "--out", words.folder / "x")
    assert stranger.code == 4
    whole.write_bytes(dump_parts({"quote": b"noise"}))
    assert words(bundle, "export", "--for", f"tdx={whole}", "--from", library, "--out", words.folder / "x").code == 3


def test_the_vendors_are_asked_where_no_folder_is_named(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = fetch.https_client
    with VendorServices() as services:
        services.serve({**amd().endorsements, jwks(TOKENS): key_set()})
        monkeypatch.setattr(attest_bundle, "production_vouch", vouch)
        monkeypatch.setattr(
            attest_bundle, "https_client", lambda **options: genuine(transport=services.transport(), **options)
        )
        out = words.folder / "draft"
        made = words.ok(bundle, "export", "--name", CRL, "--name", jwks(TOKENS), "--jwks-host", TOKENS, "--out", out)
        sources = {item["name"]: item["source"] for item in made["entries"]}
        assert sources == {CRL: "https://kdsintf.amd.com", jwks(TOKENS): f"https://{TOKENS}"}
        keys = next(item for item in made["entries"] if item["name"] == jwks(TOKENS))
        assert keys["not_after"] == made["not_after"], "what says nothing of its own ends with the bundle"
        lost = words(bundle, "export", "--name", "nvidia/rim/NOBODY", "--out", words.folder / "x")
        assert lost.code == 5
        assert not (words.folder / "x").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), 2),
        (("--for", "tdx"), 2),
        (("--for", "tdx=nowhere"), 2),
        (("--name", CRL, "--from", "nowhere"), 5),
        (("--name", "../x", "--from", "nowhere"), 5),
        (("--name", CRL, "--days", "91"), 2),
        (("--name", jwks(TOKENS), "--jwks-host", "https://x"), 2),
    ],
)
def test_orders_that_make_no_sense_leave_no_file(words: Words, options: tuple[str, ...], code: int) -> None:
    out = words.folder / "draft"
    assert words(bundle, "export", *options, "--out", out).code == code
    assert not out.exists()


def test_files_that_are_none_are_told_apart(words: Words, home: str) -> None:
    noise = words.folder / "noise"
    noise.write_bytes(b"noise")
    for verb in ("inspect", "verify", "import"):
        keys = () if verb == "inspect" else ("--key", home)
        assert words(bundle, verb, noise, *keys).code == 3
        assert words(bundle, verb, words.folder / "nowhere", *keys).code == 2
    assert words(bundle, "verify", noise).code == 2, "no key to trust"
    assert words(bundle, "verify", noise, "--key", "AAAA").code == 3


def test_an_older_bundle_is_not_imported(words: Words, home: str, library: Path) -> None:
    draft, signed = words.folder / "draft", words.folder / "signed"
    words.ok(bundle, "export", "--name", CRL, "--from", library, "--version", "4", "--out", draft)
    words.ok(bundle, "sign", draft, "--out", signed)
    import sqlite3  # noqa: PLC0415 - here only

    with contextlib.closing(sqlite3.connect(words.folder / "home" / "custodian.db")) as database:
        database.execute("INSERT INTO endorsement_bundle VALUES (1, 5, zeroblob(32), 0)")
        database.commit()
    said = words(bundle, "import", signed, "--key", home)
    assert said.code == 4
    assert "bundle_version_old" in said.err
    assert not (words.folder / "home" / "endorsements.bundle").exists()


# recall


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Site, tuple[str, ...]]]:
    """Yield a custodian that serves, and the options that lead to it."""
    (tmp_path / "site").mkdir()
    with Site(tmp_path / "site") as opened:
        opened.knows(published())
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(create_app(opened.service), port=port, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not listens(port):
            time.sleep(0.01)
        token = tmp_path / "token"
        token.write_text(opened.init.admin_token)
        token.chmod(0o600)
        yield opened, ("--url", f"http://127.0.0.1:{port}", "--token-file", str(token))
        server.should_exit = True
        thread.join()


def test_recall_lists_whom_it_concerns_and_stops_them_if_told(words: Words, site: tuple[Site, tuple[str, ...]]) -> None:
    custodian, where = site
    lent = custodian.lend_to_td()
    toy = release(lent)
    assert words.ok(recall, *where) == {
        "fallen": 0, "instances": [], "judged": 1, "loans": [], "releases": [], "undecided": 0,
    }  # fmt: skip
    custodian.knows(revoking())
    said = words(recall, *where)
    assert said.code == 4
    assert lent.id in said.out
    assert "revoked" in said.out
    assert "live" in said.out
    stopped = words(recall, "--stop", *where, "--json")
    assert stopped.code == 4
    assert stopped.json["releases"][0]["stopped"] is True
    assert stopped.json["instances"] == [toy.id]
    assert "1 releases judged: 1 fall, 0 undecided" in words(recall, "--no-stop", *where).out


def test_recall_by_another_policy_time_or_bundle(words: Words, site: tuple[Site, tuple[str, ...]]) -> None:
    custodian, where = site
    release(custodian.lend_to_td())
    policy = words.folder / "policy.json"
    policy.write_text(json.dumps(custodian.loan_body()["policy"]))
    assert words(recall, "--policy", policy, *where).code == 4
    toml = words.folder / "policy.toml"
    toml.write_text('v = 1\nversion = 9\n[tees.tdx]\nmrtd = {exact = "00"}\n')
    assert words(recall, "--policy", toml, *where).code == 4
    assert words(recall, "--at", (NOW + timedelta(days=1)).isoformat(), *where).code == 0
    noise = words.folder / "bundle"
    noise.write_bytes(b"noise")
    assert words(recall, "--bundle", noise, *where).code == 3
    noise.write_bytes(bytes(1 << 20))
    too_large = words(recall, "--bundle", noise, *where)
    assert too_large.code == 2
    assert "import" in too_large.err
    custodian.knows({})
    assert words(recall, *where).code == 5


def test_recall_walks_every_page(
    words: Words, site: tuple[Site, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.custodian.service.recall.MAX_JUDGED", 1)
    custodian, where = site
    lent = custodian.lend_to_td(max_instances=9)
    for _ in range(3):
        release(lent)
    custodian.knows(revoking())
    said = words(recall, *where, "--json")
    assert (said.json["judged"], said.json["fallen"]) == (3, 3)
    assert [item["release"] for item in said.json["releases"]] == [1, 2, 3]
