"""Writes docs/reference/metrics.md from the tables of metrics in the source."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.telemetry.registry import Family

NAME = "metrics.md"
SERVERS = {
    "Custodian": ("cloister.custodian.metrics", "setting `metrics`, and `GET /v1/metrics`"),
    "Enclave": ("cloister.enclave.metrics", "setting `metrics`"),
    "Attestation service": ("cloister.verifier.metrics", "`cloister attest serve --metrics`, and among a custodian's"),
    "Relay": ("cloister.relay.metrics", "`cloister relay --metrics`"),
    "Proxy": ("cloister.client.proxy.metrics", "`cloister proxy --metrics`"),
}
"""Every server that shows metrics: the module with its table, and what switches them on."""

OPEN = {
    "code": "problem codes of the [enclave API](enclave-api.md); ok",
    "model": "names of lent models",
    "loan": "ids of loans, with `metrics_loans`",
    "route": "method and path of the [API](custodian-api.md)",
    "tee": "TEEs that this custodian can verify; unknown",
    "event": "kinds of the [audit log](../spec/audit-log.md)",
}
_HEAD = """# Metrics

Made from the source by `make reference`. Where they are shown, who may read them and what watches them:
[observability](observability.md). Every label has a closed set of values; a value beyond it is an error in the program.
None names a consumer or anything that was asked.
"""


def tables() -> dict[str, tuple[str, Mapping[str, Family], Mapping[str, frozenset[str]]]]:
    """Return every server's switch, table and label sets, for the servers that there are."""
    found = {}
    for server, (module, switch) in SERVERS.items():
        if importlib.util.find_spec(module) is not None:
            room = importlib.import_module(module)
            found[server] = (switch, room.METRICS, room.LABELS)
    return found


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for server, (switch, metrics, labels) in tables().items():
        parts.append(
            f"\n## {server}\n\nShown by {switch}.\n\n| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n"
        )
        parts += [_row(name, family) for name, family in metrics.items()]
        used = sorted({label for family in metrics.values() for label in family.labels})
        if used:
            parts.append("\n| Label | Values |\n|---|---|\n")
            parts += [_values(label, labels) for label in used]
    return "".join(parts)


def _row(name: str, family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    bounds = f" Bounds: {', '.join(f'{bound:g}' for bound in family.buckets)}." if family.buckets else ""
    return f"| `{name}` | {family.kind.value} | {labels} | {family.help}{bounds} |\n"


def _values(label: str, labels: Mapping[str, frozenset[str]]) -> str:
    words = OPEN.get(label) or ", ".join(sorted(labels[label]))
    return f"| `{label}` | {words} |\n"
