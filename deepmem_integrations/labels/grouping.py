"""Held-out parts that share no document with the training part."""

from collections.abc import Hashable, Sequence

import numpy as np


def document_groups(documents: Sequence[Sequence[Hashable]], *, largest: int, rng: np.random.Generator) -> list[list[int]]:
    """Group queries so that two groups share no document, as far as groups of a useful size allow.

    The groups are the connected components of the graph of queries and documents. A component of more than
    ``largest`` queries is broken up into single queries; `drop_shared` then restores the separation.

    Args:
        documents: For each query its documents.
        largest: The size from which a component is broken up.
        rng: Draws the order of the groups.

    Returns:
        Row numbers, a list a group, in random order.
    """
    parent = list(range(len(documents)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first_with: dict[Hashable, int] = {}
    for row, labels in enumerate(documents):
        for document in labels:
            parent[root(row)] = root(first_with.setdefault(document, row))
    components: dict[int, list[int]] = {}
    for row in range(len(documents)):
        components.setdefault(root(row), []).append(row)

    groups: list[list[int]] = []
    for component in components.values():
        groups += [component] if len(component) <= largest else [[row] for row in component]
    return [groups[index] for index in rng.permutation(len(groups))]


def drop_shared(documents: Sequence[Sequence[Hashable]], held: Sequence[int]) -> tuple[list[int], int]:
    """The rows that may train while ``held`` is held out.

    Returns:
        The rows that are not held out and share no document with one that is, ascending; and how many
        others had to be left out because they do.
    """
    inside = set(held)
    taken = {document for row in held for document in documents[row]}
    outside = [row for row in range(len(documents)) if row not in inside]
    rows = [row for row in outside if taken.isdisjoint(documents[row])]
    return rows, len(outside) - len(rows)
