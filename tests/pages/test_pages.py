"""The room of pages without a browser: escaping, headers, assets, numbers, charts."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from gallery_kit import NASTY, NOW, Gallery
from jinja2 import UndefinedError
from starlette.testclient import TestClient

from cloister.pages import CONTENT_SECURITY_POLICY
from cloister.pages.charts import Forecast, Point, burn_down, columns, compact, meter, sparkline
from cloister.pages.environment import short
from cloister.pages.moments import lasting, relative
from cloister.wire import STEERING
from cloister.wire.markup import tag


@pytest.fixture
def client() -> TestClient:
    return TestClient(Gallery().app)


def test_text_of_others_is_never_markup_and_never_steers_the_eye(client: TestClient) -> None:
    page = client.get("/ui/gallery").text
    assert NASTY not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \N{REPLACEMENT CHARACTER}gnp.exe" in page
    assert page.count("<script") == 1  # our own


def test_markup_made_of_tags_stays_markup_and_its_text_stays_text(client: TestClient) -> None:
    site = Gallery().site
    site._environment.loader.searchpath  # type: ignore[union-attr]  # noqa: B018 - files, no strings from elsewhere
    made = site._environment.from_string("{{ part }}").render(part=tag("b", "<i>"))
    assert made == "<b>&lt;i&gt;</b>"
    assert client.get("/ui/").status_code == 200


def test_a_name_that_nobody_gave_stops_the_page() -> None:
    with pytest.raises(UndefinedError):
        Gallery().site.text("gallery.html", now=NOW)


def test_pages_are_kept_framed_and_sniffed_by_nobody(client: TestClient) -> None:
    headers = client.get("/ui/gallery").headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"


def test_assets_are_kept_for_ever_and_only_by_their_digest(client: TestClient) -> None:
    page = client.get("/ui/gallery").text
    addresses = sorted(set(re.findall(r'(?:href|src)="(/ui/assets/[^"]+)"', page)))
    assert [re.sub(r"\.[0-9a-f]{16}\.", ".", item) for item in addresses] == [
        "/ui/assets/icon.svg", "/ui/assets/script.js", "/ui/assets/style.css",
    ]  # fmt: skip
    for address in addresses:
        found = client.get(address)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["x-content-type-options"] == "nosniff"
    for wrong in ("style.css", "style.0000000000000000.css", "../site.py", "%2e%2e/site.py", ""):
        assert client.get(f"/ui/assets/{wrong}").status_code == 404
    assert client.post(addresses[0]).status_code == 404


def test_no_page_has_style_or_script_inside_of_it(client: TestClient) -> None:
    page = client.get("/ui/gallery").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)


def test_a_look_that_is_none_is_not_written_into_the_page(client: TestClient) -> None:
    client.cookies.set("cloister-theme", 'dark" onload="x')
    assert "data-theme=" not in client.get("/ui/gallery").text.partition("<head>")[0]
    client.cookies.set("cloister-theme", "dark")
    assert '<html lang="en" data-theme="dark">' in client.get("/ui/gallery").text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (90_000, "1 d 1 h"),
        (-61, "1 min 1 s"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds: int, words: str) -> None:
    assert lasting(seconds) == words


def test_a_time_is_said_from_now_and_as_a_day_where_it_is_far() -> None:
    assert relative(NOW, NOW) == "now"
    assert relative(NOW + timedelta(minutes=5), NOW) == "in 5 min"
    assert relative(NOW - timedelta(days=2, hours=3), NOW) == "2 d 3 h ago"
    assert relative(NOW - timedelta(days=100), NOW) == "2026-08-13"


@pytest.mark.parametrize(
    ("units", "said"), [(0, "0"), (950, "950"), (1200, "1.2k"), (30_000_000, "30M"), (2**53, "9.01P")]
)
def test_a_tick_says_a_number_shortly(units: float, said: str) -> None:
    assert compact(units) == said


def test_charts_of_nothing_are_nothing() -> None:
    assert burn_down([], now=NOW, name="a", title="", text="") == ""
    assert sparkline([], text="") == columns([], name="a", title="", text="") == ""
    assert "rect" in meter([], whole=0, text="nothing")


def test_charts_of_extremes_stay_inside_of_their_picture() -> None:
    points = [Point(at=NOW - timedelta(days=400), units=0), Point(at=NOW, units=2**53)]
    never = Forecast(likely=None, early=NOW + timedelta(days=9000), late=None)
    picture = burn_down(points, now=NOW, name="a", title="<b>", text='"', forecast=never)
    assert "<b>" not in picture
    assert "nan" not in picture
    assert "inf" not in picture
    numbers = [float(item) for item in re.findall(r'[ML" ,](-?\d+\.\d+)', picture)]
    assert numbers
    assert all(0 <= item <= 720 for item in numbers)
    assert sparkline([0.0], text="none")
    assert columns([0, 0], name="a", title="t", text="none")


def test_a_digest_that_is_shown_shortly_steers_no_readers_eye() -> None:
    for text in ("a\u202eb", "\u2066" + "a" * 40):
        assert not STEERING.search(short(text))
        assert short(text).count("\N{REPLACEMENT CHARACTER}") in {1, 2}
    assert short("<" * 20) == f'<code class="id" title="{"&lt;" * 20}">{"&lt;" * 12}…</code>'
