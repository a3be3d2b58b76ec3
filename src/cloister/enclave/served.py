"""One model that is loaded: its terms, its signed manifest, and the engine's handle on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloister.enclave.engines import RunningModel
    from cloister.lending.terms import ModelTerms
    from cloister.sealed.manifest import Manifest

__all__ = ["ServedModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A loaded model under the name that the loan gives it."""

    terms: ModelTerms
    manifest: Manifest
    running: RunningModel

    def close(self) -> None:
        """Unload it."""
        self.running.close()
