"""`Ranker`: ranks what a store's search found, what words found, and what remembered queries ask for, by one learned score.

A ranking has four steps, and a retriever does the store's part of each::

    query = ranker.query(text, vector)                        # transform the vector
    shortlist = query.rank(ids, cosines, query.words(100))    # ids and cosines: what the store found for query.vector
    while wanted := shortlist.missing(k):                     # documents that words and answers brought, and the store did not
        shortlist.add(wanted, documents_by_id(wanted))
    documents = shortlist.best(k)
"""

import copy
import logging
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.adapter import QueryAdapter, Ranking
from deepmem_integrations.errors import MissingExtraError, StorageError
from deepmem_integrations.serving import MemoryLike, OnBroken, ServedAdapter, TransformedVector, Untrained
from deepmem_integrations.words import Found, LexicalSearch, WordIndex, search_name, search_words

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_R = TypeVar("_R")
NAMELESS = "\0"
"""A document without an id is ranked under a made-up id that starts with this character. Neither words nor answers know it."""
_NEWEST = 10
"""How many of the documents that a store found are looked up in the word index, to notice an index older than the store."""


@dataclass(frozen=True)
class Evidence:
    """The score of one document by one kind of evidence.

    Attributes:
        score: The cosine, the BM25 score, or the score of the remembered answers.
        rank: The rank among the documents that this evidence found, from 1; None if it did not find the document.
    """

    score: float
    rank: int | None


@dataclass(frozen=True)
class Choice:
    """A document in its place.

    Attributes:
        id: The id of the document.
        score: The score by which the document is ranked: see `Ranking.score`.
        found: Whether the store's own search found the document. Words or answers brought the others.
        evidence: ``"vector"``, ``"words"`` and ``"answers"`` → `Evidence`.
    """

    id: str
    score: float
    found: bool
    evidence: Mapping[str, Evidence]

    @property
    def channels(self) -> dict[str, int]:
        """What found the document → its rank there, from 1."""
        return {name: one.rank for name, one in self.evidence.items() if one.rank is not None}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, as a retriever puts them into a document's metadata."""
        return {
            "score": self.score,
            **{name: {"score": one.score, "rank": one.rank} for name, one in self.evidence.items()},
        }


class Shortlist(Generic[_T]):
    """Ranked candidates, and the documents behind them as far as they are at hand.

    Args:
        ids: The ids of the candidates, best first.
        choice_of: A function from an id to its `Choice`.
        documents: Id → document of what the store's search found.

    Attributes:
        ids: The ids of the candidates, best first.
    """

    def __init__(self, ids: list[str], choice_of: Callable[[str], Choice], documents: Mapping[str, _T]) -> None:
        self.ids = ids
        self._choice_of = choice_of
        self._documents = dict(documents)

    def missing(self, k: int) -> list[str]:
        """Return the ids of those among the best k whose document is not at hand."""
        return [name for name in self.ids[:k] if name not in self._documents]

    def add(self, wanted: Sequence[str], documents: Mapping[str, _T]) -> None:
        """Take in documents that were looked up. Ids without a document leave the list: they are gone, or a filter forbids them.

        Args:
            wanted: The ids that were looked up.
            documents: Id → document of those that there are.
        """
        gone = {name for name in wanted if name not in documents}
        self._documents |= {name: documents[name] for name in wanted if name in documents}
        self.ids = [name for name in self.ids if name not in gone]

    def best(self, k: int) -> list[tuple[_T, Choice]]:
        """Return the best k documents, each with its place. All of them must be at hand: see `missing`."""
        return [(self._documents[name], self._choice_of(name)) for name in self.ids[:k]]

    def choices(self, k: int | None = None) -> list[Choice]:
        """Return the places of the best k candidates, or of all, whether their documents are at hand or not."""
        return [self._choice_of(name) for name in self.ids[:k]]


class Ranker:
    """Ranks by what a model has learned of vectors, words and answers.

    Args:
        memory: A `MemoryLike`. A model that is put in use later ranks the next query.
        words: A search by words; True takes the word index beside the model, and False leaves words out. The attribute may be
            changed at any time, and so may ``answers``.
        answers: Whether remembered answers count.
        untrained: What to do where there is no model yet: see `ServedAdapter`.
        on_broken: What to do where the model cannot be used: see `ServedAdapter`.

    Raises:
        AdapterFileError, StorageError, ModelNotFoundError, TypeError, ValueError: See `ServedAdapter`.

    Example:
        >>> ranker = Ranker(QueryAdapter(2, ranking=Ranking(words=1.0)), words=False)
        >>> query = ranker.query("a question", [3.0, 4.0])
        >>> query.rank(["a", "b"], [0.2, 0.9]).ids
        ['b', 'a']
    """

    def __init__(
        self,
        memory: MemoryLike,
        *,
        words: bool | LexicalSearch = True,
        answers: bool = True,
        untrained: Untrained | None = None,
        on_broken: OnBroken = "error",
    ) -> None:
        self.served = ServedAdapter(memory, untrained=untrained, on_broken=on_broken)
        self.words = words
        self.answers = answers

    def using(self, *, words: bool | LexicalSearch = True, answers: bool = True) -> "Ranker":
        """Return a ranker of the same memory that counts other evidence. Nothing is read or checked again.

        Args:
            words: A search by words, as for the class.
            answers: Whether remembered answers count.
        """
        if words is self.words and answers == self.answers:
            return self
        other = copy.copy(self)
        other.words, other.answers = words, answers
        return other

    @property
    def wants_words(self) -> bool:
        """Whether words are to count."""
        return self.words is not False

    @property
    def lexical_search(self) -> LexicalSearch | None:
        """The search by words that ranks with the model; None where there is none, it cannot be read, or words are left out."""
        words = self.words  # read once, because the attribute may be changed at any time
        if isinstance(words, LexicalSearch):
            return words
        try:
            return self.served.lexical_search if words else None
        except StorageError as error:
            self.say_unreadable(error)
            return None

    def query(
        self,
        text: str,
        vector: ArrayLike,
        model: Any = None,
        *,
        vectors_alone: bool = False,
        adapter: QueryAdapter | None = None,
    ) -> "RankedQuery":
        """Transform a query vector for a search whose results `RankedQuery.rank` ranks.

        Args:
            text: The query, for the search by words.
            vector: (d,), of any length but 0, untransformed; or (n, d), the vectors of several texts of one query: each is
                transformed, and the mean is taken.
            model: The embedding model that the vector comes from: see `ServedAdapter.apply`.
            vectors_alone: Whether the store ranks by a rule of its own, as by MMR or in a hybrid mode. Then the vector is that of
                the transform alone, and neither words nor answers count.
            adapter: The adapter to rank with; by default the one that is in use.

        Raises:
            NotTrainedError, ModelNotFoundError, AdapterFileError, StorageError: There is no model, or it cannot be read.
            InvalidVectorsError: A vector holds NaN or infinity, or is all zeros, or the vectors cancel out.
            EmbeddingMismatchError: The model was trained with another embedding model, or for another dimension.
        """
        given = np.asarray(vector)
        if adapter is None:  # read once, because another model may be put in use at any time
            adapter = self.served.serving(model, given.shape[-1] if given.ndim else None)
        elif model is not None:
            self.served.check(adapter, model)
        return RankedQuery(self, adapter, text, given[None] if given.ndim == 1 else given, vectors_alone=vectors_alone)

    def describe(self) -> str:
        """Say by what results are ranked now, as in ``vector + 0.05 words``. Evidence that does not count is left out.

        Raises:
            NotTrainedError, ModelNotFoundError, AdapterFileError, StorageError: There is no model, or it cannot be read.
        """
        adapter = self.served.serving()
        if adapter is None:
            return "vector"
        ranking = adapter.ranking or Ranking()
        if ranking.words and ((search := self.lexical_search) is None or search_name(search) != ranking.search):
            ranking = replace(ranking, words=0.0)
        return str(ranking if self.answers else replace(ranking, answers=0.0)) or "vector"

    def say_once(self, what: str, message: str, *values: object) -> None:
        """Log a warning, once for each memory and kind of warning."""
        if self.served.first(what):
            _logger.warning(message, *values)

    def say_unfiltered(self, how: str) -> None:
        """Log once that a retriever searches without the filter under which its memory reads the documents."""
        self.say_once(
            "unfiltered",
            "The DeepMemory keeps to the documents under its filter, and this retriever searches all documents of the store: "
            "give it the same filter, %s.",
            how,
        )

    def say_unreadable(self, error: Exception) -> None:
        """Log once that words cannot be searched; where that was said, nothing calls the word index missing."""
        self.say_once(
            "missing",
            "Words cannot be searched, so results come without words: %s `deepmem refresh` or memory.refresh() builds a damaged "
            "word index anew.",
            error,
        )


class RankedQuery:
    """One query on its way: `Ranker.query` makes it.

    Attributes:
        text: The query.
        vector: The transformed query vector, to search the store with.
        ranking: How the results are ranked.
        id_key: The metadata key that names documents in the model's labels; None where the store's own ids do.
    """

    def __init__(
        self, ranker: Ranker, adapter: QueryAdapter | None, text: str, vectors: NDArray[Any], *, vectors_alone: bool = False
    ) -> None:
        self.text = text
        self.ranking = Ranking() if vectors_alone or adapter is None or adapter.ranking is None else adapter.ranking
        self.id_key: str | None = None if adapter is None else adapter.id_key
        self._ranker = ranker
        self._adapter = adapter
        self._search = self._lexical_search()
        self._answers: Mapping[str, float] = {}
        if adapter is None:  # the query is served as it is
            self.vector = TransformedVector((vectors[0] if len(vectors) == 1 else vectors.mean(axis=0)).tolist())
            return
        if ranker.answers and self.ranking.answers:
            self._answers = adapter.answers(_mean(unit_rows(vectors, "query vector", dimension=adapter.dimension)))
        # Where words and answers would count and cannot, the transform that was chosen to serve alone is the better one.
        left_out = vectors_alone or (self.vectors_alone and not self.ranking.vectors_alone)
        transform = adapter if left_out else ranker.served.for_ranking(adapter)
        self.vector = TransformedVector(_mean(transform.transform(vectors)).tolist())

    @property
    def model(self) -> str | None:
        """The name of the model that serves; None where the query is served as it is. The name may be read from the disk."""
        return None if self._adapter is None else self._ranker.served.name_of(self._adapter)

    def _lexical_search(self) -> LexicalSearch | None:
        """Return the search by words, if words count and the search is the one whose scores the model has learned to weigh."""
        ranker = self._ranker
        if not self.ranking.words or not ranker.wants_words:
            return None
        search = ranker.lexical_search
        if search is None:
            ranker.say_once(
                "missing",
                "The model %s ranks by words as well, and there is no word index: results come without words. Build the index "
                "with memory.refresh() or `deepmem refresh`, or give the retriever a search by words, words=….",
                ranker.served.name,
            )
        elif search_name(search) != self.ranking.search:
            ranker.say_once(
                "other",
                "The model %s was trained with the words of a %s, and a %s gives other scores: results come without words. "
                "Give the retriever the same search by words, words=…, or train again.",
                ranker.served.name,
                self.ranking.search,
                search_name(search),
            )
            return None
        return search

    def _readable(self, call: Callable[[LexicalSearch], _R]) -> _R | None:
        """Search by words. Where the index is damaged, or PyStemmer is missing, the query goes on without words."""
        if self._search is None:
            return None
        try:
            return call(self._search)
        except (StorageError, MissingExtraError) as error:
            self._ranker.say_unreadable(error)
            self._search = None
            return None

    @property
    def _asked_for(self) -> list[str]:
        """The documents that remembered queries ask for, best first. Those judged irrelevant are only pushed down."""
        return [name for name, score in self._answers.items() if score > 0]

    @property
    def vectors_alone(self) -> bool:
        """Whether neither words nor answers count for this query, so that the order of the store's search stands."""
        return self._search is None and not self._answers

    def words(self, k: int, known: MutableMapping[str, Found] | None = None) -> Found | None:
        """Search by words; None where words do not count. The search may run beside the store's search, in another thread.

        Where the word index is damaged or PyStemmer is missing, a warning says so once, and the query goes on without words.

        Args:
            k: How many documents to find.
            known: Text → what the same search found, with the same k, for queries before. It is not asked again for their texts,
                and what it finds now is added.

        Raises:
            StoreError: A search of the user's own returned anything but ids and scores.
        """

        def found(search: LexicalSearch) -> Found:
            before = {} if known is None else known
            if self.text not in before:
                before[self.text] = search_words(search, self.text, k)
            return before[self.text]

        return self._readable(found)

    def rank(
        self,
        ids: Sequence[str],
        cosines: Sequence[float] | Vectors | None = None,
        words: Found | None = None,
        documents: Mapping[str, _T] | None = None,
        *,
        others: bool = True,
    ) -> Shortlist[_T]:
        """Rank what the store found, what words found, and what remembered queries ask for.

        Args:
            ids: The m ids that the store found for ``vector``, best first; see `NAMELESS` for documents without an id.
            cosines: (m,) the cosines of the documents with ``vector``. Where a store gives no scores, the mean cosine of the
                training queries' documents at each rank stands in.
            words: What `words` returned.
            documents: Id → document, for the m documents.
            others: Whether documents that only words or answers found may come in. A document that the store did not find
                takes the lowest of the cosines.
        """
        ranking, m = self.ranking, len(ids)
        found_by_words = {} if words is None else dict(zip(words.ids, words.scores.tolist(), strict=True))
        known = set(ids)
        names = list(ids)
        if others:
            names += [name for name in dict.fromkeys([*found_by_words, *self._asked_for]) if name not in known]
        cosine = np.zeros(len(names), dtype=np.float32)
        if m:
            cosine[:m] = self._usual(m) if cosines is None else cosines
            cosine[m:] = cosine[:m].min()
        word_scores = self._word_scores(names, found_by_words)
        answers = np.array([self._answers.get(name, 0.0) for name in names], dtype=np.float32)
        total = ranking.score(cosine, word_scores, answers)
        order = np.argsort(-total, kind="stable").tolist()
        self._readable(lambda _: self._notice(ids, word_scores[:m]))
        row_of = {name: row for row, name in enumerate(names)}
        channels = {
            "vector": (cosine, _ranks(ids)),
            "words": (word_scores, _ranks(list(found_by_words))),
            "answers": (answers, _ranks(self._asked_for)),
        }

        def choice_of(name: str) -> Choice:
            row = row_of[name]
            evidence = {channel: Evidence(float(scores[row]), ranks.get(name)) for channel, (scores, ranks) in channels.items()}
            return Choice(name, float(total[row]), row < m, evidence)

        return Shortlist([names[row] for row in order], choice_of, documents or {})

    def _usual(self, count: int) -> NDArray[np.float32]:
        """Return the usual cosines at the first ranks."""
        usual = self.ranking.cosines
        if not len(usual):
            return np.asarray(-1e-3 * np.arange(count), dtype=np.float32)
        return usual[np.minimum(np.arange(count), len(usual) - 1)]

    def _word_scores(self, names: Sequence[str], found: Mapping[str, float]) -> NDArray[np.float32]:
        if isinstance(index := self._search, WordIndex):
            others = [name for name in names if name not in found]
            scores = self._readable(lambda _: index.scores(self.text, others))
            if scores is not None:
                found = {**found, **dict(zip(others, scores.tolist(), strict=True))}
        return np.array([found.get(name, 0.0) for name in names], dtype=np.float32)

    def _notice(self, ids: Sequence[str], word_scores: NDArray[np.float32]) -> None:
        """Say once that the word index is older than the store."""
        index = self._search
        if isinstance(index, WordIndex):
            newest = ids[:_NEWEST]
            for name, score in zip(newest, word_scores[: len(newest)].tolist(), strict=True):
                if not score and not name.startswith(NAMELESS) and name not in index:
                    self._ranker.say_once(
                        "stale",
                        "The word index in %s is older than the store: it lacks the document %r, among others perhaps. Call "
                        "memory.refresh(), or run `deepmem refresh`.",
                        index.folder,
                        name,
                    )
                    return


def _mean(vectors: Vectors) -> Vectors:
    """Return the mean of unit rows, of length 1."""
    if len(vectors) > 1:
        vectors = unit_rows(vectors.mean(axis=0)[None], "mean of the query vectors")
    return np.asarray(vectors[0])


def _ranks(names: Sequence[str]) -> dict[str, int]:
    return {name: rank for rank, name in enumerate(names, start=1)}
