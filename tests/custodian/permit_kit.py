"""A custodian where two persons decide about shares of the vault, and what they do about it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Self

from custodian_kit import Bench, bearer

from cloister.custodian.sharing import combine_custodian, split_custodian
from cloister.custodian.tokens import hash_token
from cloister.custodian.vaults.shares import Division

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import httpx

    from cloister.custodian.vaults.shares import Share
    from cloister.custodian.vaults.unlock import Unlock
    from postgres_kit import PostgresServer

HOLDERS = ("alice", "bob", "carol")
DIVISION = Division(need=2, of=3, holders=HOLDERS)
BODY: dict[str, Any] = {"holders": list(HOLDERS), "need": 2, "of": 3}
RULE = ("key_export", "key_recovery")


class Ceremony:
    """Alice and Bob, who are admins, and the machine that the vault is on."""

    def __init__(self, folder: Path, *, rule: Sequence[str] = RULE, postgres: PostgresServer | None = None) -> None:
        self.bench = Bench(folder, settings={"two_person": tuple(rule)}, postgres=postgres)
        self._running = True
        self.alice, self.bob, self.lena = (
            self._person(name, role) for name, role in (("alice", "admin"), ("bob", "admin"), ("lena", "lender"))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _person(self, person: str, role: str) -> dict[str, str]:
        token = "clst_" + hashlib.sha256(person.encode()).hexdigest()[:43]
        body = {"role": role, "name": person, "person": person, "sha256": hash_token(token).hex()}
        assert self.bench.post("/v1/tokens", body).status_code == 201
        return bearer(token)

    def ask(self, body: Any = None, token: dict[str, str] | None = None) -> httpx.Response:
        """Ask for a permit, as Alice."""
        return self.bench.post("/v1/keys/exports", BODY if body is None else body, token=token or self.alice)

    def approve(self, proposal: dict[str, Any], token: dict[str, str] | None = None) -> httpx.Response:
        """Approve it, as Bob."""
        path = f"/v1/proposals/{proposal['proposal']}/approve"
        return self.bench.post(path, {"digest": proposal["digest"]}, token=token or self.bob)

    def revoke(self, proposal: str, token: dict[str, str] | None = None) -> httpx.Response:
        """Take a permit back, as Bob."""
        return self.bench.client.delete(f"/v1/keys/exports/{proposal}", headers=token or self.bob)

    def permit(self) -> bytes:
        """Return a permit that both agreed to."""
        done = self.approve(self.ask().json())
        assert done.status_code == 200, done.text
        return str(done.json()["result"]["permit"]).encode()

    def split(self, permit: bytes | None, division: Division = DIVISION) -> tuple[Share, ...]:
        """Split the vault on its machine; the custodian must not run."""
        bench = self.bench
        return split_custodian(bench.home, bench.unlock, division, permit=permit, clock=bench.clock)

    def combine(self, shares: Sequence[Share], new: Unlock, *holders: str) -> None:
        """Open the vault by shares and lock it by ``new``, which opens it from then on."""
        combine_custodian(self.bench.home, shares, lambda: new, holders=holders, clock=self.bench.clock)
        self.bench.unlock = new

    def stop(self) -> None:
        """Stop the custodian, if it runs."""
        if self._running:
            self.bench.close()
        self._running = False

    def start(self) -> None:
        """Start it again."""
        self.bench.open()
        self._running = True

    def rule(self, *operations: str) -> None:
        """Write another rule into the settings; nothing is started."""
        config = self.bench.home / "config.toml"
        said = ", ".join(f'"{name}"' for name in operations)
        text = re.sub(
            r"^two_person = .*?\]", f"two_person = [{said}]", config.read_text(), flags=re.MULTILINE | re.DOTALL
        )
        config.write_text(text)

    def said(self, *kinds: str) -> list[dict[str, Any]]:
        """Return entries of the log of these kinds."""
        return [entry for entry in self.bench.audit() if entry["kind"] in kinds]
