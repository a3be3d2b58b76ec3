"""What a custodian is told of a sealed model, by whoever holds its folder (docs/reference/custodian-api.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.wire import Json, dump_b64u, parse_json

if TYPE_CHECKING:
    from cloister.sealed.envelope import Envelope
    from cloister.sealed.parts import Package

__all__ = ["publication"]


def publication(package: Package, envelope: Envelope) -> dict[str, Json]:
    """Return the body that publishes a model: everything of it but its blobs."""
    return {
        "envelope": parse_json(envelope.dump(), what="envelope"),
        "manifest": dump_b64u(package.manifest_bytes),
        "signature": dump_b64u(package.signature_bytes),
    }
