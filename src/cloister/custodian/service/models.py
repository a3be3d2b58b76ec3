"""Publishing a sealed model and taking it back (walk 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.service.rewrapping import held_keks, newest_kek, opens, rewrapped
from cloister.custodian.store.blocks import next_block_version
from cloister.custodian.store.keys import FIRST_EPOCH, current_kek
from cloister.custodian.store.models import (
    ModelRow,
    find_model,
    insert_model,
    list_models,
    loans_of_model,
    replace_envelope,
    withdraw_model,
)
from cloister.custodian.vaults import unwrap_dek
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.terms import DIGEST, NAME, ModelDigest
from cloister.sealed.envelope import Envelope
from cloister.sealed.keys import verify_dek
from cloister.sealed.manifest import Manifest
from cloister.sealed.publisher import MAX_SIGNATURE_BYTES, verify_manifest
from cloister.wire import Fields, Json, dump_json, dump_time

if TYPE_CHECKING:
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor

__all__ = ["model_list", "model_view", "parse_digest", "publish", "withdraw"]


def parse_digest(text: str) -> ModelDigest:
    """Return the digest in a path. Anything else is nothing we could have."""
    if not DIGEST.fullmatch(text):
        raise Rejected.because("not_found", "model")
    return ModelDigest(text)


def publish(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Publish ``{"manifest", "signature", "envelope"}`` of a sealed model.

    Proves that our publisher key signed the manifest, and that our vault can open the key it commits
    to: what is published can be released. After a rotation it is wrapped anew, under the key in use.
    Publishing the same model again changes nothing, but it mends an envelope in the database that does not open.
    """
    manifest_bytes, signature = body.b64u("manifest"), body.b64u("signature", cap=MAX_SIGNATURE_BYTES)
    envelope = Envelope.parse(dump_json(body.take("envelope")))
    body.end()
    vault = transaction.context.vault
    verified = verify_manifest(manifest_bytes, signature, [vault.publisher_key.verify_key])
    if not NAME.fullmatch(verified.manifest.name):
        raise Rejected.because("name_invalid", "model", got=verified.manifest.name[:80], want=NAME.pattern)
    if envelope.manifest_digest != verified.digest:
        raise Rejected.because("wrong_model", "envelope", got=envelope.manifest_digest, want=verified.digest)
    held = held_keks(transaction.connection, vault)
    dek, key_version = unwrap_dek(vault, envelope, held)
    verify_dek(verified.manifest, dek)
    digest = ModelDigest(verified.digest)
    known = find_model(transaction.connection, digest)
    if known is None:
        kek = newest_kek(transaction.connection, vault)
        if kek is not None:
            envelope, key_version = rewrapped(vault, envelope, held, kek), key_version + 1
        row = ModelRow(
            digest=digest,
            name=verified.manifest.name,
            manifest=manifest_bytes,
            signature=signature,
            envelope=envelope.dump(),
            published_at=transaction.now,
            withdrawn_at=None,
        )
        insert_model(transaction.connection, row)
        transaction.record(
            EventKind.MODEL_PUBLISHED, actor, digest, name=row.name, model=digest, key_version=key_version
        )
        return _view(row)
    if _mended(transaction, actor, known, envelope):
        return _view(known)
    if known.withdrawn_at is not None:
        raise Rejected.because("model_withdrawn", "model", hint="seal it anew: a withdrawn model stays withdrawn")
    return _view(known)


def _mended(transaction: Transaction, actor: Actor, known: ModelRow, good: Envelope) -> bool:
    """Put an envelope that opens in the place of one that does not; tells whether that was needed."""
    connection, vault = transaction.connection, transaction.context.vault
    held = held_keks(connection, vault)
    if opens(vault, known.digest, known.envelope, held):
        return False
    kek, row = newest_kek(connection, vault), current_kek(connection)
    number = FIRST_EPOCH if row is None else row.number
    if kek is not None:
        good = rewrapped(vault, good, held, kek, above=number)  # no rotation went so far yet with this model
    replace_envelope(connection, known.digest, good.dump())
    transaction.record(EventKind.ENVELOPE_MOVED, actor, known.digest, key_epoch=number, model=known.digest)
    return True


def withdraw(transaction: Transaction, actor: Actor, digest: ModelDigest) -> Json:
    """Take a model out of every lease for good (T24)."""
    row = find_model(transaction.connection, digest)
    if row is None:
        raise Rejected.because("not_found", "model")
    if withdraw_model(transaction.connection, digest, transaction.now):
        version = next_block_version(transaction.connection)
        transaction.record(EventKind.MODEL_WITHDRAWN, actor, digest, model=digest, block_version=version)
    return {"digest": digest, "loans": list(loans_of_model(transaction.connection, digest)), "withdrawn": True}


def model_list(context: Context) -> Json:
    """Return every published model."""
    with context.reading() as connection:
        return {"models": [_view(row) for row in list_models(connection)]}


def model_view(context: Context, digest: ModelDigest) -> Json:
    """Return one model with its files and its card."""
    with context.reading() as connection:
        row = find_model(connection, digest)
        if row is None:
            raise Rejected.because("not_found", "model")
        loans = loans_of_model(connection, digest)
    manifest = Manifest.parse(row.manifest)
    files: list[Json] = [{"path": item.path, "size": item.size} for item in manifest.files]
    makers: Json = None if manifest.maker is None else [maker.shown for maker in manifest.maker.trusted]
    return {**_view(row), "card": manifest.card, "files": files, "loans": list(loans), "makers": makers}


def _view(row: ModelRow) -> dict[str, Json]:
    return {
        "digest": row.digest,
        "name": row.name,
        "published_at": dump_time(row.published_at),
        "withdrawn_at": None if row.withdrawn_at is None else dump_time(row.withdrawn_at),
    }
