"""What other pages, other users of the machine, the custodian and whoever sends bytes cannot do to the page."""

from __future__ import annotations

import io
import pickle
import re
import zlib
from typing import TYPE_CHECKING

import httpx2
import numpy as np
import pytest
from ask_kit import ask_page, echo_model, kidney_model, raw_model, scan
from PIL import Image

from cloister.asking.limits import Limits
from cloister.pages import CONTENT_SECURITY_POLICY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ask_kit import AskPage

    from cloister.wire import Json

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
STEERING = "\u202e\u2066\x1b"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskPage]:
    limits = Limits(max_body_bytes=1 << 20)
    with ask_page(tmp_path_factory.mktemp("house"), allowance=200, limits=limits) as found:
        yield found


def asked(page: AskPage) -> int:
    """Return how many requests the enclave has had."""
    return page.house.wires.seen[8440].count(b"/.well-known/ohttp-gateway")


def test_without_the_link_there_is_nothing(page: AskPage) -> None:
    stranger = page.client()
    for path in ("/", "/models/digits", "/verified", "/assets/style.css", f"{page.door.prefix}x/"):
        answer = stranger.get(path)
        assert answer.status_code == 404
        assert "digits" not in answer.text
        assert page.door.prefix not in answer.text
    for path in ("/", "/models/digits", "/verified"):
        assert stranger.get(page.door.prefix + path).status_code == 401


def test_a_link_that_was_used_lets_in_nobody_else(page: AskPage) -> None:
    link = page.link()
    first, second = page.client(), page.client()
    assert first.get(link, follow_redirects=True).status_code == 200
    replayed = second.get(link, follow_redirects=True)
    assert replayed.status_code == 403
    assert "This link was used already" in replayed.text
    assert "set-cookie" not in replayed.headers


def test_the_cookie_is_for_this_page_alone(page: AskPage) -> None:
    answer = page.client().get(page.link())
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert set(cookie.split("; ")[1:]) == {f"Path={page.door.prefix}/", "HttpOnly", "SameSite=Strict"}


def test_the_link_is_got_and_nothing_else(page: AskPage) -> None:
    link = page.link()
    assert page.client().post(link).status_code == 405
    assert page.client().get(link).status_code == 303


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_name_that_was_made_to_point_here_gets_nothing(page: AskPage, host: str) -> None:
    person = page.visitor()
    for path in ("/", "/models/digits", "/verified"):
        answer = person.client.get(page.door.prefix + path, headers={"host": host})
        assert answer.status_code in ({400, 403} if not host else {403})
        assert "digits" not in answer.text
    link = page.link()
    assert page.client().get(link, headers={"host": "evil.example"}).status_code == 403
    assert page.client().get(link).status_code == 303  # it was not used up


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "http://127.0.0.1:1"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=range(len(FOREIGN)))
def test_a_form_that_another_page_sends_is_refused(page: AskPage, headers: dict[str, str]) -> None:
    person = page.visitor()
    before = asked(page)
    answer = person.ask("echo", fields={"c0": "x"}, headers=headers)
    assert answer.status_code == 403
    assert "not of this page" in answer.text
    assert asked(page) - before <= 2  # what loading the form takes


@pytest.mark.parametrize("token", ["", "x", None])
def test_a_form_without_the_visitor_s_own_token_is_refused(page: AskPage, token: str | None) -> None:
    person, other = page.visitor(), page.visitor()
    stolen = other.hidden("/models/echo")["form_token"] if token is None else token
    answer = person.ask("echo", fields={"c0": "x"}, form_token=stolen)
    assert answer.status_code == 403
    path = person.ask("echo", fields={"c0": "x"}).url.path.removeprefix(page.door.prefix)
    for action in ("wait", "forget"):
        assert person.post(f"{path}/{action}", form_token=stolen).status_code == 403
    assert person.get(path).status_code == 200


def test_an_answer_is_its_visitor_s_alone(page: AskPage) -> None:
    person, other = page.visitor(), page.visitor()
    path = person.ask("echo", fields={"c0": "mine"}).url.path.removeprefix(page.door.prefix)
    token = other.hidden("/models/echo")["form_token"]
    for name in ("", "/receipt", "/request", "/response"):
        answer = other.get(path + name)
        assert answer.status_code == 404
        assert "mine" not in answer.text
    assert other.post(f"{path}/forget", form_token=token).status_code == 404
    assert "mine" in person.get(path).text


def test_every_page_can_run_and_load_only_what_is_ours_and_is_kept_nowhere(page: AskPage) -> None:
    person = page.visitor()
    path = person.ask("echo", fields={"c0": "x"}).url.path.removeprefix(page.door.prefix)
    for shown in ("/models/digits", "/verified", path, "/nothing"):
        answer = person.get(shown)
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert not re.search(r'(?:src|href|action)="(?:[a-z]+:)?//', answer.text)
        assert not re.search(r"<[^>]+\s(?:on[a-z]+|style)=", answer.text)


def test_names_labels_and_reasons_of_others_are_text(tmp_path: Path) -> None:
    card: Json = {
        "description": HOSTILE,
        "labels": {"filtration": [HOSTILE]},
        "preprocess": {
            "values": {
                "about": {"a": {"meaning": HOSTILE, "unit": "<b>u"}}, "columns": ["a", HOSTILE, "c"], "kind": "table"
            }
        },
        "task": HOSTILE,
    }  # fmt: skip
    given = {"echo": (echo_model(), {"description": HOSTILE}), "kidney": (kidney_model(), card)}
    with ask_page(tmp_path, given=given, clauses={"purpose": "<b>trial"}) as page:
        person = page.visitor()
        shown = [
            person.get("/models/kidney"),
            person.get("/verified"),
            person.ask("kidney", fields={"c0": HOSTILE + STEERING, "c1": "1", "c2": "1"}),
            person.ask("kidney", fields={"table": HOSTILE}),
            person.ask("kidney", fields={"c0": "1", "c1": "1", "c2": "1"}),
            person.ask("echo", fields={"c0": HOSTILE + STEERING}),
            person.get("/models/%3Cscript%3E"),
            person.get("/answers/%3Cscript%3E"),
        ]
    for answer in shown:
        assert "<script>alert" not in answer.text
        assert "<img" not in answer.text
        assert "<b>" not in answer.text
        assert not set(STEERING) & set(answer.text)
    assert [answer.status_code for answer in shown] == [200, 200, 400, 400, 200, 200, 404, 404]
    assert "&lt;script&gt;alert(1)" in shown[0].text
    assert "&lt;b&gt;trial" in shown[1].text


def test_a_form_that_is_too_large_is_refused_before_it_is_read(page: AskPage) -> None:
    person = page.visitor()
    answer = person.ask("digits", files={"picture-image": ("x.png", bytes(2 << 20), "image/png")})
    assert answer.status_code == 413
    assert "too large" in answer.text


def bomb() -> bytes:
    """Return a small PNG that would be 100,000 pixels square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    side = (100_000).to_bytes(4, "big")
    head = chunk(b"IHDR", side + side + b"\x08\x00\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


def wide() -> bytes:
    data = io.BytesIO()
    Image.new("1", (6000, 5000)).save(data, "PNG")
    return data.getvalue()


PICTURES = {
    "a bomb": (bomb(), "a broken image"),
    "too many pixels": (wide(), "6000x5000 pixels, want at most 25000000"),
    "no picture": (b"hello", "no image"),
    "a broken picture": (scan(7)[:200], "image"),
    "markup": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "no image"),
    "nothing": (b"", "none was chosen"),
}


@pytest.mark.parametrize(("data", "told"), PICTURES.values(), ids=PICTURES.keys())
def test_pictures_that_are_none_are_refused_and_nothing_is_asked(page: AskPage, data: bytes, told: str) -> None:
    answer = page.visitor().ask("digits", files={"picture-image": ("x.png", data, "image/png")})
    assert answer.status_code == 400
    assert told in answer.text
    assert "<script>alert" not in answer.text


def npy(array: object, **options: bool) -> bytes:
    data = io.BytesIO()
    np.save(data, np.asarray(array), **options)  # type: ignore[arg-type]  # allow_pickle alone
    return data.getvalue()


def shaped(shape: str) -> bytes:
    """Return a file that says it is of this shape and holds nothing."""
    head = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


class Opens:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


TENSORS: dict[str, tuple[bytes, str]] = {
    "records": (npy(np.zeros(2, [("a", "<i8")])), "input ids, file: records"),
    "a shape bomb": (shaped("(99999, 99999)"), "9999800001 values, want at most 5242880"),
    "a shape beyond its bytes": (shaped("(1, 4)"), "0 bytes, want 32 for shape [1, 4]"),
    "another type": (npy([[1.5]]), "input ids: float64, want INT64"),
    "text": (npy([["a"]]), "input ids, file: text (&lt;U1), want numbers"),
    "another shape": (npy(np.zeros((1, 1, 1), int)), "input ids: shape [1, 1, 1], want ids INT64[any, any]"),
    "deep json": (b"[" * 100_000, "another list, want lists at most 16 deep"),
    "ragged json": (b"[[1, 2], [3]]", "input ids, at [1]: 1 value, want 2"),
    "large numbers": (b"9" * 64, "want -9223372036854775808 to 9223372036854775807"),
    "no number": (b"nan", "line 1, value 1: &#39;nan&#39;, want a whole number"),
    "more values than are taken": (b"1," * 510_000 + b"1", "want at most 500000 in all"),
    "markup": (b"<script>alert(1)</script>", "&lt;script&gt;"),
    "an archive": (b"PK\x03\x04\xff", "neither .npy nor utf-8 text"),
    "nothing": (b"", "input ids: nothing, want values of INT64"),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskPage]:
    with ask_page(tmp_path_factory.mktemp("house"), given={"raw": (raw_model(), {})}) as found:
        yield found


@pytest.mark.parametrize(("data", "told"), TENSORS.values(), ids=TENSORS.keys())
def test_values_that_are_none_are_refused_and_nothing_is_asked(raw: AskPage, data: bytes, told: str) -> None:
    person = raw.visitor()
    person.get("/models/raw")
    before = asked(raw)
    answer = person.ask("raw", fields={"t1": "a", "t2": "1 2"}, files={"t0-file": ("x", data, "text/plain")})
    assert answer.status_code == 400
    assert told in answer.text
    assert "<script>alert" not in answer.text
    assert len(answer.content) < 100_000
    assert asked(raw) - before <= 4  # what loading the form takes, and showing it again


def test_a_pickle_in_a_file_is_never_run(raw: AskPage, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    bomb = npy(np.array([Opens(str(mark))], dtype=object), allow_pickle=True)
    for data in (bomb, pickle.dumps(Opens(str(mark)))):
        answer = raw.visitor().ask("raw", fields={"t1": "a", "t2": "1 2"}, files={"t0-file": ("x.npy", data, "")})
        assert answer.status_code == 400
        assert "Python objects, a pickle" in answer.text or "neither .npy" in answer.text
    assert not mark.exists()


def test_a_text_that_is_too_long_for_a_field_is_refused(raw: AskPage) -> None:
    answer = raw.visitor().ask("raw", fields={"t0": "1 " * (2 << 20) + "1"})
    assert answer.status_code == 400
    assert "want at most 4194304 bytes of text" in answer.text


def test_the_outputs_of_another_s_answer_are_not_given(raw: AskPage) -> None:
    person, other = raw.visitor(), raw.visitor()
    path = person.ask("raw", fields={"t0": "1", "t1": "a", "t2": "1 2"}).url.path.removeprefix(raw.door.prefix)
    assert person.get(f"{path}/outputs").status_code == 200
    assert other.get(f"{path}/outputs").status_code == 404


@pytest.mark.parametrize(
    ("kind", "body"),
    [("application/json", b"{}"), ("text/plain", b"a=b"), ("", b""), ("multipart/form-data; boundary=x", b"nonsense"),
     ("application/x-www-form-urlencoded", b"\xff")],
)  # fmt: skip
def test_a_body_of_another_type_is_refused(page: AskPage, kind: str, body: bytes) -> None:
    person = page.visitor()
    url = f"{page.door.prefix}/models/echo"
    answer = person.client.post(url, content=body, headers={"content-type": kind} if kind else {})
    assert answer.status_code == 400
    assert "text/html" in answer.headers["content-type"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(page: AskPage, method: str) -> None:
    person = page.visitor()
    assert person.client.request(method, f"{page.door.prefix}/models/echo").status_code == 405


def test_a_table_sent_to_a_picture_s_model_and_a_stray_field_change_nothing(page: AskPage) -> None:
    files = {"picture-image": ("x.png", scan(7), "image/png"), "other": ("y", b"z", "text/plain")}
    answer = page.visitor().ask("digits", fields={"table": "1,2", "c0": "9"}, files=files)
    assert '<p class="headline">7</p>' in answer.text


def test_an_open_page_lets_in_everybody_each_alone_and_not_too_often(tmp_path: Path) -> None:
    given: dict[str, tuple[bytes, Json]] = {"echo": (echo_model(), {})}
    with ask_page(tmp_path, given=given, site="ask.example", limits=Limits(per_minute=3)) as page:
        host = {"host": "ask.example", "origin": "http://ask.example"}
        one, other = (httpx2.Client(base_url=page.address, headers=host, timeout=30) for _ in range(2))
        with one, other:
            front = one.get("/models/echo")
            assert front.status_code == 200
            assert set(front.headers["set-cookie"].split("; ")[1:]) == {"Path=/", "HttpOnly", "SameSite=Strict"}
            assert "This page&#39;s server, at ask.example" in front.text
            assert "Whoever runs this site could read along" in front.text
            assert "/enter/" not in front.text
            hidden = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', front.text))
            parts = [(name, (None, value)) for name, value in {**hidden, "c0": "mine"}.items()]
            answer = one.post("/models/echo", files=parts, follow_redirects=True)
            assert answer.status_code == 200
            assert other.get(answer.url.path).status_code == 404
            assert other.post("/models/echo", files=parts).status_code == 403
            assert one.get(answer.url.path, headers={"host": "127.0.0.1"}).status_code == 403
            assert [one.post("/models/echo", files=parts).status_code for _ in range(3)] == [303, 303, 429]


def test_only_so_many_questions_of_one_visitor_are_under_way(tmp_path: Path) -> None:
    limits = Limits(max_running_each=1)
    with ask_page(tmp_path, given={"kidney": (kidney_model(), {})}, allowance=1, limits=limits) as page:
        person = page.visitor()
        fields = {"c0": "1", "c1": "2", "c2": "3"}
        person.ask("kidney", fields=fields)
        path = person.ask("kidney", fields=fields).url.path.removeprefix(page.door.prefix)
        person.post(f"{path}/wait", form_token=person.hidden(path)["form_token"])
        refused = person.ask("kidney", fields=fields)
        assert refused.status_code == 429
        assert "Too many questions at once" in refused.text
