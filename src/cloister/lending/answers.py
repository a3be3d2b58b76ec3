"""What an enclave proves of an answer before it changes anything: who signed it, for whom, to which request."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, TypeAlias

from cloister.crypto.sign import Statement
from cloister.errors import Rejected
from cloister.lending.messages import Lease, Refusal, Ticket, Voucher

if TYPE_CHECKING:
    from cloister.crypto.sign import VerifyKey
    from cloister.lending.terms import InstanceId

__all__ = ["Answer", "demand_fitting", "parse_answer", "parse_ticket", "parse_voucher"]

Answer: TypeAlias = "Lease | Refusal | Ticket | Voucher"


def parse_answer(statement: bytes, custodian: VerifyKey) -> Lease | Refusal:
    """Return the custodian's answer once its signature is proven. Raises ``Malformed`` and ``Rejected``."""
    try:
        signed = Statement.parse(statement, label=Lease.LABEL)
    except Rejected:
        return _refusal(statement, custodian)
    return Lease.parse(signed.verify([custodian]))


def parse_ticket(statement: bytes, custodian: VerifyKey) -> Ticket | Refusal:
    """Return the custodian's answer to a ticket request. Raises as ``parse_answer``."""
    try:
        signed = Statement.parse(statement, label=Ticket.LABEL)
    except Rejected:
        return _refusal(statement, custodian)
    return Ticket.parse(signed.verify([custodian]))


def parse_voucher(statement: bytes, custodian: VerifyKey) -> tuple[Voucher, bytes]:
    """Return the voucher and its payload once the custodian's signature is proven. Raises as ``parse_answer``."""
    payload = Statement.parse(statement, label=Voucher.LABEL).verify([custodian])
    return Voucher.parse(payload), payload


def demand_fitting(
    answer: Answer, what: str, instance: InstanceId, *, pending: bytes | None, known: tuple[int, int]
) -> None:
    """Prove that an answer is ours, to the request with digest ``pending``, and not older than we know (E3, E8).

    ``known`` are the epoch and the block version.

    Raises ``Rejected``: ``wrong_instance``, ``not_pending``, ``stale_epoch``, ``stale_block_version``.
    """
    epoch, block_version = known
    if answer.instance != instance:
        raise Rejected.because("wrong_instance", what, got=answer.instance, want=instance)
    if pending is None or not hmac.compare_digest(answer.req_digest, pending):
        raise Rejected.because("not_pending", what, got=answer.req_digest.hex())
    if not isinstance(answer, Refusal) and answer.epoch < epoch:
        raise Rejected.because("stale_epoch", what, got=str(answer.epoch), want=f"at least {epoch}")
    if answer.block_version < block_version:
        want = f"at least {block_version}"
        raise Rejected.because("stale_block_version", what, got=str(answer.block_version), want=want)


def _refusal(statement: bytes, custodian: VerifyKey) -> Refusal:
    return Refusal.parse(Statement.parse(statement, label=Refusal.LABEL).verify([custodian]))
