"""Who gets in, by whichever door: strangers' failures counted, tokens proven, roles demanded, refusals logged.

Both faces of a custodian go through here, the JSON API (``app``) and the pages (``dashboard``), so that neither lets
anybody do what the other refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.bodies import Bodies
from cloister.custodian.calls import NOBODY
from cloister.custodian.events import Streams
from cloister.custodian.threads import run_in_threadpool
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.serving.rates import RateLimit

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.requests import Request

    from cloister.custodian.calls import Route
    from cloister.custodian.presented import Presented
    from cloister.custodian.service import CustodianService
    from cloister.custodian.tokens import Actor

__all__ = ["ASK_AGAIN", "Limits", "admit", "demand_role"]

ASK_AGAIN = "dpop_nonce_wanted"  # no failure, but how a proof with a nonce begins


class Limits:
    """What strangers and borrowers may do how often, over both faces together."""

    def __init__(self, service: CustodianService) -> None:
        """Take the limits from the service's settings."""
        config = service.config
        self.failures = RateLimit(per_minute=config.failures_per_minute, subject="failed logins")
        self.challenges = RateLimit(per_minute=config.challenges_per_minute, subject="challenges")
        self.forks = RateLimit(per_minute=config.forks_per_minute, subject="fork evidence")
        self.streams = Streams(cap=config.event_streams)
        self.bodies = Bodies(within_s=config.request_timeout_s, waiting_bytes=config.body_memory_mib << 20)

    def demand(self, actor: Actor, request: Request, now: datetime) -> None:
        """Use one of the caller's tries: of its token, or of its address where it has none."""
        if actor is NOBODY:
            self.forks.take(request.client.host if request.client else "unknown", now)
        else:
            self.challenges.take(actor.id, now)


async def admit(service: CustodianService, limits: Limits, request: Request, presented: Presented) -> Actor:
    """Return who calls. A stranger's failures are counted by address, and logged once they are too many."""
    client = request.client.host if request.client else "unknown"
    limits.failures.demand(client, service.context.now())
    try:
        return await run_in_threadpool(service.authenticate, presented)
    except Rejected as refusal:
        if refusal.code != ASK_AGAIN and limits.failures.spend(client, service.context.now()):
            subject = f"ip:{client.partition('%')[0]}"  # no IPv6 zone: the log takes no such character
            await run_in_threadpool(service.context.refuse, EventKind.ACCESS_DENIED, "stranger", subject, refusal)
        raise


def demand_role(service: CustodianService, actor: Actor, route: Route) -> None:
    """Refuse a proven actor whose role is not enough for a route, and log it. Raises ``Rejected`` (``forbidden``)."""
    if route.roles is None or actor.role in route.roles:
        return
    wanted = ", ".join(sorted(role.value for role in route.roles))
    refusal = Rejected.because("forbidden", f"{route.method} {route.path}", got=actor.role.value, want=wanted)
    service.context.refuse(EventKind.ACCESS_DENIED, actor, route.handler.__name__, refusal)
    raise refusal
