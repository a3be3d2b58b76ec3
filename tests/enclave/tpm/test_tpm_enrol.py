"""The walk of enrolment over HTTP: a real TPM on one side, an authority behind a web server on the other."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.attest.chain import parse_certificates
from cloister.attest.tpm.akcert import create_authority, verify_ak_certificate
from cloister.attest.tpm.ek import device_of
from cloister.attest.tpm.enrolment import (
    EnrolProof,
    EnrolRequest,
    EnrolResult,
    PendingEnrolment,
    begin_enrolment,
    finish_enrolment,
)
from cloister.crypto.sign import SigningKey
from cloister.custodian.tls import authority_certificate
from cloister.enclave.enrol import enrol
from cloister.enclave.loanfile import LoanFile
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.lending.terms import LoanId
from cloister.tpm.codec import Code
from cloister.tpm.commands import Tpm
from cloister.tpm.keys import AkKind, EkKind, attestation_key, ek_certificate, endorsement_key
from cloister.tpm.transport import SocketTransport
from swtpm import start_swtpm
from tpm_kit import Issuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from swtpm import Swtpm

pytestmark = pytest.mark.tpm
NOW = datetime.now(UTC) + timedelta(hours=1)
KEY = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
LOAN = LoanFile(
    loan=LoanId("loan-" + "a" * 26),
    custodian_url="https://custodian.example",
    custodian_key=SigningKey.generate().verify_key,
    ca_pem=authority_certificate(KEY, name="test", now=NOW).decode(),
    token="borrower-token-of-this-test",  # noqa: S106
)

LIFE = {"since": timedelta(days=-3650), "until": timedelta(days=3650)}  # around any clock


class Authority:
    """The custodian's two enrolment routes over the real functions, as a WSGI application."""

    def __init__(self, roots: tuple[bytes, ...], pinned: tuple[str, ...] = ()) -> None:
        """Trust these makers and these devices."""
        self.key, self.certificate = create_authority("Enrolment", NOW)
        self.roots, self.pinned = roots, pinned
        self.pending: dict[str, PendingEnrolment] = {}
        self.seen: list[tuple[str, str]] = []

    def __call__(self, environ: dict, start: Callable) -> Iterable[bytes]:
        """Answer one request."""
        path, token = environ["PATH_INFO"], environ["HTTP_AUTHORIZATION"]
        self.seen.append((environ["REQUEST_METHOD"], path))
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        try:
            if token != f"Bearer {LOAN.token}":
                raise Rejected.because("unauthenticated", "token")
            answer = self.begin(body) if path == "/v1/devices/enrolments" else self.finish(path.split("/")[4], body)
        except CloisterError as refusal:
            reasons = getattr(refusal, "reasons", ())
            shown = [{"code": r.code, "subject": r.subject, "got": r.got, "want": r.want} for r in reasons]
            start("403 Forbidden", [("content-type", "application/problem+json")])
            return [json.dumps({"code": shown[0]["code"] if shown else "malformed", "reasons": shown}).encode()]
        start("201 Created", [("content-type", "application/json")])
        return [answer]

    def begin(self, body: bytes) -> bytes:
        challenge, pending = begin_enrolment(EnrolRequest.parse(body), self.roots, NOW, os.urandom, pinned=self.pinned)
        self.pending[pending.enrolment] = pending
        return challenge.dump()

    def finish(self, enrolment: str, body: bytes) -> bytes:
        pending = self.pending.pop(enrolment)
        certificate = finish_enrolment(pending, EnrolProof.parse(body).secret, self.key, self.certificate, NOW)
        return EnrolResult(certificates=(certificate, self.certificate)).dump()


@pytest.fixture(scope="module")
def swtpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with start_swtpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture
def transport(swtpm: Swtpm) -> Iterator[SocketTransport]:
    with SocketTransport(swtpm.socket) as opened:
        yield opened


@pytest.fixture
def issuing(swtpm: Swtpm, tmp_path: Path) -> Path:
    path = tmp_path / "issuing.pem"
    path.write_bytes(swtpm.ek_intermediates[0])
    return path


@pytest.mark.parametrize("ak", AkKind)
def test_a_device_enrols_and_its_key_is_certified(
    swtpm: Swtpm, transport: SocketTransport, issuing: Path, ak: AkKind
) -> None:
    authority = Authority(swtpm.ek_roots)
    pem, device = enrol(transport, LOAN, issuing, ak=ak, http=httpx2.WSGITransport(authority))
    chain = parse_certificates(pem)
    with attestation_key(Tpm(transport), ak) as (_, public), endorsement_key(Tpm(transport)) as ek:
        vouched = verify_ak_certificate(chain, public, parse_certificates(authority.certificate), NOW)
        assert vouched.device == device == device_of(ek.public)
    assert authority.seen[0] == ("POST", "/v1/devices/enrolments")
    assert authority.pending == {}


def test_a_device_enrols_again_under_the_same_name(swtpm: Swtpm, transport: SocketTransport, issuing: Path) -> None:
    authority = Authority(swtpm.ek_roots)
    devices = {enrol(transport, LOAN, issuing, http=httpx2.WSGITransport(authority))[1] for _ in range(2)}
    assert len(devices) == 1


def test_intermediates_may_be_pinned_at_the_custodian_instead(swtpm: Swtpm, transport: SocketTransport) -> None:
    authority = Authority((*swtpm.ek_roots, *swtpm.ek_intermediates))
    enrol(transport, LOAN, http=httpx2.WSGITransport(authority))


def test_a_certificate_kept_in_a_file_chooses_its_key(swtpm: Swtpm, transport: SocketTransport, tmp_path: Path) -> None:
    """The endorsement certificate in the file is shown first, wherever it stands in it."""
    own = parse_certificates(ek_certificate(Tpm(transport), EkKind.RSA_2048))[0]
    both = tmp_path / "both.pem"
    both.write_bytes(swtpm.ek_intermediates[0] + own.pem)
    enrol(transport, LOAN, both, http=httpx2.WSGITransport(Authority(swtpm.ek_roots)))


class WithoutCertificates:
    """A TPM whose maker left NV memory empty, in front of a real one."""

    def __init__(self, transport: SocketTransport) -> None:
        """Pass everything on but reading NV indices."""
        self._transport = transport

    def transceive(self, command: bytes) -> bytes:
        if int.from_bytes(command[6:10], "big") == Code.NV_READ_PUBLIC:
            return bytes.fromhex("80010000000a0000018b")  # TPM_RC_HANDLE, handle 1
        return self._transport.transceive(command)

    def close(self) -> None:
        self._transport.close()


@pytest.mark.parametrize("kind", [EkKind.RSA_2048, EkKind.ECC_P256])
def test_a_tpm_without_certificates_enrols_with_one_from_a_file(
    transport: SocketTransport, tmp_path: Path, kind: EkKind
) -> None:
    bare = WithoutCertificates(transport)
    maker = Issuer("Maker")
    with endorsement_key(Tpm(bare), kind) as ek:
        assert ek.certificate == b""
        leaf = maker.issue("EK", ek.public.public_key(), **LIFE)
        device = device_of(ek.public)
    path = tmp_path / "ek.der"
    path.write_bytes(leaf)
    root = maker.authority(**LIFE)
    assert enrol(bare, LOAN, path, http=httpx2.WSGITransport(Authority((root,))))[1] == device
    path.write_bytes(maker.issue("EK", Issuer("another").key.public_key(), **LIFE))
    with pytest.raises(Rejected) as refused:
        enrol(bare, LOAN, path, http=httpx2.WSGITransport(Authority((root,))))
    assert refused.value.code == "key_binding_mismatch"


def test_a_loan_file_with_a_broken_authority_is_malformed(transport: SocketTransport) -> None:
    with pytest.raises(Malformed, match="ca_pem"):
        enrol(transport, replace(LOAN, ca_pem="no certificate"))


def test_a_tpm_of_an_unknown_maker_is_told_every_reason(transport: SocketTransport, issuing: Path) -> None:
    with pytest.raises(Rejected) as refused:
        enrol(transport, LOAN, issuing, http=httpx2.WSGITransport(Authority(())))
    assert refused.value.code == "untrusted_root"


def test_a_tpm_pinned_by_hand_enrols_without_its_maker(transport: SocketTransport) -> None:
    with endorsement_key(Tpm(transport)) as ek:
        device = device_of(ek.public)
    assert enrol(transport, LOAN, http=httpx2.WSGITransport(Authority((), (device,))))[1] == device


def answering(status: int, body: bytes, **headers: str) -> httpx2.BaseTransport:
    def application(_environ: dict, start: Callable) -> Iterable[bytes]:
        start(f"{status} X", list(headers.items()))
        return [body]

    return httpx2.WSGITransport(application)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, b"", Unavailable),
        (503, b"", Unavailable),
        (429, b"", Unavailable),
        (307, b"", Unavailable),
        (200, b"", Malformed),
        (200, b"{}", Malformed),
        (200, b" " * 70_000, Unavailable),
        (404, b"<html>", Rejected),
        (403, b'{"code":"forbidden"}', Rejected),
        (403, b'{"code":7}', Rejected),
    ],
)
def test_answers_that_are_none_are_told_apart(
    transport: SocketTransport, status: int, body: bytes, error: type[CloisterError]
) -> None:
    with pytest.raises(error):
        enrol(transport, LOAN, http=answering(status, body))


def test_a_challenge_for_another_device_is_refused_by_the_tpm(transport: SocketTransport, tmp_path: Path) -> None:
    with (
        start_swtpm(tmp_path) as other,
        SocketTransport(other.socket) as elsewhere,
        endorsement_key(Tpm(elsewhere)) as ek,
        attestation_key(Tpm(elsewhere)) as (_, public),
    ):
        request = EnrolRequest(ek_public=ek.public.dump(), ak_public=public.dump(), ek_certificates=())
        challenge, _ = begin_enrolment(request, (), NOW, os.urandom, pinned=(device_of(ek.public),))
    with pytest.raises(Rejected) as refused:
        enrol(transport, LOAN, http=answering(201, challenge.dump()))
    assert refused.value.code == "tpm_refused"


def test_a_certificate_for_another_key_is_not_taken(swtpm: Swtpm, transport: SocketTransport) -> None:
    class Careless(Authority):
        def finish(self, enrolment: str, body: bytes) -> bytes:
            super().finish(enrolment, body)
            return EnrolResult(certificates=(self.certificate,)).dump()

    careless = Careless((*swtpm.ek_roots, *swtpm.ek_intermediates))
    with pytest.raises(Malformed, match="not for our attestation key"):
        enrol(transport, LOAN, http=httpx2.WSGITransport(careless))


def test_a_custodian_out_of_reach_is_unavailable(transport: SocketTransport) -> None:
    refused = httpx2.MockTransport(refuse)
    with pytest.raises(Unavailable, match="ConnectError"):
        enrol(transport, LOAN, http=refused)


def refuse(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused", request=request)


def test_a_certificate_file_that_is_none_is_told(transport: SocketTransport, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        enrol(transport, LOAN, tmp_path / "missing.pem", http=httpx2.WSGITransport(Authority(())))
    bad = tmp_path / "bad.pem"
    bad.write_bytes(b"no certificate")
    with pytest.raises(Malformed):
        enrol(transport, LOAN, bad, http=httpx2.WSGITransport(Authority(())))
