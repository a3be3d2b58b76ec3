"""Text becomes HTML by being escaped; only what our own tags made is markup."""

from __future__ import annotations

from cloister.wire.markup import Html, joined, tag


def test_text_is_escaped_by_being_text() -> None:
    assert tag("p", "<b>", joined("&", tag("i", "x")), class_='"') == '<p class="&quot;">&lt;b&gt;&amp;<i>x</i></p>'
    assert isinstance(tag("p"), Html)


def test_marks_that_steer_a_reader_are_shown_as_one_that_cannot() -> None:
    assert tag("p", "a\u202eb\x00c\nd") == "<p>a\ufffdb\ufffdc\nd</p>"
