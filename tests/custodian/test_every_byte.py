"""A real log: every byte altered, every line taken, put in, moved is found (T83), also once it was pruned."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from test_forgetting import DAY, forget, held, lines_of, prune, verified, ward

from cloister.crypto.sign import VerifyKey
from cloister.errors import CloisterError, Rejected
from cloister.lending.audit import Checkpoint, verify_checkpoint, verify_log
from cloister.lending.merkle import leaf_hash
from cloister.lending.pruning import PrunedEntry, is_pruned
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from custodian_kit import Bench


def checkpoint_of(bench: Bench) -> Checkpoint:
    key = VerifyKey(parse_b64u(bench.get("/v1/custodian").json()["key"], what="key"))
    return verify_checkpoint(bench.get("/v1/audit/checkpoint").content, key)


def real_log(bench: Bench, *, pruned: bool) -> tuple[list[bytes], Checkpoint]:
    """Return a log in which much has happened."""
    ward(bench)
    forget(bench, "ward-b")
    held(bench, "class:security")
    if pruned:
        bench.clock.advance(401 * DAY)
        assert prune(bench)["pruned"]
    lines = verified(bench)
    assert any(map(is_pruned, lines)) is pruned
    return lines, checkpoint_of(bench)


def found(lines: list[bytes], checkpoint: Checkpoint) -> bool:
    """Tell whether verification refuses, by an error of ours."""
    try:
        verify_log(lines, checkpoint)
    except CloisterError:
        return True
    return False


@pytest.mark.timeout(240)
@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
def test_t83_any_altered_byte_is_found(bench: Bench, *, pruned: bool) -> None:
    """Every byte, as a file has them: line ends too. Three bits of each, and a random other byte."""
    lines, checkpoint = real_log(bench, pruned=pruned)
    data = b"\n".join(lines)
    rng = random.Random(7)
    missed = []
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    for at in range(len(data)):
        for flip in (0x01, rng.randrange(1, 256)):
            bent = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            if not found(bent.split(b"\n"), checkpoint):
                missed.append((at, flip))
    assert missed == []


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
def test_t83_any_removed_or_inserted_byte_is_found(bench: Bench, *, pruned: bool) -> None:
    lines, checkpoint = real_log(bench, pruned=pruned)
    data = b"\n".join(lines)
    rng = random.Random(11)
    for at in rng.sample(range(len(data)), 1500):
        assert found((data[:at] + data[at + 1 :]).split(b"\n"), checkpoint), at
        inserted = data[:at] + bytes([rng.randrange(256)]) + data[at:]
        assert found(inserted.split(b"\n"), checkpoint), at


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
def test_t83_any_line_removed_repeated_or_moved_is_found(bench: Bench, *, pruned: bool) -> None:
    lines, checkpoint = real_log(bench, pruned=pruned)
    for at in range(len(lines)):
        assert found(lines[:at] + lines[at + 1 :], checkpoint), at
        assert found(lines[: at + 1] + lines[at:], checkpoint), at
        for other in range(at + 1, len(lines)):
            swapped = list(lines)
            swapped[at], swapped[other] = swapped[other], swapped[at]
            assert found(swapped, checkpoint), (at, other)


def test_t83_a_body_that_no_pruning_took_cannot_be_withheld(bench: Bench) -> None:
    """Who hides one entry has its hash right, and is found all the same: nothing in the log accounts for the gap."""
    lines, checkpoint = real_log(bench, pruned=True)
    for at, line in enumerate(lines):
        if is_pruned(line):
            continue
        for number in (1, 2, 99):
            left = PrunedEntry(index=at, leaf=leaf_hash(line), pruning=number).dump()
            with pytest.raises(Rejected) as refused:
                verify_log([*lines[:at], left, *lines[at + 1 :]], checkpoint)
            assert refused.value.code in {"audit_withheld", "audit_broken"}


def test_a_pruned_body_put_back_is_found_unless_it_is_the_very_one(bench: Bench) -> None:
    ward(bench)
    before = lines_of(bench)
    bench.clock.advance(401 * DAY)
    prune(bench)
    lines, checkpoint = verified(bench), checkpoint_of(bench)
    gone = [at for at, line in enumerate(lines) if is_pruned(line)]
    back = [before[at] if at in gone else line for at, line in enumerate(lines)]
    assert verify_log(back, checkpoint).pruned == 0  # a copy from before is whole
    for at in gone:
        assert found([*lines[:at], before[at], *lines[at + 1 :]], checkpoint) or len(gone) == 1
        other = before[at].replace(b'"actor":"admin', b'"actor":"staff', 1)
        assert found([*back[:at], other, *back[at + 1 :]], checkpoint) or other == before[at]
