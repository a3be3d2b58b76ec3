"""Attacks as scripts over a ``World``: the honest protocol comes through each, some mistake dies in each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from world import World, terms

from cloister.crypto.sign import Statement
from cloister.lending.lease import parse_answer
from cloister.lending.messages import Lease

if TYPE_CHECKING:
    from collections.abc import Callable


def answer_held_back(world: type[World]) -> None:
    w = world((terms(), 5))
    enclave = w.launch()
    assert enclave
    sent = w.send(enclave)
    assert sent is not None
    answer = w.carry(sent)
    assert answer is not None
    w.block("loan", w.loan)
    w.advance(55)
    w.deliver(answer, enclave)
    w.serve(enclave)
    w.advance(50)
    w.serve(enclave)


def disk_rolled_back(world: type[World]) -> None:
    w = world((terms(), 3))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    w.save_disk(enclave)
    w.serve(enclave, 2)
    again = w.relaunch(enclave)
    if again is not None:
        w.serve(again, 2)
        w.renew(again)
        w.serve(again, 2)


def clone_by_relaunch(world: type[World]) -> None:
    w = world((terms(), 2))
    first, second = w.launch(), w.launch()
    assert first
    assert second
    for enclave in (first, second):
        w.send(enclave)
    answer = w.carry(0)
    assert answer is not None
    for enclave in (first, second):
        w.deliver(answer, enclave)
        w.serve(enclave, 2)


def sixteen_ask_for_the_last_unit(world: type[World]) -> None:
    w = world((terms(cap=1, instances=16), 1))
    enclaves = [enclave for enclave in (w.launch() for _ in range(16)) if enclave]
    for enclave in enclaves:
        w.renew(enclave)
    assert sum(w.serve(enclave) for enclave in enclaves) <= 1
    assert w.served


def retried_a_hundred_times(world: type[World]) -> None:
    w = world((terms(), 9))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    w.serve(enclave, 1)
    w.advance(20)
    sent = w.send(enclave)
    assert sent is not None
    for _ in range(100):
        w.carry(sent)
    for answer in range(len(w.answers)):
        w.deliver(answer, enclave)
    while w.serve(enclave):
        pass


def answered_again_after_a_top_up(world: type[World]) -> None:
    w = world((terms(), 3))
    enclave = w.launch()
    assert enclave
    sent = w.send(enclave)
    assert sent is not None
    w.crash_custodian("before answer")
    w.carry(sent)
    w.restart_custodian()
    w.carry(sent)
    w.top_up(w.loan, 4)
    answer = w.carry(sent)
    assert answer is not None
    w.deliver(answer, enclave)
    assert w.serve(enclave, 2) == 2


def close_and_keep_a_copy(world: type[World]) -> None:
    w = world((terms(), 2))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    twin = w.fork(enclave)
    w.close(enclave)
    again = w.launch()
    if again:
        w.renew(again)
        w.serve(again, 2)
    w.serve(twin, 2)


def clock_frozen_until_death(world: type[World]) -> None:
    w = world((terms(), 2))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    w.freeze_clock(enclave)
    w.advance(3600)
    w.sweep()
    again = w.launch()
    if again:
        w.renew(again)
        w.serve(again, 2)
    assert w.serve(enclave, 2) == 2
    w.block("loan", w.loan)
    w.advance(62)
    w.serve(enclave, 2)


def two_streams_at_once(world: type[World]) -> None:
    w = world((terms(), 2))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    streams = [stream for stream in (w.begin(enclave, 2), w.begin(enclave, 2)) if stream]
    for stream in streams * 2:
        w.chunk(enclave, stream)
    for stream in streams:
        w.finish(enclave, stream)


def old_request_again(world: type[World]) -> None:
    w = world((terms(), 9))
    enclave = w.launch()
    assert enclave
    for _ in range(3):
        w.renew(enclave)
        w.serve(enclave)
        w.advance(20)
    for number in range(len(w.requests)):
        w.carry(number)


def every_answer_twice(world: type[World]) -> None:
    w = world((terms(), 3))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    w.deliver(0, enclave)
    w.deliver(0, enclave)
    for _ in range(4):
        w.serve(enclave)


def database_restored(world: type[World]) -> None:
    w = world((terms(), 2))
    w.backup()
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    w.serve(enclave, 2)
    w.restore()
    w.advance(62)
    again = w.launch()
    if again:
        w.renew(again)
        w.serve(again, 2)


def withdrawal_lost_by_a_restore(world: type[World]) -> None:
    w = world((terms(cap=9), 5))
    w.backup()
    w.set_allowance(w.loan, 0)
    w.restore()
    w.advance(62)
    enclave = w.launch()
    if enclave:
        w.renew(enclave)
        w.serve(enclave, 5)


def block_lost_by_a_restore(world: type[World]) -> None:
    w = world((terms(), 5))
    w.backup()
    w.block("loan", w.loan)
    w.restore()
    w.advance(62)
    enclave = w.launch()
    if enclave:
        w.renew(enclave)
        w.serve(enclave, 2)


def goes_on_after_a_recovery(world: type[World]) -> None:
    w = world((terms(), 9))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    w.backup()
    w.top_up(w.loan, 1)
    w.restore()
    w.advance(61.5)
    w.renew(enclave)
    w.serve(enclave, 2)
    w.advance(20)
    w.renew(enclave)
    w.serve(enclave, 2)


def lost_requests_brought_after_a_recovery(world: type[World]) -> None:
    w = world((terms(), 9))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    w.serve(enclave, 2)
    w.backup()
    w.advance(20)
    for _ in range(2):
        w.renew(enclave)
        w.serve(enclave, 2)
    w.send(enclave)
    w.restore()
    for number in range(len(w.requests)):
        w.carry(number)
    assert not w.custodian.alarms
    w.close(enclave)
    assert not w.custodian.alarms


def network_cut_to_escape_a_block(world: type[World]) -> None:
    w = world((terms(cap=99), 99))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    w.block("loan", w.loan)
    for _ in range(8):
        w.advance(10)
        w.serve(enclave, 1)


def stream_outlives_the_lease(world: type[World]) -> None:
    w = world((terms(cap=100), 100))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    stream = w.begin(enclave, 100)
    assert stream
    w.block("loan", w.loan)
    for _ in range(100):
        w.advance(1)
        w.chunk(enclave, stream)
    w.finish(enclave, stream)


def block_while_renewing(world: type[World]) -> None:
    w = world((terms(cap=1), 99))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    digest = w.loans[w.loan].models[0].digest
    w.block("model", digest)
    w.block("consumer", f"{w.loan}/bob")
    for _ in range(8):
        w.advance(10)
        w.renew(enclave)
        w.serve(enclave)
        w.serve(enclave, 1, "metered", "bob")
        w.serve(enclave, 1, "metered", "ann")
    w.block("instance", enclave.id)
    w.advance(61.1)
    w.renew(enclave)
    w.serve(enclave, 1, "metered", "ann")


def commit_fails(world: type[World]) -> None:
    w = world((terms(), 5))
    enclave = w.launch()
    assert enclave
    sent = w.send(enclave)
    assert sent is not None
    for point in ("before commit", "after commit", "before answer"):
        w.crash_custodian(point)
        w.carry(sent)
        w.restart_custodian()
    answer = w.carry(sent)
    assert answer is not None
    w.deliver(answer, enclave)
    w.serve(enclave, 2)
    w.renew(enclave)


def meters_run_out_one_by_one(world: type[World]) -> None:
    w = world((terms(cap=2), 2))
    w.top_up(w.loan, 6)
    for _ in range(4):
        enclave = w.launch()
        assert enclave
        w.renew(enclave)
        w.serve(enclave, 2, "metered", "bob")


def older_block_version(world: type[World]) -> None:
    """Let a custodian that forgot about a block sign an otherwise right answer."""
    w = world((terms(), 5))
    enclave = w.launch()
    assert enclave
    w.block("consumer", f"{w.loan}/ann")
    w.renew(enclave)
    sent = w.send(enclave)
    assert sent is not None
    answer = w.carry(sent)
    assert answer is not None
    lease = parse_answer(w.answers[answer], w.custodian.key.verify_key)
    older = replace(lease, block_version=0)
    w.answers.append(Statement.sign(w.custodian.key, Lease.LABEL, older.dump()).dump())
    w.deliver(len(w.answers) - 1, enclave)


SCENARIOS: tuple[Callable[[type[World]], None], ...] = (
    answer_held_back,
    disk_rolled_back,
    clone_by_relaunch,
    sixteen_ask_for_the_last_unit,
    retried_a_hundred_times,
    answered_again_after_a_top_up,
    close_and_keep_a_copy,
    clock_frozen_until_death,
    two_streams_at_once,
    old_request_again,
    every_answer_twice,
    database_restored,
    withdrawal_lost_by_a_restore,
    block_lost_by_a_restore,
    goes_on_after_a_recovery,
    lost_requests_brought_after_a_recovery,
    network_cut_to_escape_a_block,
    stream_outlives_the_lease,
    block_while_renewing,
    commit_fails,
    meters_run_out_one_by_one,
    older_block_version,
)
