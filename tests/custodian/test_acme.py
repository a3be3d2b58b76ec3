"""Server certificates by ACME, from a real authority (pebble) that runs beside the test (RFC 8555)."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx2
import pytest
from acme_kit import HAVE_PEBBLE, Pebble, pebble
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from custodian_kit import CHEAP
from mtls_kit import SERVER, forge, now
from test_serve import _running

from cloister.custodian.acme import Acme, _responder, is_due
from cloister.custodian.config_file import load_config
from cloister.custodian.setup import init_custodian
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.errors import Rejected, Unavailable, UsageError
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "custodian.example"
needs_pebble = pytest.mark.skipif(not HAVE_PEBBLE, reason="pebble is not installed")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with pebble(tmp_path_factory.mktemp("acme") / "pebble") as running:
        yield running


def _acme(folder: Path, authority: Pebble, **changes: object) -> Acme:
    settings: dict[str, object] = {
        "directory": authority.directory, "names": (NAME, "k.example"), "folder": folder,
        "answer_at": ("127.0.0.1", authority.challenge_port), "contact": "admin@custodian.example", "clock": now,
        "ca": authority.ca,
    }  # fmt: skip
    return Acme(**{**settings, **changes})  # type: ignore[arg-type] # as above


@needs_pebble
def test_an_order_brings_key_and_chain_into_one_private_file(tmp_path: Path, authority: Pebble) -> None:
    acme = _acme(tmp_path, authority)
    acme.order()
    data = acme.place.read_bytes()
    assert acme.place.stat().st_mode & 0o777 == 0o600
    leaf, *others = x509.load_pem_x509_certificates(data)
    assert others, "the authority's own below its root"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {NAME, "k.example"}
    assert not is_due(data, (NAME, "k.example"), now())
    assert is_due(data, (NAME,), now())
    with pytest.raises(ConnectionRefusedError):  # the port is open during an order and never else
        socket.create_connection(acme.answer_at, timeout=5)


@needs_pebble
def test_the_account_is_made_once_and_every_order_has_a_fresh_key(tmp_path: Path, authority: Pebble) -> None:
    acme = _acme(tmp_path, authority)
    acme.order()
    account, first = (tmp_path / "acme-account.key").read_bytes(), acme.place.read_bytes()
    _acme(tmp_path, authority).order()
    assert (tmp_path / "acme-account.key").read_bytes() == account
    assert acme.place.read_bytes().split(b"-----BEGIN CERT")[0] != first.split(b"-----BEGIN CERT")[0]


@needs_pebble
def test_a_name_that_does_not_lead_here_is_refused_and_the_old_certificate_stays(
    tmp_path: Path, authority: Pebble
) -> None:
    acme = _acme(tmp_path, authority)
    acme.order()
    before = acme.place.read_bytes()
    with pytest.raises(Rejected) as refused:
        _acme(tmp_path, authority, names=("other.example",), answer_at=("127.0.0.1", free_port())).order()
    assert refused.value.code == "acme_refused"
    assert acme.place.read_bytes() == before


@needs_pebble
def test_an_authority_that_cannot_be_proven_gets_nothing(tmp_path: Path, authority: Pebble) -> None:
    with pytest.raises(Unavailable):
        _acme(tmp_path, authority, ca=None).order()
    assert not (tmp_path / "acme.pem").exists()


@needs_pebble
def test_a_taken_port_and_a_dead_authority_are_said(tmp_path: Path, authority: Pebble) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable):
            _acme(tmp_path, authority, answer_at=taken.getsockname(), names=("third.example",)).order()
    with pytest.raises(Unavailable):
        _acme(tmp_path, authority, directory=f"https://localhost:{free_port()}/dir").order()


@needs_pebble
def test_a_custodian_begins_with_its_own_certificate_and_takes_the_authoritys_over(
    tmp_path: Path, authority: Pebble
) -> None:
    """The real process, from its first start: it listens at once, and nothing is restarted."""
    (tmp_path / "root.pem").write_text(authority.root())
    settings = {
        "port": 0, "shutdown_grace_s": 1, "sweep_interval_s": 1, "names": (NAME, "127.0.0.1"),
        "acme_directory": authority.directory, "acme_ca": str(authority.ca),
        "acme_http": f"127.0.0.1:{authority.challenge_port}", "tls_ca": str(tmp_path / "root.pem"),
    }  # fmt: skip
    home = init_custodian(tmp_path / "home", KeyFile.create(tmp_path / "vault.key"), settings=settings, kdf=CHEAP)
    with _running(home) as running:
        trusting = ssl.create_default_context(cadata=authority.root())
        for _ in range(200):
            with contextlib.suppress(ssl.SSLCertVerificationError):
                plain = socket.create_connection(("127.0.0.1", running.port), timeout=10)
                with plain, trusting.wrap_socket(plain, server_hostname=NAME) as secure:
                    assert secure.version() == "TLSv1.3"
                    break
            time.sleep(0.2)
        else:
            pytest.fail("no certificate of the authority's within its time")
        running.process.terminate()
        said = running.process.communicate(timeout=20)[1]
        assert running.process.returncode == 0
        assert [json.loads(line)["event"] for line in said.splitlines()].count("tls_changed") == 1


def test_a_certificate_is_due_in_the_last_third_of_its_life() -> None:
    ca = forge(None, common_name="x", ca=True, uses=())
    made = forge(ca, dns=[NAME], uses=(SERVER,), life=timedelta(days=90), age=timedelta(0))
    pem = made.certificate.public_bytes(Encoding.PEM)
    assert not is_due(pem, (NAME,), now() + timedelta(days=59))
    assert is_due(pem, (NAME,), now() + timedelta(days=61))
    assert is_due(b"", (NAME,), now())
    assert is_due(b"nothing of the kind", (NAME,), now())


def test_an_order_that_failed_is_not_repeated_at_once(tmp_path: Path) -> None:
    moment = now()
    acme = Acme(
        directory=f"https://localhost:{free_port()}/dir", names=(NAME,), folder=tmp_path, answer_at=("127.0.0.1", 0),
        contact="", clock=lambda: moment,
    )  # fmt: skip
    acme.keep()
    first = acme._thread
    assert first is not None
    first.join(30)
    acme.keep()
    assert acme._thread is first
    moment += timedelta(minutes=11)
    acme.keep()
    assert acme._thread is not first
    acme._thread.join(30)


def test_the_responder_answers_its_challenges_and_nothing_else() -> None:
    from http.server import ThreadingHTTPServer  # noqa: PLC0415 - here only
    from threading import Thread  # noqa: PLC0415 - here only

    server = ThreadingHTTPServer(("127.0.0.1", 0), _responder({"/.well-known/acme-challenge/a": b"a.b"}))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}", trust_env=False) as asker:
            answer = asker.get("/.well-known/acme-challenge/a")
            assert answer.content == b"a.b"
            assert "Python" not in str(answer.headers)
            for path in ("/", "/.well-known/acme-challenge/b", "/.well-known/acme-challenge/a?x", "//a"):
                assert asker.get(path).status_code == 404
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        ('acme_directory = "http://ca.example/dir"', "acme_directory"),
        ('acme_directory = "https://ca.example/dir"\nnames = ["127.0.0.1"]', "names"),
        ('acme_directory = "https://ca.example/dir"\nacme_http = "80"', "acme_http"),
        ('acme_directory = "https://ca.example/dir"\nacme_http = ":99999"', "acme_http"),
        ('acme_directory = "https://ca.example/dir"\nacme_contact = "nobody"', "acme_contact"),
        ('acme_directory = "https://ca.example/dir"\ntls_certificate = "a"\ntls_key = "b"', "one of them"),
        ('tls_ca = "a"', "tls_ca"),
        ('tls_certificate = "a"', "tls_key"),
        ('mtls = "maybe"', "mtls"),
        ('mtls = "require"\ntls = false', "without tls"),
        ('trust_domain = "Not.Lower"', "trust_domain"),
        ("authority_life_days = 1", "authority_life_days"),
    ],
)
def test_settings_that_nothing_could_come_of_are_refused(bad: str, detail: str) -> None:
    with pytest.raises(UsageError, match=detail):
        load_config(f"[custodian]\n{bad}\n", environment={}, now=now())


def test_a_certificate_that_has_ended_gives_way_to_the_custodians_own(tmp_path: Path) -> None:
    """A custodian that was off for a season starts all the same, and orders another."""
    acme = Acme(directory="", names=(NAME,), folder=tmp_path, answer_at=("", 0), contact="", clock=now)
    assert not acme.is_good
    ca = forge(None, common_name="x", ca=True, uses=())
    for age, good in ((timedelta(days=100), False), (timedelta(days=1), True), (timedelta(days=-1), False)):
        acme.place.write_bytes(forge(ca, dns=[NAME], uses=(SERVER,), life=timedelta(days=90), age=age).pem)
        assert acme.is_good is good
    acme.place.write_bytes(b"rubbish")
    assert not acme.is_good
