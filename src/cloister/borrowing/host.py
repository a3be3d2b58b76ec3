"""The enclave on this host as it shows itself to its operator: health by parts, and metrics.

Counts and states, by model; never a consumer, never content, for the enclave has none of that to show. What it says is
said by the host's own socket, in the clear and unproven: whoever administers the host can make it say anything.
"""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cloister.errors import CloisterError, Malformed
from cloister.wire import Fields, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Host", "HostView", "Operator", "Part", "parse_metrics", "parse_ready"]

_MAX_BYTES = 4 << 20
_MOST = 256
_LINE = re.compile(
    r'(cloister_[a-z_]{1,80})(?:\{([a-z_]{1,32})="([\x20\x21\x23-\x5b\x5d-\x7e]{0,128})"\})? ([0-9.eE+-]{1,32})'
)


class Operator(Protocol):
    """Reads what an enclave shows on its host. Raises ``Unavailable`` where nobody answers."""

    def ready(self) -> bytes:
        """Return the body of ``/readyz``, whatever its status."""
        ...

    def metrics(self) -> bytes | None:
        """Return the text of ``/metrics``, None where no address was named."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the enclave, how it stands, and the code of what is wrong."""

    name: str
    state: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """What the enclave shows now; ``fault`` is why it shows nothing. ``values`` are metrics by name and label."""

    status: str = ""
    state: str = ""
    reasons: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    has_metrics: bool = False
    fault: CloisterError | None = None

    def value(self, name: str, label: str = "") -> float | None:
        """Return one value, None where it is not shown."""
        return self.values.get(f"cloister_{name}", {}).get(label)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the enclave has metrics of."""
        return tuple(sorted(self.values.get("cloister_model_loaded", {})))


class Host:
    """The enclave on this host. Its answers are read in a thread."""

    def __init__(self, operator: Operator | None) -> None:
        """Read by ``operator``, None where no address was named."""
        self._operator = operator

    @property
    def is_named(self) -> bool:
        """Whether there is an address to look at."""
        return self._operator is not None

    async def view(self) -> HostView:
        """Return what it shows now."""
        if self._operator is None:
            return HostView()
        return await asyncio.to_thread(self._view, self._operator)

    def _view(self, operator: Operator) -> HostView:
        try:
            found = parse_ready(operator.ready())
            text = operator.metrics()
        except CloisterError as exc:
            return HostView(fault=exc)
        values = {} if text is None else parse_metrics(text)
        return HostView(
            status=found.status,
            state=found.state,
            reasons=found.reasons,
            parts=found.parts,
            values=values,
            has_metrics=text is not None,
        )


def parse_ready(data: bytes) -> HostView:
    """Parse the body of ``/readyz`` (docs/reference/enclave-api.md). Raises ``Malformed``."""
    fields = Fields(parse_json(data, what="enclave's readiness", cap=_MAX_BYTES), what="enclave's readiness")
    return HostView(
        status=fields.text("status", cap=32),
        state=fields.text("state", cap=32),
        reasons=fields.texts("reasons", cap=_MOST),
        parts=tuple(_part(Fields(item, what="enclave's part")) for item in fields.items("checks", cap=_MOST)),
    )


def _part(fields: Fields) -> Part:
    return Part(name=fields.text("name", cap=64), state=fields.text("state", cap=32), code=fields.text("code", cap=64))


def parse_metrics(data: bytes) -> dict[str, dict[str, float]]:
    """Return values by name and by label out of Prometheus' text format; lines of other forms are left alone.

    Raises ``Malformed``.
    """
    if len(data) > _MAX_BYTES:
        msg = f"metrics: {len(data)} bytes, want at most {_MAX_BYTES}"
        raise Malformed(msg)
    found: dict[str, dict[str, float]] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        parsed = _LINE.fullmatch(line)
        if parsed is not None:
            try:
                value = float(parsed[4])
            except ValueError:
                continue
            if math.isfinite(value):  # 1e999 is none that a page could count
                found.setdefault(parsed[1], {})[parsed[3] or ""] = value
    return found
