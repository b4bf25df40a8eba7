"""`QueryAdapter`: the trained query transform, applied with numpy alone."""

import copy
import itertools
import logging
import mmap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmem_integrations._files import user_path, write_bytes
from deepmem_integrations._immutable import Immutable
from deepmem_integrations._ordered import ordered
from deepmem_integrations._vectors import Vectors, first_same, unit_rows
from deepmem_integrations.adapter.answers import answer_scores, vote_shares
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.adapter.explanation import Explanation, Influence, RankedDocument, Vote
from deepmem_integrations.adapter.file import decode, encode, parts_do_not_fit, read_file
from deepmem_integrations.adapter.fingerprint import Fingerprint
from deepmem_integrations.adapter.lists import MANY_KEYS, Lists
from deepmem_integrations.adapter.ranking import Ranking
from deepmem_integrations.adapter.remembered import ComputedValues, Growth, RememberedQueries
from deepmem_integrations.adapter.schema import Parts
from deepmem_integrations.errors import AdapterFileError, InvalidRelevanceError, StorageError
from deepmem_integrations.labels import Labels, Relevance, RowNumber
from deepmem_integrations.labels.checking import id_set

_logger = logging.getLogger(__name__)

SAME = 0.9999
"""Queries whose places in the kernel space have this cosine share a key."""
KNOWN = 0.999
"""From this cosine on, a query counts as remembered: a service may embed a text a little differently each time."""
LEAST_VOTE = 0.005
"""Remembered queries with a smaller share of the vote are not named."""


class QueryAdapter(Immutable):
    """A trained transform of query vectors. It never changes, and is safe to share between threads.

    The transform is ``x ← unit(x)``, then ``y ← unit(x + x W)`` (the linear part), then ``z ← unit(y + attention.shift(x))``
    (the attention part). Either part may be absent; without both the adapter is the identity. Document vectors are never
    touched, so no index is rewritten.

    A retriever can do more than search with a transformed query: it ranks by the documents' words and by remembered answers as
    well. `ranking` says how, `answers` scores the remembered answers, and `for_ranking` is the transform to search with.

    Args:
        dimension: d, the length of the vectors.
        linear: W, (d, d) float32.
        attention: The attention part. With a strength of 0 it moves no query, and its keys serve the answers alone.
        remembered_queries: The labelled queries behind the attention part.
        ranking: How a retriever ranks; None ranks by the transformed query alone.
        fingerprint: The fingerprint of the embedding model of the training; by default only the dimension is known.
        metadata: Anything that JSON can hold; it is kept in the file.

    Example:
        >>> import numpy as np
        >>> adapter = QueryAdapter(2, linear=np.array([[0, 1], [0, 0]], dtype=np.float32))
        >>> adapter.transform([2.0, 0.0]).round(3).tolist()
        [0.7070000171661377, 0.7070000171661377]
    """

    dimension: int
    linear: Vectors | None
    attention: Attention | None
    remembered_queries: RememberedQueries | None
    ranking: Ranking | None
    fingerprint: Fingerprint
    _metadata: dict[str, Any]

    def __init__(
        self,
        dimension: int,
        *,
        linear: Vectors | None = None,
        attention: Attention | None = None,
        remembered_queries: RememberedQueries | None = None,
        ranking: Ranking | None = None,
        fingerprint: Fingerprint | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.__setstate__(
            {
                "dimension": int(dimension),
                "linear": linear,
                "attention": attention,
                "remembered_queries": remembered_queries if attention is not None else None,
                "ranking": ranking,
                "fingerprint": fingerprint or Fingerprint(dimension),
                "_metadata": copy.deepcopy(dict(metadata or {})),
            }
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file records beside the parts: the training report, for one. A copy."""
        return copy.deepcopy(self._metadata)

    @property
    def id_key(self) -> str | None:
        """The metadata key of documents whose values the labels name them by; None where the store's own ids do."""
        return self._metadata.get("id_key")

    @property
    def is_identity(self) -> bool:
        """Whether the adapter leaves every direction as it is."""
        return self.linear is None and not self._attends

    @property
    def _attends(self) -> bool:
        """Whether the attention part moves queries."""
        return self.attention is not None and self.attention.strength > 0

    # ---- applying ----------------------------------------------------------------------------------------------

    def transform(self, vectors: ArrayLike) -> Vectors:
        """Transform query vectors.

        Args:
            vectors: (d,) or (n, d), any real dtype, of any length but 0.

        Returns:
            A new float32 array in the same shape, rows of length 1.

        Raises:
            EmbeddingMismatchError: The vectors have another dimension.
            InvalidVectorsError: A row holds NaN or infinity, or is all zeros.

        Example:
            >>> QueryAdapter(2).transform([[3.0, 4.0]]).round(3).tolist()  # the identity
            [[0.6000000238418579, 0.800000011920929]]
        """
        given = np.asarray(vectors)
        queries = unit_rows(given[None] if given.ndim == 1 else given, "query vector", dimension=self.dimension)
        moved = self._turned(queries)
        if self.attention is not None and self._attends:
            moved = _normalised(moved + self.attention.shift(queries), moved)
        return moved[0] if given.ndim == 1 else moved

    def remembered(self, vectors: ArrayLike) -> NDArray[np.bool_]:
        """Tell which queries the attention part was trained on or given with `remember`. Always False without one.

        Args:
            vectors: (n, d), as `transform` takes them.

        Returns:
            (n,) bool.
        """
        queries = unit_rows(vectors, "query vector", dimension=self.dimension)
        if self.attention is None:
            return np.zeros(len(queries), dtype=bool)
        return np.asarray(self.attention.attend(queries)[2].max(axis=1) > KNOWN)

    def for_ranking(self) -> "QueryAdapter":
        """Return the transform that a retriever searches with, which may be another one than the transform alone.

        Example:
            >>> QueryAdapter(2, ranking=Ranking(words=0.05)).for_ranking().is_identity
            True
        """
        ranking, attention = self.ranking, self.attention
        if ranking is None:
            return self
        if attention is not None:
            attention = replace(attention, temperature=ranking.attention_temperature, strength=ranking.attention_strength)
        return QueryAdapter(**(self._parts()._asdict() | {"linear": ranking.linear, "attention": attention, "ranking": None}))

    def answers(self, vector: ArrayLike, temperature: float | None = None) -> dict[str, float]:
        """Score the documents that remembered queries like this one asked for.

        Args:
            vector: (d,), the untransformed query, any real dtype.
            temperature: τ, the width of the kernel; by default the one of `ranking`.

        Returns:
            Document id → score, between −1 and 1, best first; nothing where the adapter remembers no queries. Below 0 are
            documents that were judged irrelevant. See `deepmem_integrations.adapter.answers`.

        Raises:
            EmbeddingMismatchError: The vector has another dimension.
            InvalidVectorsError: The argument is not one vector of finite numbers, or is all zeros.
        """
        query = unit_rows(np.asarray(vector)[None], "query vector", dimension=self.dimension)
        remembered = self.remembered_queries
        if self.attention is None or remembered is None:
            return {}
        if temperature is None:
            temperature = (self.ranking or Ranking()).answers_temperature
        keys, _, similarities = self.attention.attend(query)
        documents, scores = answer_scores(keys[0], similarities[0], remembered.answers, temperature)
        order = np.argsort(-scores, kind="stable")
        return {remembered.document_ids[documents[row]]: float(scores[row]) for row in order.tolist()}

    def explain(self, vector: ArrayLike, top: int = 5) -> Explanation:
        """Name the training queries that move a query, and the remembered queries whose answers rank documents.

        An adapter has no documents and no words: `DeepMemory.explain` tells the vectors' and the words' part as well.

        Args:
            vector: (d,), any real dtype.
            top: How many training queries, remembered queries and documents to name at most.

        Returns:
            How far each part turns the query, which training queries did it, and where the ranking counts remembered answers,
            which documents they favour. Its ``str`` is meant for people.

        Raises:
            EmbeddingMismatchError: The vector has another dimension.
            InvalidVectorsError: The argument is not one vector of finite numbers, or is all zeros.
        """
        query = unit_rows(np.asarray(vector)[None], "query vector", dimension=self.dimension)
        turned, final = self._turned(query), self.transform(query)
        influences: list[Influence] = []
        if self.attention is not None and self._attends:
            rows, weights, similarities = (found[0] for found in self.attention.attend(query))
            pushes = weights[:, None] * self.attention.values[rows]
            shift = pushes.sum(axis=0)
            shares = pushes @ shift / max(float(shift @ shift), 1e-12)
            for place in np.argsort(-shares)[:top].tolist():
                influences.append(self._influence(int(rows[place]), float(similarities[place]), float(shares[place])))
        return Explanation(
            degrees=degrees(query, final),
            linear_degrees=degrees(query, turned),
            attention_degrees=degrees(turned, final),
            influences=tuple(influences),
            **self._explain_ranking(query, top),
        )

    def _explain_ranking(self, query: Vectors, top: int) -> dict[str, Any]:
        """Return the fields of an `Explanation` that tell of the ranking."""
        ranking, attention, remembered = self.ranking, self.attention, self.remembered_queries
        if ranking is None:
            return {}
        documents: list[RankedDocument] = []
        votes: list[Vote] = []
        if ranking.answers and attention is not None and remembered is not None:
            asked = [(name, score) for name, score in self.answers(query[0]).items() if score > 0]
            for rank, (name, score) in enumerate(asked[:top], start=1):
                documents.append(RankedDocument(name, ranking.answers * score, {"answers": (score, rank)}))
            rows, _, similarities = (found[0] for found in attention.attend(query))
            shares = vote_shares(similarities, ranking.answers_temperature)
            for place in np.argsort(-shares, kind="stable")[:top].tolist():
                if shares[place] >= LEAST_VOTE:
                    names = self._names(int(rows[place]), remembered)
                    votes.append(Vote(*names, float(similarities[place]), float(shares[place])))
        return {
            "ranking": str(ranking),
            "ranking_degrees": degrees(query, self.for_ranking().transform(query)),
            "documents": tuple(documents),
            "votes": tuple(votes),
        }

    def check(self, fingerprint: Fingerprint) -> None:
        """Refuse an embedding model other than the one of the training.

        Raises:
            EmbeddingMismatchError: It is another model, as far as both fingerprints tell.
        """
        self.fingerprint.check(fingerprint)

    def _turned(self, queries: Vectors) -> Vectors:
        """Apply the linear part to unit rows."""
        return queries if self.linear is None else _normalised(queries + queries @ self.linear, queries)

    def _influence(self, key: int, similarity: float, share: float) -> Influence:
        if self.remembered_queries is None:
            return Influence((f"training query {key}",), (), {}, similarity, share)
        return Influence(*self._names(key, self.remembered_queries), similarity, share)

    def _names(self, key: int, remembered: RememberedQueries) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, float]]:
        """Return the ids, the texts and the documents of the queries that share a key."""
        rows = remembered.of_key(key).tolist()
        documents: dict[str, float] = {}
        for row in rows:
            for name, weight in remembered.documents_of(row).items():
                documents[name] = max(weight, documents.get(name, -1.0))
        texts = () if remembered.texts is None else tuple(remembered.texts[row] for row in rows)
        return tuple(remembered.query_ids[row] for row in rows), texts, documents

    # ---- growing -----------------------------------------------------------------------------------------------

    @property
    def growth(self) -> Growth | None:
        """What was added and forgotten since the training, and whether a training is due; None without remembered queries."""
        remembered = self.remembered_queries
        if remembered is None:
            return None
        added, forgotten = len(remembered.query_ids) - remembered.trained, remembered.trained_in_all - remembered.trained
        ranking = self.ranking
        linear = self.linear is not None or (ranking is not None and ranking.linear is not None)
        used = self._attends or (ranking is not None and (ranking.answers > 0 or ranking.attention_strength > 0))
        return Growth(remembered.trained_in_all, added, forgotten, linear, used)

    def remember(
        self,
        query_vectors: ArrayLike,
        relevance: Relevance | Labels,
        documents: Mapping[str, ArrayLike] | None = None,
        *,
        query_ids: Sequence[str] | None = None,
        query_texts: Sequence[str] | None = None,
    ) -> "QueryAdapter":
        """Add labelled queries to those that the adapter remembers, without a training and without the corpus.

        The attention part becomes what it would be if these queries had been there when it was built, with the whitening and
        the scale of its training, and their answers count at once where the ranking counts answers. The linear part stays as it
        is; `growth` says when a full training is due, and whether the adapter makes any use of what it remembers.

        Args:
            query_vectors: (n, d), any real dtype.
            relevance: The labels of these n queries. The ids that a `Relevance` was given must be new to the adapter. A row
                number, which stands where no id was given, becomes ``added 48`` or so if the adapter has it already.
            documents: Document id → (d,) vector, for the documents that no remembered query judged. Vectors of other
                documents may be passed, too, and are not used.
            query_ids: The ids of a bare ``relevance``; by default ``added 48`` and so on.
            query_texts: The texts, which are kept if the adapter keeps texts.

        Returns:
            A new adapter.

        Raises:
            InvalidRelevanceError: The adapter remembers no queries, knows an id already, or lacks the vector of a document;
                or the numbers of vectors and labels differ.
            InvalidVectorsError: A vector holds NaN or infinity, or is all zeros.
            EmbeddingMismatchError: The vectors have another dimension.
        """
        attention, remembered = self._growing("remember more")
        if not isinstance(relevance, Relevance):
            relevance = Relevance.unnamed(relevance, query_ids)
            new_ids = _new_ids(remembered.query_ids, relevance.query_ids, taken=relevance.query_ids)
        elif query_ids is not None:
            raise InvalidRelevanceError("query_ids go with a bare relevance; a Relevance has its own.")
        else:
            new_ids = _new_ids(remembered.query_ids, relevance.query_ids, taken=())
        query_texts = None if query_texts is None else ordered(query_texts, "query_texts", InvalidRelevanceError)
        queries = unit_rows(query_vectors, "query vector", dimension=self.dimension)
        if len(queries) != len(relevance) or (query_texts is not None and len(query_texts) != len(queries)):
            raise InvalidRelevanceError(f"Got {len(queries)} query vectors for {len(relevance)} labelled queries.")
        known = set(remembered.query_ids).intersection(new_ids)
        if known:
            raise InvalidRelevanceError(
                f"The adapter has a query {min(known)!r} already: forget it first, or give the new one another id."
            )
        wanted = relevance.document_ids - set(remembered.document_ids)
        missing = sorted(wanted - set(documents or {}))
        if missing:
            raise InvalidRelevanceError(
                f"No remembered query asked for the document {missing[0]!r} ({len(missing)} in all are new): pass their "
                "vectors, documents={id: vector}."
            )
        vectors = {
            name: unit_rows(np.asarray((documents or {})[name])[None], "document vector", dimension=self.dimension, ids=[name])[0]
            for name in wanted
        }
        places = attention.space.place(queries) if attention.space else queries
        owners = attention.find(places, SAME)
        unknown = np.flatnonzero(owners < 0)
        first = first_same(places[unknown], SAME)
        own, number = np.unique(first, return_inverse=True)
        owners[unknown] = len(attention.keys) + number.reshape(-1)
        labels = [dict(query) for query in relevance.labels]
        irrelevant = [dict(query) for query in relevance.irrelevant]
        grown = remembered.added(new_ids, query_texts, owners, labels, vectors, irrelevant)
        return self._with_attention(*_with_keys(attention, places[unknown[own]], grown))

    def forget(self, *, query_ids: Iterable[str] = (), document_ids: Iterable[str] = ()) -> "QueryAdapter":
        """Forget remembered queries, or take documents out of all judgements, without a training or the corpus.

        Nothing of them is left in the attention part, among the answers or in the file. What the linear part learned from them
        stays until the next full training: `growth` says so. A logged warning names the ids that the adapter does not know; the
        others are forgotten all the same.

        Args:
            query_ids: Queries to forget.
            document_ids: Documents to forget. A query that judged no other document is forgotten, too.

        Returns:
            A new adapter; this one, if there is no id at all.

        Raises:
            InvalidRelevanceError: The adapter remembers no queries, or knows none of the ids.
        """
        attention, remembered = self._growing("forget")
        queries, documents = set(id_set(query_ids, "query_ids")), set(id_set(document_ids, "document_ids"))
        unknown = {
            "query_ids": queries.difference(remembered.query_ids),
            "document_ids": documents.difference(remembered.document_ids),
        }
        listed = "; ".join(_listed(name, ids) for name, ids in unknown.items() if ids)
        if not queries and not documents:
            return self
        if len(queries) + len(documents) == sum(map(len, unknown.values())):
            raise InvalidRelevanceError(
                f"The adapter knows none of the ids to forget: {listed}. The ids that it knows are in "
                "remembered_queries.query_ids and .document_ids."
            )
        if listed:
            _logger.warning("There was nothing to forget of ids that the adapter does not know: %s", listed)
        left, keys = remembered.without(queries, documents)
        if not left.query_ids:
            return self._forgotten(remembered.trained_in_all)
        return self._with_attention(*_of_keys(attention, keys, left))

    def relabel(self, targets: Mapping[str, Mapping[str, float]], documents: Mapping[str, ArrayLike]) -> "QueryAdapter":
        """Let remembered answers move to other documents, as after a re-chunking, without a training or the corpus.

        Args:
            targets: The id of a document → the ids of the documents that take its place → the factor of its weight, as
                `deepmem_integrations.labels.find_texts` finds them. A document without a target is forgotten, as `forget` does,
                and one that is not named stays.
            documents: The vectors of the targets, (d,) each. One that is new to the adapter needs one.

        Returns:
            A new adapter.

        Raises:
            InvalidRelevanceError: The adapter remembers no queries, or a target has no vector.
            InvalidVectorsError: A vector holds NaN or infinity, or is all zeros.
            EmbeddingMismatchError: A vector has another dimension.
        """
        attention, remembered = self._growing("relabel")
        named = {new for name in remembered.document_ids for new in targets.get(name, ())}
        if missing := sorted(named - set(remembered.document_ids) - set(documents)):
            raise InvalidRelevanceError(
                f"The document {missing[0]!r} has no vector ({len(missing)} in all): pass it, documents={{id: vector}}."
            )
        vectors = {
            name: unit_rows(np.asarray(documents[name])[None], "document vector", dimension=self.dimension, ids=[name])[0]
            for name in sorted(named & set(documents))
        }
        left, keys = remembered.relabelled(targets, vectors)
        if not left.query_ids:
            return self._forgotten(remembered.trained_in_all)
        return self._with_attention(*_of_keys(attention, keys, left))

    def linear_only(self) -> "QueryAdapter":
        """Return the linear part alone: neither the adapter nor its file then holds a training query's vector, id or text.

        A retriever still ranks by words, and no longer by answers.
        """
        return self._with_attention(None, None).without_answers()

    def without_answers(self) -> "QueryAdapter":
        """Return the adapter without remembered answers. A retriever then ranks by vectors and words alone.

        Remembered queries stay where the attention part of a transform needs them.
        """
        parts, ranking = self._parts()._asdict(), self.ranking
        if ranking is not None:
            ranking = replace(ranking, answers=0.0, attention_strength=ranking.attention_strength if self.attention else 0.0)
            if not ranking.vector and not ranking.words:
                ranking = None
            parts["ranking"] = ranking
        if not self._attends and not (ranking and ranking.attention_strength):
            parts["attention"] = parts["remembered_queries"] = None
        return QueryAdapter(**parts)

    def with_metadata(self, **entries: Any) -> "QueryAdapter":
        """Return the adapter with further entries in its metadata, which replace those of the same name."""
        return QueryAdapter(**(self._parts()._asdict() | {"metadata": {**self._metadata, **entries}}))

    def _growing(self, verb: str) -> tuple[Attention, RememberedQueries]:
        if self.attention is None or self.remembered_queries is None:
            nothing = "it has no attention part, or all queries were forgotten"
            why = nothing if self.attention is None else "it comes from a file of format 1, which named none"
            raise InvalidRelevanceError(
                f"This adapter remembers no queries ({why}), so it cannot {verb}: train again with the labels as they are now."
            )
        return self.attention, self.remembered_queries

    def _forgotten(self, count: int) -> "QueryAdapter":
        """Return the adapter without any remembered query, and say what is left of them."""
        left = self.linear_only()
        if left.linear is not None or (left.ranking is not None and left.ranking.linear is not None):
            _logger.warning(
                "The model remembers no query any more. Its linear part still carries what it learned from the %d queries that "
                "it was trained on: its weights are a mixture of them. A full training is due, without them.",
                count,
            )
        return left

    def _with_attention(self, attention: Attention | None, remembered: RememberedQueries | None) -> "QueryAdapter":
        return QueryAdapter(**(self._parts()._asdict() | {"attention": attention, "remembered_queries": remembered}))

    # ---- files -------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically.

        With remembered queries, which every training keeps, the file holds their vectors (whitened) and ids, those of their
        documents, and the texts if the adapter keeps them. `linear_only` leaves all of that out.

        Returns:
            The path.

        Raises:
            StorageError: The file cannot be written. A file that was there before is unchanged.
        """
        path = Path(user_path(path))
        write_bytes(path, encode(self._parts()))
        return path

    @classmethod
    def load(cls, path: str | Path) -> "QueryAdapter":
        """Read a file that `save` wrote. A very large one is mapped into memory: it may be replaced, but not written over.

        Raises:
            StorageError: The file cannot be read.
            AdapterFileError: The file is damaged, is no adapter, or was written by a newer version.
        """
        try:
            return cls._read(read_file(user_path(path)))
        except OSError as error:
            raise StorageError(f"Cannot read the adapter {path}: {error.strerror or error}.") from error
        except AdapterFileError as error:
            raise AdapterFileError(f"{path}: {error}") from error.__cause__

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        return b"".join(encode(self._parts()))

    @classmethod
    def from_bytes(cls, data: bytes) -> "QueryAdapter":
        """Read what `to_bytes` returned.

        Raises:
            AdapterFileError: The data is damaged, is no adapter, or was written by a newer version.

        Example:
            >>> QueryAdapter.from_bytes(QueryAdapter(384).to_bytes())
            QueryAdapter(384 dimensions, identity)
        """
        return cls._read(data)

    @classmethod
    def _read(cls, data: bytes | mmap.mmap) -> "QueryAdapter":
        parts = decode(data)
        try:
            adapter = cls(**parts._asdict())
            with np.errstate(all="ignore"):
                if not np.isfinite(adapter.transform(np.ones(parts.dimension))).all():
                    raise ValueError("it turns vectors into NaN or infinity")
        except (IndexError, TypeError, ValueError) as error:
            raise parts_do_not_fit(error) from error
        return adapter

    def _parts(self) -> Parts:
        return Parts(
            self.dimension,
            self.linear,
            self.attention,
            self.remembered_queries,
            self.ranking,
            self.fingerprint,
            self._metadata,
        )

    def __repr__(self) -> str:
        """Show the parts in one line."""
        parts = [name for name, there in (("linear", self.linear is not None), ("attention", self._attends)) if there]
        ranking = f", ranking by {self.ranking}" if self.ranking else ""
        return f"QueryAdapter({self.dimension} dimensions, {' + '.join(parts) or 'identity'}{ranking})"


def _new_ids(known: Sequence[str], ids: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return ids for queries that are added, with other ids in place of row numbers that are known or taken."""
    used, numbers = {*known, *ids}, itertools.count(len(known))
    gives_way = {*known, *taken}
    return [
        next(name for number in numbers if (name := f"added {number}") not in used)
        if isinstance(query_id, RowNumber) and query_id in gives_way
        else query_id
        for query_id in ids
    ]


def _listed(name: str, ids: Collection[str], most: int = 10) -> str:
    shown = ", ".join(sorted(map(repr, ids))[:most])
    return f"{name} {shown}{f' and {len(ids) - most} more' if len(ids) > most else ''}"


def sorted_into_lists(attention: Attention, keys: Vectors, remembered: RememberedQueries) -> tuple[Attention, RememberedQueries]:
    """Return an attention part with these keys and the values of the remembered queries, in lists where keys are very many."""
    if len(keys) < MANY_KEYS:
        return replace(attention, keys=keys, values=remembered.values, lists=None), remembered
    order, lists = Lists.of(keys)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return _in_lists(attention, keys[order], replace(remembered, owners=place[remembered.owners]), lists)


def _in_lists(
    attention: Attention, keys: Vectors, remembered: RememberedQueries, lists: Lists
) -> tuple[Attention, RememberedQueries]:
    return replace(attention, keys=keys, values=ComputedValues(remembered, len(keys)), lists=lists), remembered


def _with_keys(attention: Attention, new: Vectors, remembered: RememberedQueries) -> tuple[Attention, RememberedQueries]:
    """Add keys, (n, d) float32 unit rows, which the owners of the remembered queries count on from the last key."""
    count, lists = len(attention.keys), attention.lists
    if lists is None or not lists.fit(count + len(new)):
        return sorted_into_lists(attention, np.concatenate([attention.keys, new]), remembered)
    before, lists = lists.with_keys(new)
    order, owners = np.argsort(before, kind="stable"), remembered.owners
    place = np.empty_like(before)
    place[order] = before[order] + np.arange(len(new))
    old = owners < count
    moved = owners + np.searchsorted(before[order], owners, side="right")
    moved[~old] = place[owners[~old] - count]
    return _in_lists(attention, np.insert(attention.keys, before, new, axis=0), replace(remembered, owners=moved), lists)


def _of_keys(attention: Attention, rows: NDArray[np.int64], remembered: RememberedQueries) -> tuple[Attention, RememberedQueries]:
    """Leave out all keys but those of some rows, (n,) int64 in ascending order, whose places the owners are."""
    keys = attention.keys if len(rows) == len(attention.keys) else attention.keys[rows]
    lists = attention.lists
    if lists is None or not lists.fit(len(rows)):
        return sorted_into_lists(attention, keys, remembered)
    return _in_lists(attention, keys, remembered, lists.of_keys(rows))


def _normalised(vectors: Vectors, otherwise: Vectors) -> Vectors:
    """Scale rows to length 1; a row that cancelled out to nothing is taken from ``otherwise``."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(norms > 1e-6, vectors / np.maximum(norms, 1e-6), otherwise).astype(np.float32, copy=False)


def degrees(one: Vectors, other: Vectors) -> float:
    """Measure the angle between two unit vectors by their chord, which is exact for small angles where the cosine is not."""
    return float(np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(one.astype(np.float64) - other) / 2, 0, 1))))
