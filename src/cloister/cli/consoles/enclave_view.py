"""What ``enclave top`` shows: lease, models, speed, what was refused; from what the enclave tells anybody on its host.

Nothing here is a consumer's: the enclave's metrics have none, and this asks for nothing else.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.text import Text

from cloister.cli.consoles.layout import BAD, FAINT, GOOD, STRONG, WARN, Cell, Column, Table, fitted, split_line
from cloister.cli.consoles.parts import freshness, trouble_lines
from cloister.cli.consoles.scrape import Look, quantile
from cloister.cli.consoles.words import byte_words, clock, short_units
from cloister.lending.forecast import span_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloister.cli.consoles.feed import Standing
    from cloister.cli.consoles.glyphs import Glyphs
    from cloister.wire import Json

__all__ = ["EnclaveView", "Inside"]

_MODEL_COLUMNS = (
    Column(title="MODEL", least=12, most=40),
    Column(title="IN MEMORY", least=9, most=9, rank=5),
    Column(title="INFERENCES", least=10, most=12, right=True, rank=6),
    Column(title="/S", least=6, most=6, right=True),
    Column(title="UNITS", least=7, most=9, right=True, rank=7),
    Column(title="LEFT", least=7, most=9, right=True),
    Column(title="MS EACH", least=8, most=8, right=True, rank=4),
    Column(title="LAST LOOKS", least=10, most=40, rank=3),
)
_KEPT_LOOKS = 120
_RECENT = 30  # looks that rates and quantiles are taken over
_QUANTILES = ((0.5, "50%"), (0.9, "90%"), (0.99, "99%"))
_OK_CODES = frozenset({"ok"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What an enclave tells: its state, and its metrics where they are shown."""

    at: datetime
    state: str
    checks: tuple[tuple[str, str, str], ...]
    look: Look | None

    def to_json(self) -> dict[str, Json]:
        """Return it for programs: every series by its name in the table of metrics."""
        metrics: dict[str, Json] = {}
        for (name, label), value in sorted((self.look.values if self.look else {}).items()):
            metrics[f"{name}{{{label}}}" if label else name] = value
        return {"checks": [{"code": code, "name": name, "state": state} for name, state, code in self.checks],
                "metrics": metrics, "state": self.state}  # fmt: skip


@dataclass(slots=True)
class _Past:
    """The looks before, to tell rates by."""

    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=_KEPT_LOOKS))

    def take(self, look: Look) -> None:
        """Remember a look once; after a restart of the enclave, whose counts begin anew, forget the others."""
        if self.looks and look.at <= self.looks[-1].at:
            return
        if self.looks and look.total("cloister_exchanges_total") < self.looks[-1].total("cloister_exchanges_total"):
            self.looks.clear()
        self.looks.append(look)

    def rate(self, name: str, label: str) -> float | None:
        """Return by how much a series grew a second over the recent looks."""
        recent = [*self.looks][-_RECENT:]
        seconds = (recent[-1].at - recent[0].at).total_seconds() if recent else 0.0
        if seconds <= 0:
            return None
        return max(0.0, (recent[-1].one(name, label) or 0.0) - (recent[0].one(name, label) or 0.0)) / seconds

    def steps(self, name: str, label: str) -> list[float]:
        """Return by how much a series grew from look to look."""
        values = [look.one(name, label) or 0.0 for look in self.looks]
        return [max(0.0, after - before) for before, after in itertools.pairwise(values)]

    @property
    def earlier(self) -> Look | None:
        """The look that recent quantiles are told against."""
        return self.looks[-_RECENT] if len(self.looks) >= _RECENT else self.looks[0] if len(self.looks) > 1 else None


class EnclaveView:
    """The view."""

    def __init__(
        self,
        standing: Callable[[], Standing[Inside]],
        *,
        where: str,
        glyphs: Glyphs,
        interval: timedelta,
        keys: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Show what ``standing`` returns."""
        self._standing, self._where, self._glyphs, self._interval = standing, where, glyphs, interval
        self._keys, self._now, self._past = keys, now, _Past()

    def press(self, key: str) -> bool:
        """Take a key; q ends."""
        return key not in {"q", "escape"}

    def frame(self, width: int, height: int) -> Sequence[Text]:
        """Return the lines."""
        standing, now = self._standing(), self._now()
        fresh = freshness(standing, now, interval=self._interval) if self._keys else Text()
        left = Text.assemble(("cloister enclave top", STRONG), "  ", self._glyphs.line(self._where))
        lines = [split_line(left, Text.assemble(f"{clock(now)} UTC  ", fresh), width)]
        lines += trouble_lines(standing, now, width, self._glyphs)
        data = standing.data
        if data is None:
            lines.append(Text("waiting for the enclave's first answer", style=FAINT))
        else:
            lines += self._inside(data, width)
        return fitted(lines, Text("q quit", style=FAINT) if self._keys else None, width=width, height=height)

    def _inside(self, data: Inside, width: int) -> Iterator[Text]:
        wrong = [f"{name}: {code.replace('_', ' ')}" for name, state, code in data.checks if state != "ok"]
        well = data.state == "active" and not wrong
        state = Text.assemble("lease ", (self._glyphs.line(data.state), GOOD if well else BAD))
        yield state.append(self._glyphs.line(f"  {', '.join(wrong)}"), style=BAD) if wrong else state
        if data.look is None:
            yield Text("no metrics: start the enclave with --metrics HOST:PORT to see more", style=FAINT)
            return
        self._past.take(data.look)
        yield from self._figures(data.look)
        table = Table(_MODEL_COLUMNS, width, self._glyphs)
        yield table.head()
        for model in data.look.labels("cloister_inferences_total"):
            yield table.row(self._model(data.look, model))
        yield from self._refused(data.look)

    def _figures(self, look: Look) -> Iterator[Text]:
        left = look.one("cloister_lease_seconds_left") or 0.0
        used, ceiling = look.one("cloister_lease_used_units") or 0.0, look.one("cloister_lease_ceiling_units") or 0.0
        renewed = look.one("cloister_renewals_total", "lease") or 0.0
        failed = look.total("cloister_renewals_total", but="lease")
        words = f"lease ends in {span_words(timedelta(seconds=left))} unless renewed; "
        words += f"{short_units(used)} of {short_units(ceiling)} units served  "
        renewals = f"{renewed:.0f} renewals, {failed:.0f} without a lease"
        yield Text.assemble(words, self._glyphs.bar(used / ceiling if ceiling else 0.0, 10))
        yield Text.assemble(renewals, style=WARN if failed else "")
        running, waiting = look.one("cloister_exchanges_running") or 0.0, look.one("cloister_queue_length") or 0.0
        memory, budget = look.one("cloister_models_bytes") or 0.0, look.one("cloister_memory_budget_bytes") or 0.0
        bound = f" of {byte_words(budget)}" if budget else ""
        yield Text(
            f"{running:.0f} exchanges under way, {waiting:.0f} wait for the engine, models {byte_words(memory)}{bound}"
        )
        yield Text(self._latency(look))

    def _latency(self, look: Look) -> str:
        bars, earlier = look.bars("cloister_exchange_seconds"), self._past.earlier
        before = None if earlier is None else earlier.bars("cloister_exchange_seconds")
        if before is not None and quantile(bars, 0.5, before=before) is None:
            before = None  # nothing lately: all of it says more
        found = [(word, quantile(bars, part, before=before)) for part, word in _QUANTILES]
        shown = [f"{word} within {_seconds(value)}" for word, value in found if value is not None]
        since = "lately" if before is not None else "since it began"
        return f"exchanges {since}: {', '.join(shown)}" if shown else "no exchange yet"

    def _model(self, look: Look, model: str) -> list[Cell]:
        count = look.one("cloister_inferences_total", model) or 0.0
        seconds = look.one("cloister_engine_seconds_total", model) or 0.0
        rate = self._past.rate("cloister_inferences_total", model)
        loaded = bool(look.one("cloister_model_loaded", model))
        return [
            Cell(text=model), Cell(text="yes" if loaded else "no", style="" if loaded else WARN),
            Cell(text=short_units(count)), Cell(text="" if rate is None else f"{rate:.1f}"),
            Cell(text=short_units(look.one("cloister_units_total", model) or 0.0)),
            Cell(text=short_units(look.one("cloister_units_remaining", model) or 0.0)),
            Cell(text=f"{seconds / count * 1000:.1f}" if count else ""),
            Cell(spark=self._past.steps("cloister_inferences_total", model), style=FAINT),
        ]  # fmt: skip

    def _refused(self, look: Look) -> Iterator[Text]:
        """Say what was not answered, most first."""
        codes = [
            (look.one("cloister_answers_total", code) or 0.0, code) for code in look.labels("cloister_answers_total")
        ]
        ways = [
            (look.one("cloister_exchanges_total", way) or 0.0, way) for way in look.labels("cloister_exchanges_total")
        ]
        wrong = [(count, code) for count, code in codes if count and code not in _OK_CODES]
        wrong += [(count, way) for count, way in ways if count and way != "answered"]
        if not wrong:
            yield Text("nothing was refused", style=FAINT)
            return
        shown = ", ".join(f"{count:.0f} {code.replace('_', ' ')}" for count, code in sorted(wrong, reverse=True))
        yield Text(f"refused: {self._glyphs.line(shown)}", style=WARN)


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
