"""A loan's contract as people write it: one TOML file (docs/reference/cli.md, "Contract files")."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, NoReturn

from cloister.cli.duration import parse_duration
from cloister.cli.hours import parse_hours
from cloister.cli.limit_words import limits_json, output_rules_json, watches_json
from cloister.errors import Malformed, UsageError
from cloister.lending.clauses import Clauses

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cloister.wire import Json

__all__ = ["EXAMPLE", "clauses_json", "read_contract_file"]

_MAX_BYTES = 256 * 1024
_MAX_OFFLINE_DAYS = 90
_LIMITS = ("max_ceiling", "max_instances", "rate_cap", "ttl_s")
_KNOWN = {
    "allowance", "borrower", "borrower_key", "consumer_budgets", "consumer_rates", "consumers", "hours", "models",
    "offline", "outputs", "policy", "precision",
    "purpose", "refund", "revocations", "sub_allowances", "watches", *_LIMITS,
}  # fmt: skip

EXAMPLE = """\
# A loan as a contract: 'cloister loan create --from contract.toml --out clinic.loan --tokens tokens'

borrower = "Clinic North"               # as consumers are told
# borrower_key = "..."                  # public key that 'cloister borrower key' prints; the borrower then signs
purpose = "Triage of chest images; no training, no resale"
policy = "policy.json"                  # which enclaves may have the key, relative to this file
allowance = 10000                       # units of the whole loan: the budget

hours = ["mon-fri 08:00-18:00", "sat 10:00-12:00"]   # UTC, always; leave out for any time
precision = 3                           # decimal places of floating outputs; leave out for all
# outputs = ["digits:scores=top:3"]     # nothing, label, top:K, minimum:X; leave out to show all of every output
# consumer_rates = ["10/s:20"]          # units in a time, and at most so many at once; "ward-1=..." for one consumer
# consumer_budgets = ["1000/h", "ward-1=20000/d"]      # in any such time, all enclaves together; ":fixed" by the clock
# watches = ["near:20=slow", "regular:150"]            # what is noticed in how consumers ask, and what follows
refund = "none"                         # or "unused": only where an enclave's memory provably cannot be copied
# sub_allowances = true                 # the borrower may let others in by narrower allowances that it signs
# revocations = true                    # and none of these counts without its list of those it called back

ttl_s = 60                              # T: seconds a lease lives
rate_cap = 50                           # units per second and instance, 0 for no cap
max_instances = 2

# [offline]                             # without it an enclave stops when it cannot reach the custodian
# lasts = "2d"
# units = 500

[[models]]
name = "digits"
digest = "0000000000000000000000000000000000000000000000000000000000000000"   # 'cloister model list' shows it
# allowance = 5000                      # units of this model alone
# ticketed = true                       # each inference by one signature of the custodian

[[consumers]]                           # or: consumers = "anybody"
id = "ward-1"
# allowance = 1000
"""
"""What ``cloister loan contract --example`` prints."""


def clauses_json(
    *,
    purpose: str | None = None,
    hours: Iterable[str] = (),
    precision: int | None = None,
    offline: Json = None,
    refund: str | None = None,
    borrower_key: str | None = None,
    sub_allowances: bool = False,
    revocations: bool = False,
    outputs: Iterable[str] = (),
    rates: Iterable[str] = (),
    budgets: Iterable[str] = (),
    watches: Iterable[str] = (),
) -> dict[str, Json]:
    """Return the clauses as the API takes them. Raises ``UsageError`` for what is none."""
    windows = [window.to_json() for window in parse_hours(hours)]
    members: dict[str, Json] = {
        "purpose": purpose,
        "hours": windows or None,
        "precision": precision,
        "offline": offline,
        "refund": None if refund == "none" else refund,
        "borrower": borrower_key,
        "sub_allowances": sub_allowances or None,
        "revocations": revocations or None,
        "consumer_limits": limits_json(rates, budgets),
        "outputs": output_rules_json(outputs),
        "watches": watches_json(watches),
    }
    given = {name: value for name, value in members.items() if value is not None}
    try:
        return Clauses.from_json(given).to_json()
    except Malformed as exc:
        raise UsageError(exc.message) from exc


def read_contract_file(path: Path) -> tuple[dict[str, Any], Path]:
    """Return the body of ``POST /v1/loans`` without its policy, and where the policy lies. Raises ``UsageError``."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1).decode("utf-8")
        document = tomllib.loads(text)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg, hint="'cloister loan contract --example' prints one") from exc
    except (ValueError, RecursionError) as exc:
        msg = f"{path}: {exc}" if isinstance(exc, tomllib.TOMLDecodeError) else f"{path}: not toml that can be read"
        raise UsageError(msg) from exc
    unknown = sorted(set(document) - _KNOWN)
    if unknown:
        _fail(path, f"unknown member {unknown[0][:64]!r}")
    for name in ("borrower", "policy", "allowance", "models", "consumers"):
        if name not in document:
            _fail(path, f"{name}: missing")
    return _body(document, path), path.parent / _text(document, "policy", path)


def _body(document: dict[str, Any], path: Path) -> dict[str, Any]:
    anybody = document["consumers"] == "anybody"
    if not anybody and not isinstance(document["consumers"], list):
        _fail(path, 'consumers: want tables, or "anybody"')
    clauses = clauses_json(
        purpose=document.get("purpose"),
        hours=_texts(document, "hours", path),
        precision=document.get("precision"),
        offline=_offline(document, path),
        refund=document.get("refund"),
        borrower_key=document.get("borrower_key"),
        sub_allowances=document.get("sub_allowances", False),
        revocations=document.get("revocations", False),
        outputs=_texts(document, "outputs", path),
        rates=_texts(document, "consumer_rates", path),
        budgets=_texts(document, "consumer_budgets", path),
        watches=_texts(document, "watches", path),
    )
    body = {name: document[name] for name in ("borrower", "allowance", "models", *_LIMITS) if name in document}
    return body | {"consumers": None if anybody else document["consumers"], "clauses": clauses}


def _offline(document: dict[str, Any], path: Path) -> Json:
    term = document.get("offline")
    if term is None:
        return None
    if not isinstance(term, dict):
        _fail(path, "offline: want a table")
    lasts = parse_duration(str(term.get("lasts", "")), days=_MAX_OFFLINE_DAYS)
    rest = {name: value for name, value in term.items() if name != "lasts"}
    return {**rest, "lasts_s": int(lasts.total_seconds())}


def _texts(document: dict[str, Any], name: str, path: Path) -> list[str]:
    value = document.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _fail(path, f"{name}: want an array of texts")
    return value


def _text(document: dict[str, Any], name: str, path: Path) -> str:
    value = document[name]
    if not isinstance(value, str):
        _fail(path, f"{name}: want a text")
    return value


def _fail(path: Path, detail: str) -> NoReturn:
    msg = f"{path}: {detail}"
    raise UsageError(msg, hint="'cloister loan contract --example' shows every member")
