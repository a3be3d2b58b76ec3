"""A newer version of a lent model at the custodian: offered, in force, released to whoever runs already."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cloister.crypto.hpke import Kem, KemPrivateKey
from cloister.lending.messages import Grant, Refusal
from cloister.lending.release import verify_grant
from cloister.lending.terms import MAX_VERSIONS, ModelDigest, Terms

if TYPE_CHECKING:
    import httpx
    from custodian_kit import Bench, Lent, Toy


def newer(bench: Bench, name: str = "newer") -> str:
    package = bench.seal(name)
    assert bench.publish(package).is_success
    return str(package["digest"])


def roll_out(lent: Lent, digest: str, name: str = "digits") -> httpx.Response:
    lent.bench.clock.advance(1)
    return lent.bench.post(f"/v1/loans/{lent.id}/models", {"digest": digest, "name": name})


def attest_again(toy: Toy) -> httpx.Response:
    return toy.lent.attest(toy.attest_statement(toy.take_challenge()))


def granted(toy: Toy, answer: httpx.Response) -> Grant:
    assert answer.status_code == 200, answer.text
    return verify_grant(
        answer.content, custodian=toy.bench.init.key, request_digest=toy.request_digest, instance=toy.id
    )


def test_a_running_instance_is_told_and_released_the_newer_version_and_keeps_what_it_holds(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    toy.serve(2)
    toy.report()
    toy.renew()
    before = lent.show()
    second = newer(bench)
    answer = roll_out(lent, second)
    assert (answer.status_code, answer.json()["in_force"]) == (200, True)
    assert toy.renew().models == (second, bench.digest)  # no stop: nothing but a version has changed
    grant = granted(toy, attest_again(toy))
    assert [key.model for key in grant.keys] == [second]
    assert grant.terms.models[0].replaces == (bench.digest,)
    assert lent.show()["meters"] == before["meters"]
    assert len(lent.show()["instances"]) == 1
    assert bench.kinds().count("key_released") == 2
    assert toy.renew().models == (second, bench.digest)
    toy.close()


def test_who_boots_now_gets_the_newer_version_alone(bench: Bench) -> None:
    lent = bench.lend()
    second = newer(bench)
    roll_out(lent, second)
    toy = lent.boot()
    assert toy.grant is not None
    assert [key.model for key in toy.grant.keys] == [second]


def test_a_stolen_instance_key_with_another_kem_key_is_released_nothing(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    roll_out(lent, newer(bench))
    toy.kem = KemPrivateKey.generate(Kem.MLKEM768_X25519)
    toy.kem_pub = toy.kem.public_bytes()
    answer = attest_again(toy)
    assert (answer.status_code, answer.json()["code"]) == (403, "instance_known")


def test_a_blocked_or_closed_instance_is_released_nothing(bench: Bench) -> None:
    lent = bench.lend(allowance=1000)
    blocked, closed = lent.boot(), lent.boot()
    blocked.renew()
    closed.renew()
    roll_out(lent, newer(bench))
    bench.post("/v1/blocks", {"kind": "instance", "subject": blocked.id, "reason": ""})
    assert isinstance(blocked.renew(), Refusal)
    closed.close()
    for toy in (blocked, closed):
        assert attest_again(toy).json()["code"] == "instance_known"


def test_no_version_comes_back_and_none_is_rolled_out_that_is_not_published(bench: Bench) -> None:
    """T24."""
    lent = bench.lend()
    second = newer(bench)
    roll_out(lent, second)
    for digest in (bench.digest, second):
        assert roll_out(lent, digest).json()["code"] == "already_exists"
    assert roll_out(lent, "0" * 64).json()["code"] == "not_found"
    assert roll_out(lent, newer(bench, "third"), name="other").json()["code"] == "not_found"
    fourth = newer(bench, "fourth")
    assert bench.post(f"/v1/models/{fourth}/withdraw", {}).is_success
    assert roll_out(lent, fourth).json()["code"] == "model_withdrawn"


@pytest.mark.parametrize("body", [{}, {"digest": "0" * 64}, {"name": "digits"}, {"digest": "x", "name": "digits"}])
def test_a_rollout_that_names_nothing_is_malformed(bench: Bench, body: dict[str, str]) -> None:
    lent = bench.lend()
    assert bench.post(f"/v1/loans/{lent.id}/models", body).status_code == 400


def test_borrowers_and_auditors_roll_nothing_out(bench: Bench) -> None:
    lent = bench.lend()
    body = {"digest": newer(bench), "name": "digits"}
    for role in ("auditor",):
        assert bench.post(f"/v1/loans/{lent.id}/models", body, bench.token(role)).status_code == 403


def test_versions_are_bounded(bench: Bench) -> None:
    lent = bench.lend()
    row = lent.show()["terms"]
    terms = Terms.from_json(row)
    many = tuple(ModelDigest(format(number, "064x")) for number in range(1, MAX_VERSIONS))
    full = replace(terms, models=(replace(terms.models[0], replaces=many),))
    assert Terms.from_json(full.to_json()) == full
    from cloister.custodian.store.loans import replace_terms  # noqa: PLC0415

    bench.service.context.transact(lambda work: replace_terms(work.connection, full))
    assert roll_out(lent, newer(bench)).json()["code"] == "too_many_versions"


def test_a_policy_that_changed_with_it_ends_who_runs(bench: Bench) -> None:
    """A newer version saves nobody from what must be attested under anew."""
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    roll_out(lent, newer(bench))
    bench.clock.advance(1)
    changed = {**lent.show()["policy"], "version": 2}
    assert bench.post(f"/v1/loans/{lent.id}/policy", {"policy": changed}).is_success
    answer = toy.renew()
    assert isinstance(answer, Refusal)
    assert answer.stop
