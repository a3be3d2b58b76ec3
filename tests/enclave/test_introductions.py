"""Consumers by another's word: tokens and certificates of issuers, proven inside the enclave (T4, T44, T61, T78)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import identity_kit
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from enclave_models import doubler
from enclave_parties import ALICE, START, ConsumerSide, World, infer_body, make_world
from identity_kit import Authority, Cluster, Domain, Provider, dns, raw_token, uri
from test_enclave_direct import pinned_world, serving

from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.lending.introduction import answer_issuers, ask_issuers, open_issuers, verify_issuers_request
from cloister.lending.terms import NO_TOKEN
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cloister.enclave.instance import EnclaveInstance

AT = int(START.timestamp())
ROW = [[1.0, 2.0, 3.0]]
CALL = timedelta(seconds=5)


def introduces(consumer: str, **match: Any) -> dict[str, Any]:
    return {"rules": [{"grants": {"consumer": consumer}, **match}]}


def alices(provider: Provider, **changes: Any) -> dict[str, Any]:
    return provider.document(**introduces("alice", subject="user-7"), **changes)


@contextlib.asynccontextmanager
async def introduced(tmp_path: Path, *documents: dict[str, Any]) -> AsyncIterator[tuple[World, EnclaveInstance]]:
    world = make_world(tmp_path, {"m": doubler()}, metered=("alice",), meters={"alice": 3})
    world.custodian.introduce(*documents)
    async with world.enclave() as instance:
        yield world, instance


def side(world: World, instance: EnclaveInstance, token: bytes | None) -> ConsumerSide:
    return ConsumerSide(instance, world.clock, token)


@asynchronous
async def test_bearer_of_an_issuers_token_is_served_and_counted_as_the_consumer(tmp_path: Path) -> None:
    provider = Provider()
    async with introduced(tmp_path, alices(provider)) as (world, instance):
        by_word = side(world, instance, provider.token(now=AT))
        assert [(await by_word.infer(ROW)).field("cloister-remaining") for _ in range(2)] == ["2", "1"]
        assert (await side(world, instance, ALICE).infer(ROW)).field("cloister-remaining") == "0"
        assert (await by_word.infer(ROW)).status == 402


@pytest.mark.parametrize("kind", [Cluster, Domain])
@asynchronous
async def test_service_accounts_and_svids_are_served(tmp_path: Path, kind: type[Provider]) -> None:
    provider = kind()
    subject = provider.claims(AT)["sub"]
    async with introduced(tmp_path, provider.document(**introduces("alice", subject=subject))) as (world, instance):
        assert (await side(world, instance, provider.token(now=AT)).infer(ROW)).status == 200


LIES = {
    "alg none (54)": lambda p: raw_token({"alg": "none", "typ": "at+jwt"}, p.claims(AT), b""),
    "signed with the public key (55)": lambda p: raw_token({"alg": "HS256", "typ": "at+jwt"}, p.claims(AT), b"x" * 32),
    "kid is a path (56)": lambda p: p.token(now=AT, header={"kid": "../../etc/passwd"}),
    "for somebody else (57)": lambda p: p.token(now=AT, aud="https://other.example"),
    "of another issuer (57)": lambda p: p.token(now=AT, iss="https://login.example/realms/other"),
    "for another client (57)": lambda p: p.token(now=AT, azp="somebody-else"),
    "over (57)": lambda p: p.token(now=AT - 4000),
    "not yet (57)": lambda p: p.token(now=AT, nbf=AT + 100),
    "of a year ago (57)": lambda p: p.token(now=AT, iat=AT - 31_536_000),
    "a key in its header (58)": lambda p: Provider(p.name).token(now=AT, header={"jwk": p.jwks()["keys"][0]}),
    "another subject": lambda p: p.token(now=AT, sub="user-8"),
    "an id token for a login": lambda p: p.token(now=AT, header={"typ": "logout+jwt"}),
    "not a token": lambda _: b"a.b.c",
    "too long": lambda p: p.token(now=AT, more="x" * 20_000),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
@asynchronous
async def test_token_that_is_not_what_it_must_be_is_unauthorized_and_costs_nothing(tmp_path: Path, lie: Any) -> None:
    provider = Provider()
    async with introduced(tmp_path, alices(provider)) as (world, instance):
        answer = await side(world, instance, lie(provider)).infer(ROW)
        assert (answer.status, answer.json["code"]) == (401, "unauthorized")
        assert provider.name not in answer.json["detail"]
        assert instance.metering.snapshot().served == 0


@asynchronous
async def test_role_at_the_custodian_makes_nobody_a_consumer(tmp_path: Path) -> None:
    provider = Provider()
    async with introduced(tmp_path, provider.document()) as (world, instance):
        assert (await side(world, instance, provider.token(now=AT)).infer(ROW)).status == 401


@asynchronous
async def test_consumer_who_is_blocked_is_refused_whoever_vouches(tmp_path: Path) -> None:
    provider = Provider()
    async with introduced(tmp_path, alices(provider)) as (world, instance):
        asking = side(world, instance, provider.token(now=AT))
        assert (await asking.infer(ROW)).status == 200
        world.custodian.block(consumer="alice")
        await instance.renewal.once()
        assert (await asking.infer(ROW)).status == 403


@asynchronous
async def test_token_proven_once_is_refused_from_its_end_on(tmp_path: Path) -> None:
    provider = Provider()
    async with introduced(tmp_path, alices(provider)) as (world, instance):
        asking = side(world, instance, provider.token(now=AT, exp=AT + 30))
        assert (await asking.infer(ROW)).status == 200
        world.clock.advance(30)
        assert (await asking.infer(ROW)).status == 401


@asynchronous
async def test_issuer_that_was_taken_out_is_believed_no_more_though_the_host_holds_the_news_back(
    tmp_path: Path,
) -> None:
    provider, other = Provider(), Provider("https://other.example")
    async with introduced(tmp_path, alices(provider)) as (world, instance):
        asking = side(world, instance, provider.token(now=AT))
        assert (await asking.infer(ROW)).status == 200
        world.custodian.introduce(alices(other))
        world.custodian.keeps_issuers = True
        await instance.renewal.once()
        with pytest.raises(Unavailable):
            await instance.introductions.refresh(within=CALL)
        assert (await asking.infer(ROW)).status == 503
        assert (await side(world, instance, ALICE).infer(ROW)).status == 200  # the loan's own tokens go on
        world.custodian.keeps_issuers = False
        await instance.introductions.refresh(within=CALL)
        assert (await asking.infer(ROW)).status == 401
        assert (await side(world, instance, other.token(now=AT)).infer(ROW)).status == 200


@asynchronous
async def test_issuers_that_a_lease_names_no_more_are_believed_no_more(tmp_path: Path) -> None:
    provider = Provider()
    async with introduced(tmp_path, alices(provider)) as (world, instance):
        world.custodian.issuers_version = 0
        await instance.renewal.once()
        assert (await side(world, instance, provider.token(now=AT)).infer(ROW)).status == 401


@asynchronous
async def test_renewing_enclave_hears_of_new_keys_by_itself(tmp_path: Path) -> None:
    provider = Provider()
    async with introduced(tmp_path, alices(provider)) as (world, instance):
        rotated = Provider(kid="key-2")
        world.custodian.introduce(alices(rotated))
        await instance.renewal.once()
        await instance.renewal.hear()
        assert (await side(world, instance, rotated.token(now=AT)).infer(ROW)).status == 200
        assert (await side(world, instance, provider.token(now=AT)).infer(ROW)).status == 401


@asynchronous
async def test_second_try_with_a_fresh_token_of_the_same_subject_is_free_and_another_subject_gets_its_own(
    tmp_path: Path,
) -> None:
    provider = Provider()
    rules = [{"grants": {"consumer": "alice"}, "claims": {"/groups": "ward"}}]
    async with introduced(tmp_path, provider.document(rules=rules)) as (world, instance):
        first = side(world, instance, provider.token(now=AT, groups=["ward"]))
        again = side(world, instance, provider.token(now=AT, exp=AT + 200, groups=["ward"]))
        other = side(world, instance, provider.token(now=AT, sub="user-8", groups=["ward"]))
        receipts = [
            (await asking.infer(ROW, idempotency_key="once")).field("cloister-receipt")
            for asking in (first, again, other)
        ]
        assert receipts[0] == receipts[1] != receipts[2]
        assert instance.metering.snapshot().served == 2


@asynchronous
async def test_consumer_without_a_token_of_its_own_comes_by_an_issuers_word_alone(tmp_path: Path) -> None:
    provider = Provider()
    world = make_world(tmp_path, {"m": doubler()})
    loan = world.custodian.loan
    assert loan is not None
    listed = tuple(replace(item, token_sha256=NO_TOKEN) for item in loan.terms.consumers or ())
    world.custodian.loan = replace(loan, terms=replace(loan.terms, consumers=listed))
    world.custodian.introduce(alices(provider))
    async with world.enclave() as instance:
        assert (await side(world, instance, provider.token(now=AT)).infer(ROW)).status == 200
        for token in (None, ALICE, NO_TOKEN.hex().encode(), b"\x00".hex().encode()):
            assert (await side(world, instance, token).infer(ROW)).status == 401


@asynchronous
async def test_open_loan_asks_nobody_who_they_are(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, consumers=None)
    async with world.enclave() as instance:
        assert (await side(world, instance, Provider().token(now=AT)).infer(ROW)).status == 200


@asynchronous
async def test_token_bound_to_a_certificate_is_no_good_without_it(tmp_path: Path) -> None:
    provider = Provider()
    async with introduced(tmp_path, alices(provider)) as (world, instance):
        for bound in ({"x5t#S256": "A" * 43}, {"jkt": "A" * 43}):
            answer = await side(world, instance, provider.token(now=AT, cnf=bound)).infer(ROW)
            assert [reason["code"] for reason in answer.json["reasons"]] == ["unauthorized", "confirmation_missing"]


@asynchronous
async def test_host_that_sees_all_messages_reads_no_subject(tmp_path: Path) -> None:
    provider = Provider()
    rules = introduces("alice", subject="doctor-who-canary")
    async with introduced(tmp_path, provider.document(**rules)) as (world, instance):
        token = provider.token(now=AT, sub="doctor-who-canary")
        assert (await side(world, instance, token).infer(ROW)).status == 200
        seen = b"".join(world.custodian.wire) + world.log.getvalue().encode()
        assert b"canary" not in seen
        assert provider.name.encode() not in seen


def test_answer_to_another_request_and_older_issuers_are_refused() -> None:
    custodian, key = SigningKey.generate(), SigningKey.generate()
    mine, other = ask_issuers(key, bytes(16)), ask_issuers(key, bytes(16))
    request, digest = verify_issuers_request(mine.statement, key.verify_key)
    answer = answer_issuers(request, digest, version=3, lent=b"whose", key=custodian)
    assert open_issuers(answer, mine, custodian=custodian.verify_key) == (3, b"whose")
    with pytest.raises(Rejected, match="wrong_request"):
        open_issuers(answer, other, custodian=custodian.verify_key)
    with pytest.raises(Rejected):
        open_issuers(answer, mine, custodian=key.verify_key)
    with pytest.raises(Rejected, match="unknown_key"):
        verify_issuers_request(mine.statement, custodian.verify_key)
    with pytest.raises(Malformed):
        answer_issuers(replace(request, kem_pub=bytes(1216)), digest, version=3, lent=b"", key=custodian)


@asynchronous
async def test_answer_that_is_older_than_the_lease_is_not_taken(tmp_path: Path) -> None:
    provider = Provider()
    async with introduced(tmp_path, alices(provider)) as (world, instance):
        world.custodian.introduce(alices(provider))
        await instance.renewal.once()
        world.custodian.issuers_version -= 1  # what a database restored from a backup would say
        with pytest.raises(Rejected, match="issuers_stale"):
            await instance.introductions.refresh(within=CALL)
        assert (await side(world, instance, provider.token(now=AT)).infer(ROW)).status == 503


# Client certificates, over TLS that ends in the enclave


def client_context(file: Path, chain: list[bytes], key: Any) -> ssl.SSLContext:
    """Return TLS that takes any server, and shows these certificates."""
    pem = "".join(map(ssl.DER_cert_to_PEM_cert, chain)).encode()
    file.write_bytes(pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(file)
    return context


def site_of_now(name: str = "Site CA", above: Authority | None = None) -> Authority:
    """Return an authority of today, for a TLS handshake asks the machine's clock."""
    return Authority(name, above, now=datetime.now(UTC))


async def ask_with(
    folder: Path, documents: list[dict[str, Any]], chain: list[bytes], key: Any, token: bytes | None = None
) -> httpx2.Response:
    """Ask an enclave that is told of these issuers, over TLS that shows these certificates."""
    world, config = pinned_world(folder, client_certificates=True)
    world.custodian.introduce(*documents)
    headers = {} if token is None else {"authorization": f"Bearer {token.decode()}"}
    async with serving(world, config) as (instance, plain):
        await instance.introductions.refresh(within=CALL)
        context = client_context(folder / "client.pem", chain, key)
        async with httpx2.AsyncClient(base_url=str(plain.base_url), verify=context, trust_env=False) as client:
            return await client.post("/v2/models/m/infer", content=infer_body(ROW), headers=headers)


@asynchronous
async def test_client_certificate_of_the_site_is_served(tmp_path: Path) -> None:
    site = site_of_now()
    certificate, key = site.client(dns("api.example"))
    document = site.document(**introduces("alice", subject="dns:api.example"))
    assert (await ask_with(tmp_path, [document], [certificate], key)).status_code == 200


@asynchronous
async def test_x509_svid_below_an_intermediate_is_served(tmp_path: Path) -> None:
    domain = Domain()
    domain.authority = site_of_now()
    between = site_of_now("Intermediate", domain.authority)
    certificate, key = between.client(uri("spiffe://example.org/ns/prod/api"))
    document = domain.document(**introduces("alice", subject="spiffe://example.org/ns/prod/api"))
    answer = await ask_with(tmp_path, [document], [certificate, between.der], key)
    assert answer.status_code == 200, answer.text


@asynchronous
async def test_certificate_of_another_subject_is_refused(tmp_path: Path) -> None:
    site = site_of_now()
    document = site.document(**introduces("alice", subject="dns:api.example"))
    certificate, key = site.client(dns("other.example"))
    answer = await ask_with(tmp_path, [document], [certificate], key)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


@asynchronous
async def test_certificate_of_another_authority_ends_the_handshake(tmp_path: Path) -> None:
    document = site_of_now().document(**introduces("alice", subject="dns:api.example"))
    certificate, key = site_of_now().client(dns("api.example"))
    with pytest.raises(httpx2.HTTPError):
        await ask_with(tmp_path, [document], [certificate], key)


@pytest.mark.parametrize("holds", [True, False])
def test_token_bound_to_a_certificate_is_served_to_its_holder_alone(tmp_path: Path, *, holds: bool) -> None:
    site, provider = site_of_now(), Provider()
    certificate, key = site.client(dns("api.example"))
    bound = hashlib.sha256(certificate if holds else b"another").digest()
    token = provider.token(now=int(datetime.now(UTC).timestamp()), cnf={"x5t#S256": identity_kit.b64u(bound)})
    documents = [alices(provider), site.document(**introduces("bob", subject="dns:nobody.example"))]
    answer = asyncio.run(ask_with(tmp_path, documents, [certificate], key, token))
    assert answer.status_code == (200 if holds else 401), answer.text
