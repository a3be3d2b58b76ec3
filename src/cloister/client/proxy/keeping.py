"""Receipts of what the proxy passed on, one file each, as ``cloister receipt`` and ``cloister usage`` read them.

A receipt that could not be written is owed: until it is written nothing more is asked, for that would cost units that
nothing proves. Its answer is not given either, and is free to ask for again under its Idempotency-Key.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cloister.client.receipts import MAX_FILE_BYTES, VerifiedReceipt
from cloister.errors import CloisterError, Unavailable, UsageError
from cloister.private_file import read_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ReceiptFolder"]


class ReceiptFolder:
    """A folder that holds every receipt once."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, of mode 0700, where there is none. Raises ``UsageError`` where that does not go."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            msg = f"{folder}: {exc.strerror}"
            raise UsageError(msg) from exc
        self.folder = folder
        self.kept = 0
        self._owed: dict[str, VerifiedReceipt] = {}

    @property
    def owed(self) -> int:
        """How many could not be written yet."""
        return len(self._owed)

    async def demand_room(self) -> None:
        """Write what is owed. Raises ``Unavailable`` where that still does not go."""
        for receipt in list(self._owed.values()):
            await self.keep(receipt)

    async def keep(self, receipt: VerifiedReceipt) -> None:
        """Write a receipt durably, if it is not there already. Raises ``Unavailable``; then it is owed."""
        name = f"{receipt.receipt.instance[:16]}-{receipt.receipt.index:012d}.receipt"
        self._owed[name] = receipt
        try:
            await asyncio.to_thread(self._write, self.folder / name, receipt)
        except CloisterError as exc:
            msg = f"receipt {name}: could not be kept: {exc.message}"
            hint = "make room in the folder of receipts, then ask again: under the same Idempotency-Key that is free"
            raise Unavailable(msg, hint=hint) from exc
        if self._owed.pop(name, None) is not None:
            self.kept += 1

    def _write(self, path: Path, receipt: VerifiedReceipt) -> None:
        """Write it; an answer that was given again has its receipt there already."""
        if not path.exists():
            receipt.save(path)
        elif VerifiedReceipt.parse(read_private(path, cap=MAX_FILE_BYTES).strip()).statement != receipt.statement:
            msg = f"{path}: exists already, and is another receipt"
            raise UsageError(msg)
