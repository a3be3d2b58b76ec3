"""What an operator does: make, suspend, resume and remove tenants, each step in the host's own audit log.

The host's own custodian has no model and no loan; its database holds the operators' tokens, which tenants there are,
and the operators' log. Steps with disks between them are noted before and behind, so that a host that died in between
goes on where it was (``take_stock``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import shutil
import threading
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from cloister.custodian.config import setting_names
from cloister.custodian.setup import init_custodian
from cloister.custodian.store.tenants import (
    TenantRow,
    TenantState,
    drop_tenant,
    find_tenant,
    insert_tenant,
    list_tenants,
    move_tenant,
)
from cloister.custodian.tenants.config import HOST_CA, LISTENERS
from cloister.custodian.tenants.erasing import erase
from cloister.custodian.tenants.figures import shown
from cloister.custodian.tenants.names import parse_tenant
from cloister.custodian.tenants.unlocking import Unlocking
from cloister.custodian.tokens import SYSTEM, TokenHash
from cloister.custodian.vaults.unlock import KeyFile
from cloister.errors import CloisterError, Rejected, Unavailable, UsageError
from cloister.lending.events import EventKind
from cloister.wire import Json, dump_time

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from datetime import datetime
    from pathlib import Path

    from cloister.custodian.service import CustodianService, Transaction
    from cloister.custodian.setup import Initialised
    from cloister.custodian.tenants.ground import Ground
    from cloister.custodian.tenants.names import TenantName
    from cloister.custodian.tenants.roster import Roster
    from cloister.custodian.tokens import Actor
    from cloister.wire import Fields

__all__ = ["Keeping"]

T = TypeVar("T")

_MAX_SETTINGS = 64
_PHRASE_BYTES = 4
_HASH_BYTES = 32
_WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Phrase:
    """What confirms a removal, who asked for it, and until when it is good."""

    text: str
    asked_by: str
    expires_at: datetime


class Keeping:
    """The use cases of operators. Runs in threads; what changes who runs is done on the server's loop."""

    def __init__(self, ground: Ground, book: CustodianService) -> None:
        """Keep the parts; ``attend`` comes before the first use case."""
        self._ground, self._book = ground, book
        self._roster: Roster | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._phrases: dict[TenantName, _Phrase] = {}
        self._turn = threading.Lock()

    def attend(self, roster: Roster) -> None:
        """Look after this roster, on the event loop that runs now."""
        self._roster, self._loop = roster, asyncio.get_running_loop()

    def take_stock(self) -> Sequence[TenantRow]:
        """Return the tenants there are, once what an earlier process left half done is done."""
        for row in self._rows():
            if row.state is TenantState.MAKING:
                self._unmake(row.name)
            elif row.state is TenantState.ERASING:
                with contextlib.suppress(CloisterError):  # asked for again, it says why not
                    self._erase(row.name, SYSTEM)
        return [row for row in self._rows() if row.state is not TenantState.ERASED]

    def list(self) -> Json:
        """Return every tenant as an operator sees it; of those that were erased the name only."""
        return {"tenants": [self._shown(row) for row in self._rows()]}

    def show(self, name: str) -> Json:
        """Return one tenant. Raises ``Rejected`` (``not_found``)."""
        return self._shown(self._row(parse_tenant(name)))

    def create(self, actor: Actor, body: Fields) -> Json:
        """Make a tenant and let it come up. The answer shows its first admin token, once, unless its holder made it.

        Raises ``Rejected`` (``already_exists``, also for a name that was erased; ``too_many_tenants``).
        """
        name = parse_tenant(body.text("name", cap=64))
        discoverable = bool(body.optional("discoverable", body.boolean))
        service = body.optional("service", lambda member: body.text(member, cap=1100, floor=1))
        unlocking = Unlocking.take(body, self._ground.keys)
        sha256 = body.optional("sha256", lambda member: TokenHash(body.hex(member, size=_HASH_BYTES)))
        settings = self._settings(body)
        body.end()
        if unlocking == Unlocking() and service is None:
            unlocking = Unlocking(key_file=self._ground.keys / f"{name}.key")
        with self._turn:
            row = self._transact(lambda work: self._reserve(work, name, discoverable=discoverable))
            try:
                made = self._make(name, unlocking, service, settings, sha256)
            except BaseException:
                self._unmake(name)
                raise
            row = self._move(row, TenantState.ACTIVE, actor, EventKind.TENANT_CREATED)
        return {
            "key": made.key.dump(), "name": name, "publisher": made.publisher.dump(),
            "url": self._ground.url_of(name), **({} if sha256 is not None else {"token": made.admin_token}),
        }  # fmt: skip

    def suspend(self, actor: Actor, name: str) -> Json:
        """Let a tenant be as if it were not there, until it is resumed. Its enclaves stop when their leases end."""
        with self._turn:
            row = self._demand(parse_tenant(name), TenantState.ACTIVE)
            row = self._move(row, TenantState.SUSPENDED, actor, EventKind.TENANT_SUSPENDED)
            self._take_down(row)
        return self._shown(row)

    def resume(self, actor: Actor, name: str) -> Json:
        """Let a suspended tenant come up; one that is locked or failed is tried again."""
        with self._turn:
            row = self._demand(parse_tenant(name), TenantState.SUSPENDED, TenantState.ACTIVE)
            self._take_down(row)
            row = self._move(row, TenantState.ACTIVE, actor, EventKind.TENANT_RESUMED)
        self._on_loop(self._bring_up(row))
        return self._shown(row)

    def remove(self, actor: Actor, name: str, phrase: str | None) -> Json:
        """Erase a suspended tenant for good: asked for once, confirmed with the phrase that the answer shows."""
        with self._turn:
            row = self._demand(parse_tenant(name), TenantState.SUSPENDED, TenantState.ERASING)
            if phrase is None:
                return self._ask(actor, row.name)
            self._confirm(actor, row.name, phrase)
            self._transact(lambda work: move_tenant(work.connection, row.name, TenantState.ERASING, work.now))
            self._take_down(replace(row, state=TenantState.ERASING))
            self._erase(row.name, actor)
            return self._shown(self._row(row.name))

    def _ask(self, actor: Actor, name: TenantName) -> Json:
        now = self._ground.clock()
        code = secrets.token_hex(_PHRASE_BYTES)
        expires_at = now + timedelta(seconds=self._ground.config.phrase_ttl_s)
        asked = _Phrase(text=f"erase {name} {code[:4]}-{code[4:]}", asked_by=actor.id, expires_at=expires_at)
        self._transact(lambda work: work.record(EventKind.TENANT_REMOVAL_ASKED, actor, name))
        self._phrases[name] = asked
        return {"expires_at": dump_time(expires_at), "name": name, "phrase": asked.text}

    def _confirm(self, actor: Actor, name: TenantName, phrase: str) -> None:
        asked = self._phrases.get(name)
        if asked is None or self._ground.clock() >= asked.expires_at:
            raise Rejected.because("phrase_wanted", "removal", hint="ask for the removal first")
        if self._ground.config.two_operators and actor.id == asked.asked_by:
            raise Rejected.because("second_operator_wanted", "removal", hint="another operator confirms it")
        if not hmac.compare_digest(phrase.encode(), asked.text.encode()):
            raise Rejected.because("phrase_wrong", "removal", hint="give the phrase exactly as it was printed")
        del self._phrases[name]

    def _erase(self, name: TenantName, actor: Actor) -> None:
        home = self._ground.home_of(name)
        unlocking = None
        with contextlib.suppress(CloisterError):
            unlocking = Unlocking.read(home)
        erase(home, None if unlocking is None else self._own_key(name, unlocking))

        def work(transaction: Transaction) -> None:
            move_tenant(transaction.connection, name, TenantState.ERASED, transaction.now)
            transaction.record(EventKind.TENANT_ERASED, actor, name)

        self._transact(work)
        if self._roster is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._roster.forget, name)

    def _own_key(self, name: TenantName, unlocking: Unlocking) -> Path | None:
        """Return the key file that the host made for this tenant, and that opens nobody else's vault."""
        if not unlocking.made:
            return None
        for home in self._ground.home_of(name).parent.iterdir():
            if home.name != name:
                with contextlib.suppress(CloisterError):
                    if Unlocking.read(home).key_file == unlocking.key_file:
                        return None
        return unlocking.key_file

    def _reserve(self, work: Transaction, name: TenantName, *, discoverable: bool) -> TenantRow:
        there = list_tenants(work.connection)
        if any(row.name == name for row in there):
            raise Rejected.because("already_exists", "tenant", got=name, hint="a name is never given twice")
        if sum(row.state is not TenantState.ERASED for row in there) >= self._ground.config.tenants:
            raise Rejected.because("too_many_tenants", "tenants", want=f"at most {self._ground.config.tenants}")
        row = TenantRow(
            name=name, state=TenantState.MAKING, discoverable=discoverable, created_at=work.now, changed_at=work.now
        )
        insert_tenant(work.connection, row)
        return row

    def _settings(self, body: Fields) -> dict[str, str | int | bool | tuple[str, ...]]:
        given = body.optional("settings", lambda member: body.members(member, cap=_MAX_SETTINGS)) or {}
        settings: dict[str, str | int | bool | tuple[str, ...]] = {}
        for name, value in given.items():
            if name in LISTENERS or name not in setting_names():
                msg = f"setting {name[:64]!r}: the host's, or none"
                raise UsageError(msg)
            match value:
                case str() | bool() | int():
                    settings[name] = value
                case list() if all(isinstance(item, str) for item in value):
                    settings[name] = tuple(str(item) for item in value)
                case _:
                    body.fail("settings", f"{name[:64]}: want text, a number, true, false or an array of texts")
        return settings

    def _make(
        self,
        name: TenantName,
        unlocking: Unlocking,
        service: str | None,
        settings: dict[str, str | int | bool | tuple[str, ...]],
        sha256: TokenHash | None,
    ) -> Initialised:
        home = self._ground.home_of(name)
        self._ground.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        listener = self._ground.listener
        fixed = {"url": self._ground.url_of(name), "profile": listener.profile, "name": name}
        unlock = unlocking.lock(service)
        unlocking = replace(unlocking, made=isinstance(unlock, KeyFile) and unlock.is_new)
        try:
            made = init_custodian(
                home, unlock, settings=fixed | settings, clock=self._ground.clock, kdf=self._ground.kdf,
                digest=sha256,
            )  # fmt: skip
            unlocking.write(home)
            (home / HOST_CA).write_text(self._ground.ca_pem or "", encoding="ascii")
        except BaseException:
            if isinstance(unlock, KeyFile) and unlock.is_new:
                unlock.path.unlink(missing_ok=True)  # it opens nothing, and would pass for one that was brought
            raise
        return made

    def _unmake(self, name: TenantName) -> None:
        """Leave nothing of a tenant that was never made whole."""
        shutil.rmtree(self._ground.home_of(name), ignore_errors=True)
        self._transact(lambda work: drop_tenant(work.connection, name))

    def _rows(self) -> Sequence[TenantRow]:
        with self._book.context.reading() as connection:
            return list_tenants(connection)

    def _row(self, name: TenantName) -> TenantRow:
        with self._book.context.reading() as connection:
            row = find_tenant(connection, name)
        if row is None:
            raise Rejected.because("not_found", "tenant")
        return row

    def _demand(self, name: TenantName, *states: TenantState) -> TenantRow:
        row = self._row(name)
        if row.state not in states:
            want = " or ".join(state.value for state in states)
            raise Rejected.because("tenant_state", f"tenant {name}", got=row.state.value, want=want)
        return row

    def _move(self, row: TenantRow, state: TenantState, actor: Actor, kind: EventKind) -> TenantRow:
        """Put a tenant into another state, log it, and let the roster know."""

        def work(transaction: Transaction) -> TenantRow:
            move_tenant(transaction.connection, row.name, state, transaction.now)
            transaction.record(kind, actor, row.name)
            return replace(row, state=state, changed_at=transaction.now)

        moved = self._transact(work)
        self._on_loop(self._enter(moved))
        return moved

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        return self._book.context.transact(work)

    def _shown(self, row: TenantRow) -> dict[str, Json]:
        tenant = None if self._roster is None else self._roster.tenant(row.name)
        return shown(row, tenant, self._ground.url_of(row.name))

    def _on_loop(self, work: Coroutine[object, object, T]) -> T:
        if self._loop is None:
            work.close()
            msg = "host: not up"
            raise Unavailable(msg)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)
        except TimeoutError as exc:
            msg = "host: still at it"
            raise Unavailable(msg, hint="see how it is with 'cloister tenant show'") from exc

    def _attended(self) -> Roster:
        if self._roster is None:
            msg = "host: not up"
            raise Unavailable(msg)
        return self._roster

    async def _enter(self, row: TenantRow) -> None:
        self._attended().enter(row)

    def _take_down(self, row: TenantRow) -> None:
        self._on_loop(self._down(row))

    async def _down(self, row: TenantRow) -> None:
        tenant = self._attended().tenant(row.name)
        if tenant is not None:
            await self._attended().take_down(tenant)

    async def _bring_up(self, row: TenantRow) -> None:
        tenant = self._attended().tenant(row.name)
        if tenant is not None:
            await self._attended().bring_up(tenant)
