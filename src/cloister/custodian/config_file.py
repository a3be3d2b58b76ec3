"""Settings read from a TOML file and from environment variables ``CLOISTER_CUSTODIAN_<NAME>``, which win.

Unknown keys, wrong types and values out of range are refused; nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING

from cloister.custodian.config import BUILT_AT_YEAR, ENV_PREFIX, NOT_SETTINGS, Config
from cloister.custodian.config_rules import fail, refuse_insecure, refuse_nonsense
from cloister.errors import UsageError
from cloister.serving.settings import parse_toml, toml_of, typed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from _typeshed import DataclassInstance

__all__ = [
    "default_config_text",
    "load_config",
    "read_config",
    "read_section",
    "setting_of",
    "settings_text",
]

_MAX_CONFIG_BYTES = 64 * 1024


def read_config(home: Path, *, environment: Mapping[str, str], now: datetime) -> Config:
    """Return the settings of a home. Raises ``UsageError``."""
    path = home / "config.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"{path}: cannot be read"
        raise UsageError(msg, hint="run cloister custodian init first") from exc
    return load_config(text, environment=environment, now=now)


def load_config(text: str, *, environment: Mapping[str, str], now: datetime) -> Config:
    """Return the settings of a TOML document, overridden by environment variables.

    Raises ``UsageError`` for syntax, unknown keys, wrong types, values out of range, insecure values
    in the production profile, and a clock that stands before this program was written.
    """
    values = read_section(text, "custodian", Config) | _from_environment(environment)
    config = Config(**values)  # type: ignore[arg-type]  # each value was typed by its setting's default
    refuse_nonsense(config)
    refuse_insecure(config)
    if now.year < BUILT_AT_YEAR:
        msg = f"clock: the year is {now.year}, want at least {BUILT_AT_YEAR}"
        raise UsageError(msg, hint="set the clock; leases and certificates depend on it")
    return config


def default_config_text(values: Mapping[str, str | int | bool | tuple[str, ...]]) -> str:
    """Return a config file that sets ``values`` and shows every other setting as a comment."""
    head = "# Settings of this custodian; docs/reference/settings.md explains each."
    return settings_text(Config, values, head=head, section="custodian")


def settings_text(
    kind: type[DataclassInstance], values: Mapping[str, str | int | bool | tuple[str, ...]], *, head: str, section: str
) -> str:
    """Return a file of one section that sets ``values`` and shows every other setting of ``kind`` as a comment."""
    lines = [head, f"[{section}]"]
    for item in fields(kind):
        mark = "" if item.name in values else "# "
        lines.append(f"{mark}{item.name} = {toml_of(values.get(item.name, item.default))}  # {item.metadata['doc']}")
    return "\n".join(lines) + "\n"


def read_section(text: str, section: str, kind: type[DataclassInstance]) -> dict[str, object]:
    """Return the settings of ``kind`` that the one section of a TOML document sets. Raises ``UsageError``."""
    document = parse_toml(text, fail, cap=_MAX_CONFIG_BYTES)
    for key in document:
        if key != section:
            fail(f"line {_line(text, key)}: unknown section or key {key!r}, want [{section}]")
    found = document.get(section, {})
    if not isinstance(found, dict):
        fail(f"{section}: want a section")
    known = {item.name: item for item in fields(kind)}
    values: dict[str, object] = {}
    for key, value in found.items():
        if key not in known:
            fail(f"line {_line(text, key)}: unknown setting {key!r}")
        values[key] = typed(known[key], value, fail)
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    known = {item.name: item for item in fields(Config)}
    values: dict[str, object] = {}
    for variable, text in environment.items():
        suffix = variable.removeprefix(ENV_PREFIX)
        if suffix == variable or suffix in NOT_SETTINGS:
            continue
        name = suffix.lower()
        if name not in known or suffix != name.upper():
            fail(f"environment: {variable} is no setting")
        values[name] = typed(known[name], setting_of(name, text), fail)
    return values


def setting_of(name: str, text: str) -> str | int | bool | list[str]:
    """Return the value that ``text`` spells for a setting. Raises ``UsageError``; ranges are not looked at."""
    default = next((item.default for item in fields(Config) if item.name == name), None)
    if default is None:
        fail(f"{name}: no such setting")
    if isinstance(default, bool):
        if text not in {"true", "false"}:
            fail(f"{name}: want true or false")
        return text == "true"
    if isinstance(default, int):
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
            fail(f"{name}: want an integer")
        return int(text)
    if isinstance(default, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _line(text: str, key: str) -> int:
    """Return the first line that names ``key``, for the reader of an error."""
    pattern = re.compile(rf"^\s*\[?\s*[\"']?{re.escape(key)}\b")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)
