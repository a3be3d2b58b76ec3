"""docs/reference/python.md names everything there is, and both clients are one: the same methods, called the same."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import cloister
import cloister.client
from cloister.client import Answers, AsyncClient, Client, Inference

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
NAMES = PAGE.split("## Names\n", 1)[1].split("\n## ", 1)[0]
SEAMS = {"transport", "clock", "rng"}
SAME = {"__enter__": "__aenter__", "__exit__": "__aexit__"}


def methods(kind: type) -> dict[str, Any]:
    """Return the public methods of a class, and those that ``with`` calls."""
    names = (name for name in dir(kind) if not name.startswith("_") or name in {*SAME, *SAME.values()})
    return {name: vars_of(kind, name) for name in names}


def vars_of(kind: type, name: str) -> Any:
    return inspect.getattr_static(kind, name)


def plain(method: Any) -> Any:
    """Return the function behind a method of the class itself, or the getter behind a property."""
    if isinstance(method, property):
        return method.fget
    return method.__func__ if isinstance(method, classmethod) else method


def test_both_clients_have_the_same_methods() -> None:
    assert {SAME.get(name, name) for name in methods(Client)} == set(methods(AsyncClient))


@pytest.mark.parametrize("name", sorted(methods(Client)))
def test_a_method_is_called_the_same_way_in_both(name: str) -> None:
    one, other = plain(methods(Client)[name]), plain(methods(AsyncClient)[SAME.get(name, name)])
    parameters = [list(inspect.signature(found).parameters.values()) for found in (one, other)]
    described = [
        [(item.name, item.kind, item.default, spelled(item.annotation)) for item in items] for items in parameters
    ]
    assert described[0] == described[1]
    returned = [spelled(inspect.signature(found).return_annotation) for found in (one, other)]
    assert returned[0] == returned[1]
    assert inspect.getdoc(one)
    assert inspect.getdoc(other)


def spelled(annotation: object) -> str:
    """Return an annotation, the blocking and the awaiting parts of the HTTP library being one."""
    return str(annotation).replace("Async", "")


@pytest.mark.parametrize("name", sorted(methods(Client)))
def test_what_asks_waits_and_what_does_not_is_at_once(name: str) -> None:
    one, other = plain(methods(Client)[name]), plain(methods(AsyncClient)[SAME.get(name, name)])
    assert not inspect.iscoroutinefunction(one)
    asks = "_wire" in inspect.getsource(other) and name != "transport"
    assert inspect.iscoroutinefunction(other) == (asks or name in {"verify", *SAME})


@pytest.mark.parametrize("name", sorted(methods(Client).keys() - set(SAME)))
def test_every_method_is_in_the_reference_with_all_that_it_takes(name: str) -> None:
    member = methods(Client)[name]
    if isinstance(member, property):
        assert f"`client.{name}`" in PAGE
        return
    heading = re.search(rf"`(?:client|Client)\.{name}\(([^`]*)\)`", PAGE)
    assert heading, name
    taken = [item for item in inspect.signature(plain(member)).parameters if item not in {"self", "cls", *SEAMS}]
    assert re.findall(r"(?:^|, )(\w+)", re.sub(r"=[^,]*", "", heading[1])) == taken


@pytest.mark.parametrize("name", sorted({*cloister.__all__, *cloister.client.__all__}))
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert f"`{name}`" in NAMES
    here = getattr(cloister, name, None) or getattr(cloister.client, name)
    assert inspect.getdoc(here)


@pytest.mark.parametrize("kind", [Inference, Answers])
def test_every_part_of_an_answer_is_in_the_reference(kind: Any) -> None:
    public = {name for name in dir(kind) if not name.startswith("_")} | {item.name for item in fields(kind)}
    assert [name for name in sorted(public) if not re.search(rf"`{name}(\(.*?\))?`", PAGE)] == []


def test_the_package_is_typed_throughout() -> None:
    assert (Path(cloister.__file__).parent / "py.typed").exists()
    for kind in (Client, AsyncClient):
        for member in methods(kind).values():
            assert "return" in inspect.get_annotations(plain(member))
    assert get_type_hints(cloister.Retry)["tries"] is int
