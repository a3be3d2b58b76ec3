"""What bounds a service that shares its process with others': its issuer, its files, its part of what there is.

Settings are written by whoever keeps a home, and are not believed further than that: a service signs as the issuer
that its place makes it, reads and writes below its home, and takes no more than its part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.verifier.settings import fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cloister.verifier.settings import PolicySettings, Settings

__all__ = ["Guest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One service's place. ``hidden``: that it is there is told to its callers alone."""

    issuer: str
    hidden: bool
    verifications: int
    request_timeout_s: int
    waiting_bytes: int

    def bounded(self, home: Path, settings: Settings, sections: Mapping[str, PolicySettings]) -> Settings:
        """Return what counts of the settings. Raises ``UsageError`` for what reaches beyond the place."""
        if settings.issuer != self.issuer:
            fail(f"issuer: want {self.issuer}")
        if self.hidden and settings.open:
            fail("open: who hides answers callers with a token alone")
        _demand_below(home, _files_of(settings, sections))
        return replace(
            settings,
            request_timeout_s=min(settings.request_timeout_s, self.request_timeout_s),
            verifications=min(settings.verifications, self.verifications),
        )


def _files_of(settings: Settings, sections: Mapping[str, PolicySettings]) -> Iterable[str]:
    yield from (settings.callers, settings.keys, *settings.tpm_authorities, *settings.arm_anchors)
    yield from (section.file for section in sections.values())


def _demand_below(home: Path, names: Iterable[str]) -> None:
    """Prove that files are below ``home``, links followed."""
    top = home.resolve()
    for name in names:
        if not (home / name).resolve().is_relative_to(top):
            fail(f"{name[:200]}: want a file below the home")
