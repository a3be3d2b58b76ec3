"""What a notebook shows: facts in words, nothing of a stranger's as markup, no script, loud where it is simulated."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from client_town import TOKEN, Town, scan

from cloister.attest.rats import Check, Submodule, TeeKind, TrustTier, Verdict
from cloister.client import Progress, ProgressBar
from cloister.client.images import ImageSpec
from cloister.client.model_info import MakerInfo, TensorInfo
from cloister.client.notebook.bar import bar_html
from cloister.client.notebook.enclave import SIMULATED, enclave_html
from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.client import Client

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202e\x1b]8;;"
TAGS = {"code", "details", "div", "li", "p", "progress", "strong", "style", "summary", "table", "tbody", "td", "th"}
TAGS |= {"thead", "tr", "ul"}


class Reader(HTMLParser):
    """Reads as a browser does; refuses what is not among the few tags and attributes that boxes are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        assert {name for name, _ in attrs} <= {"aria-label", "class", "max", "role", "scope", "title", "value"}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read(shown: str) -> str:
    """Return the text of a box, which must be whole and made of our tags alone."""
    assert type(shown).__name__ == "Html"
    reader = Reader()
    reader.feed(shown)
    reader.close()
    assert reader.open == []
    text = " ".join(reader.text)
    assert "\u202e" not in text
    assert "\x1b" not in text
    return text


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def client(town: Town) -> Client:
    return town.client()


def test_a_verified_enclave_is_explained_check_by_check(client: Client) -> None:
    enclave = client.enclave
    text = read(enclave._repr_html_())
    assert SIMULATED in text
    assert "Warning." in text
    assert "Not checked" in text
    assert text.index("Not checked") < text.index("All checks"), "what was not checked comes first"
    for check in enclave.checks:
        assert check.subject in text
        assert (check.got[:16] or check.subject) in text
    for words in ("Is it run by somebody whom you named?", "Is there hardware behind it?", "✓ as it has to be"):
        assert words in text
    assert "Hospital Group" in text
    assert read(client._repr_html_()) == text
    assert TOKEN not in text


def test_only_a_simulated_tee_is_marked_as_one(client: Client) -> None:
    enclave = client.enclave
    real = replace(enclave, result=replace(enclave.result, tee=TeeKind("snp"), tier=TrustTier.AFFIRMING))
    text = read(enclave_html(real))
    assert SIMULATED not in text
    assert "Affirming" in text
    device = Submodule(name="gpu0", tee=TeeKind("simulated"), claims={}, checks=(), tier=TrustTier.WARNING)
    mixed = replace(real, result=replace(real.result, submodules=(device,)))
    assert SIMULATED in read(enclave_html(mixed)), "one simulated device is enough"


def test_an_enclave_whose_custodian_was_not_asked_says_so(client: Client) -> None:
    text = read(enclave_html(replace(client.enclave, status=None, checks=())))
    assert "nobody vouches for who runs it" in text
    assert "every check was made" in text


def test_no_claim_of_anybodys_becomes_markup(client: Client, town: Town) -> None:
    enclave = client.enclave
    check = Check(code=EVIL, subject=EVIL, verdict=Verdict.NOT_CHECKED, got=EVIL, want=EVIL, note=EVIL)
    device = Submodule(name=EVIL, tee=TeeKind(EVIL), claims={}, checks=(check,), tier=TrustTier.NONE)
    keyset = replace(enclave.keyset, models=(replace(enclave.keyset.models[0], name=EVIL, digest=EVIL),), loan=EVIL)
    assert enclave.status
    hostile = replace(
        enclave,
        url=EVIL,
        keyset=keyset,
        checks=(check,),
        status=replace(enclave.status, operator=EVIL, state=EVIL),
        result=replace(enclave.result, submodules=(device,)),
    )
    answer = client.infer("digits", scan(3))
    renamed = replace(
        answer,
        model=EVIL,
        digest=EVIL,
        outputs={EVIL: np.array([EVIL.encode()], dtype=object), "s": np.ones((1, 2), dtype="f4")},
        labels={EVIL: (EVIL,)},
        classes={"s": (EVIL, EVIL)},
        enclave=hostile,
        receipt=replace(answer.receipt, receipt=replace(answer.receipt.receipt, loan=EVIL, consumer=EVIL, model=EVIL)),
    )
    info = client.model("digits")
    spec = ImageSpec(mode=EVIL, size=(1, 1), low=0, high=1, layout="flat", invert=False)
    tensors = tuple(TensorInfo(name=EVIL + end, datatype=EVIL, shape=(-1,)) for end in ("a", "b"))
    named = replace(
        info, name=EVIL, digest=EVIL, inputs=tensors, outputs=tensors, task=EVIL, description=EVIL,
        images={EVIL + "a": spec}, columns={EVIL + "b": (EVIL,)}, labels={EVIL + "a": (EVIL,) * 20},
        maker=MakerInfo(kind=EVIL, fingerprint=EVIL, signer=EVIL),
    )  # fmt: skip
    many = replace(client.infer_many("digits", [scan(1)]), answers=(renamed,))
    for shown in (hostile, renamed, renamed.receipt, named, many):
        text = read(shown._repr_html_())
        assert "alert(1)" in text, "it is shown as the text that it is"
    assert town.enclave.seen


def test_an_answer_says_what_it_cost_and_what_is_left(client: Client) -> None:
    answer = client.infer("digits", np.concatenate([scan(3), scan(17)]))
    text = read(answer._repr_html_())
    assert "Answer of digits: 3" in text
    for words in ("2 units", "8 units, as far as this instance knows", "once", "signature verified"):
        assert words in text
    again = read(replace(answer, tries=3)._repr_html_())
    assert "3 times, counted once" in again


def test_answers_of_scores_show_the_best_classes(client: Client) -> None:
    answer = client.infer("digits", scan(3))
    scores = np.tile(np.array([[0.125, 0.75, 0.0625, 0.03]], dtype="f4"), (12, 1))
    text = read(replace(answer, outputs={"s": scores}, labels={}, classes={"s": tuple("abcd")})._repr_html_())
    assert "b 0.75, a 0.125, c 0.0625" in text
    assert "and 2 more" in text
    plain = read(replace(answer, outputs={"x": np.zeros(3), "y": np.zeros((9, 9, 9))}, labels={})._repr_html_())
    assert "float64[3] = [0.0, 0.0, 0.0]" in plain
    assert "float64[9, 9, 9]" in plain
    uneven = replace(answer, outputs={"s": scores}, labels={"a": ("x",), "b": ("y", "z")}, classes={})
    assert "y, z" in read(uneven._repr_html_())


def test_many_answers_say_how_many_have_none(client: Client) -> None:
    found = client.infer_many("digits", [scan(1), scan(2), scan(3)], batch=1)
    partial = replace(found, answers=(found.answers[0], None, None))
    text = read(partial._repr_html_())
    assert "1 of 3 answered" in text
    assert "without an answer 2" in text
    assert "1, each proven" in text
    assert "0 of 3 answered" in read(replace(found, answers=(None,) * 3)._repr_html_())


def test_answers_of_different_shapes_are_shown_without_a_table(client: Client) -> None:
    found = client.infer_many("digits", [scan(1), scan(2)], batch=1)
    answers = [replace(answer, outputs={"x": np.zeros((1, at))}) for at, answer in enumerate(found.answers) if answer]
    odd = replace(found, answers=tuple(answers))
    assert "2 of 2 answered" in read(odd._repr_html_())
    assert "outputs=[x]" in repr(odd)
    with pytest.raises(UsageError, match="different shapes"):
        _ = odd.outputs


def test_a_receipt_says_what_it_proves_and_keeps_its_salts(client: Client) -> None:
    receipt = client.infer("digits", scan(3)).receipt
    text = read(receipt._repr_html_())
    for words in ("Receipt 1: signature verified", "It proves", "It does not show", "1 unit", receipt.receipt.loan):
        assert words in text
    assert receipt.request_salt.hex() not in receipt._repr_html_()


def test_a_model_says_how_its_inputs_are_made_and_what_is_left(client: Client) -> None:
    text = read(client.model("digits")._repr_html_())
    for words in ("image FP32[any, 64]", "from an image: 8x8 L, values 0 to 16", "classes 0, 1, 2", "10 units"):
        assert words in text
    assert "nobody counts here" in read(replace(client.model("digits"), remaining=None)._repr_html_())


def test_colours_are_the_notebooks_own() -> None:
    """Text that inherits its colour is readable on whatever the theme is; only the loud mark brings both of its own."""
    town = Town()
    style = re.findall(r"<style>(.*?)</style>", town.client().enclave._repr_html_())[0]
    rules = dict(re.findall(r"([^{}]+)\{([^{}]*)\}", style))
    coloured = {selector for selector, rule in rules.items() if re.search(r"(^|;)(color|background):#", rule)}
    assert coloured == {".cloister .loud"}
    assert "color:#fff" in rules[".cloister .loud"]
    assert "background:#b3261e" in rules[".cloister .loud"]


# --- progress


def test_a_bar_says_in_words_what_it_shows() -> None:
    text = read(bar_html(Progress(done=3, total=1200, units=1, remaining=7)))
    assert text == " 3 of 1,200 answered, 1 unit used, 7 units remaining"


def test_a_bar_is_silent_where_nobody_looks(client: Client, capsys: Any) -> None:
    client.infer_many("digits", [scan(1)], on_progress=ProgressBar())
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_a_line_on_a_terminal(client: Client, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    client.infer_many("digits", [scan(1)], on_progress=ProgressBar())
    assert capsys.readouterr().err == "\r1 of 1 answered, 1 unit used, 9 units remaining\n"


def test_a_client_that_is_not_verified_any_more_says_so(client: Client, town: Town) -> None:
    town.state = "blocked"
    with pytest.raises(Exception, match="instance_not_active"):
        client.reverify()
    assert repr(client) == "<Client of https://enclave.test: not verified>"
    assert "not verified" in read(client._repr_html_())
