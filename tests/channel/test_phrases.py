"""Reason phrases are those of the registry, and every status that is answered has one."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from cloister.channel.phrases import PHRASES
from cloister.client.proxy import refusal
from cloister.enclave import problems

RENAMED = {413: "Content Too Large", 422: "Unprocessable Content"}  # by RFC 9110; Python has the old names until 3.13


@pytest.mark.parametrize("status", sorted(PHRASES))
def test_a_phrase_is_that_of_the_registry(status: int) -> None:
    assert PHRASES[status] == RENAMED.get(status, HTTPStatus(status).phrase)


@pytest.mark.parametrize("table", [problems.STATUS_BY_CODE, refusal.STATUS_BY_CODE])
def test_every_status_of_a_code_has_a_phrase(table: dict[str, int]) -> None:
    assert set(table.values()) <= set(PHRASES)
