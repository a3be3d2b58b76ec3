"""RFC 6962 trees: against the recursive definition, and proofs of every pair of sizes."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc

import pytest

from cloister.errors import Rejected, UsageError
from cloister.lending.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

SIZE = 20
LEAVES = [bytes([number]) * number for number in range(SIZE)]


def defined_root(leaves: list[bytes]) -> bytes:
    """Return MTH(D[n]) as RFC 6962 section 2.1 writes it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    cut = 1
    while cut * 2 < len(leaves):
        cut *= 2
    return node_hash(defined_root(leaves[:cut]), defined_root(leaves[cut:]))


def grown(size: int) -> MerkleTree:
    tree = MerkleTree()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    return tree


def test_known_answers_of_certificate_transparency() -> None:
    # The leaves and roots of the certificate-transparency reference tests.
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    tree = MerkleTree()
    for leaf in leaves:
        tree.append(bytes.fromhex(leaf))
    assert tree.root_at(1).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert tree.root_at(2).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert tree.root_at(3).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert tree.root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("size", range(SIZE + 1))
def test_root_is_the_one_the_rfc_defines(size: int) -> None:
    assert grown(size).root() == defined_root(LEAVES[:size])
    assert grown(SIZE).root_at(size) == defined_root(LEAVES[:size])


def test_every_leaf_is_proven_in_every_tree_and_nowhere_else() -> None:
    tree = grown(SIZE)
    for size in range(1, SIZE + 1):
        root = tree.root_at(size)
        for index in range(size):
            path = tree.inclusion(index, size)
            leaf = leaf_hash(LEAVES[index])
            verify_inclusion(leaf, index=index, size=size, path=path, root=root)
            bad: list[tuple[bytes, int, tuple[bytes, ...]]] = [(leaf_hash(b"other"), index, path)]
            bad.append((leaf, index, (*path, bytes(32))))
            bad.append((leaf, (index + 1) % size if size > 1 else 1, path))
            if path:
                bad.append((leaf, index, path[:-1]))
            for wrong_leaf, wrong_index, wrong_path in bad:
                with pytest.raises(Rejected, match="not_included"):
                    verify_inclusion(wrong_leaf, index=wrong_index, size=size, path=wrong_path, root=root)


def test_every_tree_extends_every_earlier_one() -> None:
    tree = grown(SIZE)
    for size in range(SIZE + 1):
        for old in range(size + 1):
            proof = tree.consistency(old, size)
            old_root, root = tree.root_at(old), tree.root_at(size)
            verify_consistency(old_size=old, old_root=old_root, size=size, root=root, proof=proof)
            for wrong in ((*proof, bytes(32)), proof[:-1] if proof else (bytes(32),), (*proof[:-1], bytes(32))):
                if wrong == proof:
                    continue
                with pytest.raises(Rejected, match="not_consistent"):
                    verify_consistency(old_size=old, old_root=old_root, size=size, root=root, proof=wrong)
            if old:
                with pytest.raises(Rejected, match="not_consistent"):
                    verify_consistency(old_size=old, old_root=bytes(32), size=size, root=root, proof=proof)


def test_a_tree_says_nothing_about_leaves_it_does_not_have() -> None:
    tree = grown(3)
    assert MerkleTree().root() == EMPTY_ROOT
    for ask in (lambda: tree.root_at(4), lambda: tree.inclusion(3), lambda: tree.consistency(4)):
        with pytest.raises(UsageError):
            ask()


def test_a_copy_grows_on_its_own() -> None:
    tree = grown(5)
    twin = tree.copy()
    twin.append(b"left")
    tree.append(b"right")
    tree.append(b"right again")
    assert (tree.size, twin.size) == (7, 6)
    assert twin.root() == defined_root([*LEAVES[:5], b"left"])
    assert tree.root() == defined_root([*LEAVES[:5], b"right", b"right again"])
    assert tree.root_at(6) == defined_root([*LEAVES[:5], b"right"])


def test_a_copy_that_grows_beside_a_growing_tree_changes_neither() -> None:
    """A reader's copy may be brought up to date while the writer goes on: they share no list that both write."""
    tree = MerkleTree()
    leaves = [leaf_hash(bytes([number % 251])) for number in range(4000)]
    roots: list[tuple[int, bytes]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            twin = tree.copy()
            for leaf in leaves[twin.size : twin.size + 3]:
                twin.append_hash(leaf)
            roots.append((twin.size, twin.root()))

    reader = threading.Thread(target=read)
    reader.start()
    for leaf in leaves:
        tree.append_hash(leaf)
    done.set()
    reader.join()
    whole = MerkleTree(leaves)
    assert tree.root() == whole.root()
    assert all(root == whole.root_at(size) for size, root in roots)


def test_a_copy_of_a_copy_that_grew_grows_on_its_own() -> None:
    for size in range(10):
        twin = grown(size).copy()
        twin.append(b"one")
        third = twin.copy()
        third.append(b"two")
        twin.append(b"three")
        assert twin.root() == defined_root([*LEAVES[:size], b"one", b"three"])
        assert third.root() == defined_root([*LEAVES[:size], b"one", b"two"])
        assert third.subtrees(0, 0, size + 2) == (*map(leaf_hash, [*LEAVES[:size], b"one", b"two"]),)


def test_a_leaf_takes_two_hashes_of_memory_and_a_copy_that_grows_takes_nothing_of_the_tree() -> None:
    leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(20_000)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tree = MerkleTree(leaves)
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        tree.copy().append(b"one more")  # what each transaction of the custodian does
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert taken < len(leaves) * 80
    assert peak < 8192


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(33), bytes(64)])
def test_what_is_no_hash_is_no_leaf(wrong: bytes) -> None:
    tree = grown(3)
    with pytest.raises(UsageError):
        tree.append_hash(wrong)
    assert tree.root() == defined_root(LEAVES[:3])


def test_subtrees_are_those_of_the_tree_and_no_more() -> None:
    tree = grown(13)
    for height in range(4):
        width = 1 << height
        for start in range(13 >> height):
            (found,) = tree.subtrees(height, start, 1)
            assert found == defined_root(LEAVES[start * width : (start + 1) * width])
    for ask in ((0, 13, 1), (3, 1, 1), (4, 0, 1), (0, -1, 1), (-1, 0, 1), (0, 0, -1)):
        with pytest.raises(UsageError):
            tree.subtrees(*ask)
    with pytest.raises(UsageError):
        tree.leaf(13)


@pytest.mark.parametrize(("old_size", "proof"), [(-1, ()), (4, ()), (2, (b"short",)), (2, ())])
def test_a_proof_that_cannot_be_one_is_refused(old_size: int, proof: tuple[bytes, ...]) -> None:
    tree = grown(3)
    with pytest.raises(Rejected, match="not_consistent"):
        verify_consistency(old_size=old_size, old_root=bytes(32), size=3, root=tree.root(), proof=proof)
