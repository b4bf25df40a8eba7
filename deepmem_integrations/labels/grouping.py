"""Groups of queries for a held-out part that shares no document with the training part."""

from collections.abc import Hashable, Sequence

import numpy as np


def document_groups(documents: Sequence[Sequence[Hashable]], *, largest: int, rng: np.random.Generator) -> list[list[int]]:
    """Group queries so that no two groups share a document, unless a group would have more than ``largest`` queries.

    The groups are the connected components of the graph of queries and documents. A component of more than ``largest``
    queries is broken up into single queries, which may share documents. `drop_shared` then keeps the documents apart.

    Args:
        documents: For each query the documents that its labels name.
        largest: The largest number of queries in a group.
        rng: The random generator that draws the order of the groups.

    Returns:
        The groups in random order, each a list of row numbers.
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
    """Return the rows that may be trained on while other rows are held out.

    Args:
        documents: For each query the documents that its labels name.
        held: The held-out rows.

    Returns:
        The rows that are not held out and share no document with a held-out row, in ascending order, and the number of rows
        that were left out because they share one.
    """
    inside = set(held)
    taken = {document for row in held for document in documents[row]}
    outside = [row for row in range(len(documents)) if row not in inside]
    rows = [row for row in outside if taken.isdisjoint(documents[row])]
    return rows, len(outside) - len(rows)
