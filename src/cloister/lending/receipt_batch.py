"""Receipts that were signed together: one signature over the root of a tree of them (docs/spec/receipt.md section 1.1).

A batch of one is a plain statement. In a larger one each receipt carries its place and its path (RFC 9162 section
2.1.3): whoever holds one needs no other, and learns nothing of them but how many there were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.crypto.sign import MAX_STATEMENT_BYTES, KeyId, Label, Statement, pae
from cloister.errors import Rejected, UsageError
from cloister.lending.merkle import HASH_BYTES, leaf_hash, node_hash, verify_inclusion
from cloister.lending.messages import Receipt
from cloister.wire import Fields, dump_b64u, dump_json, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.crypto.sign import SigningKey, VerifyKey

__all__ = ["MAX_BATCH", "open_receipt", "sign_receipts"]

MAX_BATCH = 1024
"""Receipts under one signature; a path has at most ten hashes then."""

_MAX_PATH = 10
_TREE = "tree"


def sign_receipts(key: SigningKey, payloads: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return each of ``payloads`` as a signed receipt. Raises ``UsageError`` for more than ``MAX_BATCH`` or none."""
    if not 0 < len(payloads) <= MAX_BATCH:
        msg = f"receipts: {len(payloads)} to sign together, want 1 to {MAX_BATCH}"
        raise UsageError(msg)
    if len(payloads) == 1:
        return (Statement.sign(key, Receipt.LABEL, payloads[0]).dump(),)
    tree = _levels([_leaf(payload) for payload in payloads])
    root = dump_b64u(tree[-1][0])
    signature = key.sign(Label.RECEIPT_TREE, _root_payload(tree[-1][0], len(payloads)))
    # Canonical JSON by hand: of the same members each time, and this is on the way of every answer.
    shown = [[f'"{dump_b64u(node)}"' for node in level] for level in tree[:-1]]
    middle = (
        f'","payloadType":"{Receipt.LABEL.value}","signatures":[{{"keyid":"{key.key_id}","sig":"{dump_b64u(signature)}"}}]'
        f',"{_TREE}":{{"index":'
    )
    end = f'],"root":"{root}","size":{len(payloads)}}}}}'
    return tuple(
        f'{{"payload":"{dump_b64u(payload)}{middle}{index},"path":[{",".join(_path(shown, index))}{end}'.encode("ascii")
        for index, payload in enumerate(payloads)
    )


def _levels(leaves: list[bytes]) -> list[list[bytes]]:
    """Return every level of the tree, leaves first; a node without a neighbour goes up as it is."""
    levels = [leaves]
    while len(level := levels[-1]) > 1:
        above = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        levels.append(above + level[-1:] if len(level) & 1 else above)
    return levels


def _path(levels: list[list[str]], index: int) -> list[str]:
    """Return what stands beside the way up from a leaf (RFC 9162 section 2.1.3.1)."""
    return [level[at] for height, level in enumerate(levels) if (at := (index >> height) ^ 1) < len(level)]


def open_receipt(data: bytes, key: VerifyKey) -> bytes:
    """Return the payload of a receipt that ``key`` is proven to have signed, alone or in a batch.

    Raises ``Malformed``, and ``Rejected``: ``wrong_statement``, ``unknown_key``, ``signature_invalid``,
    ``not_included``.
    """
    fields = Fields.parse(data, what="receipt statement", cap=MAX_STATEMENT_BYTES, canonical=True)
    if _TREE not in fields:
        return Statement.parse(data, label=Receipt.LABEL).verify([key])
    return _Batched.parse(fields).verify(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batched:
    """One receipt of a batch, not yet verified."""

    payload: bytes
    key_id: KeyId
    signature: bytes
    index: int
    size: int
    root: bytes
    path: tuple[bytes, ...]

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        """Return it as it is told. Raises ``Malformed``, ``Rejected`` (``wrong_statement``)."""
        what = "receipt statement"
        tree = fields.fields(_TREE)
        kind = fields.text("payloadType", cap=128)
        payload = fields.b64u("payload", cap=MAX_STATEMENT_BYTES)
        entries = fields.items("signatures", cap=1)
        fields.end()
        if len(entries) != 1:
            fields.fail("signatures", "want exactly one")
        entry = Fields(entries[0], what=f"{what}: signatures")
        key_id, signature = KeyId(entry.hex("keyid", size=16).hex()), entry.b64u("sig", size=64)
        entry.end()
        index, size = tree.integer("index", cap=MAX_BATCH - 1), tree.integer("size", floor=2, cap=MAX_BATCH)
        root = tree.b64u("root", size=HASH_BYTES)
        path = tuple(
            parse_b64u(part, what=f"{what}: path", size=HASH_BYTES)
            for part in tree.texts("path", cap=_MAX_PATH, item_cap=64)
        )
        tree.end()
        if index >= size:
            fields.fail(_TREE, "index beyond the size")
        if kind != Receipt.LABEL.value:
            raise Rejected.because("wrong_statement", what, got=kind[:80], want=Receipt.LABEL.value)
        return cls(payload=payload, key_id=key_id, signature=signature, index=index, size=size, root=root, path=path)

    def verify(self, key: VerifyKey) -> bytes:
        """Return the payload once it is proven to be in the tree that ``key`` signed."""
        if key.key_id != self.key_id:
            raise Rejected.because("unknown_key", Receipt.LABEL.value, got=self.key_id)
        verify_inclusion(_leaf(self.payload), index=self.index, size=self.size, path=self.path, root=self.root)
        key.verify(Label.RECEIPT_TREE, _root_payload(self.root, self.size), self.signature)
        return self.payload


def _leaf(payload: bytes) -> bytes:
    return leaf_hash(pae(Receipt.LABEL, payload))


def _root_payload(root: bytes, size: int) -> bytes:
    return dump_json({"root": dump_b64u(root), "size": size, "v": 1})
