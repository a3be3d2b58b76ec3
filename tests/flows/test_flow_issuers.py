"""Consumers by an issuer's word, through all three parties: registered at the custodian, proven in the enclave."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from flow_house import open_house, row
from identity_kit import Cluster, Provider
from test_issuer_keys import Web

from cloister.custodian.service.issuer_keys import IssuerKeys
from cloister.errors import Rejected
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from flow_house import House

    from cloister.enclave.instance import EnclaveInstance

CALL = timedelta(seconds=5)


def wards(provider: Provider, **grants: str) -> dict[str, Any]:
    """Return the document of an issuer whose ward doctors are the consumer ``ward``."""
    rule = {"claims": {"/groups": "ward-doctors"}, "grants": {"consumer": "ward", **grants}}
    return provider.document(rules=[rule], audiences=["https://model.example"])


def token(house: House, provider: Provider, **claims: Any) -> str:
    now = int(house.clock().timestamp())
    said = {"aud": "https://model.example", "groups": ["ward-doctors"], **claims}
    return provider.token(now=now, **said).decode()


async def hear(instance: EnclaveInstance) -> None:
    """Renew, and learn whose word counts by the new lease."""
    await instance.renewal.once()
    await instance.introductions.refresh(within=CALL)


@asynchronous
async def test_doctor_asks_with_the_hospitals_own_token_and_the_ward_pays(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        provider = Provider()
        await house.post("/v1/issuers", wards(provider))
        await house.lend(100, consumers=[{"id": "ward", "allowance": 2, "token": False}, {"id": "clinic"}])
        assert set(house.tokens) == {"clinic"}
        async with house.enclave() as instance:
            await hear(instance)
            tokens = [token(house, provider, sub=f"doctor-{number}") for number in range(3)]
            for number, said in enumerate(tokens[:2]):
                async with await house.client(token=said) as doctor:
                    assert (await doctor.infer("digits", row(number))).label == f"class-{number}"
            async with await house.client(token=tokens[2]) as doctor:
                with pytest.raises(Rejected, match="allowance_exhausted"):
                    await doctor.infer("digits", row(1))
            async with await house.client(token=token(house, provider, groups=["kitchen"])) as cook:
                with pytest.raises(Rejected, match="unauthorized"):
                    await cook.infer("digits", row(1))
            await hear(instance)
        assert (await house.meter("consumer:ward"))["spent"] == 2
        # Neither the wire that the host sees nor its log says whose hospital it is, or who asked.
        seen = (
            bytes(house.wires.seen[8440] + house.wires.seen[8443].split(b"/v1/loans", 1)[1])
            + house.log.getvalue().encode()
        )
        for word in (b"doctor-1", b"ward-doctors", provider.name.encode()):
            assert word not in seen


@asynchronous
async def test_service_account_is_let_in_for_the_loan_that_its_rule_names_and_no_other(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        cluster = Cluster()
        await house.lend(100, consumers=["ward"])
        another = house.loan
        await house.lend(100, consumers=["ward"])
        async with house.enclave() as instance:
            for loan, good in ((another, False), (house.loan, True)):
                rule = {"claims": {"/kubernetes.io/namespace": "prod"}, "grants": {"consumer": "ward", "loan": loan}}
                await house.post("/v1/issuers", cluster.document(rules=[rule]))
                await hear(instance)
                said = cluster.token(now=int(house.clock().timestamp())).decode()
                async with await house.client(token=said) as pod:
                    if good:
                        assert (await pod.infer("digits", row(1))).label == "class-1"
                    else:
                        with pytest.raises(Rejected, match="unauthorized"):
                            await pod.infer("digits", row(1))


@asynchronous
async def test_keys_that_a_provider_rotates_reach_the_enclave_and_removal_ends_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        provider, web = Provider(), Web()
        uri = f"{provider.name}/keys"
        web.pages = {
            f"{provider.name}/.well-known/openid-configuration": {"issuer": provider.name, "jwks_uri": uri},
            uri: provider.jwks(),
        }
        identities = house.service.identities
        identities.keys = IssuerKeys(web)
        document = {name: value for name, value in wards(provider).items() if name != "keys"}
        made = await house.post("/v1/issuers", document)
        await house.lend(100, consumers=["ward"])
        async with house.enclave() as instance:
            await hear(instance)
            async with await house.client(token=token(house, provider)) as doctor:
                with pytest.raises(Rejected, match="unauthorized"):  # its keys were not fetched yet
                    await doctor.infer("digits", row(1))
                identities.refresh()
                await hear(instance)
                assert (await doctor.infer("digits", row(1))).label == "class-1"
            fresh = Provider(provider.name, kid="key-2")
            web.pages[uri] = fresh.jwks()
            for _ in range(61):  # an hour, after which keys are fetched anew
                house.clock.advance(60)
                await instance.renewal.once()
            identities.refresh()
            await hear(instance)
            async with await house.client(token=token(house, fresh)) as doctor:
                assert (await doctor.infer("digits", row(2))).label == "class-2"
            assert (await house.admin.delete(f"/v1/issuers/{made['id']}")).is_success
            await hear(instance)
            async with await house.client(token=token(house, fresh)) as doctor:
                with pytest.raises(Rejected, match="unauthorized"):
                    await doctor.infer("digits", row(2))
