"""The page that explains a result: plain words, no script, and no claim of anybody's becomes markup (T102)."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from verifier_kit import AUDIENCE, SIMULATED, Clock, Desk, desk

import vendor_kit
from cloister.attest.appraise import mismatch_code
from cloister.attest.rats import Check, TeeKind, Verdict
from cloister.attest.schemes import KINDS
from cloister.attest.words import question_of
from cloister.verifier.page.style import CONTENT_SECURITY_POLICY, STYLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\u202e\u2028"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    rates = "requests_per_minute = 100000\npages_per_minute = 100000"
    with desk(
        tmp_path_factory.mktemp("home"), SIMULATED, "snp", service=rates, clock=Clock(stands_at=vendor_kit.NOW)
    ) as found:
        yield found


class _Reader(html.parser.HTMLParser):
    """Reads a page as a browser does: which elements, which attributes, which text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def read(answer: httpx2.Response) -> _Reader:
    """Return what a browser makes of a page, once it is proven to be one that can run nothing."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert len(answer.headers.get_list("content-security-policy")) == 1
    assert answer.headers["x-content-type-options"] == "nosniff"
    page = _Reader()
    page.feed(answer.text)
    allowed = {
        "a", "body", "button", "caption", "code", "dd", "details", "div", "dl", "dt", "form", "h1", "h2", "head",
        "html", "label", "li", "main", "meta", "p", "strong", "style", "summary", "table", "tbody", "td", "textarea",
        "th", "thead", "title", "tr", "ul",
    }  # fmt: skip
    assert {name for name, _ in page.elements} <= allowed
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert all("://" not in (attributes.get(name) or "") for name in ("href", "action", "src"))
    return page


def explained(served: Desk, text: str) -> httpx2.Response:
    return served.http.post(f"{served.url}/explain", data={"text": text})


def test_the_form_works_without_a_pointer_and_without_a_network(served: Desk) -> None:
    answer = served.get("/")
    page = read(answer)
    labels = [item["for"] for name, item in page.elements if name == "label"]
    assert labels == [item["id"] for name, item in page.elements if name == "textarea"] == ["text"]
    assert ("a", {"href": "#content", "class": "skip"}) in page.elements
    assert dict(page.elements)["html"]["lang"] == "en"
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert f"<style>{STYLE}</style>" in answer.text
    assert "url(" not in STYLE
    assert "prefers-color-scheme: dark" in STYLE
    assert ":focus-visible" in STYLE


def test_a_result_says_check_by_check_what_was_there_and_what_had_to_be(served: Desk) -> None:
    said = served.post("/v1/attest", served.asked("snp", data=b"key")).json()
    for answer in (
        served.get(f"/results/{said['id']}"),
        explained(served, said["token"]),
        explained(served, said["id"]),
    ):
        assert answer.status_code == 200, answer.text
        text = read(answer).text
        assert "This service signed it, and nobody changed it. It is in its time." in text
        for part in (
            "What was not checked",
            "Who vouches for it",
            "Firmware and platform (TCB)",
            "Is it fresh",
        ):
            assert part in text
        measurement = vendor_kit.claims("snp").claims["measurement"]
        assert text.count(str(measurement)) >= 2  # was there, had to be
        assert "Launch measurement: firmware, and with direct boot kernel, initrd and command line." in text
        assert "✓ as it has to be" in text
        assert hashlib.sha256(b"key").hexdigest() in text


def test_what_was_not_checked_stands_first_with_its_reason(served: Desk) -> None:
    text = read(explained(served, served.token())).text
    assert text.index("What was not checked") < text.index("What was checked\n")
    assert "simulated chips have no identity worth checking" in text
    assert "SIMULATED" in text.upper()


def test_a_refusal_says_what_does_not_hold(served: Desk) -> None:
    body = {**served.asked(nonce=b"our own nonce"), "nonce": base64.urlsafe_b64encode(b"other nonce!").decode()}
    said = served.post("/v1/verify", {**body, "refusal": "token"}).json()
    text = read(served.get(f"/results/{said['id']}")).text
    assert "Contraindicated" in text
    assert "✗ not as it has to be" in text
    assert "Does it answer this challenge" in text


def test_a_brief_token_says_that_it_names_no_checks(served: Desk) -> None:
    text = read(explained(served, served.token(audience=AUDIENCE))).text
    assert "This token is brief" in text
    assert AUDIENCE in text


def test_a_result_whose_token_has_ended_is_gone_and_a_token_says_so(served: Desk) -> None:
    said = served.post("/v1/attest", served.asked()).json()
    try:
        served.clock.shift = timedelta(seconds=300)
        assert served.get(f"/results/{said['id']}").status_code == 404
        answer = explained(served, said["token"])
        assert "It has ended" in read(answer).text
    finally:
        served.clock.shift = timedelta(0)


def test_a_token_that_was_changed_is_not_explained_as_ours(served: Desk) -> None:
    head, payload, signature = served.token().split(".")
    changed = payload[:-4] + ("AAAA" if payload[-4:] != "AAAA" else "BBBB")
    answer = explained(served, f"{head}.{changed}.{signature}")
    assert answer.status_code == 403
    assert "That cannot be explained" in read(answer).text
    assert "This service signed it" not in answer.text


def hostile(served: Desk) -> Iterator[str]:
    """Yield tokens of strangers with markup wherever they can put it."""
    key = ec.generate_private_key(ec.SECP256R1())
    claims: dict[str, Any] = {
        "aud": HOSTILE, "eat_profile": HOSTILE, "iss": HOSTILE, "sub": HOSTILE, HOSTILE: HOSTILE, "exp": 2_000_000_000,
        "submods": {HOSTILE: {"ear_status": HOSTILE, HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}},
    }  # fmt: skip
    for header in ({"kid": "k"}, {"kid": served.url}, {"typ": HOSTILE}):
        yield jwt.encode(claims, key, algorithm="ES256", headers=header)


def test_t102_hostile_claims_are_text(served: Desk) -> None:
    for token in hostile(served):
        answer = explained(served, token)
        page = read(answer)
        assert not [name for name, _ in page.elements if name in {"script", "img"}]
        assert "\u202e" not in answer.text
        if answer.status_code == 200:
            assert "Nothing here is verified" in page.text


def test_t102_hostile_evidence_reasons_and_ids_are_text(served: Desk) -> None:
    for text in (HOSTILE, "A" * 22, "../../etc/passwd", "a.b.c", "AAAA", HOSTILE.encode().hex(), "x" * 100_000):
        answer = explained(served, text)
        assert answer.status_code in {400, 403, 404}
        read(answer)
    for path in ("/results/%3Cscript%3E", "/results/..%2f..", "/results/" + "A" * 5000):
        answer = served.get(path)
        assert answer.status_code == 404
        assert "<script>" not in answer.text


def test_t102_claims_of_a_token_that_we_signed_ourselves_are_text_too(served: Desk) -> None:
    """Evidence may hold text of strangers (names of modules, notes): signed by us it is still text."""
    service = served.opened.service
    key = service.keys.signing("ES256", service.now())
    now = int(service.now().timestamp())
    check = {"code": HOSTILE[:60], "subject": "<b>x</b>", "verdict": "failed", "got": "<i>", "want": "<u>", "note": "&"}
    appraisal = {
        "ear_appraisal_policy_ids": ["sha256:<b>"],
        "ear_attester_claims": {"<b>": "<script>", "list": ["<i>", "b"]},
        "ear_status": "warning",
        "ear_trustworthiness_vector": {"<b>": 5, "hardware": "<i>"},
        "ear_verifier_claims": {"bound_sha256": {"<b>": "00" * 32}, "checks": [check], "tee": "<tee>"},
    }
    check["code"] = "x<y"
    payload = {
        "aud": "<aud>", "eat_profile": "tag:ietf.org,2026:rats/ear#04", "exp": now + 60, "iat": now, "iss": "<iss>",
        "jti": "<jti>", "sub": ["<sub>"], "submods": {"cloister": appraisal, "<dev>": appraisal},
    }  # fmt: skip
    token = jwt.api_jws.encode(json.dumps(payload).encode(), key.private, algorithm="ES256", headers={"kid": key.kid})
    answer = explained(served, token)
    assert answer.status_code == 200, answer.text
    page = read(answer)
    for text in ("<script>", "<aud>", "<iss>", "<jti>", "<tee>", "<b>x</b>", "x<y"):
        assert text in page.text or text == "x<y"
    assert not re.search(r"<(?:b|i|u|script|aud|iss|jti|tee)>", answer.text)


@pytest.mark.parametrize(
    "body", [b"", b"text", b"text=a&text=b", b"other=a", b"text=%ff", b"text=a&b=c&d=e&f=g&h=i", b"\xff"]
)
def test_a_form_out_of_form(served: Desk, body: bytes) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = served.http.post(f"{served.url}/explain", content=body, headers=headers)
    assert answer.status_code == 400
    read(answer)


def test_evidence_is_explained_field_by_field_and_marked_as_unverified(served: Desk) -> None:
    evidence = served.asked("snp")["evidence"]["payload"]
    raw = base64.urlsafe_b64decode(evidence + "=" * (-len(evidence) % 4))
    for text in (evidence, raw.hex(), base64.b64encode(raw).decode(), "\n".join(re.findall(".{1,64}", evidence))):
        page = read(explained(served, text))
        assert "Nothing here is verified" in page.text
        assert "report: measurement" in page.text.lower()


def test_explanations_have_a_rate_of_their_own(tmp_path: Any) -> None:
    with desk(tmp_path, service="pages_per_minute = 2", clock=Clock(stands_at=vendor_kit.NOW)) as found:
        assert [explained(found, "AAAA").status_code for _ in range(3)] == [400, 400, 429]


def test_kept_results_are_bounded(tmp_path: Any) -> None:
    with desk(tmp_path, service="results = 2") as found:
        ids = [found.post("/v1/attest", found.asked()).json()["id"] for _ in range(3)]
        assert [found.get(f"/results/{item}").status_code for item in ids] == [404, 200, 200]
        assert len(found.opened.service.results) == 2


@pytest.mark.parametrize("tee", sorted(KINDS))
def test_claims_of_every_kind_have_words(tee: str) -> None:
    from cloister.attest.schemes import required_claims  # noqa: PLC0415 - of this test alone

    for claim in required_claims()[TeeKind(tee)]:
        check = Check(code=mismatch_code(claim), subject=claim, verdict=Verdict.PASSED)
        assert question_of(TeeKind(tee), check), claim
