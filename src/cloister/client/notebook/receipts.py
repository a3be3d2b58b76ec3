"""A receipt: what it proves, to whom, and what it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.client.notebook.box import box, facts, short
from cloister.wire import dump_time
from cloister.wire.markup import Html, joined, tag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.client.receipts import VerifiedReceipt

__all__ = ["receipt_html", "units_text"]


def receipt_html(receipt: VerifiedReceipt) -> Html:
    """Return what the enclave signed. Salts are left out: with them content can be guessed."""
    return box(
        f"Receipt {receipt.receipt.index}: signature verified",
        tag(
            "p",
            "It proves that one instance of an attested enclave answered one exact request with one exact answer, "
            "with this sealed model, for so many units. Kept with both, it proves that to anybody.",
        ),
        facts(_about(receipt)),
        tag(
            "p",
            "It does not show what was asked or answered, nor that the key was attested: that was proven when "
            "the answer came.",
        ),
    )


def _about(receipt: VerifiedReceipt) -> Iterator[tuple[str, str]]:
    made = receipt.receipt
    yield "units used", units_text(made.units)
    yield "number", f"{made.index} of its instance, chained to the one before"
    yield "sealed model", short(made.model)
    yield "loan", made.loan
    yield "consumer", made.consumer or "not named"
    yield "instance", short(made.instance)
    yield "signed by", joined(short(receipt.key.key_id), ", Ed25519: verified")
    yield "issued at", dump_time(made.issued_at)
    yield "custodian's status", "kept with it" if receipt.status is not None else "was not asked for"
    yield "custodian's ticket", "kept with it" if receipt.ticket is not None else "none came"


def units_text(units: int) -> str:
    """Return a number of units as one says it."""
    return f"{units:,} unit" if units == 1 else f"{units:,} units"
