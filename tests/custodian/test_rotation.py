"""Rotating the key-encryption key: nothing else moves, nobody is refused, and what is said of it is true."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import bearer

from cloister.crypto.sign import Statement
from cloister.custodian.service.rewrapping import held_keks
from cloister.custodian.setup import vault_place
from cloister.custodian.store.keys import keks
from cloister.custodian.store.models import find_model
from cloister.custodian.vaults import unwrap_dek
from cloister.errors import Rejected
from cloister.lending.messages import Lease, LeaseRequest
from cloister.lending.messages.keys import KeyStatus
from cloister.lending.terms import LOAN_METER
from cloister.sealed.envelope import Envelope

if TYPE_CHECKING:
    from custodian_kit import Bench, Toy


def rotate(bench: Bench, **body: Any) -> Any:
    answer = bench.post("/v1/keys/rotate", body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def status(bench: Bench) -> KeyStatus:
    data = bench.get("/v1/keys/status").content
    return KeyStatus.parse(Statement.parse(data, label=KeyStatus.LABEL).verify([bench.init.key]))


def envelope(bench: Bench, digest: str) -> Envelope:
    with bench.service.context.reading() as connection:
        row = find_model(connection, digest)  # type: ignore[arg-type]  # a digest from the bench
    assert row is not None
    return Envelope.parse(row.envelope)


def opened(bench: Bench, digest: str) -> bytes:
    """Return the model's key as a release would get it."""
    vault = bench.service.context.vault
    with bench.service.context.reading() as connection:
        return unwrap_dek(vault, envelope(bench, digest), held_keks(connection, vault))[0]


def test_a_rotation_wraps_the_same_key_anew_one_version_up(bench: Bench) -> None:
    before, vault = envelope(bench, bench.digest), bench.service.context.vault
    vault_file = vault_place(bench.home).read_bytes()
    told = rotate(bench, reason="yearly")
    after = envelope(bench, bench.digest)
    assert (told["key_epoch"], told["rewrapped"], told["destroyed"]) == (2, 1, 0)
    assert [entry.key_version for entry in after.recipients] == [before.recipients[0].key_version + 1]
    assert after.recipients[0].kek_id == told["kek_id"] != vault.kek_id
    assert opened(bench, bench.digest) == bench.dek
    assert vault_place(bench.home).read_bytes() == vault_file  # shares are of these bytes
    entry = bench.audit()[-1]
    assert (entry["kind"], entry["subject"]) == ("keys_rotated", told["kek_id"])
    assert entry["details"] == {"key_epoch": 2, "kind": "by_hand", "models": 1, "stuck": 0}
    assert set(entry["committed"]) == {"reason"}


def test_keys_are_there_after_a_restart_and_many_rotations(bench: Bench) -> None:
    for _ in range(3):
        rotate(bench)
        bench.restart()
    assert envelope(bench, bench.digest).recipients[0].key_version == 4
    assert opened(bench, bench.digest) == bench.dek


def test_others_in_an_envelope_stay(bench: Bench) -> None:
    package = bench.seal("shared")
    stranger = {"kek_id": "theirs", "key_version": 7, "kid": "another", "wrapped": "AAAA"}
    package["envelope"]["recipients"].append(stranger)
    assert bench.publish(package).status_code == 201
    rotate(bench)
    entries = envelope(bench, package["digest"]).recipients
    assert [(entry.kid, entry.key_version) for entry in entries][1:] == [("another", 7)]


def test_a_model_published_after_a_rotation_is_under_the_key_in_use(bench: Bench) -> None:
    told = rotate(bench)
    package = bench.seal("late")
    assert bench.publish(package).status_code == 201
    assert envelope(bench, package["digest"]).recipients[0].kek_id == told["kek_id"]


def test_an_envelope_of_before_is_not_opened_by_the_new_key(bench: Bench) -> None:
    rotate(bench)
    old = envelope(bench, bench.digest)
    rotate(bench)
    vault = bench.service.context.vault
    with bench.service.context.reading() as connection:
        newest = keks(connection)[0].id
        swapped = replace(old, recipients=(replace(old.recipients[0], kek_id=newest),))
        with pytest.raises(Rejected, match="wrong_key"):
            unwrap_dek(vault, swapped, held_keks(connection, vault))


def test_a_key_that_was_swapped_in_the_database_is_refused(bench: Bench) -> None:
    """T19: who writes the database cannot give one key the name of another."""
    rotate(bench)
    rotate(bench)
    vault = bench.service.context.vault
    with bench.service.context.reading() as connection:
        newest, older = keks(connection)
    assert older.wrapped is not None
    with pytest.raises(Rejected, match="wrong_key"):
        vault.open_kek(newest.id, older.wrapped)


def test_every_lease_moves_at_its_next_renewal_and_until_then_is_listed(bench: Bench) -> None:
    lent = bench.lend(allowance=100, max_ceiling=5)
    first, second = lent.boot(), lent.boot()
    first.renew()
    second.renew()
    assert status(bench).moved
    rotate(bench)
    told = status(bench)
    assert (told.live, told.behind_count, told.key_epoch, told.models) == (2, 2, 2, 1)
    assert {item.instance for item in told.behind} == {first.id, second.id}
    first.renew()
    assert [item.instance for item in status(bench).behind] == [second.id]
    second.renew()
    assert status(bench).moved
    assert status(bench).live == 2


def test_an_instance_that_attests_again_for_a_newer_version_has_moved(bench: Bench) -> None:
    lent = bench.lend(allowance=100, max_ceiling=5)
    toy = lent.boot()
    toy.renew()
    rotate(bench)
    package = bench.seal("newer")
    assert bench.publish(package).is_success
    bench.clock.advance(1)
    bench.post(f"/v1/loans/{lent.id}/models", {"digest": package["digest"], "name": "digits"})
    assert [item.instance for item in status(bench).behind] == [toy.id]
    assert lent.attest(toy.attest_statement(toy.take_challenge())).status_code == 200
    assert status(bench).moved


def test_an_instance_that_falls_silent_leaves_the_list_when_it_is_dead(bench: Bench) -> None:
    lent = bench.lend(allowance=100)
    lent.boot().renew()
    rotate(bench)
    assert not status(bench).moved
    bench.clock.advance(10_000)
    assert (status(bench).moved, status(bench).live) == (True, 0)


def test_a_release_after_a_rotation_is_of_the_new_epoch_and_its_source_is_kept(bench: Bench) -> None:
    lent = bench.lend(allowance=100)
    early = lent.boot()
    before = envelope(bench, bench.digest)
    told = rotate(bench)
    late = lent.boot()
    after = envelope(bench, bench.digest)
    kept = {item["instance"]: item for item in bench.get(f"/v1/loans/{lent.id}").json()["keys_released"]}
    for toy, source in ((early, before), (late, after)):
        item = kept[toy.id]
        assert item["envelope"] == hashlib.sha256(source.dump()).hexdigest()
        assert (item["kek_id"], item["key_version"]) == (source.recipients[0].kek_id, source.recipients[0].key_version)
        assert item["model"] == bench.digest
    released = [entry for entry in bench.audit() if entry["kind"] == "key_released"][-1]
    assert released["details"]["kek"] == told["kek_id"]
    assert released["details"]["envelope"] == kept[late.id]["envelope"]
    assert [item.instance for item in status(bench).behind] == [early.id]


def test_a_schedule_outlives_restarts_and_is_kept_once_for_each_period(bench: Bench) -> None:
    answer = bench.post("/v1/keys/schedule", {"every_s": 3600})
    assert (answer.status_code, answer.json()["every_s"]) == (200, 3600)
    assert not bench.service.rotate_due()
    bench.restart()
    bench.clock.advance(3601)
    assert bench.service.rotate_due()
    assert not bench.service.rotate_due()
    assert bench.get("/v1/keys").json()["key_epoch"] == 2
    assert bench.audit()[-1]["details"]["kind"] == "scheduled"
    assert bench.post("/v1/keys/schedule", {"every_s": 0}).json()["next_at"] is None
    bench.clock.advance(100_000)
    assert not bench.service.rotate_due()


def test_retired_keys_are_destroyed_once_past_their_retention(bench: Bench) -> None:
    first = rotate(bench)
    second = rotate(bench)
    bench.clock.advance(29 * 86_400)
    assert not bench.service.rotate_due()
    bench.clock.advance(2 * 86_400)
    assert bench.service.rotate_due()
    with bench.service.context.reading() as connection:
        assert {row.id: row.wrapped is None for row in keks(connection)} == {
            first["kek_id"]: True,
            second["kek_id"]: False,
        }
    assert (bench.audit()[-1]["kind"], bench.audit()[-1]["subject"]) == ("key_destroyed", first["kek_id"])
    assert not bench.service.rotate_due()
    assert opened(bench, bench.digest) == bench.dek
    assert [key.destroyed_at is not None for key in status(bench).keys] == [False, True, False]


def test_an_incident_destroys_retired_keys_at_once(bench: Bench) -> None:
    rotate(bench)
    told = rotate(bench, incident=True, reason="a core dump was copied")
    assert told["destroyed"] == 1
    kinds = [entry["kind"] for entry in bench.audit()[-2:]]
    assert kinds == ["keys_rotated", "key_destroyed"]
    assert opened(bench, bench.digest) == bench.dek


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("rotate", {"more": 1}),
        ("rotate", {"incident": "yes"}),
        ("rotate", {"reason": 7}),
        ("rotate", {"reason": "x" * 201}),
        ("rotate", {"reason": "two\nlines"}),
        ("schedule", {}),
        ("schedule", {"every_s": 59}),
        ("schedule", {"every_s": "90d"}),
        ("schedule", {"every_s": 1.5}),
        ("schedule", {"every_s": -1}),
        ("schedule", {"every_s": 2**53}),
    ],
)
def test_a_request_of_another_form_changes_nothing(bench: Bench, path: str, body: dict[str, Any]) -> None:
    assert bench.post(f"/v1/keys/{path}", body).status_code == 400
    assert bench.get("/v1/keys").json()["key_epoch"] == 1


def test_only_an_admin_rotates(bench: Bench) -> None:
    lent = bench.lend(allowance=1)
    for path in ("rotate", "schedule"):
        assert bench.post(f"/v1/keys/{path}", {}, lent.token).status_code == 403
        assert bench.post(f"/v1/keys/{path}", {}, bearer("nobody")).status_code == 401
    assert bench.get("/v1/keys/status", lent.token).status_code == 403


def test_one_idempotency_key_rotates_once(bench: Bench) -> None:
    first, second = (bench.post("/v1/keys/rotate", {}, **{"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json() == second.json()
    assert bench.get("/v1/keys").json()["key_epoch"] == 2


def test_rotations_under_load_lose_no_renewal_and_no_release(bench: Bench) -> None:
    lent = bench.lend(allowance=300, max_ceiling=3, max_instances=40)
    toys = [lent.boot() for _ in range(3)]
    faults: list[BaseException] = []
    granted: list[int] = []
    over = threading.Event()

    def renew(toy: Toy) -> None:
        try:
            sequence = 0
            while not over.is_set():
                sequence += 1
                request = LeaseRequest(
                    instance=toy.id, epoch=1, seq=sequence, req_nonce=bytes(16), used={}, reserved={},
                    want={LOAN_METER: 3}, served=0, chain_head=bytes(32),
                )  # fmt: skip
                reply = bench.service.lease(toy.id, Statement.sign(toy.key, request.LABEL, request.dump()).dump())
                Lease.parse(Statement.parse(reply, label=Lease.LABEL).verify([bench.init.key]))
            granted.append(sequence)
        except BaseException as exc:  # noqa: BLE001 - carried to the test's own thread
            faults.append(exc)

    threads = [threading.Thread(target=renew, args=(toy,)) for toy in toys]
    for thread in threads:
        thread.start()
    try:
        released = []
        for epoch in range(2, 10):
            rotate(bench)
            toy = lent.boot()
            assert toy.grant is not None
            released.append(toy.grant.keys[0].key_version)
            assert toy.released_dek() == opened(bench, bench.digest) == bench.dek, epoch
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not faults
    assert len(granted) == len(threads)
    assert released == list(range(2, 10))
    late = {item.instance for item in status(bench).behind}
    assert late.isdisjoint({toy.id})  # the newest release is of the newest epoch
