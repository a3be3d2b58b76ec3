"""Metrics as text: Prometheus' exposition format 0.0.4 and OpenMetrics 1.0.0, by what the reader accepts.

Not done here: exemplars and timestamps; times of creation (OpenMetrics section "Counter", optional).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from cloister.telemetry.registry import Bars, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.telemetry.registry import Family, Series

__all__ = ["OPENMETRICS_TYPE", "PROMETHEUS_TYPE", "Shown", "negotiated", "openmetrics_text", "prometheus_text"]

PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_MAX_ACCEPT = 1024  # characters of an Accept field that are looked at
_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


class Shown(Protocol):
    """What can be shown: a registry, or several together."""

    def series(self) -> Iterator[tuple[str, Family, list[Series]]]:
        """Yield every family with its series."""
        ...


def negotiated(registry: Shown, accept: str) -> tuple[str, str]:
    """Return media type and text: OpenMetrics for who asks for it and likes nothing better (RFC 9110, 12.5.1)."""
    wanted = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for item in accept[:_MAX_ACCEPT].split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        if kind not in wanted or not _is_known(parameters):
            continue
        found = [match[1] for part in parameters if (match := _QUALITY.fullmatch(part))]
        wanted[kind] = max(wanted[kind], float(found[0]) if found else 1.0)
    openmetrics, plain = wanted.values()
    if openmetrics and openmetrics >= plain:
        return OPENMETRICS_TYPE, openmetrics_text(registry)
    return PROMETHEUS_TYPE, prometheus_text(registry)


def _is_known(parameters: list[str]) -> bool:
    versions = [part.removeprefix("version=") for part in parameters if part.startswith("version=")]
    return set(versions) <= {"0.0.4", "1.0.0"}


def prometheus_text(registry: Shown) -> str:
    """Return the format that every scraper reads."""
    lines = []
    for name, family, found in registry.series():
        lines += [f"# HELP {name} {_lined(family.help)}", f"# TYPE {name} {family.kind.value}"]
        lines += _samples(name, family, found)
    return "\n".join(lines) + "\n"


def openmetrics_text(registry: Shown) -> str:
    """Return OpenMetrics: a counter's family is named without ``_total``, and the text has an end."""
    lines = []
    for name, family, found in registry.series():
        shown = name.removesuffix("_total") if family.kind is Kind.COUNTER else name
        lines += [f"# TYPE {shown} {family.kind.value}", f"# HELP {shown} {_escaped(family.help)}"]
        lines += _samples(name, family, found)
    return "\n".join([*lines, "# EOF"]) + "\n"


def _samples(name: str, family: Family, found: list[Series]) -> Iterator[str]:
    for one in found:
        labels = list(zip(family.labels, one.labels, strict=True))
        if not isinstance(one.value, Bars):
            yield f"{name}{_shown(labels)} {_number(one.value)}"
            continue
        below = 0
        bounds = [*(repr(float(bound)) for bound in family.buckets), "+Inf"]
        for bound, count in zip(bounds, one.value.counts, strict=True):
            below += count
            yield f"{name}_bucket{_shown([*labels, ('le', bound)])} {below}"
        yield f"{name}_count{_shown(labels)} {below}"
        yield f"{name}_sum{_shown(labels)} {_number(one.value.sum)}"


def _shown(labels: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _lined(text: str) -> str:
    """Return help as the older format takes it, which knows no escaped quotation mark there."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escaped(text: str) -> str:
    return _lined(text).replace('"', '\\"')


def _number(value: float) -> str:
    """Return it exactly: rates are differences of large numbers."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
