"""The custodian: the real service and its real HTTP face on a real SQLite file, in a process that can end.

Everything staff and borrowers do goes through the API with their tokens. ``crash``, ``crash_at``, ``restart``,
``backup``, ``restore`` and ``recover`` are what happens to its machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2

from cloister.attest.verifier import Verifier
from cloister.crypto.sign import Statement
from cloister.custodian.app import create_app
from cloister.custodian.setup import init_custodian, open_custodian, open_vault, recover_custodian
from cloister.custodian.vaults.encrypted_file import Kdf, Passphrase
from cloister.errors import Reason, Rejected, Unavailable, UsageError
from cloister.lending.audit import AuditEntry, verify_checkpoint, verify_log
from cloister.lending.messages.keys import KeyStatus
from cloister.testing.simulated import SimulatedScheme
from cloister.testing.simulator.clock import PartyClock
from cloister.testing.simulator.fragile_store import CrashPlan, CrashPoint, FragileStore
from cloister.testing.simulator.wire import DOMAIN, Server, SimulatedCrash
from cloister.wire import Json, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cloister.custodian.service import CustodianService
    from cloister.lending.recovery import Recovery
    from cloister.testing.simulator.world import World

__all__ = ["CUSTODIAN", "Backup", "Reply", "SimulatedCustodian"]

CUSTODIAN = "custodian"
_CHEAP = Kdf(memory_kib=64, passes=1, lanes=1)  # the passphrase guards nothing here
_PASSPHRASE = Passphrase(b"simulated custodian")
_BAD_REQUEST, _SERVER_FAULT = 400, 500
_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the API answered, whatever it was."""

    status: int
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON, an empty object where there is none."""
        return json.loads(self.body or b"{}")

    def demand(self) -> Any:
        """Return the JSON of a success. Raises ``Rejected`` with the custodian's reasons, ``Unavailable``."""
        if self.status < _BAD_REQUEST:
            return self.json
        if self.status >= _SERVER_FAULT:
            msg = f"custodian: status {self.status}"
            raise Unavailable(msg)
        code = self.json.get("code", "refused")
        reasons = tuple(Reason(**reason) for reason in self.json.get("reasons", ()))
        raise Rejected(
            f"custodian: {code}", reasons=reasons or (Reason(code=code, subject="custodian", got=str(self.status)),)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """Copies of what is on the custodian's disks at one moment."""

    database: Path
    checkpoint: bytes


class SimulatedCustodian:
    """One custodian and whoever works for it."""

    def __init__(self, world: World, settings: Mapping[str, Any]) -> None:
        """Make a custodian and start it. ``settings`` are those of ``custodian.config``."""
        self.name = CUSTODIAN
        self.clock = PartyClock(world.time)
        self.home = world.folder / CUSTODIAN
        self._world = world
        self._random = world.chance.randbytes
        self._backups = itertools.count(1)
        url = f"https://{CUSTODIAN}{DOMAIN}"
        made = init_custodian(
            self.home,
            _PASSPHRASE,
            settings={"url": url, "names": (CUSTODIAN + DOMAIN,), **settings},
            clock=self.clock,
            rng=self._random,
            kdf=_CHEAP,
        )
        self.url, self.key, self.ca_pem, self.admin_token = url, made.key, made.ca_pem, made.admin_token
        self.vault = open_vault(self.home, _PASSPHRASE)
        self._plan = CrashPlan()
        self._dying: list[CustodianService] = []
        self._server: Server | None = None
        self._service: CustodianService | None = None
        self._alive: asyncio.Task[None] | None = None
        self.restart()

    # its process

    @property
    def is_up(self) -> bool:
        """Tell whether the process runs."""
        return self._service is not None and not self._plan.dead

    @property
    def service(self) -> CustodianService:
        """The running service. Raises ``UsageError`` while the process is down."""
        if self._service is None or self._plan.dead:
            msg = "custodian: not running"
            raise UsageError(msg, hint="restart it")
        return self._service

    def restart(self) -> None:
        """Start the process, ending it first where it runs. Raises as ``open_custodian``: an older database."""
        self.stop()
        self._plan = CrashPlan()
        self._service = open_custodian(
            self.home,
            _PASSPHRASE,
            make_verifier=lambda _: Verifier([SimulatedScheme(self._world.root.public)]),
            clock=self.clock,
            rng=self._random,
            make_store=functools.partial(FragileStore, plan=self._plan),
        )
        app = create_app(self._service)
        self._server = Server(app, on_crash=self.crash)
        self._world.network.register(self.name, self._server)
        self._alive = self._world.spawn(_live(app))

    def stop(self) -> None:
        """End the process in good order; does nothing where none runs."""
        if self._plan.dead:
            self.crash()
        service = self._down()
        self._bury()
        if service is not None:
            service.close()

    def crash(self) -> None:
        """End the process at once, whatever it does."""
        self._plan.dead = True
        service = self._down()
        if service is not None:
            self._dying.append(service)
        if not self._world.loop.is_running():
            self._bury()

    def _bury(self) -> None:
        """Close what crashed processes had open, once their threads have noticed that they are dead."""
        self._world.run(self._world.quiet())
        while self._dying:
            self._dying.pop().abandon()

    def crash_at(self, point: CrashPoint, *, passing: int = 0) -> None:
        """Let the process end at ``point``, after it went by it ``passing`` times."""
        if point is CrashPoint.BEFORE_ANSWER:
            if self._server is not None:
                self._server.crash_before_answer = passing
        else:
            self._plan.left[point] = passing

    def meanwhile(self, work: Callable[[], None], *, reads: int = 0) -> None:
        """Let ``work`` happen in the middle of the next request, behind its first ``reads`` reads (T90).

        A request with a token reads once to know whose it is. ``work`` runs in the request's thread: it calls
        ``service``, not this object.
        """
        self._plan.asides[:] = [*[None] * reads, work]

    def _down(self) -> CustodianService | None:
        service, self._service = self._service, None
        self._world.network.forget(self.name)
        if self._alive is not None:
            self._alive.cancel()
            self._alive = None
        return service

    # its disks

    def backup(self) -> Backup:
        """Return a copy of the database, and of the checkpoint beside it."""
        path = self._world.folder / f"backup-{next(self._backups)}.db"
        self.service.context.store.backup(path)
        return Backup(database=path, checkpoint=self._checkpoint.read_bytes())

    def restore(self, backup: Backup, *, checkpoint: bool = False) -> None:
        """Put an older database in place, its process down; with ``checkpoint`` the older checkpoint too."""
        self.crash()
        database = self.home / "custodian.db"
        for suffix in ("-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        database.write_bytes(backup.database.read_bytes())
        if checkpoint:
            self._checkpoint.write_bytes(backup.checkpoint)

    def recover(self) -> Recovery:
        """Come back on an older database, and start (C11)."""
        self.stop()
        recovery = recover_custodian(self.home, _PASSPHRASE, clock=self.clock, rng=self._random)
        self.restart()
        return recovery

    @property
    def _checkpoint(self) -> Path:
        return self.home / "checkpoint.json"

    # its API

    def call(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        token: str | None = "",
        source: str = "staff",
        **headers: str,
    ) -> Reply:
        """Call the API and return whatever it answers; by default as an admin, ``token=None`` as nobody."""
        return self._world.run(self.calling(method, path, body, token=token, source=source, **headers))

    async def calling(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        token: str | None = "",
        source: str = "staff",
        **headers: str,
    ) -> Reply:
        """Return the same as a coroutine, for ``Simulator.together`` and ``spawn``. Raises ``Unavailable``."""
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            lines["authorization"] = f"Bearer {token or self.admin_token}"
        content = None
        if body is not None:
            content, lines["content-type"] = dump_json(body), "application/json"
        transport = self._world.network.transport(source)
        async with httpx2.AsyncClient(transport=transport, base_url=self.url, verify=False) as client:
            try:
                answer = await client.request(method, path, content=content, headers=lines)
            except httpx2.HTTPError as exc:
                msg = f"custodian: {type(exc).__name__}"
                raise Unavailable(msg) from exc
        return Reply(status=answer.status_code, body=answer.content)

    def block(self, kind: str, subject: str, *, loan: str | None = None, reason: str = "") -> Any:
        """Block a model, loan, instance or consumer; returns the block version and the stated bound."""
        return self._world.run(self.blocking(kind, subject, loan=loan, reason=reason))

    async def blocking(self, kind: str, subject: str, *, loan: str | None = None, reason: str = "") -> Any:
        """Block, as a coroutine."""
        body: dict[str, Json] = {"kind": kind, "subject": subject, "reason": reason}
        if loan is not None:
            body["loan"] = loan
        return (await self.calling("POST", "/v1/blocks", body)).demand()

    def unblock(self, kind: str, subject: str, *, loan: str | None = None) -> Any:
        """Lift a block."""
        query = "" if loan is None else f"?loan={loan}"
        return self.call("DELETE", f"/v1/blocks/{kind}/{subject}{query}").demand()

    def rotate(self, *, incident: bool = False, reason: str = "") -> Any:
        """Rotate the key-encryption key now; returns what was wrapped anew, destroyed, kept and stuck."""
        body: Json = {"incident": incident, "reason": reason}
        return self.call("POST", "/v1/keys/rotate", body).demand()

    def schedule_rotation(self, every_s: int) -> Any:
        """Let it rotate by itself every so many seconds, 0 for never."""
        return self.call("POST", "/v1/keys/schedule", {"every_s": every_s}).demand()

    def key_status(self) -> KeyStatus:
        """Return its word on its keys, once its signature is verified."""
        answer = self.call("GET", "/v1/keys/status")
        answer.demand()
        return KeyStatus.parse(Statement.parse(answer.body, label=KeyStatus.LABEL).verify([self.key]))

    def audit(self) -> tuple[AuditEntry, ...]:
        """Return every entry of the log, once it is proven whole up to the signed checkpoint."""
        lines: list[bytes] = []
        while True:
            page = self.call("GET", f"/v1/audit?after={len(lines) - 1}&limit={_PAGE}").demand()
            lines += [dump_json(entry) for entry in page["entries"]]
            if len(lines) >= page["size"] or not page["entries"]:
                break
        statement = self.call("GET", "/v1/audit/checkpoint").body
        verify_log(lines, verify_checkpoint(statement, self.key))
        return tuple(AuditEntry.parse(line) for line in lines)

    def events(self) -> tuple[str, ...]:
        """Return the kinds of all audited events, oldest first."""
        return tuple(entry.kind.value for entry in self.audit())


async def _live(app: Any) -> None:
    """Run what the application does beside answering: the sweep, which a crash may end first."""
    with contextlib.suppress(SimulatedCrash):
        async with app.router.lifespan_context(app):
            await asyncio.get_running_loop().create_future()
