"""An attestation service on a real socket, with a clock to turn, and attesters of every vendor to ask it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx2

import vendor_kit
from cloister.attest.binding import CarriedBinding, ServiceBinding
from cloister.attest.endorse import Given
from cloister.attest.verifier import Verifier
from cloister.testing.ports import free_port
from cloister.verifier.home import Opened, open_home
from cloister.verifier.serve import serve_verifier
from cloister.wire import dump_b64u, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cloister.attest.rats import Evidence
    from vendor_kit import Side

AUDIENCE = "sts.example"
SIMULATED = "simulated"


@dataclass
class Clock:
    """The service's time: the machine's, shifted, or one that stands."""

    stands_at: datetime | None = None
    shift: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return (self.stands_at or datetime.now(UTC)) + self.shift


def write_home(
    home: Path, sides: Mapping[str, Side], *, issuer: str, service: str = "", policies: Mapping[str, str] | None = None
) -> None:
    """Write settings with a policy for each side under the side's TEE; the first is the default."""
    lines = ["[service]", f'issuer = "{issuer}"', f'listen = "{issuer.split("//")[1].split("/", maxsplit=1)[0]}"']
    lines += [f'default_policy = "{next(iter(sides))}"', "open = true", service]
    for name, side in sides.items():
        (home / f"{name}.json").write_bytes(side.policy.dump())
        extra = (policies or {}).get(name, f'audiences = ["{AUDIENCE}", "other.example"]\nleast_tier = "warning"')
        lines += [f"[policies.{name}]", f'file = "{name}.json"', extra]
    (home / "service.toml").write_text("\n".join(lines) + "\n")


def opened(home: Path, sides: Mapping[str, Side], clock: Clock, **more: Any) -> Opened:
    """Open a home that trusts the sides' vendors."""
    known = {side.tee: side for side in sides.values()}
    endorsements = {name: data for side in sides.values() for name, data in side.endorsements.items()}
    return open_home(
        home,
        make_verifier=lambda _site: Verifier(side.scheme for side in known.values()),
        endorsements=Given(endorsements),
        clock=clock,
        **more,
    )


@dataclass
class Desk:
    """A service that runs, and how to ask it."""

    url: str
    home: Path
    clock: Clock
    opened: Opened
    sides: Mapping[str, Side]
    http: httpx2.Client = field(default_factory=lambda: httpx2.Client(trust_env=False, timeout=30))
    headers: dict[str, str] = field(default_factory=dict)

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        """Send JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **self.headers, **headers}
        return self.http.post(self.url + path, content=content, headers=sent)

    def get(self, path: str) -> httpx2.Response:
        return self.http.get(self.url + path)

    def nonce(self) -> bytes:
        """Take a challenge."""
        answer = self.post("/v1/challenge", b"")
        assert answer.status_code == 200, answer.text
        return parse_b64u(answer.json()["nonce"], what="nonce")

    def asked(
        self, name: str = SIMULATED, *, nonce: bytes | None = None, data: bytes = b"", **more: Any
    ) -> dict[str, Any]:
        """Return a request with honest evidence of a side over a nonce: a fresh challenge by default."""
        side = self.sides[name]
        given = self.nonce() if nonce is None else nonce
        binding = (
            CarriedBinding(nonce=given) if more.get("binding") == "carried" else ServiceBinding(nonce=given, data=data)
        )
        evidence = side.collect(binding.field(side.scheme.report_data_bytes))
        body = {"evidence": evidence_json(evidence), "nonce": dump_b64u(given), "policy": name, **more}
        return {**body, "data": dump_b64u(data)} if data else body

    def token(self, name: str = SIMULATED, **more: Any) -> str:
        """Return the token of an honest attester."""
        answer = self.post("/v1/attest", self.asked(name, **more))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])


def evidence_json(evidence: Evidence) -> dict[str, str]:
    return {"payload": dump_b64u(evidence.payload), "tee": evidence.tee}


@contextlib.contextmanager
def running(service: Opened, home: Path) -> Iterator[None]:
    """Serve on a thread of its own for the length of a block."""
    ready, ended = threading.Event(), threading.Event()
    state: dict[str, Any] = {}

    async def run() -> None:
        state["stop"], state["loop"] = asyncio.Event(), asyncio.get_running_loop()
        await serve_verifier(service, home, stop=state["stop"], on_listening=lambda _: ready.set())

    def work() -> None:
        try:
            asyncio.run(run())
        finally:
            ended.set()
            ready.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(30)
    assert not ended.is_set()
    try:
        yield
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(30)
        assert ended.is_set()


@contextlib.contextmanager
def desk(
    home: Path,
    *names: str,
    service: str = "",
    policies: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    **more: Any,
) -> Iterator[Desk]:
    """Run a service that accepts the sides with these names; the simulated one by default."""
    sides = {name: vendor_kit.side(name) for name in names or (SIMULATED,)}
    url, time = f"http://127.0.0.1:{free_port()}", clock or Clock()
    write_home(home, sides, issuer=url, service=service, policies=policies)
    service_opened = opened(home, sides, time, rng=os.urandom, **more)
    with running(service_opened, home):
        found = Desk(url=url, home=home, clock=time, opened=service_opened, sides=sides)
        with found.http:
            yield found
