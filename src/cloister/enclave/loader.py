"""From a sealed package and a released key to a model that runs: signature, digest, key, bytes, maker, formats, engine.

A key is decrypted for each opening and not kept: what stays is the grant, in which the keys are encrypted to this
instance's KEM key, and that KEM key (ADR 0026). ``forget`` drops both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.crypto.hpke import DEFAULT_SUITE, open_with
from cloister.enclave.batching import rows_are_apart
from cloister.enclave.served import Loaded, ServedModel, wants_prepacking
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.lending.release import key_info
from cloister.sealed.formats import parse_model
from cloister.sealed.formats.places import opened_files
from cloister.sealed.open import open_model, verify_digest, verify_manifest
from cloister.stores import open_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.crypto.hpke import KemPrivateKey
    from cloister.crypto.mldsa import SecondKey
    from cloister.enclave.engines import Engine
    from cloister.enclave.packages import FoundPackage
    from cloister.lending.messages import Grant
    from cloister.lending.terms import ModelDigest, ModelTerms
    from cloister.sealed.oms import MadeBy, Maker
    from cloister.sealed.open import OpenedModel, VerifiedManifest
    from cloister.stores import Access

__all__ = ["Loader", "MakerRule"]

_INSPECT = "the owner sees why with 'cloister model inspect'"
_COPIES = 2  # of the weights of a model that is prepacked
_MORE_PASSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MakerRule:
    """Whether models have to be signed by their makers, and by which: ``makers`` None leaves that to who sealed them.

    A signature that a model carries is proven in any case, against the makers in its signed manifest.
    """

    required: bool
    makers: tuple[Maker, ...] | None

    def demand_signed(self, verified: VerifiedManifest) -> None:
        """Refuse a model without a maker's signature where one is wanted. Raises ``Rejected`` (``model_unsigned``)."""
        if (self.required or self.makers is not None) and verified.manifest.maker is None:
            hint = "have the owner seal it with its maker's signature, or leave the setting out"
            raise Rejected.because("model_unsigned", f"model {verified.manifest.name}", hint=hint)

    def verify(self, opened: OpenedModel) -> MadeBy | None:
        """Return who made the model that is open, None for one that nobody signed. Raises as ``verify_maker``."""
        return opened.made if self.makers is None else opened.verify_maker(self.makers)


class Loader:
    """Opens packages with the keys that were released to one instance. Called from threads, one opening at a time."""

    def __init__(
        self,
        *,
        grant: Grant,
        kem: KemPrivateKey,
        engine: Engine,
        prepack: tuple[str, ...] | None,
        batched: frozenset[str] = frozenset(),
        makers: MakerRule,
        second: SecondKey | None,
        access: Access,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Open with the keys in ``grant``. Requests to ``batched`` models are run together where that is right."""
        self._grant: Grant | None = grant
        self._released = {key.model: key for key in grant.keys}
        self._kem: KemPrivateKey | None = kem
        self._engine = engine
        self._prepack = prepack
        self._batched = batched
        self._makers = makers
        self._second = second
        self._access = access
        self._progress = progress

    def takes(self, terms: ModelTerms, package: FoundPackage) -> int:
        """Return the bytes that this model will hold. Raises ``Rejected`` where it is not the one that was lent."""
        manifest = self._verified(terms, package).manifest
        return manifest.size * (_COPIES if wants_prepacking(self._prepack, terms.name, manifest.card) else 1)

    def load(self, terms: ModelTerms, package: FoundPackage) -> tuple[ServedModel, Loaded]:
        """Open one package into memory and load it.

        Raises ``Rejected`` for what is not what was lent or will not run, ``Unavailable`` for what cannot be read,
        and after ``forget``.
        """
        verified = self._verified(terms, package)
        key = self._key(terms)
        with open_source(package.place, access=self._access, whole=True) as source:
            opened = open_model(source, verified, key, progress=self._progress, again=_Again())
        try:
            made = self._makers.verify(opened)
            _demand_sound(opened, terms)
            prepack = wants_prepacking(self._prepack, terms.name, verified.manifest.card)
            running = self._engine.load(opened, prepack=prepack)
            running.warm_up()
            joins = rows_are_apart(running) if terms.name in self._batched else None
        except BaseException:
            opened.close()
            raise
        model = ServedModel(
            terms=terms,
            manifest=verified.manifest,
            package=package,
            signature=running.signature,
            made=made,
            takes=verified.manifest.size * (_COPIES if prepack else 1),
            joins=joins,
        )
        return model, Loaded(opened=opened, running=running)

    def learn(self, grant: Grant) -> None:
        """Take the keys of a later grant to the same instance beside those that were released before."""
        self._granted()
        self._grant = grant
        self._released |= {key.model: key for key in grant.keys}

    def drop(self, digest: ModelDigest) -> None:
        """Drop one key: this version is not opened any more."""
        self._released.pop(digest, None)

    def forget(self) -> None:
        """Drop every key: nothing is opened any more."""
        self._grant = self._kem = None
        self._released = {}

    def _granted(self) -> tuple[Grant, KemPrivateKey]:
        if self._grant is None or self._kem is None:
            msg = "model: this instance has ended"
            raise Unavailable(msg)
        return self._grant, self._kem

    def _verified(self, terms: ModelTerms, package: FoundPackage) -> VerifiedManifest:
        grant, _ = self._granted()
        verified = verify_manifest(
            package.manifest_bytes, package.signature_bytes, [grant.publisher], second=self._second
        )
        verify_digest(verified, terms.digest)
        self._makers.demand_signed(verified)  # before a byte of it is fetched
        return verified

    def _key(self, terms: ModelTerms) -> bytes:
        """Return the model's key: it opens for this model, loan, instance and version only."""
        grant, kem = self._granted()
        released = self._released.get(terms.digest)
        if released is None:
            raise Rejected.because("blocked", f"model {terms.name}", got="not released to this instance")
        info = key_info(
            model=terms.digest, loan=grant.terms.loan, instance=grant.instance, key_version=released.key_version
        )
        return open_with(DEFAULT_SUITE, kem, info=info, enc=released.enc, ciphertext=released.ciphertext)


class _Again:
    """Goes on with what is missing, a bounded number of times: the source has had its own tries before."""

    def __init__(self) -> None:
        self._left = _MORE_PASSES

    def __call__(self, _: Unavailable) -> bool:
        self._left -= 1
        return self._left >= 0


def _demand_sound(opened: OpenedModel, terms: ModelTerms) -> None:
    """Prove, over the memory that the engine gets, that each file is sound in its format and none a pickle (T25).

    Raises ``Rejected`` with the cause and no more: names and shapes of tensors are the owner's, who sees them with
    ``cloister model inspect``.
    """
    try:
        parse_model(opened_files(opened))
    except Malformed:
        raise Rejected.because("model_malformed", f"model {terms.name}", hint=_INSPECT) from None
    except Rejected as exc:
        raise Rejected.because(exc.code, f"model {terms.name}", hint=_INSPECT) from None
