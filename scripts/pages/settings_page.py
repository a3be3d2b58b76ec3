"""Writes docs/reference/all-settings.md from the settings and bounds that every server declares."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from cloister.serving.settings import toml_of

if TYPE_CHECKING:
    from dataclasses import Field

NAME = "all-settings.md"
_DECLARED = (
    ("Custodian", "cloister.custodian.config.Config", "`config.toml`, section `[custodian]`: [how they are read](settings.md)."),
    ("Host of tenants", "cloister.custodian.tenants.config.HostConfig", "`host.toml`, section `[host]`: [tenants](tenants.md)."),
    ("Attestation service", "cloister.verifier.settings.Settings", "Section `[service]`: [attestation service](attestation-service.md)."),
)  # fmt: skip
_BOUNDS = (
    ("Limits of an enclave", "cloister.enclave.config.Limits", "Table `[limits]`, all measured. The other settings of an enclave, and which are measured: [enclave settings](enclave-settings.md)."),
    ("Bounds of a relay", "cloister.relay.limits.Limits", "Fixed. What may be chosen are options of [`cloister relay`](commands.md#relay)."),
    ("Bounds of a proxy", "cloister.client.proxy.limits.Limits", "Fixed. What may be chosen are options of [`cloister proxy`](commands.md#proxy)."),
)  # fmt: skip
_HEAD = """# Every setting

Made from the source by `make reference`: each server's settings with default and range, and the bounds that are fixed.
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for title, place, words in _DECLARED:
        parts += [f"\n## {title}\n\n{words}\n\n| Setting | Default | Range | Meaning |\n|---|---|---|---|\n"]
        parts += [_setting(item) for item in fields(_class(place))]
    for title, place, words in _BOUNDS:
        remarks = _remarks(_class(place))
        parts += [f"\n## {title}\n\n{words}\n\n| Name | Default | Meaning |\n|---|---|---|\n"]
        parts += [f"| `{item.name}` | {item.default} | {remarks[item.name]} |\n" for item in fields(_class(place))]
    return "".join(parts)


def _class(place: str) -> Any:
    module, _, name = place.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _setting(item: Field[Any]) -> str:
    default = "required" if item.default is MISSING else f"`{toml_of(item.default)}`"
    floor, cap = item.metadata["floor"], item.metadata["cap"]
    bounds = f"{floor} to {cap}" if floor or cap else ""
    return f"| `{item.name}` | {default} | {bounds} | {item.metadata['doc'].replace('|', chr(92) + '|')} |\n"


def _remarks(declared: type) -> dict[str, str]:
    """Return what stands behind each field in the source; the unit in its name where nothing does."""
    lines = re.findall(r"^    (\w+): [^#\n]*(?:# (.*))?$", inspect.getsource(declared), re.MULTILINE)
    units = {"s": "seconds", "bytes": "bytes"}
    return {name: remark or units.get(name.rpartition("_")[2], name.replace("_", " ")) for name, remark in lines}
