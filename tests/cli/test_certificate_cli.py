"""Certificates on the command line: asked for once, found beside the token, renewed by themselves (T78)."""

from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cloister.cli import certificate_file, remote
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli_kit import Shell

STRICT = {
    "CLOISTER_CUSTODIAN_MTLS": "require",
    "CLOISTER_CUSTODIAN_MTLS_TOKENS": "require",
    "CLOISTER_CUSTODIAN_CERTIFICATE_MAX_LIFE_S": "3600",
}


@pytest.fixture
def strict(shell: Shell) -> Iterator[Shell]:
    """Yield a shell beside a custodian that takes no token without its certificate."""
    port = free_port()
    shell.ok("custodian", "init", "--port", str(port))
    with shell.start("custodian", "serve", **STRICT) as server:
        server.until_port(port)
        yield shell


def _leaf(path: Any) -> x509.Certificate:
    data = path.read_bytes()
    leaf = x509.load_pem_x509_certificate(data)
    assert load_pem_private_key(data, password=None).public_key() == leaf.public_key()
    return leaf


def test_a_token_alone_is_refused_and_with_its_certificate_it_works(strict: Shell) -> None:
    said = strict("custodian", "token", "list")
    assert said.code == 4
    assert "certificate_wanted" in said.err
    made = strict.ok("custodian", "certificate", "issue", "--authorities", "peers.pem")
    place = strict.folder / "home" / "admin.token.pem"
    assert made["file"] == str(place)
    assert place.stat().st_mode & 0o777 == 0o600
    assert "/operator/admin/tok-" in made["name"]
    assert len(strict.ok("custodian", "token", "list")["tokens"]) == 1
    listed = strict.ok("custodian", "certificate", "list")
    assert [item["name"] for item in listed["certificates"]] == [made["name"].split("/", 3)[3]]
    assert ssl.create_default_context(cafile=strict.folder / "peers.pem")
    kinds = [entry["kind"] for entry in strict.ok("audit", "show")["entries"]] if _has("audit", "show") else []
    assert not kinds or "certificate_issued" in kinds


def _has(*words: str) -> bool:
    from cli_kit import commands  # noqa: PLC0415 - here only

    return words in dict(commands())


def test_a_certificate_in_the_last_half_of_its_life_is_renewed_by_the_next_command(
    strict: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict.ok("custodian", "certificate", "issue")
    place = strict.folder / "home" / "admin.token.pem"
    before = _leaf(place)
    strict.ok("custodian", "token", "list")
    assert _leaf(place) == before, "the first half is not its end"

    class Later(datetime):
        """Forty minutes from now, for whoever asks here."""

        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override] # enough of it
            return datetime.now(tz or UTC) + timedelta(minutes=40)

    monkeypatch.setattr(remote, "datetime", Later)
    strict.ok("custodian", "token", "list")
    monkeypatch.undo()
    after = _leaf(place)
    assert after.serial_number != before.serial_number
    assert after.public_key() != before.public_key(), "a key is certified once"


def test_anothers_certificate_beside_a_token_is_refused(strict: Shell) -> None:
    """A stolen token: its thief has a certificate, of its own token."""
    strict.ok("custodian", "certificate", "issue")
    for name in ("one", "two"):
        strict.ok("custodian", "token", "create", "--role", "auditor", "--name", name, "--out", f"{name}.token")
        strict.ok("custodian", "certificate", "issue", "--token-file", f"{name}.token")
    assert strict.ok("custodian", "certificate", "list", "--token-file", "one.token")["certificates"]
    (strict.folder / "two.token.pem").replace(strict.folder / "one.token.pem")
    said = strict("custodian", "certificate", "list", "--token-file", "one.token")
    assert said.code == 4
    assert "wrong_peer" in said.err


def test_a_relays_key_is_made_elsewhere_and_certified_for_both_ends(strict: Shell) -> None:
    """By openssl, as an administrator would."""
    strict.ok("custodian", "certificate", "issue")
    subprocess.run(
        ["/usr/bin/openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", "relay.key", "-subj", "/CN=relay-1", "-out", "relay.csr"],
        cwd=strict.folder, check=True, capture_output=True,
    )  # fmt: skip
    made = strict.ok(
        "custodian", "certificate", "issue", "--kind", "relay", "--name", "relay-1", "--server", "--csr", "relay.csr",
        "--out", "relay.pem",
    )  # fmt: skip
    assert made["name"].endswith("/relay/relay-1")
    leaf = x509.load_pem_x509_certificate((strict.folder / "relay.pem").read_bytes())
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert len(list(uses)) == 2
    assert "BEGIN PRIVATE" not in (strict.folder / "relay.pem").read_text()
    again = strict("custodian", "certificate", "issue", "--kind", "relay", "--name", "relay-1", "--csr", "relay.csr",
                   "--out", "other.pem")  # fmt: skip
    assert "key_certified" in again.err
    own = strict.ok(
        "custodian", "certificate", "issue", "--kind", "relay", "--name", "relay-2", "--renewable", "--out", "own.pem",
    )  # fmt: skip
    assert _leaf(strict.folder / own["file"]), "key and certificate in one"
    for words in (
        ("--kind", "operator", "--server", "--out", "x.pem"),
        ("--kind", "operator", "--renewable", "--out", "x.pem"),
        ("--kind", "borrower", "--name", "loan-aaaaaaaaaaaaaaaa", "--out", "x.pem"),
        ("--kind", "operator", "--name", "auditor/tok-0000000000000000", "--out", "x.pem"),
        ("--kind", "relay", "--name", "../x", "--out", "x.pem"),
    ):
        assert strict("custodian", "certificate", "issue", *words).code in {3, 4}
    assert strict("custodian", "certificate", "issue", "--kind", "relay", "--name", "r").code == 2


def test_replacing_the_authority_ends_all_and_asking_anew_goes_on(strict: Shell) -> None:
    strict.ok("custodian", "certificate", "issue")
    assert strict.ok("custodian", "certificate", "replace", "--yes")["retired"] == 1
    said = strict("custodian", "token", "list")
    assert said.code in {4, 5}  # refused by the route, or already in the handshake
    strict.ok("custodian", "certificate", "issue")
    assert strict.ok("custodian", "token", "list")["tokens"]


def test_a_file_that_is_no_certificate_is_named(strict: Shell) -> None:
    place = certificate_file.beside(strict.folder / "home" / "admin.token")
    place.touch(mode=0o600)
    place.write_text("nothing")
    said = strict("custodian", "token", "list")
    assert said.code == 2
    assert "admin.token.pem" in said.err
    place.chmod(0o644)
    assert "0600" in strict("custodian", "token", "list").err
