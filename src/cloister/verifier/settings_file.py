"""Settings read from a TOML file: ``[service]`` and a section ``[policies.ID]`` for each policy.

Unknown keys, wrong types and values out of range are refused; nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from cloister.serving.settings import parse_toml, toml_of, typed
from cloister.verifier.settings import PolicySettings, Settings, fail

if TYPE_CHECKING:
    from collections.abc import Mapping
    from dataclasses import Field
    from typing import NoReturn

__all__ = ["POLICY_ID", "parse_settings", "settings_text"]

_MAX_BYTES = 256 * 1024
_MAX_POLICIES = 256
POLICY_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
"""Ids of policies are part of a token's subject: at most 32 characters, none of which needs an escape anywhere."""


def parse_settings(text: str) -> tuple[Settings, Mapping[str, PolicySettings]]:
    """Return the settings, and those of every policy by id. Raises ``UsageError``."""
    document = parse_toml(text, fail, cap=_MAX_BYTES)
    unknown = sorted(document.keys() - {"service", "policies"})
    if unknown:
        fail(f"unknown section or key {unknown[0]!r}, want [service] and [policies.ID]")
    policies = document.get("policies", {})
    if not isinstance(policies, dict) or len(policies) > _MAX_POLICIES:
        fail(f"policies: want at most {_MAX_POLICIES} sections [policies.ID]")
    for name in policies:
        if not POLICY_ID.fullmatch(name):
            fail(f"policies: {name[:64]!r}: want 1 to 32 of a-z, 0-9 and - inside")
    service = Settings(**_section(Settings, document.get("service", {}), "service"))
    found = {name: PolicySettings(**_section(PolicySettings, item, name)) for name, item in policies.items()}
    if service.default_policy and service.default_policy not in found:
        fail(f"default_policy: no section [policies.{service.default_policy[:64]}]")
    return service, found


def _section(kind: type[Settings | PolicySettings], section: object, name: str) -> dict[str, Any]:
    """Return the values of one section, each of its setting's type and in its range."""
    if not isinstance(section, dict):
        fail(f"{name}: want a section")
    known = {item.name: item for item in fields(kind)}
    for key in section:
        if key not in known:
            fail(f"{name}: unknown setting {key[:64]!r}")

    def fail_here(detail: str, /) -> NoReturn:
        fail(f"{name}: {detail}")

    return {key: typed(known[key], value, fail_here) for key, value in section.items()}


def settings_text(*, issuer: str) -> str:
    """Return a settings file with ``issuer`` set, and every other setting as a comment."""
    lines = [
        "# Settings of this attestation service; docs/reference/attestation-service.md explains each.",
        "[service]",
    ]
    lines += [_line(item, issuer if item.name == "issuer" else None) for item in fields(Settings)]
    lines += ["", "# One section for each policy; its id is part of every subject.", "# [policies.enclaves]"]
    lines += [_line(item, None) for item in fields(PolicySettings)]
    return "\n".join(lines) + "\n"


def _line(item: Field[Any], value: str | None) -> str:
    shown = item.default if value is None else value
    return f"{'# ' if value is None else ''}{item.name} = {toml_of(shown)}  # {item.metadata['doc']}"
