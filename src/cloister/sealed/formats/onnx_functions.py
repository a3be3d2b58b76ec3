"""Functions of an ONNX model: what calling each of them comes to, once an engine has put it in the place of its calls.

A function that calls itself never comes to an end, and thirty that call each the next one twice are a billion nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

__all__ = ["Calls", "Operator", "demand_bounded"]

Operator: TypeAlias = "tuple[str, str]"
"""Domain and name."""

Calls: TypeAlias = "Counter[Operator]"

_MAX_EXPANDED_NODES = 4_000_000


def demand_bounded(main: Calls, functions: Mapping[Operator, Calls], *, subject: str) -> None:
    """Prove that the model stays small when every call is expanded. Raises ``Rejected`` (``unbounded_calls``)."""
    sizes: dict[Operator, int] = {}
    open_: set[Operator] = set()
    waiting = list(functions)
    while waiting:
        name = waiting[-1]
        inner = [call for call in functions[name] if call in functions and call not in sizes]
        if name in sizes or not inner:
            open_.discard(name)
            sizes.setdefault(name, _size(functions[name], sizes))
            waiting.pop()
            continue
        if name in open_ or name in inner:
            raise Rejected.because("unbounded_calls", subject, got="a function that calls itself")
        open_.add(name)
        waiting += inner
    if (size := _size(main, sizes)) > _MAX_EXPANDED_NODES:
        want = f"at most {_MAX_EXPANDED_NODES}"
        raise Rejected.because("unbounded_calls", subject, got=f"{size} nodes when expanded", want=want)


def _size(calls: Calls, sizes: Mapping[Operator, int]) -> int:
    return sum(count * (1 + min(sizes.get(call, 0), _MAX_EXPANDED_NODES)) for call, count in calls.items())
