"""At every single thing that a rotation does to the world: fail, half-fail, crash. Afterwards the model opens."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from test_rotation import envelope, opened

from cloister.custodian.service import rotation
from cloister.custodian.tokens import SYSTEM
from cloister.errors import CloisterError
from cloister.wire import Fields
from fail_points import FailPoints, Fault, ProcessEnded

if TYPE_CHECKING:
    from custodian_kit import Bench


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_whatever_fails_at_any_write_of_a_rotation_the_model_opens(bench: Bench, fault: Fault) -> None:
    """A rotation is whole or not at all, at each statement, commit and file write."""
    at, epochs = 1, set()
    while True:
        points = FailPoints(at, fault)
        with contextlib.suppress(CloisterError, ProcessEnded), points.standing():
            bench.service.context.transact(lambda work: rotation.rotate(work, SYSTEM, Fields({}, what="body")))
        bench.service.abandon()
        bench.open()
        epoch = bench.get("/v1/keys").json()["key_epoch"]
        assert envelope(bench, bench.digest).recipients[0].key_version == epoch
        assert opened(bench, bench.digest) == bench.dek
        epochs.add(epoch)
        if points.met is None:
            break
        at += 1
    assert at > 5
    assert epochs >= {1, 2}, "some fault was before the commit, and one run went through"
