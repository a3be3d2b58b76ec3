"""Engines: what runs a model once it is open. One file per engine.

Adding one: a file that has an ``Engine``, and a row in ``serve.py``. An engine never writes a file, never
opens the network, and never lets text out of the library it wraps: that text may quote the consumer's data
or the model's structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.enclave.engines.tensor import Signature, Tensor

__all__ = ["Engine", "ModelFiles", "RunningModel"]


class ModelFiles(Protocol):
    """An opened sealed model as an engine sees it: names, memory, and paths that lead to memory.

    ``cloister.sealed.open.OpenedModel`` is one.
    """

    @property
    def files(self) -> tuple[str, ...]:
        """Logical paths, with ``/`` between parts."""

    def view(self, path: str) -> memoryview:
        """Return the plaintext of one file as read-only memory, valid until the model is closed."""

    def move(self, path: str, to: int, start: int, size: int) -> None:
        """Move ``size`` bytes of one file from ``start`` to ``to``: for the engine that alone uses the file."""

    def fd_path(self, path: str) -> str:
        """Return a path below ``/proc/self/fd`` that reads the same memory."""


class RunningModel(Protocol):
    """One loaded model."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""

    @property
    def steady(self) -> bool:
        """Tell whether the sizes of its inputs decide how long a run takes, and no value in them.

        Runs of such a model may be computed in the event loop once they are known to be brief.
        """

    def warm_up(self) -> None:
        """Run once on zeros, where the shapes say what to run on. Never raises: some models take no zeros."""

    def run(self, inputs: Sequence[Tensor], outputs: Sequence[str]) -> tuple[Tensor, ...]:
        """Return the named outputs, in that order. Called from worker threads, several at a time.

        ``inputs`` fit the signature. Raises ``Unavailable`` (text without content) when the run fails.
        """

    def close(self) -> None:
        """Give the memory back. The model is not used afterwards."""


class Engine(Protocol):
    """Loads models of one kind."""

    @property
    def kind(self) -> str:
        """Name in the keyset: ``onnxruntime``."""

    @property
    def version(self) -> str:
        """Version of the library that runs the model."""

    def load(self, files: ModelFiles, *, prepack: bool = False) -> RunningModel:
        """Return the model, ready to run. It may use the memory of ``files`` until it is closed itself.

        ``prepack`` allows a second copy of the weights where the engine is faster with it. Raises ``Rejected`` for a
        model this engine will not run, naming every reason.
        """
