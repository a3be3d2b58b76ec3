"""Settings read from a TOML file: ``[service]`` and a section ``[policies.ID]`` for each policy.

Unknown keys, wrong types and values out of range are refused; nothing is guessed.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from cloister.errors import UsageError
from cloister.verifier.settings import HINT, PolicySettings, Settings, fail

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["POLICY_ID", "parse_settings", "settings_text"]

_MAX_BYTES = 256 * 1024
_MAX_POLICIES = 256
POLICY_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
"""Ids of policies are part of a token's subject: at most 32 characters, none of which needs an escape anywhere."""
_KIND = {bool: "true or false", int: "an integer", str: "a string"}


def parse_settings(text: str) -> tuple[Settings, Mapping[str, PolicySettings]]:
    """Return the settings, and those of every policy by id. Raises ``UsageError``."""
    if len(text) > _MAX_BYTES:
        fail(f"{len(text)} characters of settings, want at most {_MAX_BYTES}")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # tomllib lets a number of too many digits and deep nesting through
        what = f"{exc}" if isinstance(exc, tomllib.TOMLDecodeError) else "not toml that can be read"
        msg = f"attestation service: {what}"
        raise UsageError(msg, hint=HINT) from exc
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
    return {key: _typed(f"{name}: {key}", value, known[key]) for key, value in section.items()}


def _typed(name: str, value: object, setting: Field[Any]) -> object:
    default, floor, cap = setting.default, setting.metadata["floor"], setting.metadata["cap"]
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            fail(f"{name}: want an array of strings")
        return tuple(value)
    if type(value) is not type(default):
        fail(f"{name}: want {_KIND[type(default)]}")
    if isinstance(value, int) and not isinstance(value, bool) and not floor <= value <= cap:
        fail(f"{name}: {value} is outside {floor}..{cap}")
    if isinstance(value, str) and not value.isprintable():
        fail(f"{name}: control character")
    return value


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
    return f"{'# ' if value is None else ''}{item.name} = {_toml(shown)}  # {item.metadata['doc']}"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
