"""One lent model as an enclave knows it, loaded or not, and what it is while it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloister.enclave.engines import RunningModel
    from cloister.enclave.engines.tensor import Signature
    from cloister.enclave.packages import FoundPackage
    from cloister.lending.terms import ModelTerms
    from cloister.sealed.manifest import Manifest
    from cloister.sealed.oms import MadeBy
    from cloister.sealed.open import OpenedModel
    from cloister.wire import Json

__all__ = ["Loaded", "ServedModel", "wants_prepacking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model under the name that the loan gives it, opened at least once: what does not go when its memory goes.

    ``takes`` is how many bytes it holds while it is loaded, ``made`` who is proven to have made it.
    """

    terms: ModelTerms
    manifest: Manifest
    package: FoundPackage
    signature: Signature
    takes: int
    joins: bool | None = None
    made: MadeBy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The memory of a model, and the engine's handle on it."""

    opened: OpenedModel
    running: RunningModel

    def close(self) -> None:
        """Unload it, then zero and free the memory that it computed with. Nothing may run in it any more."""
        self.running.close()
        self.opened.close()


def wants_prepacking(named: tuple[str, ...] | None, name: str, card: Json) -> bool:
    """Tell whether a model may take a second copy of its weights: the setting's word, else the model card's.

    ``named`` are the models of the setting ``prepack``, None where it is not set.
    """
    if named is not None:
        return name in named
    return isinstance(card, dict) and card.get("prepack") is True
