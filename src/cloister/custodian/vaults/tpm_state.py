"""The custodian's own TPM 2.0 as key service: the key comes back only in the state it was sealed in (docs/adr/0027).

The name says which PCRs of the SHA-256 bank count; the device or socket comes from the environment. The key is sealed
beside the hash of its context, for a TPM binds nothing of the kind itself. Nothing is left in the TPM, and nothing is
kept there: the sealed object lies in the vault file. The key passes encrypted, under a session salted to the TPM's key.

Not done here: values predicted for the next boot, and rollback protection: the key
opens again when the old software boots again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.tpm.commands import Tpm
from cloister.tpm.sealing import MAX_SECRET_BYTES, SealedSecret, seal_to_pcrs, unseal
from cloister.tpm.transport import DEVICE, open_transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["TPM_VARIABLE", "TpmState"]

TPM_VARIABLE: Final = "CLOISTER_CUSTODIAN_TPM"
_NAME = re.compile(r"tpm:sha256:(?P<pcrs>\d{1,2}(?:,\d{1,2}){0,15})", re.ASCII)
_WHERE = re.compile(r"(?:(?:device|unix):)?/[^:]{1,4095}")
_PCRS = 16  # the first sixteen: only a boot sets them back; 16 and 23 anybody resets, the rest is a dynamic launch's
_DOMAIN = b"cloister/vault/tpm/v1"
_HASH_BYTES = 32
_HINT = "boot what it was sealed to, or bring the vault back: cloister custodian shares combine SHARE... --vault NAME"
_FOREIGN = frozenset({"tpm command load", "tpm command unseal"})
"""Commands that fail over the sealed object; what the others refuse is the state of the TPM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmState:
    """A state of this machine's TPM: the PCRs that count, and the way to the TPM."""

    pcrs: tuple[int, ...]
    where: str

    @property
    def name(self) -> str:
        """The PCRs, as ``tpm:sha256:7,11``."""
        return f"tpm:sha256:{','.join(map(str, self.pcrs))}"

    @classmethod
    def connect(cls, name: str, environment: Mapping[str, str]) -> Self:
        """Return the state that ``name`` says, of the TPM that the environment says. Raises ``UsageError``."""
        found, where = _NAME.fullmatch(name), environment.get(TPM_VARIABLE, DEVICE)
        if not _WHERE.fullmatch(where):
            msg = f"{TPM_VARIABLE}: want device:/PATH or unix:/PATH"
            raise UsageError(msg)
        pcrs = tuple(map(int, found["pcrs"].split(","))) if found else ()
        state = cls(pcrs=pcrs, where=where)
        if not pcrs or pcrs != tuple(sorted({*pcrs} & {*range(_PCRS)})) or state.name != name:
            msg = f"vault: want tpm:sha256:PCRS, PCRS below {_PCRS}, each once, in order, with commas between"
            raise UsageError(msg, hint="such as tpm:sha256:7,11; the device comes from " + TPM_VARIABLE)
        return state

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Return ``key`` sealed to the PCRs as they are now. Raises as ``KeyService``."""
        if not 0 < len(key) <= MAX_SECRET_BYTES - _HASH_BYTES:
            msg = f"{self.name}: seals 1 to {MAX_SECRET_BYTES - _HASH_BYTES} bytes"
            raise UsageError(msg)
        with self._tpm() as tpm:
            values = tpm.pcr_read(self.pcrs)
            self._demand_measured(values)
            return seal_to_pcrs(tpm, _hash(context) + key, values).dump()

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Return what was wrapped in the same ``context``, if the PCRs are what they were. Raises as ``KeyService``."""
        try:
            sealed = SealedSecret.parse(wrapped)
        except Malformed as exc:
            raise self._not_ours() from exc
        # The TPM vouches for the public area alone; a policy beside it that is another would blame the PCRs.
        if sealed.pcrs != self.pcrs or sealed.policy not in sealed.public:
            raise self._not_ours()
        with self._tpm() as tpm:
            secret = unseal(tpm, sealed)
        if not hmac.compare_digest(secret[:_HASH_BYTES], _hash(context)):
            raise self._not_ours()
        return secret[_HASH_BYTES:]

    @contextmanager
    def _tpm(self) -> Iterator[Tpm]:
        """Yield the TPM, and say what it refuses in the words of ``KeyService``."""
        try:
            with open_transport(self.where) as transport:
                yield Tpm(transport)
        except Malformed as exc:
            msg = f"{self.name}: the tpm answers out of form"
            raise Unavailable(msg, hint=f"is {TPM_VARIABLE} a tpm?") from exc
        except Rejected as exc:
            raise self._refused(exc) from exc

    def _refused(self, refusal: Rejected) -> Rejected | UsageError:
        """Return our word for what the TPM refused. Digests stay out: they help nobody who is to mend this."""
        if refusal.code == "pcr_mismatch":
            return Rejected.because(
                "pcr_mismatch", self.name, got="another state", want="the one it was sealed in", hint=_HINT
            )
        if refusal.code == "pcr_missing":
            msg = f"{self.name}: the tpm has no sha256 bank"
            return UsageError(msg, hint="switch it on in the firmware's settings")
        if refusal.reasons[0].subject in _FOREIGN:
            return self._not_ours()
        hint = "its owner hierarchy must be enabled and have no password"
        return Rejected.because("service_denied", self.name, got=refusal.reasons[0].got, want="a tpm in use", hint=hint)

    def _not_ours(self) -> Rejected:
        hint = "another tpm, one that was cleared, or an altered vault file; shares bring the vault back"
        return Rejected.because("wrong_key", self.name, hint=hint)

    def _demand_measured(self, values: Mapping[int, bytes]) -> None:
        """Refuse a PCR that nothing was measured into: whatever boots next would find it the same."""
        empty = [str(pcr) for pcr in sorted(values) if not any(values[pcr])]
        if empty:
            msg = f"{self.name}: nothing was measured into pcr {', '.join(empty)}"
            raise UsageError(msg, hint="leave these out, or boot in a way that measures into them")


def _hash(context: str) -> bytes:
    return hashlib.sha256(_DOMAIN + context.encode()).digest()
