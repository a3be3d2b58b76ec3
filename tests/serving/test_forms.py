"""Forms as browsers send them, and as nobody does."""

from __future__ import annotations

import pytest

from cloister.errors import Malformed
from cloister.serving.forms import FORM_TYPE, MAX_FIELDS, MULTIPART_TYPE, Upload, parse_form
from mutations import mutated

BOUNDARY = "----WebKitFormBoundaryAbCdEf0123456789"
KIND = f"{MULTIPART_TYPE}; boundary={BOUNDARY}"
HEAD = b'Content-Disposition: form-data; name="a"\r\n'
TEXT = b'Content-Disposition: form-data; name="%s"\r\n\r\n%s'
FILE = b'Content-Disposition: form-data; name="%s"; filename="%s"\r\nContent-Type: image/png\r\n\r\n%s'


def body(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    line = b"--" + BOUNDARY.encode()
    return b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + end


GOOD = body(TEXT % (b"age", "sechzig ü".encode()), FILE % (b"picture", b"a b.png", b"\x89PNG\r\n--not the end\r\n"))


def test_fields_and_files_are_read_as_they_are() -> None:
    found = parse_form(GOOD, KIND)
    assert found.texts == {"age": "sechzig ü"}
    assert found.text("nothing") == ""
    assert found.files == {
        "picture": Upload(name="a b.png", media_type="image/png", data=b"\x89PNG\r\n--not the end\r\n")
    }
    assert "PNG" not in repr(found)


def test_a_boundary_in_quotation_marks_and_no_line_behind_the_last() -> None:
    assert parse_form(body(TEXT % (b"a", b"b"), end=b"--"), f'{MULTIPART_TYPE}; boundary="{BOUNDARY}"').texts == {
        "a": "b"
    }
    assert parse_form(body(), KIND).texts == {}


def test_a_file_that_was_not_chosen_is_not_there() -> None:
    assert parse_form(body(FILE % (b"picture", b"", b"")), KIND).files == {}


def test_url_encoded_fields() -> None:
    assert parse_form(b"a=1&b=%C3%BC+x&c=", f"{FORM_TYPE}; charset=utf-8").texts == {"a": "1", "b": "ü x", "c": ""}
    assert parse_form(b"", FORM_TYPE).texts == {}


BAD = {
    "no boundary first": b"x" + GOOD,
    "the end is missing": GOOD[: -len(BOUNDARY) - 8],
    "bytes behind the end": GOOD + b"x",
    "a part without a head": body(b"no head"),
    "a part without a name": body(b"Content-Disposition: form-data\r\n\r\nx"),
    "an empty name": body(TEXT % (b"", b"x")),
    "another disposition": body(b'Content-Disposition: attachment; name="a"\r\n\r\nx'),
    "a head that goes on": body(b'Content-Disposition: form-data;\r\n name="a"\r\n\r\nx'),
    "another head field": body(HEAD + b"Content-Transfer-Encoding: base64\r\n\r\neA=="),
    "a head field twice": body(HEAD + HEAD + b"\r\nx"),
    "a field twice": body(TEXT % (b"a", b"1"), TEXT % (b"a", b"2")),
    "a text and a file of one name": body(TEXT % (b"a", b"1"), FILE % (b"a", b"f", b"2")),
    "a text that is no utf-8": body(TEXT % (b"a", b"\xff")),
    "a head that is no utf-8": body(TEXT % (b"\xff", b"1")),
    "too many parts": body(*(TEXT % (b"n%d" % number, b"x") for number in range(MAX_FIELDS + 1))),
    "a huge text": body(TEXT % (b"a", b"x" * (5 << 20))),
    "a huge head": body(TEXT % (b"a", b"1"), b"Content-Type: " + b"x" * 5000 + b"\r\n\r\nx"),
    "one line feed": GOOD.replace(b"\r\n\r\n", b"\n\n"),
}  # fmt: skip


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_no_browser_sends_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_form(data, KIND)


@pytest.mark.parametrize("data", [b"\xff", b"a", b"a=%ff", b"a=1&a=2", b"&".join(b"n%d=x" % n for n in range(600))])
def test_url_encoded_nonsense_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_form(data, FORM_TYPE)


@pytest.mark.parametrize(
    "kind",
    ["", "application/json", "text/plain", MULTIPART_TYPE, f"{MULTIPART_TYPE}; boundary=",
     "multipart/mixed; boundary=x", f"{MULTIPART_TYPE}; boundary={'x' * 71}", f"{KIND}; charset=utf-8"],
)  # fmt: skip
def test_another_media_type_is_malformed(kind: str) -> None:
    with pytest.raises(Malformed):
        parse_form(GOOD, kind)


@pytest.mark.parametrize(
    ("data", "kind"), [(GOOD, KIND), (b"a=1&b=%C3%BC+x&c=", FORM_TYPE)], ids=["multipart", "encoded"]
)
def test_damaged_forms_raise_one_error(data: bytes, kind: str) -> None:
    for damaged in mutated(data):
        try:
            parse_form(damaged, kind)
        except Malformed:
            continue
