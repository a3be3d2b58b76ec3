"""An envelope that does not open keeps nobody else from moving, and no key from being there when it opens again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import Toy
from test_rotation import envelope, opened, rotate, status

from cloister.custodian.store.keys import keks
from cloister.custodian.store.models import find_model, replace_envelope
from cloister.custodian.tokens import SYSTEM
from cloister.custodian.vaults import wrap_dek
from cloister.lending.messages.keys import StuckCause
from cloister.sealed.envelope import Envelope
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from custodian_kit import Bench


def stored(bench: Bench, digest: str) -> bytes:
    with bench.service.context.reading() as connection:
        row = find_model(connection, digest)  # type: ignore[arg-type]  # a digest from the bench
    assert row is not None
    return row.envelope


def put(bench: Bench, digest: str, data: bytes) -> None:
    with bench.service.context.store.writing() as connection:
        replace_envelope(connection, digest, data)  # type: ignore[arg-type]  # a digest from the bench


def wrapped(bench: Bench) -> dict[int, bool]:
    """Tell by number which keys that rotations made are still held."""
    with bench.service.context.reading() as connection:
        return {row.number: row.wrapped is not None for row in keks(connection)}


def entry(**changes: Any) -> Callable[[bytes], bytes]:
    """Return what changes the first recipient of an envelope."""

    def change(data: bytes) -> bytes:
        made = json.loads(data)
        made["recipients"][0].update(changes)
        return dump_json(made)

    return change


BREAKS: dict[str, tuple[Callable[[bytes], bytes], StuckCause]] = {
    "cut": (lambda data: data[:-9], StuckCause.MALFORMED),
    "nothing": (lambda _: b"", StuckCause.MALFORMED),
    "another's alone": (entry(kid="another"), StuckCause.NO_RECIPIENT),
    "another version": (entry(key_version=9), StuckCause.WRONG_KEY),
    "an altered key": (entry(wrapped="A" * 80), StuckCause.WRONG_KEY),
    "a key nobody made": (entry(kek_id="kek:" + "0" * 32), StuckCause.WRONG_KEY),
}


@pytest.fixture
def second(bench: Bench) -> dict[str, Any]:
    """Publish another model, after a first rotation."""
    rotate(bench)
    package = bench.seal("second")
    assert bench.publish(package).status_code == 201
    return package


@pytest.mark.parametrize("name", BREAKS)
def test_one_broken_envelope_keeps_no_other_from_moving(bench: Bench, second: dict[str, Any], name: str) -> None:
    spoil, cause = BREAKS[name]
    broken = spoil(stored(bench, second["digest"]))
    put(bench, second["digest"], broken)
    told = rotate(bench)
    assert (told["key_epoch"], told["rewrapped"]) == (3, 1)
    assert told["stuck"] == [{"cause": cause.value, "model": second["digest"]}]
    assert envelope(bench, bench.digest).recipients[0].kek_id == told["kek_id"]
    assert opened(bench, bench.digest) == bench.dek
    assert stored(bench, second["digest"]) == broken, "what is broken is left for whoever mends it"
    last = bench.audit()[-2:]
    assert [item["kind"] for item in last] == ["keys_rotated", "envelope_stuck"]
    assert (last[0]["details"]["models"], last[0]["details"]["stuck"]) == (1, 1)
    assert last[1]["subject"] == second["digest"]
    assert last[1]["details"] == {"codes": cause.value, "key_epoch": 3, "model": second["digest"]}
    stated = status(bench)
    assert [(item.model, item.cause) for item in stated.stuck] == [(second["digest"], cause)]
    assert (stated.models, stated.stuck_count, stated.moved) == (1, 1, False)


def test_an_envelope_of_another_model_is_not_taken_for_this_ones(bench: Bench, second: dict[str, Any]) -> None:
    """T19: who writes the database cannot have one model's key released in the name of another."""
    put(bench, second["digest"], stored(bench, bench.digest))
    assert rotate(bench)["stuck"] == [{"cause": "wrong_model", "model": second["digest"]}]
    third = bench.seal("third")
    assert bench.publish(third).status_code == 201
    put(bench, bench.digest, stored(bench, third["digest"]))
    lent = bench.lend(allowance=10)
    toy = Toy(lent)
    answer = lent.attest(toy.attest_statement(toy.take_challenge()))
    assert answer.status_code == 403
    assert "wrong_model" in answer.text


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("incident", [False, True])
def test_no_key_is_destroyed_that_a_broken_envelope_may_depend_on(
    bench: Bench, second: dict[str, Any], name: str, *, incident: bool
) -> None:
    good = stored(bench, second["digest"])
    put(bench, second["digest"], BREAKS[name][0](good))
    told = rotate(bench, incident=incident)
    assert (told["destroyed"], told["kept"]) == (0, 1)
    bench.clock.advance(40 * 86_400)
    bench.service.rotate_due()
    assert wrapped(bench) == {3: True, 2: True}
    assert not bench.service.rotate_due(), "what has to wait costs no transaction"
    put(bench, second["digest"], good)  # the disk was mended
    assert bench.service.rotate_due()
    assert [item["kind"] for item in bench.audit()[-2:]] == ["envelope_moved", "key_destroyed"]
    assert status(bench).stuck_count == 0
    assert wrapped(bench) == {3: True, 2: False}
    assert len(opened(bench, second["digest"])) == 32
    assert envelope(bench, second["digest"]).recipients[0].key_version == 3


def test_a_broken_envelope_holds_up_only_the_key_that_it_names(bench: Bench, second: dict[str, Any]) -> None:
    put(bench, second["digest"], entry(key_version=9)(stored(bench, second["digest"])))
    rotate(bench)
    told = rotate(bench, incident=True)
    assert (told["destroyed"], told["kept"]) == (1, 1)
    assert wrapped(bench) == {4: True, 3: False, 2: True}


def test_what_is_mended_is_due_and_moves_by_itself(bench: Bench, second: dict[str, Any]) -> None:
    good = stored(bench, second["digest"])
    put(bench, second["digest"], good[:-9])
    rotate(bench)
    assert not bench.service.rotate_due()
    put(bench, second["digest"], good)
    assert [item.cause for item in status(bench).stuck] == [StuckCause.DUE]
    bench.restart()
    assert bench.service.rotate_due()
    assert status(bench).stuck == ()
    moved = bench.audit()[-1]
    assert (moved["kind"], moved["actor"], moved["subject"]) == ("envelope_moved", SYSTEM.label, second["digest"])
    assert not bench.service.rotate_due()


@pytest.mark.parametrize("name", BREAKS)
def test_publishing_a_model_again_mends_its_envelope(bench: Bench, second: dict[str, Any], name: str) -> None:
    put(bench, second["digest"], BREAKS[name][0](stored(bench, second["digest"])))
    told = rotate(bench)
    assert bench.publish(second).status_code == 201
    mended = envelope(bench, second["digest"]).recipients[0]
    assert mended.kek_id == told["kek_id"]
    assert mended.key_version > 2, "no version that the model had is used for another wrapping"
    assert len(opened(bench, second["digest"])) == 32
    assert status(bench).stuck == ()
    assert bench.audit()[-1]["kind"] == "envelope_moved"
    size = len(bench.audit())
    assert bench.publish(second).status_code == 201
    assert len(bench.audit()) == size, "publishing what is whole changes nothing"


def test_a_key_in_use_that_does_not_open_stops_no_rotation(bench: Bench, second: dict[str, Any]) -> None:
    """The models under it are stuck; everything that is published or mended from now on has a key that opens."""
    with bench.service.context.store.writing() as connection:
        connection.exec_driver_sql("UPDATE kek SET wrapped = x'00' WHERE number = 2")
    told = rotate(bench)
    assert {item["cause"] for item in told["stuck"]} == {"wrong_key"}
    assert (told["rewrapped"], len(told["stuck"])) == (0, 2)
    assert bench.publish(second).status_code == 201
    assert [item.model for item in status(bench).stuck] == [bench.digest]


def test_an_envelope_of_the_last_key_version_stays_as_it_is(bench: Bench) -> None:
    vault = bench.service.context.vault
    last = wrap_dek(vault, bench.dek, manifest_digest=bench.digest, key_version=1 << 32)
    put(bench, bench.digest, Envelope(manifest_digest=bench.digest, recipients=(last,)).dump())
    assert rotate(bench)["stuck"] == [{"cause": "no_version", "model": bench.digest}]
    assert opened(bench, bench.digest) == bench.dek
