"""The whole story with certificates required on every hop there is: real sockets, real processes' code, TLS 1.3."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from flow_house import row
from mtls_kit import forge, now
from strict_house import enclave, events, strict_house, with_certificate

from cloister.client import AsyncClient, CustodianPin
from cloister.errors import Rejected
from cloister.lending.messages import Lease
from cloister.wire import parse_time
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(180)
@asynchronous
async def test_lend_ask_count_and_end_with_certificates_required_everywhere(tmp_path: Path) -> None:
    async with strict_house(tmp_path) as (house, door):
        config = replace(house.config(), port=0)
        async with enclave(house, config) as (ready, log):
            pin = CustodianPin(key=house.key, url=house.service.url, ca_pem=house.loan_file["ca_pem"])
            async with await AsyncClient.verify(
                ready.url, house.trust(custodian=pin), token=house.tokens["clinic"], schemes=house.schemes()
            ) as client:
                answer = await client.infer("digits", {"image": row(2)})
                assert answer.outputs["label"].tolist() == [2]
            issued = (await house.get("/v1/certificates"))["certificates"]
            assert sorted(item["name"].split("/")[0] for item in issued) == ["enclave", "operator"]
            assert events(log).count("certificate_renewed") == 1
            # Half a life later, by the enclave's own clock, the renew loop gets another one.
            ready.instance.identity._next = ready.instance.identity._clock.monotonic()
            await ready.instance.renewal.once()
            assert events(log).count("certificate_renewed") == 2
            # A borrower's token alone does not get near its own loan; with its certificate it does.
            token = house.loan_file["token"]
            async with await with_certificate(house.service.url, door.ca_pem, token, "borrower") as borrower:
                summary = await borrower.get(f"/v1/loans/{house.loan}/summary")
                assert summary.status_code == 200, summary.text
                stolen = await borrower.get(
                    "/v1/loans", headers={"authorization": house.admin.headers["authorization"]}
                )
                assert stolen.json()["code"] == "wrong_peer"  # an admin's token behind a borrower's certificate
            # Its certificate ends while a connection is open: refused there, it gets another and comes back by itself.
            names = (await house.get("/v1/certificates"))["certificates"]
            ends = max(parse_time(item["ends_at"], what="end") for item in names if item["name"].startswith("enclave"))
            house.clock.ahead = ends - now() + timedelta(milliseconds=100)  # type: ignore[attr-defined] # is moved
            assert isinstance(await ready.instance.renewal.once(), Lease)
            assert events(log).count("certificate_renewed") == 3
        kinds = [entry["kind"] for entry in (await house.get("/v1/audit?limit=1000"))["entries"]]
        assert kinds.count("instance_closed") == 1, "the last count came through, by certificate"
        assert "access_denied" in kinds
        assert kinds.count("certificate_issued") == 5


@pytest.mark.timeout(180)
@asynchronous
async def test_a_certificate_that_ends_in_the_handshake_keeps_no_enclave_away(tmp_path: Path) -> None:
    """As after all authorities were replaced: it asks for another on a connection that shows none, in the same call."""
    async with (
        strict_house(tmp_path) as (house, _door),
        enclave(house, replace(house.config(), port=0)) as (ready, log),
    ):
        await ready.instance._link.present(forge(None, uris=["spiffe://gone.example/enclave/" + "0" * 64]).pem)
        before = events(log).count("certificate_renewed")
        assert isinstance(await ready.instance.renewal.once(), Lease)
        assert events(log).count("certificate_renewed") == before + 1


@pytest.mark.timeout(180)
@asynchronous
async def test_a_block_leaves_a_running_enclave_without_a_certificate_and_it_ends(tmp_path: Path) -> None:
    async with strict_house(tmp_path) as (house, _door):
        config = replace(house.config(), port=0)
        async with enclave(house, config) as (ready, log):
            instance = ready.instance
            await house.post("/v1/blocks", {"kind": "instance", "subject": instance.metering.instance, "reason": ""})
            with pytest.raises(Rejected, match="blocked"):
                await instance.identity.ask(within=instance.metering.terms.ttl)
            assert "certificate_failed" in events(log)
            answer = await instance.renewal.once()  # while the old certificate lasts, the stop is heard at once
            assert answer.stop  # type: ignore[union-attr] # a refusal
