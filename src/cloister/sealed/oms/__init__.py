"""Model signatures of the OpenSSF (OMS): who made a model, said by the maker and not by who lends it.

A detached signature is a Sigstore bundle (v0.3) with a DSSE envelope (v1.0) over an in-toto statement (v1) whose
predicate lists every file with its SHA-256. ``maker`` has whom somebody believes, ``bundle`` and ``statement`` read,
``verify`` proves. Specification: docs/spec/model-signature.md.

Not done here: making signatures; Sigstore's keyless identities, which need its logs and roots; files split into
shards, and other hashes than SHA-256.
"""

from __future__ import annotations

from cloister.sealed.oms.bundle import MAX_BUNDLE_BYTES, Bundle
from cloister.sealed.oms.maker import Maker, MakerKind, parse_makers
from cloister.sealed.oms.statement import Statement
from cloister.sealed.oms.verify import MadeBy, verify_files, verify_maker, verify_names

__all__ = [
    "MAX_BUNDLE_BYTES",
    "Bundle",
    "MadeBy",
    "Maker",
    "MakerKind",
    "Statement",
    "parse_makers",
    "verify_files",
    "verify_maker",
    "verify_names",
]
