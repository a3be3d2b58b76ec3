"""Issuers of a site's own identities from the command line, at a custodian that serves."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from identity_kit import Authority, Provider

from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli_kit import Shell


@pytest.fixture
def served(shell: Shell) -> Iterator[Shell]:
    port = free_port()
    assert shell("custodian", "init", "--port", str(port)).code == 0
    with shell.start("custodian", "serve") as server:
        server.until_port(port)
        yield shell


def test_an_issuer_is_added_used_listed_and_removed(served: Shell) -> None:
    site = Provider()
    (served.folder / "site.json").write_text(json.dumps(site.document(keys=None)))
    (served.folder / "jwks.json").write_text(json.dumps(site.jwks()))
    made = served.ok("custodian", "issuer", "add", "site.json", "--keys", "jwks.json")
    token = served.folder / "token"
    token.write_bytes(site.token(now=int(datetime.now(UTC).timestamp()), groups=["x" * 200] * 20))
    token.chmod(0o600)
    assert token.stat().st_size > 4096
    assert served.ok("loan", "list", "--token-file", "token") == {"loans": []}
    said = served("custodian", "issuer", "list", "--token-file", "token", "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "forbidden")
    said = served("custodian", "issuer", "list")
    assert made["id"] in said.out
    assert "1, document" in said.out
    assert served("custodian", "issuer", "remove", made["id"]).out == f"{made['id']} removed\n"
    said = served("loan", "list", "--token-file", "token", "--json")
    assert [reason["code"] for reason in said.json["error"]["reasons"]] == ["unauthenticated", "issuer_unknown"]
    assert served("custodian", "issuer", "remove", made["id"]).code == 4


def test_an_authority_comes_as_pem_and_an_issuer_that_is_not_reached_shows_why(served: Shell) -> None:
    authority = Authority()
    (served.folder / "ca.pem").write_text(authority.pem)
    (served.folder / "ca.json").write_text(json.dumps(authority.document(authorities=None)))
    served.ok("custodian", "issuer", "add", "ca.json", "--authorities", "ca.pem")
    (served.folder / "far.json").write_text(json.dumps(Provider("https://127.0.0.1:1").document(keys=None)))
    said = served("custodian", "issuer", "add", "far.json")
    assert said.code == 0
    assert "its keys are fetched now" in said.err
    kinds = {item["kind"] for item in served.ok("custodian", "issuer", "list")["issuers"]}
    assert kinds == {"certificates", "oidc"}


def test_a_document_that_makes_no_sense_is_not_sent(shell: Shell) -> None:
    (shell.folder / "bad.json").write_text(json.dumps(Provider().document(algorithms=["none"])))
    said = shell("custodian", "issuer", "add", "bad.json", "--json")
    assert said.json["error"]["message"].startswith("bad.json: algorithms: want some of")
    assert shell("custodian", "issuer", "add", "absent.json").code == 2
    (shell.folder / "list.json").write_text("[]")
    assert shell("custodian", "issuer", "add", "list.json").code == 2
