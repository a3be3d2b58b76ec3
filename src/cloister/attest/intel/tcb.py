"""TCB levels and how their statuses become one.

Sources: Intel PCS API version 4, "Get TCB Info"; Intel's verifier, step 4.1.2.4.17.

Not done here: whether a status is good enough (the policy), and who signed the levels (``verify``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

__all__ = [
    "PLATFORM_STATUSES",
    "ComponentLevel",
    "TcbLevel",
    "TcbStatus",
    "advisories",
    "converge",
    "match_component",
    "match_level",
    "relaunch",
]


class TcbStatus(Enum):
    """Every status a level may have, and the two that Intel's verifier makes for TD 1.5."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"


PLATFORM_STATUSES = (
    TcbStatus.UP_TO_DATE,
    TcbStatus.SW_HARDENING_NEEDED,
    TcbStatus.CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    TcbStatus.OUT_OF_DATE,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    TcbStatus.REVOKED,
)
"""What a level of a platform may be."""
_NEEDS_CONFIGURATION = {
    TcbStatus.CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
}
_STALE = {TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED}


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbLevel:
    """A level of a platform: what it needs at least in every part, and what holds for a platform that has it."""

    sgx: tuple[int, ...]
    pcesvn: int
    tdx: tuple[int, ...]
    date: datetime
    status: TcbStatus
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentLevel:
    """A level of an enclave or a TDX module: its lowest ISVSVN."""

    isvsvn: int
    date: datetime
    status: TcbStatus
    advisories: tuple[str, ...]


def match_level(
    levels: Sequence[TcbLevel], components: Sequence[int], pcesvn: int, tdx: bytes | None = None
) -> TcbLevel | None:
    """Return the highest level of which no part is above the platform's; None where there is none.

    ``tdx`` is a TEE_TCB_SVN. The first two of its parts are the TDX module's, which has identities with levels of
    their own from major version 1 on.
    """
    skipped = 2 if tdx is not None and tdx[1] > 0 else 0
    for level in sorted(levels, key=lambda item: (item.sgx, item.pcesvn, item.tdx), reverse=True):
        reached = pcesvn >= level.pcesvn and _all_reached(components, level.sgx)
        if reached and (tdx is None or _all_reached(tdx[skipped:], level.tdx[skipped:])):
            return level
    return None


def _all_reached(got: Sequence[int], want: Sequence[int]) -> bool:
    return all(have >= need for have, need in zip(got, want, strict=True))


def match_component(levels: Iterable[ComponentLevel], isvsvn: int) -> ComponentLevel | None:
    """Return the first level that ``isvsvn`` reaches; Intel lists them from the highest."""
    return next((level for level in levels if isvsvn >= level.isvsvn), None)


def converge(platform: TcbStatus, component: TcbStatus) -> TcbStatus:
    """Return the platform's status with an enclave's or module's: only a stale or revoked part changes it."""
    if component is TcbStatus.REVOKED:
        return TcbStatus.REVOKED
    if component is not TcbStatus.OUT_OF_DATE:
        return platform
    match platform:
        case TcbStatus.UP_TO_DATE | TcbStatus.SW_HARDENING_NEEDED:
            return TcbStatus.OUT_OF_DATE
        case TcbStatus.CONFIGURATION_NEEDED | TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED:
            return TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED
        case _:
            return platform


def relaunch(launched: TcbStatus, current: TcbStatus) -> TcbStatus:
    """Return the status of a TD that started on a stale TCB which was updated under it. Not for revoked ones."""
    if launched not in _STALE or current in _STALE:
        return launched
    if {launched, current} & _NEEDS_CONFIGURATION:
        return TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    return TcbStatus.TD_RELAUNCH_ADVISED


def advisories(levels: Iterable[TcbLevel | ComponentLevel | None]) -> tuple[str, ...]:
    """Return every advisory that applies to one of the levels, sorted, each once."""
    return tuple(sorted({item for level in levels if level is not None for item in level.advisories}))
