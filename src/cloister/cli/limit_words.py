"""Limits, output rules and watches as people write and read them (docs/reference/cli.md, "Limits")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from cloister.cli.duration import parse_duration
from cloister.errors import UsageError
from cloister.lending.output_rule import Shown
from cloister.lending.watch import WatchAction, WatchKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.lending.clauses import Clauses
    from cloister.lending.consumer_limits import Limits
    from cloister.lending.output_rule import OutputRule
    from cloister.lending.watch import Watch
    from cloister.wire import Json

__all__ = ["limit_rows", "limits_json", "output_rules_json", "watches_json"]

_LIMIT = re.compile(
    r"(?:(?P<who>[a-z0-9*][a-z0-9._-]{0,63})=)?(?P<units>\d{1,10})/(?P<time>\d{0,7}[smhd])(?::(?P<more>\w{1,10}))?"
)
_RULE = re.compile(r"(?P<model>[a-z0-9][a-z0-9._-]{0,63}):(?P<output>[^=]{1,512})=(?P<rule>.{1,64})")
_WATCH = re.compile(
    rf"(?P<kind>{'|'.join(kind.value for kind in WatchKind)}):(?P<above>\d{{1,10}})(?:=(?P<action>slow|stop))?"
)
_GUESTS = "*"
_DAY, _HOUR, _MINUTE = 86_400, 3600, 60


def limits_json(rates: Iterable[str], budgets: Iterable[str]) -> Json:
    """Return the clause ``consumer_limits``, None where nothing is said. Raises ``UsageError``.

    Each text is ``[ID=]UNITS/TIME``, with ``:BURST`` behind a rate and ``:fixed`` behind a budget; without an id it is
    about every consumer, with ``*`` about all sub-allowances together.
    """
    found: dict[str, dict[str, Json]] = {}
    for text in rates:
        who, units, seconds, more = _split(text, "consumer-rate")
        if more and not more.isdecimal():
            _fail(text, "consumer-rate")
        burst = int(more) if more else max(1, units // seconds)
        found.setdefault(who, {})["rate"] = {"burst": burst, "per_s": seconds, "units": units}
    windows: dict[str, list[dict[str, Json]]] = {}
    for text in budgets:
        who, units, seconds, more = _split(text, "consumer-budget")
        if more not in ("", "fixed"):
            _fail(text, "consumer-budget")
        budget: dict[str, Json] = {"units": units, "window_s": seconds}
        windows.setdefault(who, []).append(budget | ({"fixed": True} if more else {}))
    for who, listed in windows.items():
        found.setdefault(who, {})["budgets"] = [*sorted(listed, key=lambda item: int(str(item["window_s"])))]
    clause: dict[str, Json] = {}
    for who, member in (("", "each"), (_GUESTS, "guests")):
        if who in found:
            clause[member] = found.pop(who)
    if found:
        clause["named"] = [{"id": who, **limits} for who, limits in sorted(found.items())]
    return clause or None


def output_rules_json(rules: Iterable[str]) -> Json:
    """Return the clause ``outputs``, None where nothing is said. Raises ``UsageError``.

    Each text is ``MODEL:OUTPUT=RULE``: ``nothing``, ``label``, or ``top:K`` and ``minimum:X`` and ``fill:X`` with
    commas between.
    """
    made = [_rule(text) for text in rules]
    return [*sorted(made, key=lambda rule: (str(rule["model"]), str(rule["output"])))] or None


def watches_json(watches: Iterable[str]) -> Json:
    """Return the clause ``watches``, None where nothing is said. Raises ``UsageError``.

    Each text is ``KIND:ABOVE``, with ``=slow`` or ``=stop`` behind it where an alarm does more than count.
    """
    made: list[dict[str, Json]] = []
    for text in watches:
        found = _WATCH.fullmatch(text)
        if found is None:
            kinds = ", ".join(kind.value for kind in WatchKind)
            msg = f"--watch {text[:80]}: want KIND:ABOVE[=slow|stop], KIND one of {kinds}"
            raise UsageError(msg, hint="near:20 and regular:150 are where to start: docs/extraction.md")
        action: dict[str, Json] = {"action": found["action"]} if found["action"] else {}
        made.append({"above": int(found["above"]), "kind": found["kind"], **action})
    return [*sorted(made, key=lambda watch: str(watch["kind"]))] or None


def limit_rows(clauses: Clauses, instances: int) -> list[tuple[str, str]]:
    """Return what limits, rules and watches say, line by line."""
    limits = clauses.consumer_limits
    rows = [(f"output {rule.model}:{rule.output}", _rule_words(rule)) for rule in clauses.outputs]
    rows += [(f"watched: {watch.kind.value}", _watch_words(watch)) for watch in clauses.watches]
    if limits is None:
        return rows
    if limits.each is not None:
        rows.append(("each consumer", _words(limits.each, instances)))
    if limits.guests is not None:
        rows.append(("all sub-allowances", _words(limits.guests, instances)))
    return rows + [(f"consumer {name}", _words(item, instances)) for name, item in limits.named]


def _split(text: str, option: str) -> tuple[str, int, int, str]:
    found = _LIMIT.fullmatch(text)
    if found is None:
        _fail(text, option)
    time = found["time"] if found["time"][0].isdigit() else f"1{found['time']}"
    return found["who"] or "", int(found["units"]), int(parse_duration(time).total_seconds()), found["more"] or ""


def _fail(text: str, option: str) -> NoReturn:
    form = "[ID=]UNITS/TIME[:BURST]" if option == "consumer-rate" else "[ID=]UNITS/TIME[:fixed]"
    msg = f"--{option} {text[:80]}: want {form}, such as 10/s or ward-1=1000/d"
    raise UsageError(msg)


def _rule(text: str) -> dict[str, Json]:
    found = _RULE.fullmatch(text)
    rule: dict[str, Json] = {}
    for part in () if found is None else found["rule"].split(","):
        name, _, value = part.partition(":")
        if part in (Shown.NOTHING.value, Shown.LABEL.value):
            rule["show"] = part
        elif name == "top" and value.isdecimal():
            rule["top"] = int(value)
        elif name in ("minimum", "fill") and value:
            rule[name] = value
        else:
            found = None
    if found is None:
        msg = f"--output {text[:80]}: want MODEL:OUTPUT=RULE, RULE one of nothing, label, top:K, minimum:X"
        raise UsageError(msg, hint="top, minimum and fill go together: digits:scores=top:3,minimum:0.01")
    return {"model": found["model"], "output": found["output"], **rule}


def _words(limits: Limits, instances: int) -> str:
    said = []
    if limits.rate is not None:
        rate = limits.rate
        said.append(f"{rate.units} units in {_time(rate.per_s)} from each enclave, at most {rate.burst} at once")
    for budget in limits.budgets:
        kind = "each" if budget.fixed else "any"
        part = f", {budget.units // instances} from each enclave" if instances > 1 else ""
        said.append(f"{budget.units} units in {kind} {_time(budget.window_s)}{part}")
    return "; ".join(said) or "no limits but the loan's"


def _rule_words(rule: OutputRule) -> str:
    if rule.show is Shown.NOTHING:
        return "not shown"
    if rule.show is Shown.LABEL:
        return "1 where the largest value is, 0 elsewhere"
    said = [] if rule.top is None else [f"the {rule.top} largest values of each item"]
    said += [] if rule.minimum is None else [f"values of at least {rule.minimum}"]
    return f"{' that are '.join(said)}; {rule.fill} for the rest"


def _watch_words(watch: Watch) -> str:
    after = {
        WatchAction.NOTE: "is counted",
        WatchAction.SLOW: "slows that consumer down for an hour",
        WatchAction.STOP: "stops that consumer in this enclave",
    }[watch.action]
    said = {
        WatchKind.DISTINCT: f"every {watch.above} different inputs",
        WatchKind.NEAR: f"more than {watch.above} % of inputs almost equal an earlier one",
        WatchKind.REGULAR: f"inputs more even than {watch.above} in a thousand",
        WatchKind.SPREAD: f"answers in more than {watch.above} % of all directions",
        WatchKind.UNSURE: f"more than {watch.above} % of answers close between two classes",
    }[watch.kind]
    return f"{said}: {after}"


def _time(seconds: int) -> str:
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
