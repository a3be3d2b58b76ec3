"""How a stop is measured: every enclave asked continuously from before the block until nothing answers any more.

Times are of this machine's monotonic clock, and both ends are taken so that they never flatter: a block counts from
the moment it is sent, an answer at the moment it is whole. An answer that is cut counts as a chunk when the cut is
seen. What other consumers are served is not seen here; it is in the custodian's books.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloister.client import Retry, TruncatedResponse
from cloister.client.datatypes import element_type
from cloister.errors import CloisterError, Unavailable

if TYPE_CHECKING:
    from cloister.client import Client
    from cloister.client.model_info import ModelInfo
    from cloister.wire import Json

__all__ = ["Asker", "Measured", "question_for"]

_FINAL = frozenset({"blocked", "draining"})  # refusals after which an enclave serves no more
_GONE_AFTER = 3  # times in a row that nobody was there


def question_for(info: ModelInfo) -> dict[str, Any]:
    """Return the smallest question a model takes: zeros, one item. It costs one unit."""
    return {
        item.name: np.zeros([max(1, size) for size in item.shape], dtype=element_type(item.datatype))
        if item.datatype != "BYTES"
        else np.full([max(1, size) for size in item.shape], "", dtype=object)
        for item in info.inputs
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one enclave did. Seconds are after the block was sent; 0 where nothing came after it."""

    url: str
    instance: str
    answers_before: int
    answers_after: int
    last_answer_s: float
    last_chunk_s: float
    units_after: int
    end: str
    promised_s: float
    promised_units: int

    @property
    def kept(self) -> bool:
        """Whether both promises were kept: the time, and the units."""
        in_time = max(self.last_answer_s, self.last_chunk_s) <= self.promised_s
        return in_time and self.units_after <= self.promised_units and self.end != "answering"

    def to_json(self) -> dict[str, Json]:
        """Return it as ``--json`` prints it."""
        return {
            "answers_after": self.answers_after,
            "answers_before": self.answers_before,
            "end": self.end,
            "instance": self.instance,
            "last_answer_s": round(self.last_answer_s, 3),
            "last_chunk_s": round(self.last_chunk_s, 3),
            "promised_s": self.promised_s,
            "promised_units": self.promised_units,
            "units_after": self.units_after,
            "url": self.url,
            "verdict": "kept" if self.kept else "exceeded",
        }

    def result_json(self) -> dict[str, Json]:
        """Return it as the custodian takes it for its log."""
        return {
            "instance": self.instance,
            "measured_ms": int(max(self.last_answer_s, self.last_chunk_s) * 1000 + 0.999),
            "promised_ms": int(self.promised_s * 1000),
            "promised_units": self.promised_units,
            "units": self.units_after,
        }


class Asker:
    """Asks one enclave at a bounded rate, in a thread of its own, and notes what comes when."""

    def __init__(self, client: Client, model: str, *, rate: float) -> None:
        """Prepare the question; ``rate`` is questions a second at most."""
        self.url, self.instance = client.url, client.enclave.instance
        self._client, self._model, self._pause = client, model, 1 / rate
        self._inputs = question_for(client.model(model))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drill", daemon=True)
        self._answers: list[tuple[float, int]] = []
        self._cuts: list[float] = []
        self._gone = 0
        self.end = "answering"
        self.refusal: CloisterError | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    @property
    def answered(self) -> bool:
        """Whether an answer came."""
        return bool(self._answers)

    @property
    def over(self) -> bool:
        """Whether this enclave has said for good that it serves no more, or is gone."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Ask no more; waits for the question under way."""
        self._stopping.set()
        self._thread.join()

    def measured(self, since: float, promised_s: float, promised_units: int) -> Measured:
        """Return what came since ``since``, a moment of ``time.monotonic``, beside what was promised."""
        after = [(moment, units) for moment, units in self._answers if moment >= since]
        answer = max((moment - since for moment, _ in after), default=0.0)
        return Measured(
            url=self.url,
            instance=self.instance,
            answers_before=len(self._answers) - len(after),
            answers_after=len(after),
            last_answer_s=answer,
            last_chunk_s=max((moment - since for moment in self._cuts if moment >= since), default=answer),
            units_after=sum(units for _, units in after),
            end=self.end,
            promised_s=promised_s,
            promised_units=promised_units,
        )

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            if self._ask():
                return
            self._stopping.wait(max(0.0, began + self._pause - time.monotonic()))

    def _ask(self) -> bool:
        """Ask once; tell whether it was the last time."""
        try:
            answer = self._client.infer(self._model, self._inputs, retry=Retry.never())
        except CloisterError as exc:
            return self._note(exc)
        if answer.receipt.receipt.instance != self.instance:
            self.end = "another instance"  # started anew: the one that was drilled is gone
            return True
        self._answers.append((time.monotonic(), answer.units))
        self.end, self._gone = "answering", 0
        return False

    def _note(self, error: CloisterError) -> bool:
        self.refusal = error
        if isinstance(error, TruncatedResponse):
            self._cuts.append(time.monotonic())
            return False
        self._gone = self._gone + 1 if isinstance(error, Unavailable) else 0
        self.end = "gone" if self._gone else error.logged
        return self.end in _FINAL or self._gone >= _GONE_AFTER
