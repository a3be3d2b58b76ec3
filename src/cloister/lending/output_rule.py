"""What a contract holds back of a model's outputs, as a clause (docs/spec/output-rules.md).

Not done here: holding it back (``enclave.withholding``), rounding (the clause ``precision``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Self

from cloister.lending.names import NAME
from cloister.wire import Fields, Json

__all__ = ["MAX_OUTPUT_RULES", "OutputRule", "Shown", "take_output_rules"]

MAX_OUTPUT_RULES = 64  # rules of one loan
_MAX_TOP = 1_000_000  # values of one item
_MAX_OUTPUT = 512  # characters of an output's name
_DECIMAL = re.compile(r"0|-?(?:0\.[0-9]{0,8}[1-9]|[1-9][0-9]{0,8}(?:\.[0-9]{0,8}[1-9])?)")
"""A decimal number in its one spelling: no zeros that say nothing, no exponent."""


class Shown(Enum):
    """How much of an output is shown at all."""

    VALUES = "values"
    LABEL = "label"
    """1 where the largest value of an item is, 0 everywhere else."""
    NOTHING = "nothing"
    """The model has no such output, as far as consumers can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRule:
    """What is shown of one output of one lent model.

    ``top`` is how many of the largest values of each item are shown, ``minimum`` the smallest value that is; whatever
    is not shown is ``fill``.
    """

    model: str
    output: str
    show: Shown = Shown.VALUES
    top: int | None = None
    minimum: str | None = None
    fill: str = "0"

    def to_json(self) -> dict[str, Json]:
        """Return the JSON object of docs/spec/output-rules.md."""
        members: dict[str, Json] = {"model": self.model, "output": self.output}
        if self.show is not Shown.VALUES:
            members["show"] = self.show.value
        if self.top is not None:
            members["top"] = self.top
        if self.minimum is not None:
            members["minimum"] = self.minimum
        return members | ({"fill": self.fill} if self.fill != "0" else {})

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse. Raises ``Malformed``, also for a rule that holds nothing back."""
        fields = Fields(value, what="output rule")
        rule = cls(
            model=fields.match("model", NAME),
            output=fields.text("output", cap=_MAX_OUTPUT, floor=1),
            show=_show(fields) if "show" in fields else Shown.VALUES,
            top=fields.optional("top", lambda name: fields.integer(name, floor=1, cap=_MAX_TOP)),
            minimum=fields.optional("minimum", lambda name: fields.match(name, _DECIMAL)),
            fill=_fill(fields) if "fill" in fields else "0",
        )
        fields.end()
        by_value = rule.top is not None or rule.minimum is not None
        if by_value == (rule.show is not Shown.VALUES):
            fields.fail("show", "want label or nothing, or else top, minimum or both")
        if rule.fill != "0" and not by_value:
            fields.fail("fill", "want it beside top or minimum")
        return rule


def take_output_rules(fields: Fields, name: str) -> tuple[OutputRule, ...]:
    """Return the rules: at least one, in order of model and output, one for each. Raises ``Malformed``."""
    rules = tuple(OutputRule.from_json(item) for item in fields.items(name, cap=MAX_OUTPUT_RULES))
    about = [(rule.model, rule.output) for rule in rules]
    if not rules or about != sorted(set(about)):
        fields.fail(name, "want at least one rule, in order of model and output, one for each output")
    return rules


def _show(fields: Fields) -> Shown:
    text = fields.text("show", cap=16)
    found = next((shown for shown in Shown if shown.value == text and shown is not Shown.VALUES), None)
    if found is None:
        fields.fail("show", "want label or nothing")
    return found


def _fill(fields: Fields) -> str:
    fill = fields.match("fill", _DECIMAL)
    if fill == "0":
        fields.fail("fill", "want it left out where it is 0")
    return fill
