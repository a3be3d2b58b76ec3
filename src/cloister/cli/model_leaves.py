"""``--leaf-hash``: what the leaves of a sealed model are hashed with, of every verb that seals."""

from __future__ import annotations

import click

from cloister.sealed.leaves import LeafHash

__all__ = ["leaf_hash_option"]

leaf_hash_option = click.option(
    "--leaf-hash",
    type=click.Choice(LeafHash, case_sensitive=False),
    default=LeafHash.BLAKE3,
    show_default=True,
    help="Hash of the encrypted segments: BLAKE3 is quick, SHA-256 for sites whose rules know no other.",
)
