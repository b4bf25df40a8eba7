"""Which questions are held out from all trainings of a folder of models, for as long as the folder lives.

A question, in all of its spellings (see `deepmem_integrations.labels.grouping`), is drawn by a hash of its words when it first
comes. What was drawn is written down, because later queries may join a question as further spellings: a hash of what a question
consists of would change its side with them, and a rule such as "held out if the hash of any spelling is small" would, in time,
hold out exactly those questions that are asked most.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._files import read_text, write_text
from deepmem_integrations.drift import decoded, encoded
from deepmem_integrations.errors import StorageError
from deepmem_integrations.labels import Relevance, question_groups, same_words

HELD_OUT = 0.2
"""The share of the questions that is held out by default."""


class Questions:
    """The questions of a folder of models: those that are held out, and those that trainings may have.

    The file holds 64-bit hashes of the words of queries, and no text.

    Args:
        path: The file, which the first call of `hold_out` makes. Whoever calls `hold_out` holds the lock of the folder.

    Example:
        >>> import tempfile
        >>> labels = Relevance([f"What is topic {i}?" for i in range(50)], [[(f"doc-{i}", 1.0)] for i in range(50)])
        >>> more = Relevance([f"topic {i}: what is it?" for i in range(99)], [[(f"doc-{i}", 1.0)] for i in range(99)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     questions = Questions(Path(folder, "questions.json"))
        ...     held_out = questions.hold_out(labels)[1]
        ...     later = questions.hold_out(labels + more)[1]
        >>> set(held_out.queries) <= set(later.queries)
        True
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def hold_out(
        self, labels: Relevance, share: float = HELD_OUT, *, validation: Relevance | None = None
    ) -> tuple[Relevance, Relevance, Relevance | None]:
        """Split labelled queries into those for a training and those that are held out.

        A question that was held out stays so, whatever else comes, and so do its new spellings. A question that a training has
        had is never held out, unless it turns out to be the same as a held-out one.

        Args:
            labels: The labelled queries.
            share: The share of the new questions to hold out.
            validation: Queries to choose by. Spellings of held-out questions are left out of them.

        Returns:
            The queries for the training, the held-out ones, and what is left of the validation queries.

        Raises:
            ValueError: The share is not between 0 and 1.
            StorageError: The file is damaged, or cannot be written.
        """
        if not 0 < share < 1:
            raise ValueError(f"held_out is a share of the questions between 0 and 1, such as {HELD_OUT}; got {share}.")
        whole = labels if validation is None else labels + validation
        hashes = np.array([_hashes(query) for query in whole.queries], dtype=np.uint64).reshape(-1, 2)
        held, trained = self._read()
        known_held, known_trained = np.isin(hashes[:, 0], held), np.isin(hashes[:, 0], trained)
        groups = question_groups(whole.queries, None, [[name for name, _ in judged] for judged in whole.labels])
        out = np.zeros(len(whole), dtype=bool)
        order = np.argsort(groups, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else ():
            if known_held[rows].any():
                out[rows] = True
            elif not known_trained[rows].any():
                speaker = rows[hashes[rows, 0].argmin()]  # the same one in any order of the queries
                out[rows] = hashes[speaker, 1] < np.uint64(share * 2**64)
        self._write(np.union1d(held, hashes[out, 0]), np.union1d(np.setdiff1d(trained, hashes[out, 0]), hashes[~out, 0]))
        own, theirs = np.split(out, [len(labels)])
        rest = None if validation is None else validation.take(np.flatnonzero(~theirs).tolist())
        return labels.take(np.flatnonzero(~own).tolist()), labels.take(np.flatnonzero(own).tolist()), rest

    def _read(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        if not self.path.exists():
            return np.empty(0, np.uint64), np.empty(0, np.uint64)
        try:
            values = json.loads(read_text(self.path))
            return decoded(values["held_out"]), decoded(values["trained"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{self.path} is damaged ({error}). It tells which questions are held out. Put a copy back, or delete the file: "
                "hashes then draw the questions again, nearly as before."
            ) from error

    def _write(self, held: NDArray[np.uint64], trained: NDArray[np.uint64]) -> None:
        write_text(self.path, json.dumps({"version": 1, "held_out": encoded(held), "trained": encoded(trained)}))


def _hashes(query: str) -> tuple[int, int]:
    """Return the number by which a query's words are known, and the one that draws its question; equal words, equal numbers."""
    digest = hashlib.blake2b(" ".join(same_words(query)).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def seen_by_group(known: NDArray[np.bool_], groups: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Spread over each question what is known of any of its spellings.

    Args:
        known: (n,) whether each query is known.
        groups: (n,) the question of each query.

    Returns:
        (n,) whether a spelling of each query's question is known.
    """
    numbers = np.asarray(groups)
    return np.isin(numbers, numbers[known])
