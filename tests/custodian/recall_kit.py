"""A custodian that lends to TDs of the synthetic Intel, and the endorsements of several days."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from custodian_kit import START, Bench, Lent, Toy
from starlette.testclient import TestClient

from cloister.attest.endorse import Given
from cloister.attest.endorse.bundle import Bundle, Entry
from cloister.attest.endorse.names import parse_name
from cloister.attest.endorse.window import Window, window_of
from cloister.attest.schemes.nvidia import NVIDIA_GPU
from cloister.attest.verifier import Verifier
from cloister.crypto.sign import SigningKey
from cloister.custodian.app import create_app
from cloister.custodian.setup import open_custodian
from cloister.testing.simulated import SimulatedScheme
from endorse_kit import intel, nvidia

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from cloister.attest.endorse import Endorsements

STRANGER = SigningKey(b"s" * 32)
CARRIER = SigningKey(b"c" * 32)
NAME = intel().endorsement(tdx=True)
DAY = timedelta(days=1)


class Site(Bench):
    """A custodian that lends to TDs of the synthetic Intel. ``source`` None: by its own settings."""

    source: Endorsements | None = None

    def open(self) -> None:
        schemes = [SimulatedScheme(self.root.public), intel().tdx_scheme(), nvidia().scheme(NVIDIA_GPU)]
        self.service = open_custodian(
            self.home,
            self.unlock,
            make_verifier=lambda _authorities: Verifier(schemes),
            clock=self.clock,
            rng=self.rng,
            endorsements=self.source,
        )
        self.client = TestClient(create_app(self.service), raise_server_exceptions=False)

    def knows(self, objects: Mapping[str, bytes]) -> None:
        """Let the custodian have these endorsements from now on."""
        self.service.context.endorsements = Given(objects)

    def lend_to_td(self, **changes: Any) -> Lent:
        """Make a loan for TDs, whose policy wants platforms up to date."""
        return self.lend(policy=intel().tdx_attester().policy().to_json(), **changes)

    def recall(self, **order: Any) -> Any:
        """Recall everything, as an admin."""
        answer = self.post("/v1/recall", order)
        assert answer.status_code == 200, answer.text
        return answer.json()


@cache
def published() -> dict[str, bytes]:
    """Return collateral by which our platform is up to date."""
    return {NAME: intel().published(tdx=True).dump()}


def behind() -> dict[str, bytes]:
    """Return collateral of a day on which every platform of today is out of date."""
    spec = intel().published(tdx=True)
    info: dict[str, Any] = json.loads(json.dumps(spec.tcb_info))
    info["tcbLevels"][0]["tcbStatus"] = "OutOfDate"
    return {NAME: replace(spec, tcb_info=info).dump()}


def revoking() -> dict[str, bytes]:
    """Return collateral whose list of revoked platforms has ours."""
    spec = intel().published(tdx=True)
    return {NAME: replace(spec, pck_crl=intel().crl(intel().issuer, [intel().pck])).dump()}


def td(lent: Lent) -> Toy:
    toy = Toy(lent)
    toy.attester = intel().tdx_attester()  # type: ignore[assignment]  # another vendor's
    return toy


def release(lent: Lent) -> Toy:
    toy = td(lent)
    answer = lent.attest(toy.attest_statement(toy.take_challenge()))
    assert answer.status_code == 200, answer.text
    toy.accept(answer.content)
    return toy


def attempt(lent: Lent) -> httpx.Response:
    toy = td(lent)
    return lent.attest(toy.attest_statement(toy.take_challenge()))


def carried(
    objects: Mapping[str, bytes], *, version: int = 1, key: SigningKey = CARRIER, start: datetime = START
) -> bytes:
    window = Window(start, start + 30 * DAY)
    entries = tuple(
        Entry(name=name, data=data, source="test", window=window_of(name, data))
        for name, data in ((parse_name(text), data) for text, data in sorted(objects.items()))
    )
    return Bundle(version=version, window=window, entries=entries).sign(key)
