"""What the owner of a machine, or a slip of an operator, makes of a recall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.x509 import ocsp
from custodian_kit import SOFTWARE, START
from recall_kit import DAY, Site, published, release, td

from cloister.attest.binding import ReleaseBinding
from cloister.attest.devices import dump_devices
from cloister.attest.nvidia.collateral import ocsp_name
from cloister.attest.nvidia.evidence import dump_nvidia_evidence
from cloister.attest.policy import Policy
from cloister.attest.rats import Evidence
from cloister.testing.vendors.nvidia import NvidiaAttester
from cloister.testing.vendors.nvidia.issuing import answer
from cloister.wire import dump_time
from endorse_kit import intel, nvidia

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(place: Path) -> Iterator[Site]:
    with Site(place) as opened:
        opened.knows(published())
        yield opened


def test_a_gpu_that_was_revoked_since_falls_though_its_owner_sent_an_answer_of_the_day_along(site: Site) -> None:
    """The answer that came along is over by now: as of its own day the chip was good, and that is no news."""
    chip = nvidia().device()
    gpu, cpu = NvidiaAttester(nvidia(), chip), intel().tdx_attester()
    lent = site.lend(policy=Policy(version=1, tees={**cpu.policy().tees, **gpu.policy().tees}).to_json())
    toy = td(lent)
    challenge = toy.take_challenge()

    def binding(devices: bytes) -> ReleaseBinding:
        return ReleaseBinding(
            nonce=challenge.nonce,
            custodian=challenge.custodian.raw,
            instance_pub=toy.key.verify_key.raw,
            kem_pub=toy.kem_pub,
            software=SOFTWARE.dump(),
            devices=devices,
        )

    good = answer(chip.issuer.certificate, nvidia().provisioner, this_update=START - DAY, next_update=START + DAY)
    report = chip.report(binding(b"").device_report_data()[:32])
    payload = dump_nvidia_evidence(report, chip.chain_pem, ocsp=good)
    devices = dump_devices([Evidence(tee=gpu.tee, payload=payload)])
    evidence = cpu.collect(binding(devices).report_data())
    site.knows({**published(), **gpu.endorsements})
    sent = lent.attest(toy.attest_statement(challenge, evidence=evidence, devices=devices))
    assert sent.status_code == 200, sent.text
    site.clock.advance((2 * DAY).total_seconds())
    gone = answer(chip.issuer.certificate, nvidia().provisioner, status=ocsp.OCSPCertStatus.REVOKED)
    site.knows({**published(), **gpu.endorsements, ocsp_name(chip.issuer.certificate): gone})
    told = site.recall()
    assert (told["fallen"], told["undecided"]) == (1, 0)
    assert [reason["code"] for reason in told["releases"][0]["reasons"]] == ["revoked"]


def test_a_tee_that_a_policy_names_no_more_falls_though_nobody_answers_about_it(site: Site) -> None:
    """What is refused by name needs no endorsement: an outage keeps nobody running."""
    release(site.lend_to_td())
    site.knows({})
    (item,) = site.recall(policy=site.loan_body()["policy"], stop=True)["releases"]
    assert (item["verdict"], item["stopped"]) == ("falls", True)


@pytest.mark.parametrize("days", [-3650, -1, 1])
def test_nothing_is_stopped_by_how_things_stand_on_another_day_than_today(site: Site, days: int) -> None:
    """Before its certificates were issued every chip is refused: a slip in ``at`` must not stop them all."""
    release(site.lend_to_td())
    reply = site.post("/v1/recall", {"at": dump_time(START + days * DAY), "stop": True})
    assert (reply.status_code, reply.json()["code"]) == (400, "usage")
    assert site.get("/v1/blocks").json()["blocks"] == []
