"""Groups of queries that must not be torn apart: those that share documents, and those that are spellings of one question.

What is near enough to be another spelling was measured on five collections (SciFact, TAT-QA, Cranfield, NFCorpus, and StackFAQ,
in which several people put the same questions in words of their own), with spellings made by eight rules: polite words before
and after, another case, no punctuation, a typo in the longest word, reordered words, "what's" for "what is".

- `SAME_WORDS` finds 88% (NFCorpus, whose queries have few words) to 100% (Cranfield) of the spellings; most of the others have a
  typo. Of StackFAQ's people, who are to stay apart, 11% are joined with another.
- `SAME_VECTOR` finds 67% to 96% (MiniLM) or 56% to 81% (WordLlama), and joins 10% (MiniLM) or 2% of StackFAQ's people. From 0.85
  on it would join 23%. The vectors are centred because E5 gives 0.91 to questions that have nothing in common; centred, MiniLM,
  WordLlama and E5 agree.

Nearness alone proves nothing: on TAT-QA, where "revenue in 2018" and "revenue in 2019" have different answers, one question in
ten has another at a cosine of 0.93 (MiniLM) that asks for another document. Nothing is given away where answers differ, so
spellings of one question share a document and their numbers as well, or all of their words.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks

SAME_WORDS = 0.8
"""From this similarity of their words on, queries that share a document are spellings of one question."""
SAME_VECTOR = 0.9
"""From this cosine of their centred vectors on, queries that share a document are spellings of one question."""
LARGEST, LARGEST_SHARE = 10, 0.05
"""A chain of spellings is cut where it has more queries than both: this many, and this share of all."""
BUCKETS = 1024
"""How many numbers describe the words of a query. Trigrams are hashed: the similarity of two queries is off by 0.02 or so."""

KEPT = 20_000
"""The vectors of how many queries are kept, 4 kB each."""
TOGETHER = 32
"""For how many queries of a chain what is near to them is looked up at a time."""

_WORD = re.compile(r"\w+")


def question_groups(
    texts: Sequence[str] | None, vectors: Vectors | None, documents: Sequence[Sequence[Hashable]]
) -> NDArray[np.int64]:
    """Group queries that are spellings of one question.

    Two queries are, if they have the same words, in any order, or if they share a document and their numbers, and have similar
    words or similar vectors. Groups are connected components. A component that is too large to be one question is cut: each of
    its queries then joins the first one that is near to the query itself.

    Args:
        texts: The n texts, or None where they are not known.
        vectors: (n, d) float32 unit rows, or None where there are none.
        documents: For each query the documents that answer it.

    Returns:
        (n,) int64, the group of each query. Groups are numbered from 0, by their first query.

    Example:
        >>> texts = ["How do I undo a commit?", "Undo a commit: how do I?", "How do I undo a merge?"]
        >>> question_groups(texts, None, [["revert"], ["revert"], ["merge"]]).tolist()
        [0, 0, 1]
    """
    n = len(documents)
    words = None if texts is None else [_words(text) for text in texts]
    # Of queries with the same words, the first stands for all.
    if words is None:
        alike, numbers = np.arange(n), np.zeros(n, dtype=np.int64)
    else:
        alike = _first_alike([tuple(sorted(query)) for query in words])
        numbers = _first_alike(["".join(sorted(filter(str.isdigit, "".join(query)))) for query in words])
    near = _Nearness(texts, words, vectors, documents)

    def comparable(row: int, others: NDArray[np.int64]) -> NDArray[np.int64]:
        others = np.unique(alike[others])
        return np.asarray(others[(others != row) & (numbers[others] == numbers[row])])

    parts = _Components(n)
    for row, others in near.rows():
        parts.join(alike[row], comparable(alike[row], others))
    stand_for: dict[int, list[int]] = {}
    for row, first in enumerate(alike.tolist()):
        stand_for.setdefault(first, []).append(row)
    group = np.arange(n)
    largest = max(LARGEST, LARGEST_SHARE * n)
    for component in parts.found():
        if len(component) <= largest:
            group[component] = component[0]
            continue
        left = set(component)
        while left:
            some = sorted(left)[:TOGETHER]
            for row, others in zip(some, near.of([stand_for[row] for row in some]), strict=True):
                if row in left:
                    joined = [row, *left.intersection(comparable(row, others).tolist())]
                    group[joined] = row
                    left.difference_update(joined)
    return np.unique(group[alike], return_inverse=True)[1].reshape(-1).astype(np.int64)


def sum_by_group(values: NDArray[Any], groups: NDArray[np.int64]) -> NDArray[Any]:
    """Sum the rows of each group.

    Args:
        values: (n, m), any real dtype.
        groups: (n,) int64, the group of each row.

    Returns:
        (g, m), in ascending order of the groups' numbers.

    Example:
        >>> sum_by_group(np.array([[1.0], [2.0], [4.0]]), np.array([7, 3, 7])).tolist()
        [[2.0], [5.0]]
    """
    if not len(groups):
        return values
    order = np.argsort(groups, kind="stable")
    return np.asarray(np.add.reduceat(values[order], np.unique(groups[order], return_index=True)[1], axis=0))


class _Components:
    """The connected components of a graph whose edges come one after another.

    Args:
        count: The number of rows.
    """

    def __init__(self, count: int) -> None:
        self._of = np.arange(count)
        self._members = [[row] for row in range(count)]

    def join(self, row: int, others: NDArray[np.int64]) -> None:
        """Connect a row to others."""
        for other in np.unique(self._of[others]).tolist():
            mine = int(self._of[row])
            if other != mine:
                small, large = sorted((mine, other), key=lambda part: len(self._members[part]))
                self._of[self._members[small]] = large
                self._members[large] += self._members[small]
                self._members[small] = []

    def found(self) -> list[list[int]]:
        """Return the components of two rows and more, each in ascending order."""
        return [sorted(rows) for rows in self._members if len(rows) > 1]


def _first_alike(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return for each of n keys the first place of the same key, (n,) int64."""
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)


class _Nearness:
    """Which queries share a document and are similar. A text that comes again and again is compared once.

    What is near is worked out anew each time: a question that thousands put in words of their own has millions of pairs.
    """

    def __init__(
        self,
        texts: Sequence[str] | None,
        words: Sequence[Sequence[str]] | None,
        vectors: Vectors | None,
        documents: Sequence[Sequence[Hashable]],
    ) -> None:
        asked: dict[Hashable, set[int]] = {}
        for row, named in zip(range(len(documents)) if texts is None else _first_alike(texts).tolist(), documents, strict=True):
            for document in named:
                asked.setdefault(document, set()).add(row)
        self._together = [np.array(rows) for rows in {tuple(sorted(rows)) for rows in asked.values() if len(rows) > 1}]
        self._centred = None if vectors is None else _unit(vectors - vectors.mean(axis=0))
        self._grams = None if words is None else _Trigrams(words, [next(iter(named), None) for named in documents])
        self._with: dict[int, list[int]] | None = None
        self._kept: dict[int, list[tuple[float, Vectors]]] = {}

    def rows(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield rows with later ones that are near to them."""
        for rows in self._together:
            for threshold, place in self._places(rows):
                for block in blocks(len(rows), len(rows)):
                    ones, others = np.nonzero(place[block] @ place.T >= threshold)
                    ones = ones + block.start
                    ones, others = ones[ones < others], others[ones < others]
                    if len(ones):
                        cuts = np.flatnonzero(np.diff(ones)) + 1
                        for row, these in zip(ones[[0, *cuts]].tolist(), np.split(others, cuts), strict=True):
                            yield int(rows[row]), rows[these]

    def of(self, queries: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
        """Return for each query, which is some rows with the same words, all rows that are near to one of its rows."""
        if self._with is None:
            self._with = {}
            for number, together in enumerate(self._together):
                for row in together.tolist():
                    self._with.setdefault(row, []).append(number)
        asked: dict[int, list[tuple[int, int]]] = {}
        for query, rows in enumerate(queries):
            for row in rows:
                for number in self._with.get(row, []):
                    asked.setdefault(number, []).append((query, row))
        found = [[np.empty(0, dtype=np.int64)] for _ in queries]
        for number, pairs in asked.items():
            together = self._together[number]
            if number not in self._kept:
                self._kept[number] = self._places(together)
                while sum(len(self._together[one]) for one in self._kept) > KEPT and len(self._kept) > 1:
                    del self._kept[next(iter(self._kept))]
            which = np.searchsorted(together, [row for _, row in pairs])
            for threshold, place in self._kept[number]:
                for (query, _), near in zip(pairs, place[which] @ place.T >= threshold, strict=True):
                    found[query].append(together[near])
        return [np.concatenate(parts) for parts in found]

    def _places(self, rows: NDArray[np.int64]) -> list[tuple[float, Vectors]]:
        """Return where rows lie, and from which cosine on they are near there, by their vectors and by their words."""
        places = [(SAME_VECTOR, self._centred[rows])] if self._centred is not None else []
        return places + ([(SAME_WORDS, self._grams.vectors(rows))] if self._grams is not None else [])


class _Trigrams:
    """The words of queries as vectors of their trigrams, in which trigrams that tell answers apart count more (tf–idf).

    A trigram is the rarer, the fewer documents it is asked for with. Polite words are asked for all of them with.
    """

    def __init__(self, words: Sequence[Sequence[str]], answers: Sequence[Hashable]) -> None:
        counts = [Counter(f" {word} "[at : at + 3] for word in query for at in range(len(word))) for query in words]
        asked_with: dict[Hashable, set[str]] = {}
        for query, answer in zip(counts, answers, strict=True):
            asked_with.setdefault(answer, set()).update(query)
        frequency = Counter(gram for grams in asked_with.values() for gram in grams)
        hashes = {gram: zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in frequency}
        rarity = {gram: float(np.log((1 + len(asked_with)) / count)) for gram, count in frequency.items()}
        self._vector = lru_cache(KEPT)(self._of_row)
        self._entries = []
        for query in counts:
            places = np.array([hashes[gram] for gram in query], dtype=np.int64)
            weights = np.array([count**0.5 * rarity[gram] for gram, count in query.items()])
            self._entries.append((places % BUCKETS, np.where(places & (1 << 16), weights, -weights)))

    def vectors(self, rows: NDArray[np.int64]) -> Vectors:
        """Return the unit vectors of some queries, (len(rows), BUCKETS) float32. A query that has many documents comes often."""
        return _unit(np.stack([self._vector(row) for row in rows.tolist()]))

    def _of_row(self, row: int) -> Vectors:
        vector = np.zeros(BUCKETS, dtype=np.float32)
        np.add.at(vector, *self._entries[row])
        return vector


def _words(text: str) -> list[str]:
    """Return the words of a text without case, punctuation and variants of letters; the text itself where it has none."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) or [text]


def same_words(text: str) -> list[str]:
    """Return the words of a text in an order that spellings with the same words share.

    Example:
        >>> same_words("How do I undo?") == same_words("undo: how do I")
        True
    """
    return sorted(_words(text))


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def document_groups(documents: Sequence[Sequence[Hashable]], *, largest: int, rng: np.random.Generator) -> list[list[int]]:
    """Group queries so that no two groups share a document, unless a group would be too large.

    The groups are the connected components of the graph of queries and documents. A component of more than ``largest`` queries
    is broken up into single queries, which `drop_shared` then separates.

    Args:
        documents: For each query its documents.
        largest: The largest size of a group.
        rng: Draws the order of the groups.

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
    """Find the rows that may train while other rows are held out.

    Args:
        documents: For each query its documents.
        held: The rows that are held out.

    Returns:
        The rows, ascending, that are not held out and share no document with a row that is; and how many rows were left out
        because they share one.
    """
    inside = set(held)
    taken = {document for row in held for document in documents[row]}
    outside = [row for row in range(len(documents)) if row not in inside]
    rows = [row for row in outside if taken.isdisjoint(documents[row])]
    return rows, len(outside) - len(rows)
