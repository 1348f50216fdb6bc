"""The tree is RFC 6962's: its vectors, and the laws of its proofs."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.ledger import merkle

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [  # of the first 0 to 8 leaves, as certificate transparency's own tests state them
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree(size: int) -> tuple[list[bytes], Callable[[int, int], bytes]]:
    """Leaf hashes of a tree, and its node function computed the slow, plain way."""
    leaves = [merkle.leaf_hash(b"%d" % i) for i in range(size)]

    def node(level: int, index: int) -> bytes:
        if level == 0:
            return leaves[index]
        return merkle.node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    return leaves, node


def root_of(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + root_of(leaves[:k]) + root_of(leaves[k:])).digest()


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_those_of_the_standard(size: int) -> None:
    """Known leaves give the known roots, the empty tree included."""
    _, frontier = merkle.extend(0, [], map(merkle.leaf_hash, LEAVES[:size]))

    assert merkle.frontier_root(frontier).hex() == ROOTS[size]


def test_a_leaf_never_passes_as_a_node() -> None:
    """A leaf made of two hashes has another hash than their node (second preimages)."""
    a, b = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")

    assert merkle.leaf_hash(a + b) != merkle.node_hash(a, b)


@given(st.integers(0, 300), st.integers(0, 300))
def test_appending_in_any_portions_gives_one_tree(first: int, second: int) -> None:
    """The frontier after two portions is that of the whole, and of the node function."""
    leaves, node = tree(first + second)
    size, frontier = merkle.extend(*merkle.extend(0, [], leaves[:first]), leaves[first:])

    assert size == first + second
    assert frontier == merkle.frontier_of(size, node)
    assert merkle.frontier_root(frontier) == root_of(leaves)


def test_every_leaf_is_proved_in_every_tree() -> None:
    """All pairs up to 70: the proof holds, and does not hold for another leaf, place, size or root."""
    leaves, node = tree(70)
    roots = [root_of(leaves[:size]) for size in range(71)]
    for size in range(1, 71):
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, node)
            assert merkle.verify_inclusion(index, size, leaves[index], proof, roots[size])
            assert not merkle.verify_inclusion(index, size, leaves[(index + 1) % 70], proof, roots[size])
            assert not merkle.verify_inclusion(index, size, leaves[index], proof, roots[size - 1])
            assert not merkle.verify_inclusion(
                index, size, leaves[index], [*proof, proof[0] if proof else b""], roots[size]
            )
            assert not proof or not merkle.verify_inclusion(index, size, leaves[index], proof[:-1], roots[size])


def test_every_tree_is_proved_to_continue_every_smaller_one() -> None:
    """All pairs up to 70: the proof holds, and does not hold for another old or new root."""
    leaves, node = tree(70)
    roots = [root_of(leaves[:size]) for size in range(71)]
    for new in range(1, 71):
        for old in range(1, new + 1):
            proof = merkle.consistency_proof(old, new, node)
            assert merkle.verify_consistency(old, new, roots[old], roots[new], proof)
            assert not merkle.verify_consistency(old, new, roots[old - 1], roots[new], proof)
            assert not merkle.verify_consistency(old, new, roots[old], roots[new - 1], proof)
            assert not merkle.verify_consistency(old, new, roots[old], roots[new], [*proof, roots[0]])
    assert merkle.verify_consistency(0, 5, merkle.EMPTY, roots[5], [])


@given(st.data(), st.integers(1, 300))
def test_proofs_of_larger_trees(data: st.DataObject, size: int) -> None:
    """Any pair up to 300."""
    leaves, node = tree(size)
    root = root_of(leaves)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))

    assert merkle.verify_inclusion(index, size, leaves[index], merkle.inclusion_proof(index, size, node), root)
    proof = merkle.consistency_proof(old, size, node)
    assert merkle.verify_consistency(old, size, root_of(leaves[:old]), root, proof)
