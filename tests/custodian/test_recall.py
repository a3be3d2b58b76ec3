"""Recall: past releases judged by what is known now; and where a release gets its endorsements from."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import SOFTWARE, START, Toy
from recall_kit import CARRIER, DAY, NAME, STRANGER, Site, attempt, behind, carried, published, release, revoking, td

from cloister.attest.binding import ReleaseBinding
from cloister.attest.devices import dump_devices
from cloister.attest.endorse import Given
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rules import AtLeast
from cloister.attest.schemes.tdx import TDX
from cloister.custodian.setup import verify_home_bundle
from cloister.custodian.store.releases import read_release
from cloister.errors import Rejected, UsageError
from cloister.wire import dump_b64u, dump_time
from endorse_kit import VendorServices, intel, nvidia, online

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(place: Path) -> Iterator[Site]:
    with Site(place) as opened:
        opened.knows(published())
        yield opened


# where a release gets endorsements from


def test_the_key_is_released_by_fetched_endorsements_and_all_of_it_is_kept(site: Site) -> None:
    lent = site.lend_to_td()
    toy = release(lent)
    with site.service.context.reading() as connection:
        row = read_release(connection, 1)
    assert row is not None
    assert (row.instance, row.loan, row.at) == (toy.id, lent.id, START)
    assert row.endorsements == published()
    assert Policy.parse(row.policy) == intel().tdx_attester().policy()
    assert row.evidence.tee == TDX
    assert row.instance_pub == toy.key.verify_key.raw


def test_without_an_endorsement_nothing_is_released_and_the_answer_is_503(site: Site) -> None:
    site.knows({})
    answer = attempt(site.lend_to_td())
    assert answer.status_code == 503
    assert NAME in answer.json()["detail"]
    assert "key_released" not in site.kinds()


def test_a_tee_that_the_policy_does_not_name_makes_nobody_ask(site: Site) -> None:
    lent = site.lend()  # for simulated ones
    site.knows({})
    answer = attempt(lent)
    assert (answer.status_code, answer.json()["code"]) == (403, "tee_not_allowed")


def test_gpus_beside_the_cpu_get_theirs_too(site: Site) -> None:
    gpu = nvidia().attester()
    attester = intel().tdx_attester()
    policy = Policy(version=1, tees={**attester.policy().tees, **gpu.policy().tees})
    lent = site.lend(policy=policy.to_json())
    toy = td(lent)
    challenge = toy.take_challenge()
    devices = dump_devices([gpu.collect(_binding(toy, challenge, b"").device_report_data()[:32])])
    evidence = attester.collect(_binding(toy, challenge, devices).report_data())
    statement = toy.attest_statement(challenge, evidence=evidence, devices=devices)
    assert lent.attest(statement).status_code == 503
    site.knows({**published(), **gpu.endorsements})
    challenge = toy.take_challenge()
    devices = dump_devices([gpu.collect(_binding(toy, challenge, b"").device_report_data()[:32])])
    evidence = attester.collect(_binding(toy, challenge, devices).report_data())
    answer = lent.attest(toy.attest_statement(challenge, evidence=evidence, devices=devices))
    assert answer.status_code == 200, answer.text
    assert site.recall()["judged"] == 1


def test_what_never_changes_is_taken_from_the_release_itself(site: Site) -> None:
    """A bundle for a recall need not carry every manifest again; who may be revoked has to be asked about anew."""
    gpu, attester = nvidia().attester(), intel().tdx_attester()
    lent = site.lend(policy=Policy(version=1, tees={**attester.policy().tees, **gpu.policy().tees}).to_json())
    toy = td(lent)
    challenge = toy.take_challenge()
    devices = dump_devices([gpu.collect(_binding(toy, challenge, b"").device_report_data()[:32])])
    evidence = attester.collect(_binding(toy, challenge, devices).report_data())
    site.knows({**published(), **gpu.endorsements})
    assert lent.attest(toy.attest_statement(challenge, evidence=evidence, devices=devices)).status_code == 200
    rims = {name for name in gpu.endorsements if name.startswith("nvidia/rim/")}
    site.knows({**published(), **{name: gpu.endorsements[name] for name in set(gpu.endorsements) - rims}})
    assert site.recall()["undecided"] == 0
    site.knows({**published(), **{name: gpu.endorsements[name] for name in rims}})
    assert site.recall()["undecided"] == 1


def _binding(toy: Toy, challenge: Any, devices: bytes) -> Any:

    return ReleaseBinding(
        nonce=challenge.nonce,
        custodian=challenge.custodian.raw,
        instance_pub=toy.key.verify_key.raw,
        kem_pub=toy.kem_pub,
        software=SOFTWARE.dump(),
        devices=devices,
    )


def test_the_network_is_asked_outside_of_any_transaction(site: Site) -> None:
    """A vendor that takes its time holds nobody else up."""

    class Watched(Given):
        def fetch(self, *args: Any, **kwargs: Any) -> Any:
            site.service.context.transact(lambda _: None)
            return super().fetch(*args, **kwargs)

    site.service.context.endorsements = Watched(published())
    release(site.lend_to_td())


def test_by_default_nobody_is_asked_and_nothing_is_released(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2  # noqa: PLC0415 - to be sure that it is not used

    def never(*_: object, **__: object) -> None:
        msg = "a connection was opened"
        raise AssertionError(msg)

    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", never)
    with Site(place) as site:
        answer = attempt(site.lend_to_td())
        assert answer.status_code == 503
        assert "no endorsements.bundle in the home" in answer.json()["detail"]


def test_a_custodian_that_may_ask_does(place: Path, tmp_path: Path) -> None:
    with VendorServices() as services, Site(place) as site:
        services.serve(published())
        site.service.context.endorsements = online(services, tmp_path)
        release(site.lend_to_td())
    assert services.asked


def test_online_sources_are_built_from_the_settings(place: Path) -> None:
    settings = {"endorsements_online": True, "jwks_hosts": ("shared.eus.attest.azure.net",)}
    with Site(place, settings=settings) as site:
        online_first, bundle = site.service.context.endorsements._sources  # type: ignore[attr-defined]
        assert "shared.eus.attest.azure.net" in online_first._sources.hosts
        assert type(bundle).__name__ == "HomeBundle"


# the bundle in the home


@pytest.fixture
def airgap(place: Path) -> Iterator[Site]:
    with Site(place, settings={"endorsement_keys": (CARRIER.verify_key.dump(),)}) as opened:
        yield opened


def test_a_bundle_in_the_home_serves_an_air_gapped_custodian(airgap: Site) -> None:
    lent = airgap.lend_to_td()
    assert attempt(lent).status_code == 503
    (airgap.home / "endorsements.bundle").write_bytes(carried(published()))
    release(lent)
    release(lent)
    assert airgap.kinds().count("endorsements_accepted") == 1
    entry = next(item for item in airgap.audit() if item["kind"] == "endorsements_accepted")
    assert entry["details"]["version"] == "1"


def test_the_custodians_own_key_may_sign_its_bundle(place: Path) -> None:
    with Site(place) as site:
        own = site.service.context.vault.signing_key
        (site.home / "endorsements.bundle").write_bytes(carried(published(), key=own))
        release(site.lend_to_td())


@pytest.mark.parametrize(
    ("bundle", "why"),
    [
        (lambda: carried(published(), key=STRANGER), "unknown_key"),
        (lambda: carried(published(), start=START - 60 * DAY), "bundle_expired"),
        (lambda: carried(published(), start=START + DAY), "bundle_not_yet_valid"),
        (lambda: b"noise", "bundle"),
        (lambda: carried(published())[:-1], "left"),
    ],
)
def test_a_bundle_that_is_refused_releases_nothing(airgap: Site, bundle: Any, why: str) -> None:
    (airgap.home / "endorsements.bundle").write_bytes(bundle())
    answer = attempt(airgap.lend_to_td())
    assert answer.status_code == 503
    assert why in answer.json()["detail"]


def test_an_older_bundle_put_back_is_refused_also_after_a_restart(airgap: Site) -> None:
    place = airgap.home / "endorsements.bundle"
    lent = airgap.lend_to_td()
    place.write_bytes(carried(published(), version=2))
    release(lent)
    place.write_bytes(carried(published(), version=1))
    assert "bundle_version_old" in attempt(lent).json()["detail"]
    airgap.restart()
    assert "bundle_version_old" in attempt(lent).json()["detail"]
    place.write_bytes(carried(behind(), version=2))
    assert "bundle_version_old" in attempt(lent).json()["detail"], "another bundle of the same version"
    place.write_bytes(carried(published(), version=3))
    release(lent)
    place.unlink()
    assert attempt(lent).status_code == 503


def test_a_bundle_that_ends_while_it_is_used_is_used_no_more(airgap: Site) -> None:
    (airgap.home / "endorsements.bundle").write_bytes(carried(published()))
    lent = airgap.lend_to_td(max_instances=9)
    release(lent)
    airgap.clock.advance((30 * DAY).total_seconds())
    release(lent)
    airgap.clock.advance(1)
    answer = attempt(lent)
    assert answer.status_code == 503
    assert "the bundle is good from" in answer.json()["detail"]


def test_a_bundle_is_proven_before_it_is_put_into_the_home(airgap: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloister.custodian.setup.utc_now", lambda: START)
    newer = carried(published(), version=5)
    assert verify_home_bundle(airgap.home, newer, keys=()).accepted.version == 5
    (airgap.home / "endorsements.bundle").write_bytes(newer)
    release(airgap.lend_to_td())
    with pytest.raises(Rejected, match="bundle_version_old"):
        verify_home_bundle(airgap.home, carried(published(), version=4), keys=())
    with pytest.raises(Rejected, match="unknown_key"):
        verify_home_bundle(airgap.home, carried(published(), version=6, key=STRANGER), keys=())
    assert (
        verify_home_bundle(
            airgap.home, carried(published(), version=6, key=STRANGER), keys=(STRANGER.verify_key,)
        ).accepted.version
        == 6
    )
    with pytest.raises(UsageError):
        verify_home_bundle(airgap.home.parent / "nowhere", newer, keys=())


# recall


def test_releases_that_would_leave_again_stand(site: Site) -> None:
    lent = site.lend_to_td()
    release(lent)
    assert site.recall() == {
        "fallen": 0, "instances": [], "judged": 1, "loans": [], "next": None, "releases": [], "undecided": 0,
    }  # fmt: skip
    assert site.audit()[-1]["details"] == {"fallen": 0, "judged": 1, "stop": False, "undecided": 0}


def test_a_platform_that_was_revoked_since_falls(site: Site) -> None:
    lent = site.lend_to_td()
    toy = release(lent)
    site.clock.advance(DAY.total_seconds())
    site.knows(revoking())
    told = site.recall()
    assert (told["fallen"], told["loans"], told["instances"]) == (1, [lent.id], [toy.id])
    (item,) = told["releases"]
    assert item["verdict"] == "falls"
    assert {reason["code"] for reason in item["reasons"]} == {"revoked"}
    assert item["stopped"] is False


def test_a_level_that_fell_behind_falls_by_the_loans_own_policy(site: Site) -> None:
    release(site.lend_to_td())
    site.knows(behind())
    (item,) = site.recall()["releases"]
    assert "tcb_status_not_allowed" in {reason["code"] for reason in item["reasons"]}


def test_a_new_policy_is_asked_about_before_it_is_set(site: Site) -> None:
    lent = site.lend_to_td()
    release(lent)
    strict = dict(intel().tdx_attester().policy().tees[TDX].rules) | {"tcb.eval_number": AtLeast(99)}
    policy = Policy(version=2, tees={TDX: TeePolicy(strict)})
    told = site.recall(policy=policy.to_json())
    assert told["loans"] == [lent.id]
    assert site.audit()[-1]["details"]["policy_digest"] == policy.digest
    assert site.recall()["fallen"] == 0, "asking sets nothing"


def test_a_policy_without_the_tee_fells_it(site: Site) -> None:
    release(site.lend_to_td())
    policy = site.loan_body()["policy"]
    (item,) = site.recall(policy=policy)["releases"]
    assert [reason["code"] for reason in item["reasons"]] == ["tee_not_allowed"]


def test_stop_blocks_what_fell_and_is_live_and_nothing_else(site: Site) -> None:
    first, second = site.lend_to_td(), site.lend()
    fallen, standing = release(first), second.boot()
    over = release(first)
    over.close()
    site.knows(revoking())
    told = site.recall(stop=True)
    assert told["judged"] == 3
    assert {item["instance"]: item["stopped"] for item in told["releases"]} == {fallen.id: True, over.id: False}
    states = {item["id"]: item["state"] for item in site.get("/v1/instances").json()["instances"]}
    assert states[fallen.id] == "blocked"
    assert states[standing.id] == "active"
    blocks = site.get("/v1/blocks").json()["blocks"]
    assert [(item["subject"], item["reason"]) for item in blocks] == [(fallen.id, "recall: revoked")]
    kinds = site.kinds()
    assert kinds[-2:] == ["blocked", "recalled"]
    assert site.recall(stop=True)["fallen"] == 2, "a second recall finds the same and blocks nothing twice"
    assert site.kinds().count("blocked") == 1


def test_a_setting_stops_where_the_order_says_nothing(place: Path) -> None:
    with Site(place, settings={"stop_on_recall": True}) as site:
        site.knows(published())
        release(site.lend_to_td())
        site.knows(revoking())
        assert site.recall(stop=False)["releases"][0]["stopped"] is False
        assert site.recall()["releases"][0]["stopped"] is True


def test_a_blocked_instance_is_refused_its_next_lease(site: Site) -> None:
    toy = release(site.lend_to_td())
    assert toy.renew()
    site.knows(revoking())
    site.recall(stop=True)
    refusal = toy.renew()
    assert type(refusal).__name__ == "Refusal"
    assert refusal.stop


def test_what_cannot_be_decided_is_said_and_not_stopped(site: Site) -> None:
    release(site.lend_to_td())
    site.knows({})
    told = site.recall(stop=True)
    (item,) = told["releases"]
    assert (told["undecided"], told["fallen"], item["verdict"], item["stopped"]) == (1, 0, "undecided", False)
    assert NAME in item["reasons"][0]["subject"]
    assert site.get("/v1/blocks").json()["blocks"] == []


def test_certificates_that_ended_since_are_no_reason(site: Site) -> None:
    """As of its own time, where the endorsements allow that: simulated chips have certificates and no collateral."""
    lent = site.lend()
    toy = Toy(lent, not_after=START + DAY)
    assert lent.attest(toy.attest_statement(toy.take_challenge())).status_code == 200
    site.clock.advance((2 * DAY).total_seconds())
    assert site.recall() == {
        "fallen": 0, "instances": [], "judged": 1, "loans": [], "next": None, "releases": [], "undecided": 0,
    }  # fmt: skip


def test_evidence_that_ended_and_collateral_that_is_newer_is_undecided(site: Site) -> None:
    """Then neither time has both: nobody knows whether it was revoked, and that is said."""
    release(site.lend_to_td())
    late = START + 3650 * DAY
    newer = replace(intel(), issued=late - DAY).published(tdx=True)
    site.knows({NAME: newer.dump()})
    (item,) = site.recall(at=dump_time(late))["releases"]
    assert item["verdict"] == "undecided"


def test_a_time_before_the_release_or_after_now_can_be_asked_about_and_stops_nothing(site: Site) -> None:
    release(site.lend_to_td())
    later = dump_time(intel().until + DAY)
    told = site.recall(at=later)
    assert told["undecided"] + told["fallen"] == 0, "by then the collateral has ended; as of its own time it stands"
    answer = site.post("/v1/recall", {"at": later, "stop": True})
    assert (answer.status_code, answer.json()["code"]) == (400, "usage")


def test_a_bundle_that_is_sent_is_asked_and_accepted_nowhere(airgap: Site) -> None:
    (airgap.home / "endorsements.bundle").write_bytes(carried(published(), version=1))
    release(airgap.lend_to_td())
    sent = carried(revoking(), version=2)
    assert airgap.recall(bundle=dump_b64u(sent))["fallen"] == 1
    assert airgap.recall()["fallen"] == 0
    assert airgap.kinds().count("endorsements_accepted") == 1
    for bad, code in (
        (carried(revoking(), version=2, key=STRANGER), "unknown_key"),
        (carried(revoking(), version=1, start=START - DAY), "bundle_version_old"),
    ):
        answer = airgap.post("/v1/recall", {"bundle": dump_b64u(bad)})
        assert (answer.status_code, answer.json()["code"]) == (403, code)


def test_pages_are_walked_to_the_end(site: Site) -> None:
    lent = site.lend_to_td(max_instances=9)
    for _ in range(3):
        release(lent)
    site.knows(revoking())
    first = site.recall(limit=2)
    assert (first["judged"], first["next"]) == (2, 2)
    second = site.recall(limit=2, after=first["next"])
    assert (second["judged"], second["next"]) == (1, None)
    assert [item["release"] for page in (first, second) for item in page["releases"]] == [1, 2, 3]


@pytest.mark.parametrize(
    "order",
    [
        {"policy": {}},
        {"policy": "x"},
        {"bundle": "!"},
        {"bundle": "AAAA"},
        {"at": "yesterday"},
        {"stop": "yes"},
        {"after": -1},
        {"limit": 0},
        {"limit": 101},
        {"other": 1},
    ],
)
def test_an_order_that_makes_no_sense_is_malformed_and_judges_nothing(site: Site, order: dict[str, Any]) -> None:
    assert site.post("/v1/recall", order).status_code == 400
    assert "recalled" not in site.kinds()


@pytest.mark.parametrize("role", ["auditor", "borrower"])
def test_recall_is_for_those_who_may_block(site: Site, role: str) -> None:
    lent = site.lend_to_td()
    token = lent.token if role == "borrower" else site.token(role)
    assert site.post("/v1/recall", {}, token).status_code == 403
    assert site.client.post("/v1/recall", json={}).status_code == 401
    assert site.post("/v1/recall", {}, site.token("lender")).status_code == 200


# what is kept, and for how long


def test_the_same_collateral_is_stored_once(site: Site) -> None:
    lent = site.lend_to_td(max_instances=9)
    for _ in range(3):
        release(lent)
    with sqlite3.connect(f"file:{site.home / 'custodian.db'}?mode=ro", uri=True) as database:
        count = database.execute("SELECT count(*) FROM artifact").fetchone()[0]
        assert database.execute("SELECT count(*) FROM key_release").fetchone()[0] == 3
    database.close()
    assert count == 3 + 4, "three pieces of evidence; devices, software, policy and collateral once"


def test_what_is_past_its_retention_is_forgotten_and_not_before(place: Path) -> None:
    with Site(place, settings={"release_retention_days": 10}) as site:
        site.knows(published())
        lent = site.lend_to_td(max_instances=9)
        old, held = release(lent), release(lent)
        old.close()
        site.clock.advance((11 * DAY).total_seconds())
        site.service.sweep()
        fresh = release(lent)
        left = {item["instance"] for item in site.recall(policy=site.loan_body()["policy"])["releases"]}
        assert fresh.id in left
        assert old.id not in left
        with sqlite3.connect(f"file:{site.home / 'custodian.db'}?mode=ro", uri=True) as database:
            evidence = database.execute("SELECT count(DISTINCT evidence) FROM key_release").fetchone()[0]
            orphans = database.execute(
                "SELECT count(*) FROM artifact WHERE sha256 NOT IN (SELECT evidence FROM key_release UNION"
                " SELECT devices FROM key_release UNION SELECT software FROM key_release UNION"
                " SELECT policy FROM key_release UNION SELECT sha256 FROM release_endorsement)"
            ).fetchone()[0]
        database.close()
        assert orphans == 0
        assert evidence == len(left)
        assert held.id not in left or evidence > 1
