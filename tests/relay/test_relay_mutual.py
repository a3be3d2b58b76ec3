"""A relay that knows its gateway by the custodian's authority: whom it sends a byte to, and whom not (T7)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mtls_kit import CLIENT, SERVER, Identity, forge, now

from cloister.channel.keyset import KEYSET_PATH
from cloister.custodian.certificates.issuing import issue, make_authority
from cloister.custodian.certificates.signing_request import CertifiedKey
from cloister.errors import UsageError
from cloister.lending.peer_name import PeerKind, PeerName
from cloister.relay import link as link_module
from cloister.relay.gateway import gateway_tls_of
from cloister.relay.limits import Limits
from cloister.relay.link import GatewayLink, GatewayTls
from cloister.relay.peer_tls import GatewayName, PeerContext, parse_gateway_name
from cloister.relay.serve import serve_relay
from cloister.serving.place import Place
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DOMAIN = "k.example"
INSTANCE, OTHER = "a" * 64, "b" * 64
ENCLAVE = f"spiffe://{DOMAIN}/enclave/{INSTANCE}"
ANY = f"spiffe://{DOMAIN}/enclave"


@dataclass(frozen=True)
class Authority:
    """An authority as a custodian makes it."""

    identity: Identity

    @classmethod
    def made(cls, domain: str = DOMAIN, *, name: str = "1") -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = make_authority(key, domain=domain, name=name, now=now(), life=timedelta(days=30))
        return cls(Identity(certificate=certificate, key=key))

    @property
    def pem(self) -> bytes:
        return self.identity.certificate.public_bytes(Encoding.PEM)

    def of(
        self, kind: PeerKind, name: str, *, domain: str = DOMAIN, server: bool = True, age: timedelta = timedelta(0)
    ) -> Identity:
        """Return a certificate as it issues them."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = issue(
            self.identity.certificate, self.identity.key, CertifiedKey(key=key.public_key(), spki_sha256=b""),
            PeerName.of(domain, kind, name), now=now() - age, life=timedelta(hours=1), server=server,
        )  # fmt: skip
        return Identity(certificate=made, key=key)


@dataclass
class Gateway:
    """A TLS server that answers anything and writes down what it was sent and by whom."""

    identity: Identity
    authority: Authority | None = None
    sent: list[bytes] = field(default_factory=list)
    shown: list[bytes | None] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secure = writer.get_extra_info("ssl_object")
        self.shown.append(None if secure is None else secure.getpeercert(binary_form=True))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                self.sent.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nkeys")
                await writer.drain()
        writer.close()

    def context(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.identity.load(made)
        if self.authority is not None:
            made.load_verify_locations(cadata=self.authority.pem.decode())
            made.verify_mode = ssl.CERT_REQUIRED
        return made


@contextlib.asynccontextmanager
async def relayed(gateway: Gateway, tls: GatewayTls) -> AsyncIterator[str]:
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0, ssl=gateway.context())
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop, port = asyncio.Event(), server.sockets[0].getsockname()[1]
    task = asyncio.create_task(
        serve_relay(
            f"https://127.0.0.1:{port}", Place("127.0.0.1", 0),
            limits=Limits(), tls=None, gateway_tls=tls, stop=stop, on_listening=listening.set_result,
        )
    )  # fmt: skip
    try:
        yield await listening
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)
        server.close()


def written(path: Path, identity: Identity) -> Path:
    """Write certificate and key into one file of mode 0600."""
    path.touch(mode=0o600)
    path.write_bytes(identity.pem)
    return path


def held_to(folder: Path, authority: Authority, *names: str, own: Identity | None = None) -> GatewayTls:
    """Return what ``cloister relay`` makes of its options."""
    (folder / "peers.pem").write_bytes(authority.pem)
    certificate = None if own is None else written(folder / "relay.pem", own)
    return gateway_tls_of("https://gateway", names, authorities=folder / "peers.pem", certificate=certificate, key=None)


async def status(url: str) -> int:
    async with httpx2.AsyncClient(trust_env=False) as http:
        return (await http.get(url + KEYSET_PATH)).status_code


@asynchronous
async def test_a_relay_and_an_enclave_show_each_other_who_they_are(tmp_path: Path) -> None:
    authority = Authority.made()
    own = authority.of(PeerKind.RELAY, "relay-1")
    gateway = Gateway(authority.of(PeerKind.ENCLAVE, INSTANCE), authority)
    async with relayed(gateway, held_to(tmp_path, authority, ENCLAVE, own=own)) as url:
        assert await status(url) == 200
    assert gateway.shown == [own.certificate.public_bytes(Encoding.DER)]
    assert len(gateway.sent) == 1


GENUINE = Authority.made()
STRANGERS = {
    "a relays certificate used as an enclaves": GENUINE.of(PeerKind.RELAY, "relay-1"),
    "a proxys": GENUINE.of(PeerKind.PROXY, "p"),
    "another instances": GENUINE.of(PeerKind.ENCLAVE, OTHER),
    "an enclaves for its custodian alone": GENUINE.of(PeerKind.ENCLAVE, INSTANCE, server=False),
    "one that has ended": GENUINE.of(PeerKind.ENCLAVE, INSTANCE, age=timedelta(hours=2)),
    "one that has not begun": GENUINE.of(PeerKind.ENCLAVE, INSTANCE, age=timedelta(hours=-2)),
    "of another custodian": Authority.made("other.example").of(PeerKind.ENCLAVE, INSTANCE, domain="other.example"),
    "of another custodian of the same domain": Authority.made().of(PeerKind.ENCLAVE, INSTANCE),
    "signed by itself before it attested": forge(None, dns=["localhost"], uses=(SERVER,), common_name="enclave"),
    "signed by itself with the name": forge(None, uris=[ENCLAVE], uses=(CLIENT, SERVER)),
    "signed by a certified relay": forge(GENUINE.of(PeerKind.RELAY, "relay-1"), uris=[ENCLAVE], uses=(CLIENT, SERVER)),
    "of the authority and outside of its domain": GENUINE.of(PeerKind.ENCLAVE, INSTANCE, domain="other.example"),
    "of the authority with two names": forge(
        GENUINE.identity, uris=[ENCLAVE, f"spiffe://{DOMAIN}/enclave/{OTHER}"], uses=(CLIENT, SERVER)
    ),
    "the authority itself": GENUINE.identity,
}


@asynchronous
@pytest.mark.parametrize("who", sorted(STRANGERS))
async def test_no_byte_is_sent_to_whoever_is_not_the_gateway(tmp_path: Path, who: str) -> None:
    gateway = Gateway(STRANGERS[who])
    async with relayed(gateway, held_to(tmp_path, GENUINE, ENCLAVE)) as url:
        assert await status(url) == 502
    assert gateway.sent == []


@asynchronous
@pytest.mark.parametrize("instance", [INSTANCE, OTHER])
async def test_any_instance_of_a_custodian_is_named_by_the_kind_alone(tmp_path: Path, instance: str) -> None:
    gateway = Gateway(GENUINE.of(PeerKind.ENCLAVE, instance))
    async with relayed(gateway, held_to(tmp_path, GENUINE, ANY)) as url:
        assert await status(url) == 200


@asynchronous
async def test_a_gateway_that_does_not_take_our_certificate_is_a_bad_gateway_and_no_fault_of_ours(
    tmp_path: Path,
) -> None:
    gateway = Gateway(GENUINE.of(PeerKind.ENCLAVE, INSTANCE), GENUINE)
    for own in (None, Authority.made().of(PeerKind.RELAY, "relay-1"),
                GENUINE.of(PeerKind.RELAY, "relay-1", age=timedelta(hours=2))):  # fmt: skip
        async with relayed(gateway, held_to(tmp_path, GENUINE, ENCLAVE, own=own)) as url:
            assert await status(url) == 502
    assert gateway.sent == []


@asynchronous
async def test_new_files_are_taken_at_the_next_request_and_bad_ones_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (GENUINE.of(PeerKind.RELAY, name) for name in ("relay-1", "relay-2"))
    gateway = Gateway(GENUINE.of(PeerKind.ENCLAVE, INSTANCE), GENUINE)
    async with relayed(gateway, held_to(tmp_path, GENUINE, ENCLAVE, own=first)) as url:
        assert await status(url) == 200
        assert await status(url) == 200
        assert len(gateway.shown) == 1, "one connection for both"
        written(tmp_path / "relay.pem", second)
        assert await status(url) == 200
        (tmp_path / "relay.pem").write_bytes(b"half a file")
        assert await status(url) == 200
        assert await status(url) == 200
        (tmp_path / "peers.pem").write_bytes(Authority.made().pem)
        written(tmp_path / "relay.pem", second)
        assert await status(url) == 502, "who believes others does not go on with a gateway of before"
    assert gateway.shown == [item.certificate.public_bytes(Encoding.DER) for item in (first, second)]
    said = capsys.readouterr().err
    assert (said.count("tls_changed"), said.count("tls_kept")) == (2, 1)


@asynchronous
async def test_a_gateway_is_proven_anew_though_its_connections_stay_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_AGE_S", 0)
    gateway = Gateway(GENUINE.of(PeerKind.ENCLAVE, INSTANCE))
    async with relayed(gateway, held_to(tmp_path, GENUINE, ENCLAVE)) as url:
        assert [await status(url), await status(url)] == [200, 200]
    assert len(gateway.shown) == 2


@asynchronous
async def test_without_files_a_client_stays_for_ever() -> None:
    async with GatewayLink(GatewayTls(make=ssl.create_default_context), Limits()) as held:
        held._until = 0.0
        assert held.client() is held.client()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"origin": "http://127.0.0.1:1"}, "over https"),
        ({"authorities": None}, "--gateway-ca"),
        ({"names": (f"spiffe://{DOMAIN}/relay/r",)}, "a relay is no gateway"),
        ({"names": (f"spiffe://{DOMAIN}/operator/admin/tok-0123456789abcdef",)}, "is no gateway"),
        ({"names": ("https://enclave.example",)}, "no name of a gateway"),
        ({"names": (f"spiffe://{DOMAIN}/enclave/",)}, "no name of a gateway"),
        ({"names": (f"{ENCLAVE} ",)}, "no name of a gateway"),
        ({"names": (f"spiffe://{DOMAIN.upper()}/enclave",)}, "no name of a gateway"),
        ({"certificate": None, "key": "relay.key"}, "--gateway-certificate"),
        ({"names": ()}, "wants --gateway-peer"),
    ],
)
def test_options_that_would_let_the_proof_be_left_out_are_refused(
    tmp_path: Path, options: dict[str, object], match: str
) -> None:
    """A downgrade to plaintext, no authority, another kind of peer, another spelling."""
    usual = {"origin": "https://g", "names": (ENCLAVE,), "authorities": "peers.pem", "certificate": "relay.pem",
             "key": None}  # fmt: skip
    given = usual | options
    files = {
        name: None if given[name] is None else tmp_path / str(given[name])
        for name in ("authorities", "certificate", "key")
    }
    with pytest.raises(UsageError, match=match):
        gateway_tls_of(str(given["origin"]), given["names"], **files)  # type: ignore[arg-type] # as typed above


def test_files_that_are_no_use_end_the_start(tmp_path: Path) -> None:
    own, names = GENUINE.of(PeerKind.RELAY, "relay-1"), (parse_gateway_name(ENCLAVE),)
    good, none = tmp_path / "peers.pem", tmp_path / "none.pem"
    good.write_bytes(GENUINE.pem)
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_bytes(own.certificate.public_bytes(Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert PeerContext.of(names, authorities=good, certificate=certificate, key=key)
    for changes in ({"authorities": none}, {"certificate": none}, {"key": none}, {"key": certificate}):
        files = {"authorities": good, "certificate": certificate, "key": key} | changes
        with pytest.raises(UsageError):
            PeerContext.of(names, **files)
    key.chmod(0o644)
    with pytest.raises(UsageError, match="0600"):
        PeerContext.of(names, authorities=good, certificate=certificate, key=key)
    good.write_bytes(b"no certificates")
    with pytest.raises(UsageError, match="no certificates"):
        PeerContext.of(names, authorities=good, certificate=None, key=None)


def test_a_name_is_compared_octet_by_octet() -> None:
    wanted = parse_gateway_name(ENCLAVE)
    assert wanted == GatewayName(domain=DOMAIN, kind=PeerKind.ENCLAVE, name=INSTANCE)
    assert wanted.admits(PeerName.parse(ENCLAVE))
    for other in (f"spiffe://{DOMAIN}/enclave/{OTHER}", f"spiffe://x.{DOMAIN}/enclave/{INSTANCE}",
                  f"spiffe://{DOMAIN}/proxy/{INSTANCE}"):  # fmt: skip
        assert not wanted.admits(PeerName.parse(other))
    assert parse_gateway_name(ANY).admits(PeerName.parse(ENCLAVE))
    assert not parse_gateway_name(ANY).admits(PeerName.parse(f"spiffe://x.{DOMAIN}/enclave/{INSTANCE}"))
