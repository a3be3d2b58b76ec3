"""What the consoles show, at every size, of whatever a custodian says; nothing of it steers the terminal (T84)."""

from __future__ import annotations

import io
import itertools
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from console_kit import (
    NOW,
    busy,
    custodian_view,
    custody,
    entry_json,
    instance_json,
    loan_json,
    loan_view,
    plain,
    request_json,
    screens,
    spending_json,
    standing,
    summary_json,
)
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cloister.cli.consoles.custodian_view import Custody, Order
from cloister.cli.consoles.doc import Doc
from cloister.cli.consoles.glyphs import ASCII, FULL, glyphs_for
from cloister.cli.consoles.heard import EntryHeard, LoanHeard, Spending
from cloister.cli.consoles.keys import named_keys
from cloister.cli.consoles.loan_view import Watched
from cloister.cli.consoles.plot import Canvas
from cloister.cli.consoles.words import age, byte_words, per_minute, short_units
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.wire import STEERING, dump_time

if TYPE_CHECKING:
    from cloister.cli.consoles.glyphs import Glyphs
    from cloister.cli.consoles.screen import View

SIZES = [(1, 1), (20, 5), (40, 10), (80, 24), (132, 43), (300, 80)]
LOAN = "loan-0000000000000001"
HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07", "a\nb\rc\td", "\u202eevil\u202c", "x" * 5000, "\u200b\u00ad\ufeff", "e\u0301" * 3000,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "שלום עולם", "\x9b31m", "[bold red]no markup[/]", "",
]  # fmt: skip


def watched(**changes: Any) -> Watched:
    return Watched.of(summary_json(**changes), spending_json({LOAN: busy(3, 120)}, step_s=30))


def whole(**changes: Any) -> Custody:
    alarm = {
        "code": "heartbeat_missing", "severity": "critical", "since": dump_time(NOW), "count": 1, "subjects": [LOAN],
    }  # fmt: skip
    loans = [loan_json(number, **changes) for number in range(1, 13)]
    return custody(loans, instances=[instance_json(1), instance_json(2, silent_s=70)], alarms=[alarm])


def views(glyphs: Glyphs = FULL) -> list[View]:
    entries = [entry_json(number, units=5) for number in range(40)]
    return [
        custodian_view(standing(whole(), entries), glyphs=glyphs),
        loan_view(standing(watched(), entries), glyphs=glyphs),
        custodian_view(standing(None, problem=Unavailable("gone"), heard_at=None), glyphs=glyphs),
        loan_view(standing(None, heard_at=None), glyphs=glyphs),
    ]


def test_the_page_about_consoles_shows_what_they_show() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "consoles.md").read_text(encoding="utf-8")
    for name, screen in screens().items():
        assert f"```text\n{screen}\n```" in page, f"{name}\n{screen}"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_frame_fits_its_terminal(size: tuple[int, int]) -> None:
    for view in [*views(), *views(ASCII)]:
        lines = view.frame(*size)
        assert len(lines) == size[1]
        assert all(line.cell_len <= size[0] for line in lines), plain(lines)


def test_plain_ascii_where_the_encoding_can_do_no_more() -> None:
    for view in views(glyphs_for("ANSI_X3.4-1968")):
        plain(view.frame(132, 40)).encode("ascii")
    assert glyphs_for("UTF-8") is FULL
    assert glyphs_for("latin-1") is ASCII


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_t84_no_text_of_others_steers_the_terminal_or_leaves_its_place(text: str) -> None:
    loans = [loan_json(1, borrower=text, loan=text, state=text, models=[{"name": text}])]
    instance = instance_json(1, id=text, loan=text, tee=text, tier=text)
    alarm = {"code": text, "severity": text, "since": None, "count": 1, "subjects": [text]}
    entry = {**entry_json(1, text, reason=text, tee=text), "actor": text, "subject": text}
    summary = summary_json(
        loan=text, borrower=text, blocked_consumers=[text], requests=[request_json(reason=text, id=text, answer=text)],
        instances=[instance], meters={text: summary_json()["meters"]["loan"], "loan": summary_json()["meters"]["loan"]},
    )  # fmt: skip
    spent = {text: busy(1, 60)}
    custodys = custody(loans, instances=[instance], alarms=[alarm])
    problem = Rejected.because("unauthenticated", text, hint=text)
    for view in (
        custodian_view(standing(custodys, [entry], problem=problem, next_try=NOW)),
        loan_view(standing(Watched.of(summary, spending_json(spent)), [entry], quiet=text)),
    ):
        lines = view.frame(100, 40)
        shown = plain(lines)
        assert not STEERING.search(shown.replace("\n", "")), shown
        assert shown.count("\n") == 39
        assert len(shown) < 40 * 100 * 6
        assert all(line.cell_len <= 100 for line in lines)
        sink = io.StringIO()
        Console(file=sink, force_terminal=True, width=100, markup=False).print(*lines, sep="\n")
        assert "\x1b[2J" not in sink.getvalue()


def test_an_empty_custodian_says_what_comes_next() -> None:
    shown = plain(custodian_view(standing(custody([])), keys=False).frame(80, 24))
    assert "0 loans, 0 live instances, 0 units left" in shown
    assert "no loans yet: 'cloister loan create' makes one" in shown
    assert "no instance is live" in shown
    assert "no alarms" in shown


def test_a_thousand_loans_are_moved_through_with_keys() -> None:
    view = custodian_view(standing(custody([loan_json(number) for number in range(1000)])))
    view.press("s"), view.press("s"), view.press("s")
    first = plain(view.frame(132, 30))
    assert "1000 loans" in first
    assert "loan-0000000000000000" in first
    for _ in range(3):
        view.press("pagedown")
        view.frame(132, 30)
    assert "loan-0000000000000000" not in plain(view.frame(132, 30))
    view.press("end")
    assert "loan-0000000000000999" in plain(view.frame(132, 30))
    view.press("home")
    assert plain(view.frame(132, 30)) == first


def test_a_printed_frame_has_every_loan_and_the_newest_events() -> None:
    known = standing(custody([loan_json(number) for number in range(1000)]), [entry_json(n) for n in range(90)])
    lines = plain(custodian_view(known, keys=False).frame(80, 100_000)).splitlines()
    assert sum(line.startswith("loan-") for line in lines) == 1000
    assert sum("more requested" in line for line in lines) == 20


def test_the_filter_finds_by_id_borrower_state_and_model_and_escape_clears_it() -> None:
    view = custodian_view(standing(whole()))
    for text in ("/", *"holy GHOSX", "backspace", *"T", "enter"):
        view.press(text)
    shown = plain(view.frame(100, 30))
    assert "2 of 12 loans" in shown
    assert "filter: holy GHOST" in shown
    view.press("escape")
    assert "12 loans" in plain(view.frame(100, 30))
    for text in ("/", *"nobody"):
        view.press(text)
    assert "no loan fits the filter" in plain(view.frame(100, 30))
    assert view.press("q"), "while a filter is typed, q is a letter"


def test_enter_opens_one_loan_and_q_comes_back_before_it_ends() -> None:
    view = custodian_view(standing(whole()))
    view.press("down")
    view.press("enter")
    assert "cloister loan watch" in plain(view.frame(100, 30))
    assert view.press("q")
    assert "cloister custodian top" in plain(view.frame(100, 30))
    assert not view.press("q")


def test_loans_are_sorted_in_five_ways_and_the_soonest_empty_come_first() -> None:
    loans = [loan_json(number, left=left) for number, left in enumerate((9000, 400, 50_000, 0), 1)]
    view = custodian_view(standing(custody(loans)))
    orders = []
    for order in Order:
        lines = plain(view.frame(132, 30)).splitlines()
        assert f"sorted by {order.value}" in lines[1]
        orders.append([int(line[5:21]) for line in lines if line.startswith("loan-")])
        view.press("s")
    assert orders == [[2, 1, 3, 4], [4, 2, 1, 3], [4, 3, 2, 1], [1, 2, 3, 4], [1, 2, 3, 4]]


def test_routine_events_are_left_out_until_somebody_asks_for_them() -> None:
    entries = [entry_json(1, "lease_granted"), entry_json(2, "blocked")]
    view = custodian_view(standing(whole(), entries))
    assert "lease granted" not in plain(view.frame(80, 24))
    view.press("e")
    assert "lease granted" in plain(view.frame(80, 24))


def test_figures_without_an_answer_are_called_stale_and_say_why() -> None:
    problem = Unavailable("custodian https://c: connecterror", hint="is it running?")
    old = NOW - timedelta(seconds=34)
    known = standing(whole(), heard_at=old, problem=problem, next_try=NOW + timedelta(seconds=8))
    shown = plain(custodian_view(known).frame(80, 24)).splitlines()
    assert shown[0].endswith("stale: 34 s old")
    assert shown[1].startswith("no answer: custodian https://c: connecterror; next try in 8 s")
    assert shown[2].startswith("hint: is it running?")
    silent = plain(custodian_view(standing(whole(), heard_at=old)).frame(80, 24))
    assert "stale: 34 s old" in silent.splitlines()[0]
    polling = plain(custodian_view(standing(whole(), quiet="no events: forbidden")).frame(80, 24))
    assert polling.splitlines()[0].endswith("polling")
    assert "no events: forbidden" in polling


def test_a_burn_down_has_axes_and_ends_where_the_forecast_says() -> None:
    lines = plain(loan_view(standing(watched())).frame(80, 30)).splitlines()
    assert "a block stops it within 62.06 s or 40 units, whichever comes first" in lines[2]
    assert lines[3].startswith("113 units a minute (from 107 to 11")
    assert lines[4] == "units left"
    assert any(line.startswith("    0 │") for line in lines)
    (axis,) = [line for line in lines if "now" in line]
    assert axis.split() == ["-60", "min", "now", "+30", "min"]
    assert any("req-1" in line and "the ward is full" in line for line in lines)


def test_a_loan_that_is_not_spent_is_never_empty_and_has_no_line_ahead() -> None:
    still = Watched.of(summary_json(requests=[]), spending_json({LOAN: [0] * 60}))
    shown = plain(loan_view(standing(still)).frame(80, 30))
    assert "never at this rate" in shown
    assert "+30 min" not in shown
    assert "now 12:00:30 UTC" in shown
    assert "REQUEST" not in shown


def test_a_top_up_shows_as_a_step() -> None:
    document = spending_json({LOAN: [60] * 60})
    document["loans"][0]["added_steps"][30] = 5000
    shown = plain(loan_view(standing(Watched.of(summary_json(), document)), glyphs=ASCII).frame(80, 40))
    plot = [line[8:] for line in shown.splitlines() if "|" in line]
    columns = [column for column in itertools.zip_longest(*plot, fillvalue=" ") if column.count("*") > 3]
    assert columns, "a straight way up"


@pytest.mark.parametrize(
    "broken",
    [
        {"loans": "x"}, {"step_s": 0}, {"step_s": 10**9}, {"from": "soon"}, {"to": "9999-12-31T00:00:00Z"},
        {"to": "2026-01-01T00:00:00Z"}, {"loans": [7]}, {"loans": [{"loan": LOAN}]}, {"step_s": True},
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_that_is_none_is_malformed_and_nothing_worse(broken: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        Spending.all_of({**spending_json({LOAN: [1, 2, 3]}), **broken})


def test_steps_that_do_not_fit_are_malformed() -> None:
    for steps, added in (([], []), ([1] * 501, [1] * 501), ([1, 2], [1]), ([1], [1]), (["x"] * 3, [0] * 3)):
        document = spending_json({LOAN: [1, 2, 3]})
        document["loans"][0].update(spent_steps=steps, added_steps=added)
        with pytest.raises(Malformed):
            Spending.all_of(document)
    for value in (None, [], 7, {}, {**loan_json(), "bound": 3}, {**loan_json(), "models": [1]}):
        with pytest.raises(Malformed):
            LoanHeard.of(value, {})


def test_what_an_entry_says_beside_its_kind_is_short() -> None:
    entry = EntryHeard.of(Doc(entry_json(3, "blocked", digest="ab" * 32, units=7, codes="a,b", loan="loan-x")))
    assert (entry.details, entry.is_routine) == ("units 7 codes a,b", False)


@given(st.text(max_size=60), st.integers(0, 40))
def test_a_cell_is_as_wide_as_it_should_be(text: str, width: int) -> None:
    for glyphs in (FULL, ASCII):
        shown = glyphs.cell(text, width)
        assert Console().measure(shown).maximum <= width or not width
        assert not STEERING.search(shown)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e12)), max_size=80), st.integers(1, 60), st.floats(-1, 2))
def test_bars_and_sparklines_are_as_wide_as_they_should_be(values: list[float | None], width: int, part: float) -> None:
    for glyphs in (FULL, ASCII):
        assert len(glyphs.spark(values, width)) == width
        assert len(glyphs.bar(part, width)) == width


def test_a_bar_shows_any_part_and_a_sparkline_tells_nothing_from_unknown() -> None:
    assert ASCII.bar(0.001, 5) == "#----"
    assert ASCII.bar(0.999, 5) == "####-"
    assert (ASCII.bar(0, 5), ASCII.bar(1, 5)) == ("-----", "#####")
    assert ASCII.spark([0, None, 5, 10], 5) == " _ -#"[:1] + ASCII.spark([0, None, 5, 10], 4)
    assert FULL.spark([0, 5, 10], 3) == "▁▅█"


@given(st.lists(st.tuples(st.floats(-2, 3), st.floats(-2, 3)), min_size=1, max_size=8), st.booleans())
def test_a_curve_stays_on_its_canvas(points: list[tuple[float, float]], dashed: bool) -> None:  # noqa: FBT001 - given
    for glyphs in (FULL, ASCII):
        canvas = Canvas(20, 5, glyphs)
        canvas.curve(points, dashed=dashed)
        canvas.column(points[0][0], "|")
        assert [len(line) for line in canvas.lines()] == [20] * 5


@pytest.mark.parametrize(
    ("units", "words"),
    [
        (0, "0"), (999, "999"), (1000, "1k"), (1999, "1.9k"), (12_345, "12.3k"), (999_999, "999k"), (1.5, "1.5"),
        (4_500_000, "4.5M"), (2**53, "9P"), (-1200, "-1.2k"),
    ],
)  # fmt: skip
def test_units_are_cut_and_never_made_more(units: float, words: str) -> None:
    assert short_units(units) == words


def test_rates_ages_and_bytes_in_words() -> None:
    assert [per_minute(rate) for rate in (0, 0.001, 1, 250)] == ["0", "<1", "60", "15k"]
    assert age(NOW, NOW + timedelta(seconds=150)) == "2 min"
    assert age(NOW + timedelta(hours=1), NOW) == "0 s"
    assert [byte_words(count) for count in (0, 900, 2048, 5 << 20, 300 << 30)] == [
        "0 bytes", "900 bytes", "2.0 KiB", "5.0 MiB", "300 GiB",
    ]  # fmt: skip


def test_keys_are_told_apart_however_they_come() -> None:
    assert named_keys("q\x1b[A\x1b[6~/é\r\x7f\x1b") == [
        "q", "up", "pagedown", "/", "é", "enter", "backspace", "escape",
    ]  # fmt: skip
    assert named_keys("\x1b[99;5Z\x00\x01") == []
