"""A mirror's own proof: every part of a package against its manifest, with no key that opens anything.

Finds all that is wrong, not the first of it: sizes, leaf hashes, each encrypted segment. Memory: a segment for each
lane, and the leaf hashes of one file.

Not done here: who published the manifest (``publisher``), what else lies in a folder (``directory.strangers``), and
whether the plaintext is what its owner meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Reason, Rejected, Unavailable
from cloister.sealed.envelope import Envelope
from cloister.sealed.leaves import LEAF_BYTES
from cloister.sealed.manifest import ENVELOPE_NAME, blob_name, leaves_name
from cloister.sealed.pages import Lane, Lanes, lane_count
from cloister.sealed.parts import read_envelope_bytes, read_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloister.sealed.manifest import Manifest, SealedFile
    from cloister.sealed.open import DirectSource

__all__ = ["Checked", "check_mirror"]

_MAX_SHOWN = 8  # reasons in one line of text; all of them are in the rejection


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was held against the manifest: encrypted segments and bytes, and whether there is an envelope."""

    segments: int
    bytes: int
    envelope: bool


def check_mirror(
    source: DirectSource, manifest: Manifest, digest: str, *, progress: Callable[[int, int], None] | None = None
) -> Checked:
    """Prove every part. ``progress(done, total)`` gets bytes of ciphertext.

    Raises ``Rejected`` with every reason: ``truncated``, ``oversized``, ``digest_mismatch`` by ranges of segments,
    ``wrong_model`` for an envelope of another. ``Unavailable`` names every part that cannot be read, where nothing
    else is wrong.
    """
    found = _Findings()
    envelope = _envelope(source, digest, found)
    whole = [entry for entry in manifest.files if _has_sizes(source, entry, found)]
    total, done = sum(entry.layout.body_bytes for entry in whole), 0
    for entry in whole:
        before = done

        def report(segments: int, *, entry: SealedFile = entry, before: int = before) -> None:
            if progress is not None:
                progress(before + min(segments * entry.segment_bytes, entry.layout.body_bytes), total)

        _check_file(source, entry, found, report)
        done += entry.layout.body_bytes
    found.raise_any()
    return Checked(segments=sum(entry.layout.count for entry in manifest.files), bytes=total, envelope=envelope)


class _Findings:
    """What is wrong so far."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []
        self.unread: list[str] = []

    def raise_any(self) -> None:
        """Raise what was found, if anything."""
        if self.reasons:
            shown = "; ".join(map(str, self.reasons[:_MAX_SHOWN]))
            more = len(self.reasons) - _MAX_SHOWN
            message = f"{shown}; and {more} more" if more > 0 else shown
            raise Rejected(message, reasons=tuple(self.reasons), hint="copy these parts again")
        if self.unread:
            more = len(self.unread) - _MAX_SHOWN
            message = ", ".join(self.unread[:_MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")
            raise Unavailable(f"{message}: cannot be read", hint="is the sealed model whole, and may you read it?")


def _envelope(source: DirectSource, digest: str, found: _Findings) -> bool:
    """Tell whether there is an envelope; one of another model, or out of form, is a finding."""
    try:
        data = read_envelope_bytes(source)
    except Malformed as exc:
        found.reasons.append(Reason(code="wrong_model", subject=ENVELOPE_NAME, got=exc.message, want="an envelope"))
        return True
    if data is None:
        return False
    names = Envelope.parse(data).manifest_digest
    if names != digest:
        found.reasons.append(Reason(code="wrong_model", subject=ENVELOPE_NAME, got=names, want=digest))
    return True


def _has_sizes(source: DirectSource, entry: SealedFile, found: _Findings) -> bool:
    """Tell whether both parts of a file have the size that the manifest implies."""
    fits, layout = True, entry.layout
    parts = ((blob_name(entry.blob), layout.body_bytes), (leaves_name(entry.blob), layout.count * LEAF_BYTES))
    for name, want in parts:
        try:
            got = source.size(name)
        except Unavailable:
            found.unread.append(name)
            fits = False
            continue
        if got != want:
            code = "truncated" if got < want else "oversized"
            found.reasons.append(Reason(code=code, subject=name, got=f"{got} bytes", want=f"{want}"))
            fits = False
    return fits


def _check_file(source: DirectSource, entry: SealedFile, found: _Findings, report: Callable[[int], None]) -> None:
    name, layout, bad = blob_name(entry.blob), entry.layout, list[int]()
    try:
        leaves = read_leaves(source, entry)
    except Rejected as refusal:
        found.reasons += refusal.reasons
        return
    except Unavailable:
        found.unread.append(leaves_name(entry.blob))
        return

    def work(index: int, lane: Lane) -> None:
        offset, size = layout.body(index)
        got = source.read_into(name, offset, lane.cipher[:size])
        try:
            leaves.verify_segment(index, lane.cipher[:got])
        except Rejected:
            bad.append(index)

    try:
        with Lanes(entry.segment_bytes, lane_count(layout.count)) as lanes:
            lanes.run(layout.count, work, report)
    except Unavailable:
        found.unread.append(name)
    for first, last in _ranges(sorted(bad)):
        which = f"segment {first}" if first == last else f"segments {first} to {last}"
        found.reasons.append(Reason(code="digest_mismatch", subject=f"{name}: {which}", want="what was sealed"))


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of numbers that follow one another."""
    for index, number in enumerate(numbers):
        if index == 0 or numbers[index - 1] != number - 1:
            first = number
        if index == len(numbers) - 1 or numbers[index + 1] != number + 1:
            yield first, number
