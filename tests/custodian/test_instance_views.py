"""One instance, looked at: its result check by check, its evidence to be judged anew, and nobody else's eyes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from recall_kit import Site, published, release

from cloister.attest.binding import ReleaseBinding
from cloister.attest.ear import verify_ear
from cloister.attest.policy import Policy
from cloister.attest.rats import Evidence, Nonce, TeeKind
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from custodian_kit import Bench


@pytest.fixture
def site(place: Path) -> Iterator[Site]:
    with Site(place) as opened:
        opened.knows(published())
        yield opened


def test_an_instances_result_is_the_signed_one_with_every_check(bench: Bench) -> None:
    toy = bench.lend().boot()
    shown = bench.get(f"/v1/instances/{toy.id}").json()
    ear = verify_ear(shown["result"], [bench.service.key], bench.clock())
    assert ear.tee == shown["tee"]
    assert any(check.subject for check in ear.checks)
    assert shown["keys_released"][0]["key_version"] >= 1
    assert shown["blocks"] == []
    assert shown["device"] is None


def test_a_block_on_an_instance_stands_on_its_view(bench: Bench) -> None:
    toy = bench.lend().boot()
    body = {"kind": "instance", "subject": toy.id, "reason": "an odd smell"}
    assert bench.post("/v1/blocks", body).status_code == 201
    (block,) = bench.get(f"/v1/instances/{toy.id}").json()["blocks"]
    assert block["reason"] == "an odd smell"


def test_what_is_given_of_a_release_is_enough_to_judge_it_anew(site: Site) -> None:
    toy = release(site.lend_to_td())
    given = site.get(f"/v1/instances/{toy.id}/evidence").json()
    binding = ReleaseBinding(
        **{
            name: parse_b64u(given["bound"][name], what=name)
            for name in ("custodian", "devices", "instance_pub", "kem_pub", "software")
        },
        nonce=Nonce(parse_b64u(given["bound"]["nonce"], what="nonce")),
    )
    endorsements = {name: parse_b64u(data, what=name) for name, data in given["endorsements"].items()}
    evidence = Evidence(tee=TeeKind(given["tee"]), payload=parse_b64u(given["evidence"], what="evidence"))
    policy = Policy.from_json(given["policy"])
    result = site.service.context.verifier.verify(evidence, binding, policy, site.clock(), endorsements)
    assert result.tee == "tdx"
    subjects = [item["subject"] for item in given["certificates"]]
    assert len(subjects) >= 3
    issuers = [item["issuer"] for item in given["certificates"]]
    assert all(issuers.index(name) <= subjects.index(name) for name in subjects if name in issuers)
    assert given["described"]
    assert all(item["name"] and item["value"] is not None for item in given["described"])


def test_evidence_that_is_kept_no_more_is_not_found(site: Site) -> None:
    toy = release(site.lend_to_td())
    site.clock.advance(400 * 86_400)
    site.service.sweep()
    site.lend().boot()  # with a release, those whose days are over are forgotten
    assert site.get(f"/v1/instances/{toy.id}/evidence").status_code == 404
    assert site.get(f"/v1/instances/{toy.id}").status_code == 200


@pytest.mark.parametrize("path", ["/v1/instances/{}", "/v1/instances/{}/evidence"])
def test_neither_strangers_nor_the_borrower_nor_a_wrong_name_see_an_instance(bench: Bench, path: str) -> None:
    lent = bench.lend()
    toy = lent.boot()
    assert bench.get(path.format(toy.id), {}).status_code == 401
    assert bench.get(path.format(toy.id), lent.token).status_code == 403
    for name in ("0" * 64, "x", "..", "%00"):
        assert bench.get(path.format(name)).status_code == 404
