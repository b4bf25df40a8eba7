"""`Relevance`: labelled queries, checked on the way in."""

import math
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deepmem_integrations._immutable import Immutable
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels import files
from deepmem_integrations.labels.files import Labels
from deepmem_integrations.labels.grouping import document_groups, drop_shared

OnInvalid = Literal["raise", "drop"]
"""What happens to an invalid row: an error names it, or it is left out and counted."""


class InvalidLabelsWarning(UserWarning):
    """Rows were left out of a `Relevance` because the caller asked for ``on_invalid="drop"``."""


class Relevance(Immutable):
    """Labelled queries: texts, ids and, for each query, the ids of the documents that answer it, with weights.

    In TREC's terms a `Relevance` is a set of topics with their qrels. Every function that takes ``queries, relevance`` takes
    one `Relevance` as well. A `Relevance` never changes.

    Args:
        queries: The n texts.
        relevance: For each query its documents as (id, weight), weight > 0. Of a document that a query names twice, the larger
            weight stays.
        query_ids: A distinct id for each query; by default its row number.
        on_invalid: ``"raise"`` names the first invalid row in an error; ``"drop"`` leaves invalid rows out with one warning
            that counts them.
        generated: Whether a language model wrote the query, rather than a user: one answer for all queries, or one for each.
        left_out: What was left out before, to be added to the counts of ``left_out``.

    Attributes:
        queries: A tuple of n texts.
        query_ids: A tuple of n ids.
        labels: A tuple of n tuples of (document id, weight).
        generated: A tuple of n bools.

    Raises:
        InvalidRelevanceError: The two lists differ in length, or (with ``on_invalid="raise"``) a row is invalid: the query is
            empty or no string, it has no document, a document id is no string or is empty, or a weight is no finite number
            above 0.

    Example:
        >>> labelled = Relevance(["how do I undo a commit?"], [[("doc-12", 1.0), ("doc-40", 0.5)]])
        >>> labelled.labels
        ((('doc-12', 1.0), ('doc-40', 0.5)),)
    """

    queries: tuple[str, ...]
    query_ids: tuple[str, ...]
    labels: tuple[tuple[tuple[str, float], ...], ...]
    generated: tuple[bool, ...]
    _left_out: dict[str, int]

    def __init__(
        self,
        queries: Sequence[str],
        relevance: Labels,
        query_ids: Sequence[str] | None = None,
        *,
        on_invalid: OnInvalid = "raise",
        generated: bool | Sequence[bool] = False,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        if isinstance(queries, str) or len(queries) != len(relevance):
            raise InvalidRelevanceError(
                f"queries and relevance need the same length, a list of documents for each query; "
                f"got {len(queries)} queries and {len(relevance)} lists."
            )
        if on_invalid not in ("raise", "drop"):
            raise InvalidRelevanceError(f"on_invalid is 'raise' or 'drop'; got {on_invalid!r}.")
        if query_ids is not None and len(query_ids) != len(queries):
            raise InvalidRelevanceError(f"Got {len(query_ids)} query_ids for {len(queries)} queries.")
        flags = [generated] * len(queries) if isinstance(generated, bool | np.bool_) else list(generated)
        if len(flags) != len(queries) or not all(isinstance(flag, bool | np.bool_) for flag in flags):
            raise InvalidRelevanceError(
                f"generated is True or False, for all {len(queries)} queries or for each; got {generated!r:.60}."
            )
        ids = [str(row) for row in range(len(queries))] if query_ids is None else list(query_ids)
        for row, query_id in enumerate(ids):
            if not isinstance(query_id, str):
                raise InvalidRelevanceError(f"query_ids are strings; row {row} has {query_id!r} ({type(query_id).__name__}).")
        repeated = [name for name, count in Counter(ids).items() if count > 1]
        if repeated:
            raise InvalidRelevanceError(f"query_ids must differ from one another; {repeated[0]!r} appears twice.")

        counts: Counter[str] = Counter()
        kept: list[tuple[str, str, tuple[tuple[str, float], ...], bool]] = []
        for row, (query_id, query, labels, flag) in enumerate(zip(ids, queries, relevance, flags, strict=True)):
            fault = _fault(query, labels)
            if fault is None:
                merged: dict[str, float] = {}
                for document, weight in labels:
                    merged[str(document)] = max(float(weight), merged.get(document, 0.0))
                if len(merged) < len(labels):
                    counts["repeated documents merged"] += len(labels) - len(merged)
                kept.append((query_id, str(query), tuple(merged.items()), bool(flag)))
            elif on_invalid == "drop":
                counts[fault[0]] += 1
            else:
                raise InvalidRelevanceError(f"Row {row} (query id {query_id!r}): {': '.join(filter(None, fault))}.")
        _warn_dropped(len(queries) - len(kept), len(queries), counts)
        vars(self).update(
            query_ids=tuple(query_id for query_id, _, _, _ in kept),
            queries=tuple(query for _, query, _, _ in kept),
            labels=tuple(labels for _, _, labels, _ in kept),
            generated=tuple(flag for _, _, _, flag in kept),
            _left_out=dict(Counter(left_out or {}) + counts),
        )

    @classmethod
    def of(cls, queries: "Relevance | Sequence[str] | None", relevance: "Relevance | Labels | None" = None) -> "Relevance":
        """Accept what users pass: a `Relevance` in either place, or v3's two lists.

        Raises:
            InvalidRelevanceError: The arguments are neither one `Relevance` nor two lists.
        """
        if isinstance(queries, Relevance) and relevance is None:
            return queries
        if isinstance(relevance, Relevance) and queries is None:
            return relevance
        if queries is None or relevance is None or isinstance(queries, Relevance) or isinstance(relevance, Relevance):
            raise InvalidRelevanceError(
                "Pass one Relevance and nothing beside it, or queries together with relevance: [[(document id, weight)]]."
            )
        return cls(queries, relevance)

    def __len__(self) -> int:
        """Count the labelled queries."""
        return len(self.queries)

    def __iter__(self) -> Iterator[tuple[str, str, tuple[tuple[str, float], ...]]]:
        """Yield (query id, text, ((document id, weight), …))."""
        return zip(self.query_ids, self.queries, self.labels, strict=True)

    def __eq__(self, other: object) -> bool:
        """Compare the rows, in their order."""
        return isinstance(other, Relevance) and (list(self), self.generated) == (list(other), other.generated)

    def __hash__(self) -> int:
        """Hash the rows."""
        return hash((self.query_ids, self.queries, self.labels))

    def __add__(self, other: object) -> "Relevance":
        """Join the rows of both, so that labels which come piece by piece add up, as in a LangChain ``stream``.

        A query id that is taken already gives way to a row number.
        """
        if not isinstance(other, Relevance):
            return NotImplemented
        ids = list(self.query_ids)
        taken = set(ids)
        for query_id in other.query_ids:
            row = len(ids)
            while query_id in taken:
                query_id, row = str(row), row + 1
            taken.add(query_id)
            ids.append(query_id)
        total = object.__new__(Relevance)  # its rows are checked already, and there may be thousands of pieces
        vars(total).update(
            query_ids=tuple(ids),
            queries=self.queries + other.queries,
            labels=self.labels + other.labels,
            generated=self.generated + other.generated,
            _left_out=dict(Counter(self._left_out) + Counter(other._left_out)),
        )
        return total

    def __repr__(self) -> str:
        """Show the counts in one line."""
        return f"Relevance({len(self)} queries, {sum(map(len, self.labels))} labels)"

    @property
    def left_out(self) -> dict[str, int]:
        """What was merged or left out on the way in: reason → count. A copy."""
        return dict(self._left_out)

    @property
    def relevance(self) -> list[list[tuple[str, float]]]:
        """The labels in v3's shape."""
        return [list(labels) for labels in self.labels]

    @property
    def documents(self) -> tuple[tuple[tuple[str, float], ...], ...]:
        """The former name of ``labels``, which warns."""
        warnings.warn("Relevance.documents is called Relevance.labels now.", DeprecationWarning, stacklevel=2)
        return self.labels

    @property
    def document_ids(self) -> frozenset[str]:
        """The ids of all labelled documents."""
        return frozenset(document for labels in self.labels for document, _ in labels)

    def take(self, rows: Iterable[int]) -> "Relevance":
        """Return these rows, in this order.

        Example:
            >>> Relevance(["a", "b", "c"], [[("doc", 1.0)]] * 3).take([2, 0]).queries
            ('c', 'a')
        """
        return self._take(list(rows))

    def check(self, corpus_ids: Collection[str], *, on_invalid: OnInvalid = "raise") -> "Relevance":
        """Check that every labelled document is in the corpus.

        Args:
            corpus_ids: The ids of the corpus.
            on_invalid: ``"drop"`` leaves out labels of unknown documents, and queries that lose all of their labels, with one
                warning that counts them.

        Returns:
            This very object where nothing had to be left out.

        Raises:
            InvalidRelevanceError: A document is not in the corpus; the message names the row and the id.
        """
        known = corpus_ids if isinstance(corpus_ids, set | frozenset | dict) else set(corpus_ids)
        unknown = [(row, document) for row, labels in enumerate(self.labels) for document, _ in labels if document not in known]
        if not unknown:
            return self
        if on_invalid == "raise":
            row, document = unknown[0]
            raise InvalidRelevanceError(
                f"Row {row} (query id {self.query_ids[row]!r}): document {document!r} is not in the corpus "
                f"of {len(known)} documents ({len(unknown)} such labels in all). "
                "Use the ids of the store, as memory.documents() gives them, or drop such labels with "
                'Relevance.check(ids, on_invalid="drop").'
            )
        left = [[(document, weight) for document, weight in labels if document in known] for labels in self.labels]
        rows = [row for row, labels in enumerate(left) if labels]
        counts = Counter({"document not in the corpus": len(unknown)})
        if len(rows) < len(self):
            counts["no document left"] = len(self) - len(rows)
        _warn_dropped(len(self) - len(rows), len(self), counts)
        return self._take(rows, [left[row] for row in rows], Counter(self._left_out) + counts)

    def split(
        self, test_size: float = 0.2, *, by: Literal["query", "document"] = "query", seed: int = 0
    ) -> "tuple[Relevance, Relevance]":
        """Split into (train, test).

        Args:
            test_size: The share of the queries to hold out, between 0 and 1.
            by: ``"query"`` draws queries at random. ``"document"`` puts no labelled document on both sides: queries that share
                documents stay together. A group of such queries that is larger than the test side is drawn from at random, and
                the training queries that share a document with the test side are left out, which the training side's
                ``left_out`` counts.
            seed: Fixes the draw.

        Raises:
            InvalidRelevanceError: ``test_size`` leaves one side empty, or no split keeps the documents apart.

        Example:
            >>> labelled = Relevance([f"question {i}" for i in range(10)], [[(f"doc-{i}", 1.0)] for i in range(10)])
            >>> labelled.split(0.2)
            (Relevance(8 queries, 8 labels), Relevance(2 queries, 2 labels))
        """
        size = round(len(self) * test_size)
        if not 0 < size < len(self):
            raise InvalidRelevanceError(
                f"test_size={test_size} of {len(self)} queries leaves one side empty. It is a share between 0 and 1, such as 0.2."
            )
        if by not in ("query", "document"):
            raise InvalidRelevanceError(f"by is 'query' or 'document'; got {by!r}.")
        rng = np.random.default_rng(seed)
        if by == "query":
            order = rng.permutation(len(self))
            return self.take(np.sort(order[size:])), self.take(np.sort(order[:size]))

        documents = [[document for document, _ in labels] for labels in self.labels]
        groups = document_groups(documents, largest=size, rng=rng)
        held: list[int] = []
        for group in groups:
            if len(held) + len(group) <= size:
                held += group
        rows, dropped = drop_shared(documents, held)
        if not held or not rows:
            raise InvalidRelevanceError(
                f"No split of these {len(self)} queries keeps their documents apart: too many queries share a document."
            )
        counts = {"shares a document with the held-out part": dropped} if dropped else {}
        return self._take(rows, left_out=counts), self.take(sorted(held))

    def _take(self, rows: Sequence[int], labels: Labels | None = None, left_out: Mapping[str, int] | None = None) -> "Relevance":
        """Return these rows, with these labels in place of their own, and these counts."""
        return Relevance(
            [self.queries[row] for row in rows],
            [self.labels[row] for row in rows] if labels is None else labels,
            [self.query_ids[row] for row in rows],
            generated=[self.generated[row] for row in rows],
            left_out=left_out,
        )

    # ---- files -------------------------------------------------------------------------------------------------

    @classmethod
    def from_jsonl(cls, path: str | Path, *, on_invalid: OnInvalid = "raise") -> "Relevance":
        """Read JSON lines: ``{"query": …, "relevance": [[id, weight], …], "query_id": …}``.

        A document may be written as its bare id, which has the weight 1. ``query_id`` may be left out, and so may
        ``"generated": true``, which says that a language model wrote the query.

        Raises:
            InvalidRelevanceError: A line is no such object; the message names the line.
            StorageError: The file cannot be read.
        """
        return cls._of_columns(files.read_jsonl(path), on_invalid)

    def to_jsonl(self, path: str | Path) -> None:
        """Write JSON lines, which `from_jsonl` reads.

        Raises:
            StorageError: The file cannot be written.
        """
        files.write_jsonl(path, zip(self.query_ids, self.queries, self.labels, self.generated, strict=True))

    @classmethod
    def from_beir(cls, folder: str | Path, split: str = "train", *, on_invalid: OnInvalid = "raise") -> "Relevance":
        """Read a BEIR folder: ``queries.jsonl`` and ``qrels/{split}.tsv``.

        A score of 0 or below means *judged irrelevant*: such lines are left out and counted in ``left_out``.

        Raises:
            InvalidRelevanceError: A line is malformed, or names a query that is not in ``queries.jsonl``.
            StorageError: A file cannot be read.
        """
        return cls._of_columns(files.read_beir(folder, split, drop_unknown=on_invalid == "drop"), on_invalid)

    def to_beir(self, folder: str | Path, split: str = "train") -> None:
        """Write ``queries.jsonl`` and ``qrels/{split}.tsv``. Queries of other splits in ``queries.jsonl`` are kept.

        Raises:
            InvalidRelevanceError: ``queries.jsonl`` holds another text for a query id, or an id holds a tab, a newline or
                another character that does not print.
            StorageError: A file cannot be written.
        """
        files.write_beir(folder, split, list(self))

    @classmethod
    def from_llama_index(cls, path: Any, *, on_invalid: OnInvalid = "raise") -> "Relevance":
        """Read LlamaIndex's ``EmbeddingQAFinetuneDataset`` (``queries``, ``relevant_docs``); every weight is 1.

        Args:
            path: Its JSON file, or the object itself.
            on_invalid: See the constructor.

        Raises:
            InvalidRelevanceError: The file or object is no such data set.
            StorageError: The file cannot be read.
        """
        return cls._of_columns(files.read_llama_index(path), on_invalid)

    def to_llama_index(self, path: str | Path, corpus: Mapping[str, str]) -> None:
        """Write the JSON file of LlamaIndex's ``EmbeddingQAFinetuneDataset``. The weights are lost: it has no place for them.

        Args:
            path: The file to write.
            corpus: Document id → text, which the format includes.

        Raises:
            InvalidRelevanceError: A labelled document is not in ``corpus``.
            StorageError: The file cannot be written.
        """
        self.check(corpus.keys())
        files.write_llama_index(path, list(self), corpus)

    @classmethod
    def _of_columns(cls, columns: files.Columns, on_invalid: OnInvalid) -> "Relevance":
        queries, relevance, query_ids, generated, left_out = columns
        return cls(queries, relevance, query_ids, on_invalid=on_invalid, generated=generated, left_out=left_out)


_EXAMPLE = '[("an id", 1.0)]'


def _fault(query: Any, labels: Any) -> tuple[str, str] | None:
    """Find what is wrong with a row, as (kind, particulars); None where nothing is."""
    if not isinstance(query, str):
        return "the query is not a string", f"got {type(query).__name__}"
    if not query.strip():
        return "the query is empty", ""
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        return "the relevance is not a list of (document id, weight)", f"got {labels!s:.60}, write {_EXAMPLE}"
    if not labels:
        return "no relevant document", ""
    for label in labels:
        if isinstance(label, str) or not isinstance(label, Sequence) or len(label) != 2:
            return "a label is not a (document id, weight)", f"got {label!s:.60}, write {_EXAMPLE}"
        document, weight = label
        if document is None or document == "":
            return "a document has no id", "take documents that have the store's ids, as memory.documents() gives them"
        if not isinstance(document, str):
            return "a document id is not a string", f"got {document!r}"
        if isinstance(weight, bool | str) or not isinstance(weight, int | float | np.integer | np.floating):
            return "a weight is not a number", f"got {weight!r} for document {document!r}"
        if not _is_finite(weight):
            return "a weight is NaN or infinite", f"document {document!r}"
        if float(weight) <= 0:
            return "a weight is not above 0", f"{weight} for document {document!r}"
    return None


def _is_finite(weight: Any) -> bool:
    try:
        return math.isfinite(weight)
    except OverflowError:  # an integer beyond every float
        return False


def _warn_dropped(dropped: int, total: int, counts: Mapping[str, int]) -> None:
    reasons = {reason: count for reason, count in counts.items() if reason != "repeated documents merged"}
    if reasons:
        listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.items())
        warnings.warn(f"Left out {dropped} of {total} labelled queries: {listed}.", InvalidLabelsWarning, stacklevel=4)
