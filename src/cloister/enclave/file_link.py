"""The custodian by courier: an enclave without a network boots through files (docs/spec/voucher.md, section 7).

Speaks the same messages as ``custodian_link``. What is signed and bound there is signed and bound here: a courier can
delay, swap or lose a file, and learns the model's key as little as a network does. There is no renewal and no ticket.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cloister.crypto.sign import Label, Statement
from cloister.enclave.media import ATTEST, CHALLENGE, CHALLENGE_REQUEST, CLOSE, GRANT
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.wire import dump_json

if TYPE_CHECKING:
    from datetime import timedelta

    from cloister.enclave.custodian_link import Certify
    from cloister.enclave.media import MediaFolder
    from cloister.lending.terms import InstanceId, LoanId

__all__ = ["FileLink"]

_LOOK_EVERY_S = 0.25


class FileLink:
    """Waits for files, however long they travel."""

    is_online = False
    certify: Certify | None = None
    presented = 0

    def __init__(self, media: MediaFolder) -> None:
        """Take the folder of removable media."""
        self._media = media

    async def challenge(self, loan: LoanId) -> bytes:
        """Say that a challenge is wanted; return the Challenge statement once its file is there.

        A file from before is passed over: its nonce may be used up, and a courier would go twice.
        """
        wanted = dump_json({"loan": loan, "v": 1})
        await asyncio.to_thread(self._media.write, CHALLENGE_REQUEST, wanted)
        return await self._arrived(CHALLENGE, Label.CHALLENGE)

    async def attest(self, loan: LoanId, statement: bytes) -> bytes:  # noqa: ARG002 - the statement says for which loan
        """Write the Attest statement; return the Grant statement once its file is there."""
        await asyncio.to_thread(self._media.write, ATTEST, statement)
        return await self._arrived(GRANT, Label.GRANT)

    async def renew(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:  # noqa: ARG002
        """Raise ``Unavailable``: leases do not come by courier."""
        return self._no_network()

    async def renew_with(self, *_: object, **__: object) -> tuple[bytes | Rejected, bytes]:
        """Raise ``Unavailable``: leases do not come by courier."""
        return self._no_network(), b""

    async def report(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:  # noqa: ARG002
        """Raise ``Unavailable``: what is due lies in the folder as files."""
        return self._no_network()

    async def ticket(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:  # noqa: ARG002
        """Raise ``Unavailable``: tickets do not come by courier."""
        return self._no_network()

    async def certificate(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:  # noqa: ARG002
        """Raise ``Unavailable``: there is no connection to show a certificate on."""
        return self._no_network()

    async def present(self, pem: bytes) -> None:
        """Show it to nobody."""

    async def issuers(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:  # noqa: ARG002
        """Raise ``Unavailable``: nobody's word comes by courier."""
        return self._no_network()

    async def close(self, instance: InstanceId, statement: bytes) -> None:  # noqa: ARG002 - the statement says whose
        """Write the Close statement."""
        await asyncio.to_thread(self._media.write, CLOSE, statement)

    async def _arrived(self, name: str, label: Label) -> bytes:
        """Return a file once it is a whole statement of its kind; half a copy is waited for."""
        while True:
            data = await asyncio.to_thread(self._media.fresh, name)
            if data is not None:
                try:
                    Statement.parse(data, label=label)
                except (Malformed, Rejected):
                    continue
                return data
            await asyncio.sleep(_LOOK_EVERY_S)

    @staticmethod
    def _no_network() -> bytes:
        msg = "custodian: this enclave has no network"
        raise Unavailable(msg)
