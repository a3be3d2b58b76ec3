"""An enclave behind its custodian's certificates, on real sockets in a thread of its own, for tests that knock."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ssl
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cryptography import x509
from flow_house import House
from mtls_kit import Identity, csr_text, new_key
from strict_house import enclave, strict_house

from cloister.channel.keyset import KEYSET_PATH
from cloister.enclave.config import ListenerCertificate, Relays, Tls
from cloister.relay.limits import Limits
from cloister.relay.link import GatewayTls
from cloister.relay.peer_tls import PeerContext, parse_gateway_name
from cloister.relay.serve import serve_relay
from cloister.serving.place import Place

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from pathlib import Path

    from mtls_kit import Door

    from cloister.enclave.config import EnclaveConfig
    from cloister.enclave.instance import EnclaveInstance

REFUSED = (ssl.SSLError, ConnectionError, http.client.HTTPException)  # TLS 1.3 tells the client when it reads


class FrontHouse(House):
    """Its enclaves show the custodian's certificate, and want a relay's."""

    relays: Relays = Relays.REQUIRE

    def config(self, **settings: Any) -> EnclaveConfig:
        issued = {"tls": Tls.GENERATED, "listener_certificate": ListenerCertificate.ISSUED, "relays": self.relays}
        return super().config(**issued | settings)


class OpenHouse(FrontHouse):
    """Its enclaves look at a relay's certificate where there is one."""

    relays = Relays.ACCEPT


@dataclass
class Hop:
    """A custodian and one enclave of it, running."""

    house: House
    door: Door
    url: str
    instance: EnclaveInstance
    log: io.StringIO
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event = field(repr=False)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something where the house lives."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @property
    def domain(self) -> str:
        """The custodian's trust domain."""
        return str(self.house.service.certificates.domain)

    @property
    def name(self) -> str:
        """The enclave's SPIFFE ID."""
        return f"spiffe://{self.domain}/enclave/{self.instance.metering.instance}"

    @property
    def authorities(self) -> str:
        """The file that hosts believe, as PEM."""
        return str(self.house.service.certificates.pem)

    def host(self, kind: str = "relay", name: str | None = "relay-1", **more: Any) -> Identity:
        """Return a certificate that the custodian's staff gets for a host."""
        key = new_key()
        body = {"csr": csr_text(key), "kind": kind, **({} if name is None else {"name": name}), **more}
        made = self.run(self.house.post("/v1/certificates", body))
        return Identity(certificate=x509.load_pem_x509_certificate(made["certificate"].encode()), key=key)

    def context(self, identity: Identity | None, **more: Any) -> ssl.SSLContext:
        """Return a host's context: the chain alone is looked at, for tests that look at the name by themselves."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.authorities)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if identity is not None:
            identity.load(context)
        for name, value in more.items():
            setattr(context, name, value)
        return context

    def connect(self, identity: Identity | None, **more: Any) -> http.client.HTTPSConnection:
        """Return a connection to the enclave, not made yet."""
        place = urlsplit(self.url)
        context = self.context(identity, **more)
        return http.client.HTTPSConnection(str(place.hostname), place.port, context=context, timeout=20)

    def knock(self, identity: Identity | None, path: str = KEYSET_PATH, **more: Any) -> int:
        """Ask once on a connection of its own; return the status, or raise what TLS raises."""
        with contextlib.closing(self.connect(identity, **more)) as connection:
            return asked(connection, path)

    def shown(self, identity: Identity | None = None) -> x509.Certificate:
        """Return the certificate that the next handshake shows, whoever issued it."""
        with contextlib.closing(self.connect(identity, verify_mode=ssl.CERT_NONE)) as connection:
            connection.connect()
            return shown_on(connection)


def asked(connection: http.client.HTTPSConnection, path: str = KEYSET_PATH) -> int:
    """Ask once on a connection that stays open; return the status."""
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def shown_on(connection: http.client.HTTPSConnection) -> x509.Certificate:
    """Return what the other end of a connection has shown."""
    return x509.load_der_x509_certificate(connection.sock.getpeercert(binary_form=True))


def uri_of(certificate: x509.Certificate) -> str:
    """Return the one name of a peer's certificate."""
    (name,) = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(name.value)


@contextlib.contextmanager
def hop(folder: Path, *, kind: type[House] = FrontHouse, **settings: Any) -> Iterator[Hop]:
    """Run custodian and enclave in a thread until the end of the block."""
    found: list[Hop] = []
    faults: list[BaseException] = []
    there = threading.Event()

    async def live() -> None:
        async with (
            strict_house(folder, kind=kind, **settings) as (house, door),
            enclave(house, replace(house.config(), port=0)) as (ready, log),
        ):
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            found.append(
                Hop(house=house, door=door, url=ready.url, instance=ready.instance, log=log, loop=loop, stop=stop)
            )
            there.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as exc:  # noqa: BLE001 - told to the test, whatever it is
            faults.append(exc)
        finally:
            there.set()

    thread = threading.Thread(target=run)
    thread.start()
    there.wait(120)
    try:
        if not found:
            raise faults[0]
        yield found[0]
    finally:
        if found:
            found[0].loop.call_soon_threadsafe(found[0].stop.set)
        thread.join(60)
    if faults:
        raise faults[0]


@contextlib.asynccontextmanager
async def relay(
    gateway: str,
    names: tuple[str, ...],
    folder: Path,
    *,
    certificate: Path | None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Run a relay to a gateway of one of these names; its authorities are ``folder``'s ``peers.pem``."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop, authorities, wanted = asyncio.Event(), folder / "peers.pem", tuple(map(parse_gateway_name, names))
    files = (authorities, *(() if certificate is None else (certificate,)))
    held = GatewayTls(
        make=lambda: PeerContext.of(wanted, authorities=authorities, certificate=certificate, key=None), files=files
    )
    task = asyncio.create_task(
        serve_relay(
            gateway, Place("127.0.0.1", 0), limits=Limits(), tls=tls, gateway_tls=held, stop=stop,
            on_listening=listening.set_result,
        )
    )  # fmt: skip
    try:
        yield await listening
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


def write_identity(path: Path, identity: Identity) -> Path:
    """Write certificate and key into one file of mode 0600, at once."""
    fresh = path.with_name(path.name + ".new")
    fresh.touch(mode=0o600)
    fresh.write_bytes(identity.pem)
    return fresh.replace(path)
