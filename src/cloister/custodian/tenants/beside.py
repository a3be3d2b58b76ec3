"""What a tenant is served with beside its own API: another application below one path, which this room does not know.

A hidden tenant's answers its own callers. To everybody else nothing is there, in the very words of a path that is
none; the same is looked up for that whether there is such an application, or such a tenant, or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from cloister.custodian.threads import run_in_threadpool

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from cloister.custodian.service import CustodianService
    from cloister.custodian.tenants.config import HostConfig

__all__ = ["Beside", "MakeBeside", "nothing_beside", "veiled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """An application below ``path``, None where there is none and nobody is to see that.

    ``knows`` tells whether an Authorization header is a caller's, may wait for a disk and raises nothing.
    """

    path: str
    app: ASGIApp | None
    knows: Callable[[str | None], bool]
    close: Callable[[], None]


MakeBeside: TypeAlias = "Callable[[CustodianService, HostConfig], Beside | None]"
"""Makes what is beside a tenant, which is hidden where its service is ``discreet``. Raises ``CloisterError``."""


def nothing_beside(_service: CustodianService, _config: HostConfig) -> None:
    """Serve tenants alone."""
    return


def veiled(beside: Beside) -> ASGIApp:
    """Return the application as callers see it, and nothing to everybody else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        known = await run_in_threadpool(beside.knows, Headers(scope=scope).get("authorization"))
        if not known or beside.app is None:
            raise HTTPException(404)
        await beside.app(scope, receive, send)

    return answer
