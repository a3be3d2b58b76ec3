"""Fuzzing targets of the guest side: what kernels, modules and hosts answer an attester."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cbor2

from cloister.enclave.attesters.nsm import parse_answer
from cloister.enclave.attesters.sev_guest import trimmed_table
from cloister.testing.vendors.amd import Chip, SyntheticAmd

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS"]


def _answers() -> list[bytes]:
    return [cbor2.dumps({"Attestation": {"document": bytes(64)}})]


def _tables() -> list[bytes]:
    table = Chip(SyntheticAmd.generate()).table()
    return [table.ljust(8192, b"\x00"), bytes(4096)]


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "guest-nsm-answer": (parse_answer, _answers),
    "guest-snp-certificates": (trimmed_table, _tables),
}
