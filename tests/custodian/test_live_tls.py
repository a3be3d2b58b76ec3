"""A listener's certificate changed while it listens: who comes next gets the new one, what is open goes on (T7)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from custodian_kit import STATEMENT
from mtls_kit import SERVER, Door, Identity, certified, forge, mtls_bench, now, send
from test_serve import Running, _running

from cloister.custodian.live_tls import LiveTls, ServerFiles
from cloister.custodian.setup import init_custodian
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.custodian.setup import Initialised


def outside_authority() -> Identity:
    """Return an authority that is not the custodian's."""
    return forge(None, common_name="Some public authority", ca=True, uses=(), life=timedelta(days=30))


def write(folder: Path, identity: Identity) -> ServerFiles:
    """Put certificate and key where a custodian looks, each whole at once."""
    folder.mkdir(exist_ok=True)
    files = ServerFiles(certificate=folder / "outside.pem", key=folder / "outside.key")
    key = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for path, data in ((files.key, key), (files.certificate, identity.certificate.public_bytes(Encoding.PEM))):
        fresh = path.with_suffix(path.suffix + ".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(data)
        fresh.replace(path)
    return files


def shown(port: int, ca: Identity) -> int:
    """Return the serial number of the certificate that a listener shows."""
    context = ssl.create_default_context(cadata=ca.certificate.public_bytes(Encoding.PEM).decode())
    plain = __import__("socket").create_connection(("127.0.0.1", port), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
        return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"").serial_number


def _server(ca: Identity, **more: timedelta) -> Identity:
    return forge(ca, dns=["localhost"], uses=(SERVER,), common_name="localhost", **more)


def test_new_files_take_over_and_open_connections_go_on(tmp_path: Path) -> None:
    ca = outside_authority()
    first, second = _server(ca), _server(ca)
    write(tmp_path, first)
    pem = ca.certificate.public_bytes(Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(pem)
    places = {"tls_certificate": "outside.pem", "tls_key": "outside.key", "tls_ca": "ca.pem"}
    with mtls_bench(
        tmp_path / "custodian", mtls="off", **{name: str(tmp_path / at) for name, at in places.items()}
    ) as bench:
        assert bench.lend().made["loan_file"]["ca_pem"] == pem.decode()
        with Door(bench).listening() as door:
            door.ca_pem = pem.decode()
            assert door.tls is not None
            assert shown(door.port, ca) == first.certificate.serial_number
            with contextlib.closing(door.connect()) as connection:
                assert send(connection, "GET", "/healthz", b"", {})[0] == 200
                write(tmp_path, second)
                assert door.tls.refresh() or shown(door.port, ca) == second.certificate.serial_number
                assert shown(door.port, ca) == second.certificate.serial_number
                kept = connection.sock
                assert send(connection, "GET", "/healthz", b"", {})[0] == 200
                assert connection.sock is kept


@pytest.mark.parametrize("fault", ["half", "expired", "early", "mismatch", "readable", "gone", "rubbish"])
def test_files_that_do_not_fit_leave_the_certificate_that_is_in_use(
    tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lists 114 and 117; it is said once, by a code, until it is mended."""
    ca = outside_authority()
    files = write(tmp_path, _server(ca))
    live = LiveTls(files=lambda: files, minimum="1.3", clock=now)
    before = live.context.current
    match fault:
        case "half":
            files.certificate.write_bytes(files.certificate.read_bytes()[:200])
        case "expired":
            write(tmp_path, _server(ca, age=timedelta(days=2), life=timedelta(days=1)))
        case "early":
            write(tmp_path, _server(ca, age=timedelta(days=-1)))
        case "mismatch":
            key = files.key.read_bytes()
            write(tmp_path, _server(ca))
            files.key.write_bytes(key)
        case "readable":
            write(tmp_path, _server(ca))
            files.key.chmod(0o644)
        case "gone":
            files.key.unlink()
        case _:
            files.certificate.write_bytes(os.urandom(500))
    assert [live.refresh(), live.refresh()] == [False, False]
    assert live.context.current is before
    assert live.problem
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    code = {"expired": "certificate_expired", "early": "certificate_expired", "mismatch": "wrong_key"}
    assert [(line["event"], line["code"]) for line in lines] == [("tls_kept", code.get(fault, "unreadable"))]
    write(tmp_path, _server(ca))
    assert live.refresh()
    assert live.problem is None
    assert live.context.current is not before


def test_a_server_without_a_certificate_that_can_be_used_does_not_start(tmp_path: Path) -> None:
    files = write(tmp_path, _server(outside_authority(), age=timedelta(days=2), life=timedelta(days=1)))
    with pytest.raises(Rejected) as expired:
        LiveTls(files=lambda: files, minimum="1.3", clock=now)
    assert expired.value.code == "certificate_expired"
    files.certificate.unlink()
    with pytest.raises(UsageError):
        LiveTls(files=lambda: files, minimum="1.3", clock=now)


def _outside_home(folder: Path, files: ServerFiles) -> Initialised:
    settings = {
        "port": 0, "shutdown_grace_s": 1, "sweep_interval_s": 3600,
        "tls_certificate": str(files.certificate), "tls_key": str(files.key),
    }  # fmt: skip
    return init_custodian(folder / "home", KeyFile.create(folder / "vault.key"), settings=settings)


def _wait_for(running: Running, ca: Identity, serial: int) -> None:
    for _ in range(100):
        if shown(running.port, ca) == serial:
            return
        time.sleep(0.1)
    pytest.fail("the new certificate is not shown")


def test_sighup_takes_new_files_over_at_once_and_ends_nothing(tmp_path: Path) -> None:
    """The real process; nobody would look by itself for an hour. Invalid files then change nothing, and are named."""
    ca = outside_authority()
    first, second = _server(ca), _server(ca)
    files = write(tmp_path / "tls", first)
    with _running(_outside_home(tmp_path, files)) as running:
        assert shown(running.port, ca) == first.certificate.serial_number
        write(tmp_path / "tls", second)
        running.process.send_signal(signal.SIGHUP)
        _wait_for(running, ca, second.certificate.serial_number)
        files.key.write_bytes(b"nothing")
        running.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert shown(running.port, ca) == second.certificate.serial_number
        running.process.send_signal(signal.SIGTERM)
        _, said = running.process.communicate(timeout=20)
        assert running.process.returncode == 0
        assert '"tls_kept"' in said


def test_a_server_that_runs_for_long_renews_its_own_certificate(tmp_path: Path) -> None:
    """Before, only a start renewed it: after ninety days without one, nobody could connect."""
    with mtls_bench(tmp_path, mtls="off", sweep_interval_s=1) as bench, Door(bench).listening() as door:
        certificate = bench.home / "tls" / "server.pem"
        before = certificate.read_bytes()
        bench.clock.advance(61 * 86_400)
        assert door.tls is not None
        used = door.tls.context.current
        for _ in range(100):
            if door.tls.context.current is not used:
                break
            time.sleep(0.1)
        assert certificate.read_bytes() != before
        assert door.tls.context.current is not used
        assert door.tls.problem is None


def test_authorities_follow_one_another_and_nobody_is_cut_off(tmp_path: Path) -> None:
    """Halfway a successor is believed; it issues a quarter of a life later; certificates of the old one stay good."""
    with mtls_bench(tmp_path, mtls="accept", authority_life_days=4, lease_ttl_s=3600) as bench:
        service, authority = bench.service, bench.service.certificates

        def issuer() -> str:
            return certified(bench.lend().boot()).certificate.issuer.rfc4514_string()

        first, day = issuer(), 86_400
        assert len(authority.certificates) == 1
        bench.clock.advance(2 * day + 10)
        service.keep_certificates()
        assert len(authority.certificates) == 2, "believed before it issues: other custodians have time to see it"
        assert issuer() == first
        bench.clock.advance(day)
        second = issuer()
        assert second != first
        assert len(authority.certificates) == 2, "the old one's certificates are still good"
        bench.clock.advance(day)
        service.keep_certificates()
        assert issuer() == second
        assert first not in {item.subject.rfc4514_string() for item in authority.certificates}
        made = [entry for entry in bench.audit() if entry["kind"] == "authority_made"]
        assert len(made) >= 2
        assert set(made[0]["details"]) == {"ends_at", "fingerprint"}


def test_a_custodian_that_slept_through_its_authoritys_end_issues_at_once(tmp_path: Path) -> None:
    with mtls_bench(tmp_path, mtls="accept") as bench:
        certified(bench.lend().boot())
        bench.clock.advance(365 * 86_400)
        bench.restart()
        assert certified(bench.lend().boot())


def test_replacing_the_authority_ends_every_certificate_at_once(tmp_path: Path) -> None:
    """For when its key may be known: also connections that are open are refused."""
    bench = mtls_bench(tmp_path)
    with bench, Door(bench).listening() as door:
        toy = bench.lend().boot()
        own, path = certified(toy), f"/v1/instances/{toy.id}/lease"
        with contextlib.closing(door.connect(own)) as connection:
            assert send(connection, "POST", path, toy.request(), STATEMENT)[0] == 200
            made = bench.post("/v1/certificates/authorities")
            assert (made.status_code, made.json()["retired"]) == (201, 1)
            status, answer = send(connection, "POST", path, toy.request(), STATEMENT)
            assert (status, answer["code"]) == (403, "wrong_peer")
        assert door.tls is not None
        door.tls.refresh()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            door.post(path, toy.request(), identity=own)
        assert door.post(path, toy.request(), identity=certified(toy))[0] == 200
        assert bench.kinds().count("authorities_retired") == 1
