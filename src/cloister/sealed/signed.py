"""A model that its maker signed, on its way into a package: which files go in, and the signature with them.

What the maker passed over stays out, so that a package holds what was signed, the signature, and nothing else. The
signature is sealed as one more file; the manifest names it, and who was believed to have made it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.errors import Malformed, UsageError
from cloister.sealed.directory import PlainTree
from cloister.sealed.manifest import MakerClaim
from cloister.sealed.oms import MAX_BUNDLE_BYTES, MadeBy, verify_maker, verify_names
from cloister.sealed.paths import ModelPath

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from cloister.sealed.directory import PlainFile
    from cloister.sealed.oms import Maker

__all__ = ["SIGNATURE_PATH", "SignedTree", "read_model_signature", "signed_tree"]

SIGNATURE_PATH = ModelPath("model.sig")
"""Where makers put the signature, and where it lies in a package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTree:
    """A signed model. ``tree`` has what is sealed of it, ``left_out`` are the files that the maker passed over."""

    tree: PlainTree
    left_out: tuple[str, ...]
    claim: MakerClaim
    made: MadeBy

    @property
    def maker(self) -> tuple[MakerClaim, MadeBy]:
        """What sealing is told."""
        return self.claim, self.made


def read_model_signature(place: Path) -> tuple[PlainFile, bytes]:
    """Return the signature at ``place`` and its bytes. Raises ``UsageError`` or ``Malformed`` where too large."""
    tree = PlainTree(place)
    entry = tree.files[0]
    if entry.place != place:
        msg = f"{place}: is a folder, want the file of a model signature"
        raise UsageError(msg)
    if entry.size > MAX_BUNDLE_BYTES:
        msg = f"model signature: {entry.size} bytes, want at most {MAX_BUNDLE_BYTES}"
        raise Malformed(msg)
    data = bytearray(entry.size)
    tree.read_into(entry, 0, memoryview(data))
    return replace(entry, path=SIGNATURE_PATH), bytes(data)


def signed_tree(source: Path, signature: Path, makers: Sequence[Maker], now: datetime) -> SignedTree:
    """Return what is to be sealed of ``source`` once one of ``makers`` is proven to have signed it.

    Hashes nothing yet: sealing does, and refuses what differs. Raises as ``verify_maker`` and ``verify_names``, and
    ``UsageError`` for a model with another file where the signature goes.
    """
    tree = PlainTree(source)
    entry, data = read_model_signature(signature)
    made = verify_maker(data, makers, now)
    others = [item for item in tree.files if item.stamp[:2] != entry.stamp[:2]]
    left_out = tuple(item.path for item in others if made.statement.passes_over(item.path))
    files = [item for item in others if item.path not in left_out]
    verify_names(made.statement, [item.path for item in files])
    if any(item.path == SIGNATURE_PATH for item in files):
        msg = f"{SIGNATURE_PATH}: is a file of the model, and where its signature goes in the package"
        raise UsageError(msg)
    tree.files = tuple(sorted([*files, entry], key=lambda item: item.path))
    return SignedTree(
        tree=tree,
        left_out=left_out,
        claim=MakerClaim(signature=SIGNATURE_PATH, trusted=tuple(makers)),
        made=made,
    )
