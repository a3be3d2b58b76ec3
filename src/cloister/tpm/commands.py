"""One method for each TPM command that Cloister uses (TPM 2.0 Part 3).

Handles are plain integers; whoever gets one flushes it. A TPM has three slots for objects and three for
sessions, so every caller here uses ``with``.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.structures import PcrSelection, Public, b2, dump_selections, take_selections
from cloister.errors import Rejected, Unavailable
from cloister.tpm.codec import PASSWORD, Code, Handle, Session, dump_command, parse_response
from cloister.tpm.salted import SALTED_CIPHER, Salt, SaltedSession

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloister.attest.tpm.credential import Credential
    from cloister.tpm.transport import Transport
    from cloister.wire import Reader

__all__ = ["Tpm"]

_SU_CLEAR = 0
_SE_HMAC, _SE_POLICY = 0, 1
_RC_INITIALIZE = "0x100"
_RC_RETRY = bytes.fromhex("00000922")  # Part 2 section 6.6.3: not started, send it again
_TRIES = 5
_READS = 8  # PCR_Read returns eight PCRs at most; more rounds than that mean others extend all the time
_MAX_BLOB_BYTES = 2048
_CAP_HANDLES = 1  # TPM_CAP_HANDLES, Part 2 section 6.12
_MAX_HANDLES = 64


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


class Tpm:
    """A TPM behind a transport."""

    def __init__(self, transport: Transport) -> None:
        """Use ``transport``, which stays its owner's to close."""
        self._transport = transport

    def call(
        self,
        code: Code,
        *,
        handles: Sequence[int] = (),
        sessions: Sequence[Session] = (),
        body: bytes = b"",
    ) -> Reader:
        """Send one command; return its parameters. Raises ``Rejected``, ``Unavailable``, ``Malformed``."""
        command = dump_command(code, handles=handles, sessions=sessions, body=body)
        return parse_response(self._exchange(command), code)[1]

    def _make(
        self,
        code: Code,
        *,
        handles: Sequence[int] = (),
        sessions: Sequence[Session] = (),
        body: bytes = b"",
    ) -> tuple[int, Reader]:
        """Return the handle of what the command made, and its parameters."""
        command = dump_command(code, handles=handles, sessions=sessions, body=body)
        return parse_response(self._exchange(command), code, handle=True)

    def _exchange(self, command: bytes) -> bytes:
        """Send a command, again where the TPM asks for it: it does before the first password it counts failures of."""
        for _ in range(_TRIES):
            response = self._transport.transceive(command)
            if response[6:10] != _RC_RETRY:
                break
        return response

    def startup(self) -> None:
        """TPM2_Startup(CLEAR), as firmware does; a TPM that is started already stays as it is."""
        try:
            self.call(Code.STARTUP, body=_SU_CLEAR.to_bytes(2, "big")).end()
        except Rejected as exc:
            if not exc.reasons[0].got.startswith(_RC_INITIALIZE):
                raise

    def get_random(self, size: int) -> bytes:
        """TPM2_GetRandom: exactly ``size`` bytes, at most 32."""
        reader = self.call(Code.GET_RANDOM, body=size.to_bytes(2, "big"))
        data = reader.prefixed(2, cap=size)
        reader.end()
        if len(data) != size:
            msg = f"tpm: {len(data)} random bytes, want {size}"
            raise Unavailable(msg)
        return data

    def pcr_read(self, pcrs: Sequence[int], *, bank: Alg = Alg.SHA256) -> dict[int, bytes]:
        """TPM2_PCR_Read, repeated until all are there. Raises ``Rejected`` (``pcr_missing``) for a bank that is off."""
        values: dict[int, bytes] = {}
        for _ in range(_READS):
            missing = tuple(sorted(set(pcrs) - values.keys()))
            if not missing:
                return values
            reader = self.call(Code.PCR_READ, body=dump_selections([PcrSelection(bank=bank, pcrs=missing)]))
            reader.u32()  # the update counter
            selected = [(s.bank, pcr) for s in take_selections(reader) for pcr in s.pcrs]
            if reader.u32() != len(selected) or not selected:
                break
            for alg, pcr in selected:
                if alg != bank:
                    reader.fail("pcr of another bank")
                values[pcr] = reader.prefixed(2, cap=64)
            reader.end()
        raise Rejected.because("pcr_missing", f"{bank.name} bank", got=str(len(values)), want=str(len(set(pcrs))))

    def pcr_extend(self, pcr: int, value: bytes, *, bank: Alg = Alg.SHA256) -> None:
        """TPM2_PCR_Extend with one digest."""
        body = _u32(1) + bank.to_bytes(2, "big") + value
        self.call(Code.PCR_EXTEND, handles=(pcr,), sessions=(PASSWORD,), body=body)

    def pcr_reset(self, pcr: int) -> None:
        """TPM2_PCR_Reset: only PCR 16 and 23 from where we run."""
        self.call(Code.PCR_RESET, handles=(pcr,), sessions=(PASSWORD,))

    @contextmanager
    def create_primary(self, hierarchy: Handle, template: Public) -> Iterator[tuple[int, Public]]:
        """TPM2_CreatePrimary: the same template gives the same key as long as the hierarchy's seed lives."""
        body = b2(b2(b"") + b2(b"")) + b2(template.dump()) + b2(b"") + _u32(0)
        handle, reader = self._make(Code.CREATE_PRIMARY, handles=(hierarchy,), sessions=(PASSWORD,), body=body)
        with self._flushed(handle):
            yield handle, Public.parse(reader.prefixed(2, cap=_MAX_BLOB_BYTES))

    def create_sealed(
        self, parent: int, name: bytes, *, data: bytes, template: bytes, session: SaltedSession
    ) -> tuple[bytes, bytes]:
        """TPM2_Create of a data object from a TPMT_PUBLIC; returns (private, public) without their lengths.

        ``session`` is an HMAC session; ``data`` is encrypted on its way.
        """
        reader = self._protected(
            session, Code.CREATE, handles=(parent,), names=(name,),
            secret=b2(b"") + b2(data), rest=b2(template) + b2(b"") + _u32(0),
        )  # fmt: skip
        private = reader.prefixed(2, cap=_MAX_BLOB_BYTES)
        return private, reader.prefixed(2, cap=_MAX_BLOB_BYTES)

    @contextmanager
    def load(self, parent: int, *, private: bytes, public: bytes) -> Iterator[int]:
        """TPM2_Load."""
        body = b2(private) + b2(public)
        handle, _ = self._make(Code.LOAD, handles=(parent,), sessions=(PASSWORD,), body=body)
        with self._flushed(handle):
            yield handle

    def read_public(self, handle: int) -> Public:
        """TPM2_ReadPublic of an RSA or ECC key."""
        return Public.parse(self.call(Code.READ_PUBLIC, handles=(handle,)).prefixed(2, cap=_MAX_BLOB_BYTES))

    def quote(self, ak: int, *, extra: bytes, pcrs: Sequence[int], bank: Alg = Alg.SHA256) -> tuple[bytes, bytes]:
        """TPM2_Quote in the key's own scheme; returns (TPMS_ATTEST, TPMT_SIGNATURE)."""
        selection = dump_selections([PcrSelection(bank=bank, pcrs=tuple(sorted(set(pcrs))))])
        body = b2(extra) + Alg.NULL.to_bytes(2, "big") + selection
        reader = self.call(Code.QUOTE, handles=(ak,), sessions=(PASSWORD,), body=body)
        attest = reader.prefixed(2, cap=_MAX_BLOB_BYTES)
        return attest, reader.rest()

    def activate_credential(self, ak: int, ek: int, credential: Credential, *, ek_session: Session) -> bytes:
        """TPM2_ActivateCredential: the secret, if this TPM holds both keys."""
        body = b2(credential.id_object) + b2(credential.encrypted_secret)
        reader = self.call(Code.ACTIVATE_CREDENTIAL, handles=(ak, ek), sessions=(PASSWORD, ek_session), body=body)
        secret = reader.prefixed(2, cap=64)
        reader.end()
        return secret

    @contextmanager
    def policy_session(self, alg: Alg = Alg.SHA256) -> Iterator[int]:
        """TPM2_StartAuthSession of a policy session, unbound and unsalted."""
        nonce = self.get_random(16)
        body = b2(nonce) + b2(b"") + bytes((_SE_POLICY,)) + Alg.NULL.to_bytes(2, "big") + alg.to_bytes(2, "big")
        handle, _ = self._make(Code.START_AUTH_SESSION, handles=(Handle.NULL, Handle.NULL), body=body)
        with self._flushed(handle):
            yield handle

    @contextmanager
    def salted_session(self, parent: int, public: Public, *, policy: bool) -> Iterator[SaltedSession]:
        """TPM2_StartAuthSession of a policy or an HMAC session, salted to a key that the caller has proven."""
        salt = Salt(public)
        kind = bytes((_SE_POLICY if policy else _SE_HMAC,))
        body = b2(salt.nonce) + b2(salt.encrypted) + kind + SALTED_CIPHER + Alg.SHA256.to_bytes(2, "big")
        handle, reader = self._make(Code.START_AUTH_SESSION, handles=(parent, Handle.NULL), body=body)
        with self._flushed(handle):
            yield SaltedSession(handle, salt, reader.prefixed(2, cap=64))

    def _protected(
        self, session: SaltedSession, code: Code, *, handles: Sequence[int], names: Sequence[bytes], rest: bytes,
        secret: bytes | None = None,
    ) -> Reader:  # fmt: skip
        command = session.command(code, handles=handles, names=names, secret=secret, rest=rest)
        return session.answer(self._exchange(command), code)

    def policy_secret(self, session: int, hierarchy: Handle) -> None:
        """TPM2_PolicySecret with the hierarchy's empty password."""
        body = b2(b"") + b2(b"") + b2(b"") + _u32(0)
        self.call(Code.POLICY_SECRET, handles=(hierarchy, session), sessions=(PASSWORD,), body=body)

    def policy_pcr(self, session: int, pcrs: Sequence[int], *, bank: Alg = Alg.SHA256) -> None:
        """TPM2_PolicyPCR with the PCRs as they are now."""
        selection = dump_selections([PcrSelection(bank=bank, pcrs=tuple(sorted(set(pcrs))))])
        self.call(Code.POLICY_PCR, handles=(session,), body=b2(b"") + selection)

    def policy_digest(self, session: int) -> bytes:
        """TPM2_PolicyGetDigest."""
        reader = self.call(Code.POLICY_GET_DIGEST, handles=(session,))
        digest = reader.prefixed(2, cap=64)
        reader.end()
        return digest

    def unseal(self, item: int, name: bytes, session: SaltedSession) -> bytes:
        """TPM2_Unseal; ``session`` is a policy session, under which the data is encrypted on its way."""
        reader = self._protected(session, Code.UNSEAL, handles=(item,), names=(name,), rest=b"")
        data = reader.prefixed(2, cap=128)
        reader.end()
        return data

    def handles(self, first: int) -> tuple[int, ...]:
        """TPM2_GetCapability: handles of the range that begins with ``first`` (Part 2 section 7.2), at most 64."""
        body = _u32(_CAP_HANDLES) + _u32(first) + _u32(_MAX_HANDLES)
        reader = self.call(Code.GET_CAPABILITY, body=body)
        reader.u8()  # more of them: no machine has that many
        if reader.u32() != _CAP_HANDLES:
            reader.fail("another capability than asked for")
        count = reader.u32()
        if count > _MAX_HANDLES:
            reader.fail(f"{count} handles, want at most {_MAX_HANDLES}")
        found = tuple(reader.u32() for _ in range(count))
        reader.end()
        return found

    def persist(self, key: int, handle: int) -> None:
        """TPM2_EvictControl: keep a loaded key at a persistent ``handle`` (0x81000000 and above)."""
        self.call(Code.EVICT_CONTROL, handles=(Handle.OWNER, key), sessions=(PASSWORD,), body=_u32(handle))

    def flush(self, handle: int) -> None:
        """TPM2_FlushContext: the handle is a parameter here, not in the handle area."""
        self.call(Code.FLUSH_CONTEXT, body=_u32(handle)).end()

    @contextmanager
    def _flushed(self, handle: int) -> Iterator[None]:
        try:
            yield
        finally:
            self.flush(handle)
