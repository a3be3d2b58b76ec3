"""Recorded evidence of every vendor through the HTTP API, where it is present: each entry gets its verdict.

An entry's files travel as the parts of one payload; a scheme of this test opens them with the index's own rules, as
``attest vectors`` does, and hands on what the vendor's verifier proved. All the rest is the service's: request, nonce,
policy, appraisal, token, problem.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from test_verifier_flows import claims_of
from verifier_kit import SIMULATED, Clock, Desk, desk, evidence_json

import evidence_index
import vendor_kit
from cloister.attest.dossier import judge
from cloister.attest.dossier.table import DOSSIERS, dossier_for
from cloister.attest.findings import refuse_failed
from cloister.attest.parts import dump_parts, parse_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import MAX_EVIDENCE_BYTES, Check, Evidence, TeeKind, Verdict, VerifiedClaims
from cloister.attest.rules import Exact
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

RECORDED = "recorded"


class IndexScheme:
    """One entry's kind as the index judges it. Report data of any size becomes its hash."""

    report_data_bytes: Final = 64
    required: Final[frozenset[str]] = frozenset()
    software_claims: Final[frozenset[str]] = frozenset()

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.tee, self._entry = TeeKind(entry["tee"]), entry

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        del evidence
        return ()

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        del endorsements
        caps = dict.fromkeys(self._entry["files"], MAX_EVIDENCE_BYTES)
        files = parse_parts(evidence.payload, what="recorded", caps=caps)
        case = dossier_for(self.tee).open(files, self._entry["policy"])
        verified = case.verify(now)
        carried = [(bound.code, bound.subject, bound.got, bound.want) for bound in case.bound]
        if case.report_data is not None:
            carried.append(("report_data_mismatch", "report data", verified.report_data, case.report_data))
        checks = tuple(
            Check(code=code, subject=subject, verdict=Verdict.PASSED if got == want else Verdict.FAILED)
            for code, subject, got, want in carried
        )
        refuse_failed("recorded evidence", checks)
        bound = hashlib.sha512(verified.report_data).digest()
        claims = {**verified.claims, RECORDED: True}
        return replace(verified, tee=self.tee, claims=claims, checks=(*verified.checks, *checks), report_data=bound)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    clock = Clock(stands_at=vendor_kit.NOW)
    rates = "requests_per_minute = 1000000\nall_per_minute = 1000000"
    with desk(tmp_path_factory.mktemp("home"), clock=clock, service=rates) as found:
        yield found


@pytest.mark.parametrize("entry", evidence_index.entries(*DOSSIERS))
def test_recorded_evidence_gets_the_verdict_of_the_index(served: Desk, entry: dict[str, Any]) -> None:
    files, now = evidence_index.files_of(entry), evidence_index.at(entry)
    service, scheme = served.opened.service, IndexScheme(entry)
    rules: dict[str, Any] = {RECORDED: Exact(value=True)}
    report_data = b""
    try:
        case = dossier_for(entry["tee"]).open(files, entry["policy"])
        rules |= case.rules
        if not judge(case, now).reasons:
            report_data = case.verify(now).report_data
    except (Malformed, Rejected):  # what cannot be opened has no rules: the service refuses it as it stands
        assert evidence_index.expected(entry) != {"ok"}
    policy = Policy(version=1, tees={scheme.tee: TeePolicy(rules)})
    body = {
        "binding": "carried",
        "evidence": evidence_json(Evidence(tee=scheme.tee, payload=dump_parts(files))),
        "nonce": dump_b64u(hashlib.sha512(report_data).digest()),
        "policy": policy.to_json(),
    }
    served.clock.stands_at, kept, service._verifier = now, service._verifier, Verifier([scheme])
    try:
        answer = served.post("/v1/verify", body)
        again = served.post("/v1/verify", {**body, "refusal": "token"})
    finally:
        served.clock.stands_at, service._verifier = vendor_kit.NOW, kept
    expected = evidence_index.expected(entry)
    if answer.status_code == 200:
        assert expected == {"ok"}
        assert claims_of(answer.json()["token"])["submods"]["cloister"]["ear_status"] in {"affirming", "warning"}
        return
    said = answer.json()
    if said["code"] == "malformed":
        assert (answer.status_code, expected) == (400, {"malformed"})
        return
    codes = {evidence_index.IN_THE_INDEX.get(item["code"], item["code"]) for item in said["reasons"]}
    codes -= {"report_data_mismatch"} if not report_data and "report_data_mismatch" not in expected else set()
    assert codes
    assert codes <= expected, said
    if said["code"] in {"unsupported_format", "unsupported_tee"}:
        assert (answer.status_code, again.status_code) == (422, 422)
        return
    assert (answer.status_code, again.status_code) == (403, 200)
    token = claims_of(again.json()["token"])
    assert token["submods"]["cloister"]["ear_status"] == "contraindicated"
    assert "sub" not in token


def test_every_kind_of_the_index_is_one_that_is_judged_here() -> None:
    assert {entry["tee"] for entry in evidence_index.index()} <= set(DOSSIERS)
    assert SIMULATED not in DOSSIERS
