"""A secret in every way in which Python turns a value into text or writes one down (T85)."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import pprint
import traceback
from dataclasses import asdict, astuple, dataclass, replace

import pytest
import rich.console
import rich.pretty
import rich.traceback

from cloister.cli.remote import Credentials
from cloister.custodian.vaults.pkcs11_token import Pkcs11Token
from cloister.custodian.vaults.transit import Transit
from cloister.custodian.vaults.unlock import FileKey, Passphrase
from cloister.journal import Secret

CANARY = "canary-9b1e77aa"
HOLDERS = (
    Secret(CANARY),
    Secret(CANARY.encode()),
    Passphrase(CANARY.encode()),
    FileKey(CANARY.encode()),
    Credentials(url="https://a", ca_pem=None, token=Secret(CANARY)),
    Pkcs11Token(token="t", key="k", module="/m", pin=Secret(CANARY)),  # noqa: S106 - a label
    Transit(mount="m", key="k", address="https://a", token=Secret(CANARY)),
    {"a": [Secret(CANARY)]},
)


@dataclass(frozen=True)
class Box:
    """What holds something."""

    inside: object


def shown(value: object) -> str:
    """Return all that text can be made of a value."""
    out = io.StringIO()
    logging.Formatter().format(logging.LogRecord("n", 30, "p", 1, "%s %r", (value, value), None))
    console = rich.console.Console(file=out, width=200)
    console.print(value)
    pprint.pprint(value, stream=out)
    print(value, file=out)
    box = Box(value)
    texts = [
        f"{value} {value!r} {value!s} {value!a}",
        "%s %r %a" % (value, value, value),  # noqa: UP031 - this way too
        "{} {!r}".format(value, value),  # noqa: UP032 - and this
    ]
    texts += [repr([value]), repr({"k": value}), repr(box), repr(asdict(box)), repr(astuple(box)), repr(replace(box))]
    texts += [repr(copy.copy(value)), repr(copy.deepcopy(value)), rich.pretty.pretty_repr(value), ascii(value)]
    texts += [
        json.dumps(value, default=repr),
        json.dumps([value], default=str),
        repr(vars(value)) if hasattr(value, "__dict__") else "",
    ]
    try:
        raise ValueError(value)  # noqa: TRY301 - for its traceback
    except ValueError as exc:
        texts += traceback.TracebackException.from_exception(exc, capture_locals=True).format()
        console.print(rich.traceback.Traceback.from_exception(type(exc), exc, exc.__traceback__, show_locals=True))
    return out.getvalue() + "".join(texts)


@pytest.mark.parametrize("value", HOLDERS, ids=lambda value: type(value).__name__)
def test_no_way_to_text_shows_it(value: object) -> None:
    text = shown(value)
    assert "Secret(...)" in text
    assert CANARY not in text
    assert CANARY.encode().hex() not in text


@pytest.mark.parametrize("value", HOLDERS, ids=lambda value: type(value).__name__)
def test_no_pickle_holds_it(value: object) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(value, protocol)


def test_json_refuses_it() -> None:
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))


@pytest.mark.parametrize("spec", ["", "s", ">40", "x", ".3", "10"])
def test_no_format_cuts_it_out(spec: str) -> None:
    assert format(Secret(CANARY), spec) == "Secret(...)"


def test_it_is_compared_without_being_shown_and_never_hashed() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret(b"a") != Secret("a")
    assert Secret("a") != "a"
    with pytest.raises(TypeError):
        hash(Secret("a"))
    with pytest.raises(AttributeError):
        Secret("a")._held = "b"  # type: ignore[misc]


def test_reveal_is_the_one_way_out() -> None:
    assert Secret(CANARY).reveal() == CANARY
    assert asdict(Box(Secret(CANARY)))["inside"].reveal() == CANARY
    for name in ("__str__", "__repr__", "__format__"):
        assert CANARY not in str(getattr(Secret(CANARY), name)(*([""] if name == "__format__" else [])))
    for operation in (len, iter, bytes, int, float):
        with pytest.raises(TypeError):
            operation(Secret(CANARY))  # type: ignore[operator]
