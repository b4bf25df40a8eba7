"""The labelled queries behind an adapter's attention part, which are kept so that the adapter can grow, forget and explain."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._forks import cached_property
from deepmem_integrations._immutable import ReadOnlyArrays
from deepmem_integrations._vectors import Vectors
from deepmem_integrations.labels import LabelRows

AWAY = 0.25
"""How far the value of a query points away from the documents judged irrelevant, where it points to its answers by 1.

From 0.1 to 0.5 nothing differs by more than chance where popular junk outranks the answers. Where thumbs down are noise that hits
the answers of other queries, 0.5 may cost 2 points of nDCG@10 (SciFact, 300 queries with five such judgements each)."""
AGAINST = 1.0
"""The vote of a remembered query against a document judged irrelevant, where its vote for its best answer is 1."""
RETRAINING = 0.2
"""A full training is due once this share of the labelled queries has been added or forgotten since the last training."""


@dataclass(frozen=True)
class ValueSpace(ReadOnlyArrays):
    """The map from a document to the direction that favours the document over others: ``scale · (document − mean) · projection``.

    Attributes:
        mean: (d,) float32, the mean of the corpus vectors at training.
        projection: (d, d) float32, the whitening of the corpus vectors at training.
        scale: The factor with which, on average over the training queries, a value's dot product with the best document of its
            query is 1.
    """

    mean: Vectors
    projection: Vectors
    scale: float

    def place(self, documents: Vectors) -> Vectors:
        """Map document vectors, (n, d) float32 unit rows, to (n, d) float32 values."""
        return np.asarray((documents - self.mean) @ self.projection * np.float32(self.scale), dtype=np.float32)


@dataclass(frozen=True)
class RememberedQueries(ReadOnlyArrays):
    """All labelled queries that the attention part was trained on or given. Queries with the same vector share a key.

    Attributes:
        query_ids: The r query ids.
        texts: The r query texts, or None if the adapter keeps no texts.
        owners: (r,) int64, the row of each query's key.
        labels: The labels of each query, whose documents are rows of ``document_ids``.
        document_ids: The ids of the L labelled documents.
        documents: (L, d) float32, the place of each document in the value space.
        space: The value space.
        trained: How many of the queries the adapter was trained on. They come first; the other queries were added later.
        trained_in_all: How many queries the training had. Some of them may have been forgotten since.
        irrelevant: What each query judged irrelevant, as rows of ``document_ids``; None where no query did.
    """

    query_ids: Sequence[str]
    texts: Sequence[str] | None
    owners: NDArray[np.int64]
    labels: LabelRows
    document_ids: Sequence[str]
    documents: Vectors
    space: ValueSpace
    trained: int
    trained_in_all: int
    irrelevant: LabelRows | None = None

    @cached_property
    def answers(self) -> LabelRows:
        """The votes of each key for and against documents.

        A key votes for the documents of its queries, united: if two of the queries name the same document, the larger weight
        counts. Its vote against a document judged irrelevant is below 0; there is none where another of its queries was answered
        by that document.
        """
        return self._labels_of_keys.signed(self._irrelevant_of_keys, AGAINST)

    @cached_property
    def values(self) -> Vectors:
        """(m, d) float32, the value of each key: from what was judged irrelevant to the answers.

        That is the weighted mean of the places of its queries' answers, less `AWAY` times that of its irrelevant documents. It is
        0 for a key without an answer: away from a document is no direction to search in.
        """
        return self._values(self._labels_of_keys, self._irrelevant_of_keys)

    def values_of(self, keys: NDArray[np.int64]) -> Vectors:
        """Compute the values of some keys, (n,) int64 rows → (n, d) float32."""
        return self._values(self._labels_of_keys.take(keys), self._irrelevant_of_keys.take(keys))

    def _values(self, labels: LabelRows, irrelevant: LabelRows) -> Vectors:
        away = np.float32(AWAY) * _means(self.documents, irrelevant) * labels.labelled[:, None]
        return np.asarray(_means(self.documents, labels) - away, dtype=np.float32)

    @cached_property
    def _labels_of_keys(self) -> LabelRows:
        return self.labels.united(self.owners, self._keys)

    @cached_property
    def _irrelevant_of_keys(self) -> LabelRows:
        if self.irrelevant is None:
            return LabelRows.empty(self._keys)
        return self.irrelevant.united(self.owners, self._keys).without(self._labels_of_keys)

    @property
    def _keys(self) -> int:
        return int(self.owners.max(initial=-1)) + 1

    def of_key(self, key: int) -> NDArray[np.int64]:
        """Return the rows of the queries that share the key with this number."""
        return np.flatnonzero(self.owners == key)

    def documents_of(self, row: int) -> dict[str, float]:
        """Return document id → weight of one query. The weight is below 0 for a document that was judged irrelevant."""
        weights = self.labels.weight_of(row)
        if self.irrelevant is not None:
            weights |= {document: -weight for document, weight in self.irrelevant.weight_of(row).items()}
        return {self.document_ids[document]: weight for document, weight in weights.items()}

    def added(
        self,
        query_ids: Sequence[str],
        texts: Sequence[str] | None,
        owners: NDArray[np.int64],
        labels: Sequence[Mapping[str, float]],
        documents: Mapping[str, Vectors],
        irrelevant: Sequence[Mapping[str, float]] = (),
    ) -> "RememberedQueries":
        """Return these queries and more.

        Args:
            query_ids: The ids of the new queries.
            texts: The texts of the new queries. They are left out if the adapter keeps no texts.
            owners: The row of each new query's key.
            labels: Document id → weight of each new query.
            documents: Document id → (d,) unit vector of each document that is not in ``document_ids`` yet.
            irrelevant: Document id → weight ≤ 0 of what each new query judged irrelevant.
        """
        row_of = {name: row for row, name in enumerate(self.document_ids)}
        new = [name for name in dict.fromkeys(name for query in (*labels, *irrelevant) for name in query) if name not in row_of]
        row_of |= {name: len(self.document_ids) + row for row, name in enumerate(new)}
        theirs = LabelRows.of_rows([{row_of[name]: weight for name, weight in query.items()} for query in labels])
        against = None
        if self.irrelevant is not None or any(irrelevant):
            mine = LabelRows.empty(len(self.labels)) if self.irrelevant is None else self.irrelevant
            rows = [{row_of[name]: weight for name, weight in query.items()} for query in irrelevant or [{}] * len(labels)]
            against = mine.joined(LabelRows.of_strengths(rows))
        placed = [self.space.place(np.stack([documents[name] for name in new]))] if new else []
        return replace(
            self,
            query_ids=(*self.query_ids, *query_ids),
            texts=None if self.texts is None else (*self.texts, *(texts or [""] * len(query_ids))),
            owners=np.concatenate([self.owners, owners]),
            labels=self.labels.joined(theirs),
            irrelevant=against,
            document_ids=(*self.document_ids, *new),
            documents=np.concatenate([self.documents, *placed]) if placed else self.documents,
        )

    def relabelled(
        self, targets: Mapping[str, Mapping[str, float]], documents: Mapping[str, Vectors]
    ) -> tuple["RememberedQueries", NDArray[np.int64]]:
        """Return these queries with judgements that have moved to other documents.

        Args:
            targets: The id of a document → the ids of the documents that take its place → the factor of its weight. A document
                that is not named stays as it is, and so does its place; one with no target is dropped.
            documents: Document id → (d,) unit vector of each target.

        Returns:
            As `without`.
        """
        names = list(dict.fromkeys(new for name in self.document_ids for new in targets.get(name, {name: 1.0})))
        row_of, own = {name: row for row, name in enumerate(names)}, {name: row for row, name in enumerate(self.document_ids)}
        places = np.stack(
            [self.space.place(documents[n][None])[0] if n in documents else self.documents[own[n]] for n in names]
            or [np.empty(0, np.float32)]
        )

        def moved(labels: LabelRows) -> list[dict[int, float]]:
            rows: list[dict[int, float]] = []
            for query in range(len(labels)):
                here: dict[int, float] = {}
                for document, weight in labels.weight_of(query).items():
                    name = self.document_ids[document]
                    for new, share in targets.get(name, {name: 1.0}).items():
                        here[row_of[new]] = max(here.get(row_of[new], 0.0), weight * share)
                rows.append(here)
            return rows

        labels, irrelevant = LabelRows.of_rows(moved(self.labels)), None
        if self.irrelevant is not None:
            against = [{row: -weight for row, weight in query.items()} for query in moved(self.irrelevant)]
            irrelevant = LabelRows.of_strengths(against).without(labels)  # what answers is not irrelevant
        renamed = replace(self, labels=labels, irrelevant=irrelevant, document_ids=tuple(names), documents=places)
        return renamed.without((), ())

    def without(self, query_ids: Collection[str], document_ids: Collection[str]) -> tuple["RememberedQueries", NDArray[np.int64]]:
        """Leave out some queries and some documents. Queries that lose all of their judgements are left out as well.

        Args:
            query_ids: The ids of the queries to leave out.
            document_ids: The ids of the documents to leave out.

        Returns:
            The queries that are left, and the rows of the keys that still have a query, as (number of such keys,) int64.
        """
        gone, gone_documents = set(query_ids), set(document_ids)
        kept = np.array([name not in gone_documents for name in self.document_ids], dtype=bool)
        labels = self.labels.only(kept).scaled()
        irrelevant = None if self.irrelevant is None else self.irrelevant.only(kept)
        judged = labels.labelled if irrelevant is None else labels.labelled | irrelevant.labelled
        rows = np.array([q not in gone and has for q, has in zip(self.query_ids, judged.tolist(), strict=True)]).nonzero()[0]
        labels, irrelevant = labels.take(rows), None if irrelevant is None else irrelevant.take(rows)
        keys, owners = np.unique(self.owners[rows], return_inverse=True)
        used = np.unique(np.concatenate([labels.documents, *([] if irrelevant is None else [irrelevant.documents])]))
        left_over = replace(
            self,
            query_ids=tuple(self.query_ids[row] for row in rows.tolist()),
            texts=None if self.texts is None else tuple(self.texts[row] for row in rows.tolist()),
            owners=owners.reshape(-1),
            labels=labels.named_by(used),
            irrelevant=None if irrelevant is None else irrelevant.named_by(used),
            document_ids=tuple(self.document_ids[document] for document in used.tolist()),
            documents=self.documents if len(used) == len(self.documents) else self.documents[used],
            trained=int((rows < self.trained).sum()),
        )
        return left_over, keys


class ComputedValues:
    """The values of very many keys, computed for those that are asked for: all of them would fill as much memory as the keys.

    Args:
        remembered: The queries behind the keys.
        keys: The number of keys.
    """

    def __init__(self, remembered: RememberedQueries, keys: int) -> None:
        self._remembered = remembered
        self.shape = (keys, remembered.documents.shape[1])

    def __getitem__(self, rows: NDArray[np.int64], /) -> Vectors:
        """Compute the values of some keys: int64 rows of any shape → float32 of that shape and d."""
        return self._remembered.values_of(rows.reshape(-1)).reshape(*rows.shape, self.shape[1])


def _means(places: Vectors, labels: LabelRows) -> Vectors:
    """Return the weighted mean place of each key's documents, and 0 for a key without any."""
    means = np.zeros((len(labels), places.shape[1]), dtype=np.float32)
    if len(labels.documents):
        starts = labels.starts[:-1][labels.labelled]
        sums = np.add.reduceat(places[labels.documents] * labels.weights[:, None], starts, axis=0)
        means[labels.labelled] = sums / np.add.reduceat(labels.weights, starts)[:, None]
    return means


@dataclass(frozen=True)
class Growth:
    """The difference between an adapter's labelled queries now and those that it was trained on.

    Attributes:
        trained: How many queries the training had.
        added: How many queries were added since the training.
        forgotten: How many queries of the training were forgotten since.
        linear: Whether the adapter has a linear part, which neither learns nor forgets without a training.
        used: Whether the adapter makes any use of its remembered queries. If not, queries that are added change no result until a
            training chooses to use them.

    Example:
        >>> print(Growth(trained=100, added=5, forgotten=0, linear=False))
        trained on 100 labelled queries; since then 5 added, 0 forgotten
        The labelled queries call for no full training yet.
    """

    trained: int
    added: int
    forgotten: int
    linear: bool
    used: bool = True

    @property
    def retraining_due(self) -> bool:
        """Whether the labelled queries call for a full training; `DeepMemory.drift` tells whether the documents do.

        It is due where much has changed, where forgotten queries still shape the linear part, and where added queries are not
        used yet.
        """
        if (self.linear and self.forgotten > 0) or (self.added > 0 and not self.used):
            return True
        return self.added + self.forgotten >= RETRAINING * self.trained

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "trained": self.trained,
            "added": self.added,
            "forgotten": self.forgotten,
            "linear": self.linear,
            "used": self.used,
            "retraining_due": self.retraining_due,
        }

    def __str__(self) -> str:
        """Describe the growth in a few lines for people."""
        lines = [f"trained on {self.trained} labelled queries; since then {self.added} added, {self.forgotten} forgotten"]
        if self.linear and self.forgotten:
            lines.append(
                f"The linear part still carries what it learned from the {self.forgotten} forgotten queries: its weights are a "
                "sum over all training queries, from which no query can be read back or taken out without a training."
            )
        if self.linear and self.added:
            lines.append(f"The linear part has learned nothing from the {self.added} added queries.")
        if self.added and not self.used:
            lines.append(
                f"The {self.added} added queries change no result yet: the last training chose neither an attention part nor "
                "remembered answers."
            )
        lines.append("A full training is due." if self.retraining_due else "The labelled queries call for no full training yet.")
        return "\n".join(lines)
