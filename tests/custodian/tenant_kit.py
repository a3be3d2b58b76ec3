"""A host with tenants under test: real databases, vaults and applications behind one client, and a clock to turn."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from custodian_kit import CHEAP, PASSPHRASE, Bench, Clock, bearer
from starlette.testclient import TestClient

from cloister.attest.verifier import Verifier
from cloister.cli.custodian_attest import tenant_attestation
from cloister.crypto.sign import VerifyKey
from cloister.custodian.setup import Initialised
from cloister.custodian.tenants.setup import init_host, open_host
from cloister.custodian.vaults.encrypted_file import KeyFile, Passphrase
from cloister.testing.simulated import SimulatedScheme
from cloister.testing.simulated_root import SimulatedRoot
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from cloister.custodian.service import CustodianService

Answer = tuple[int, tuple[tuple[bytes, bytes], ...], bytes]
"""Status, headers and body: all that a stranger sees."""

ROOT = SimulatedRoot(hashlib.sha256(b"root").digest())
ENTIRELY = 100_000  # failed logins per minute: tests fail more often than strangers should


class Below:
    """A client whose every path is below a tenant's prefix."""

    def __init__(self, host: HostBench, prefix: str) -> None:
        self._host, self._prefix = host, prefix

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send one request."""
        return self._host.client.request(method, self._prefix + path, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        """GET."""
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        """POST."""
        return self.request("POST", path, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        """DELETE."""
        return self.request("DELETE", path, **more)

    def close(self) -> None:
        """Leave the client open: it is everybody's."""


class TenantBench(Bench):
    """One tenant as its own staff has it: what a ``Bench`` does, through the host."""

    def __init__(self, host: HostBench, made: dict[str, Any]) -> None:
        self.name = str(made["name"])
        self.host = host
        self.home = host.home / "tenants" / self.name
        self.folder = host.folder / f"of-{self.name}"
        self.folder.mkdir()
        (self.folder / "home").symlink_to(self.home)
        self.clock, self.root = host.clock, ROOT
        self.rng = random.Random(self.name).randbytes
        self.unlock = KeyFile(host.home / "keys" / f"{self.name}.key")
        self.init = Initialised(
            home=self.home, key=_key(made["key"]), publisher=_key(made["publisher"]), ca_pem="", url=made["url"],
            admin_token=made["token"],
        )  # fmt: skip
        self.client = Below(host, f"/t/{self.name}")  # type: ignore[assignment]  # the part that a Bench uses
        self.dek = self.rng(32)
        self.package = self.seal("digits")
        self.digest = self.package["digest"]
        assert self.publish().status_code == 201

    @property
    def service(self) -> CustodianService:
        """The custodian that the host serves for this tenant now."""
        return self.host.service(self.name)


async def _send(app: Any, method: str, path: bytes, headers: dict[str, str]) -> Answer:
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "https", "raw_path": path,
        "path": unquote(path.decode("latin-1")), "query_string": b"", "root_path": "", "client": ("192.0.2.1", 1),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "server": ("localhost", 8443),
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], tuple(sent[0]["headers"]), b"".join(part["body"] for part in sent[1:])


def answer_of(response: httpx.Response) -> Answer:
    """Return all that a stranger sees of a response."""
    return response.status_code, tuple(response.headers.raw), response.content


def _key(text: str) -> VerifyKey:
    return VerifyKey(parse_b64u(text, what="key"))


class HostBench:
    """A host, opened and served; ``restart`` stops and starts it again."""

    def __init__(self, folder: Path, *, bounds: dict[str, Any] | None = None, **settings: Any) -> None:
        self.folder, self.home, self.clock = folder, folder / "host", Clock()
        self.init = init_host(
            self.home,
            Passphrase(PASSPHRASE),
            settings={"failures_per_minute": ENTIRELY, **settings},
            bounds={"start_wait_s": 60, **(bounds or {})},
            clock=self.clock,
            kdf=CHEAP,
        )
        self.open()

    def open_only(self) -> None:
        """Open the host; somebody else serves it."""
        self.host = open_host(
            self.home,
            Passphrase(PASSPHRASE),
            make_verifier=lambda _site: Verifier([SimulatedScheme(ROOT.public)]),
            clock=self.clock,
            kdf=CHEAP,
            beside=tenant_attestation,
        )

    def open(self) -> None:
        """Open the host and serve it."""
        self.open_only()
        self.client = TestClient(self.host, base_url="https://localhost:8443", raise_server_exceptions=False)
        self.client.__enter__()

    def close(self) -> None:
        """Stop the host, and with it every tenant."""
        self.client.__exit__(None, None, None)

    def restart(self) -> None:
        """Stop and start again."""
        self.close()
        self.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def operator(self) -> dict[str, str]:
        """Return the first operator's header."""
        return bearer(self.init.admin_token)

    def call(self, method: str, path: str, body: Any = None, token: dict[str, str] | None = None) -> httpx.Response:
        """Call the operator's API."""
        return self.client.request(method, path, json=body, headers=self.operator if token is None else token)

    def make(self, name: str, **more: Any) -> dict[str, Any]:
        """Make a tenant and return the answer."""
        answer = self.call("POST", "/operator/tenants", {"name": name, **more})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def tenant(self, name: str, **more: Any) -> TenantBench:
        """Make a tenant with one published model."""
        return TenantBench(self, self.make(name, **more))

    def raw(self, path: bytes, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        """Send a path exactly as it is spelled, as no client library would."""
        assert self.client.portal is not None
        return self.client.portal.call(_send, self.host, method, path, headers or {})

    def change(self, name: str, verb: str, body: Any = None) -> Any:
        """Suspend, resume or remove a tenant; it must succeed."""
        answer = self.call("POST", f"/operator/tenants/{name}/{verb}", {} if body is None else body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def shown(self, name: str) -> dict[str, Any]:
        """Return a tenant as the operator sees it."""
        found: dict[str, Any] = self.call("GET", f"/operator/tenants/{name}").json()
        return found

    def service(self, name: str) -> CustodianService:
        """Return a tenant's custodian as it is served now, past the host: no request reaches it so."""
        roster = self.host._roster
        assert roster is not None
        tenant = roster._tenants[name.encode()]
        assert tenant.running is not None
        return tenant.running.service
