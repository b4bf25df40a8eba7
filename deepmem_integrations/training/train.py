"""`train_adapter`: train an adapter on arrays, and report how it was chosen.

A training has four steps. It checks the inputs and merges queries with the same vector, chooses a transform and a ranking on
held-out queries, fits both on all queries, and reports.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmem_integrations._extras import require
from deepmem_integrations._ordered import ordered
from deepmem_integrations._vectors import Vectors, blocks, unit_rows
from deepmem_integrations._workers import Workers
from deepmem_integrations.adapter import Fingerprint, QueryAdapter, RememberedQueries, sorted_into_lists
from deepmem_integrations.corpora import CorpusVectors, ShardedCorpus
from deepmem_integrations.errors import InvalidRelevanceError, InvalidVectorsError
from deepmem_integrations.evaluation import Interval
from deepmem_integrations.labels import LabelRows, Labels, Parents, Relevance, question_groups, sum_by_group
from deepmem_integrations.training.attention import target_means
from deepmem_integrations.training.candidates import Candidate, rankings, transforms, usual
from deepmem_integrations.training.checkpoint import TrainingCheckpoint
from deepmem_integrations.training.corpus_sample import CorpusSample, read_corpus_sample
from deepmem_integrations.training.cross_validation import HELD_OUT, HeldOut, cross_validate
from deepmem_integrations.training.data import TrainingData
from deepmem_integrations.training.exposure import Exposure, exposure, mean_by_question
from deepmem_integrations.training.folds import FOLDS, View, folds
from deepmem_integrations.training.guard import AGREEMENT, MAX_UNSEEN_LOSS, Choice, choose, label_agreement, promised
from deepmem_integrations.training.hardware import single_threaded_operations
from deepmem_integrations.training.merging import have_twins, merge_twins
from deepmem_integrations.training.pace import Progress, Steps
from deepmem_integrations.training.report import RankingReport, TrainingReport, ViewReport
from deepmem_integrations.training.words import QueryWords
from deepmem_integrations.words import LexicalSearch, WordIndex, search_name

MIN_QUERIES = 10
"""The fewest labelled questions to learn from. With fewer, a gain cannot be distinguished from chance."""
MIN_JUDGES = 30
"""How many queries written by people are enough to choose a candidate by these alone, where others are generated."""

USUAL_QUERIES, USUAL_RANKS = 200, 100
"""On how many training queries, and to which rank, the usual cosines are measured."""


@dataclass(frozen=True)
class TrainingResult:
    """A trained adapter with its report.

    Attributes:
        adapter: The trained adapter, which is the identity where nothing better was found.
        report: How the adapter was chosen, and how well it does on held-out queries.
        corpus_digest: A number that the ids and vectors of a corpus in shards give, in any order; None for any other corpus.
    """

    adapter: QueryAdapter
    report: TrainingReport
    corpus_digest: int | None = None


def train_adapter(
    query_vectors: ArrayLike,
    relevance: Relevance | Labels,
    corpus_vectors: CorpusVectors | ShardedCorpus,
    corpus_ids: Sequence[str] | None = None,
    *,
    validation: tuple[ArrayLike, Relevance | Labels] | None = None,
    max_unseen_loss: float | None = None,
    seed: int = 0,
    query_ids: Sequence[str] | None = None,
    query_texts: Sequence[str] | None = None,
    corpus_texts: Sequence[str] | None = None,
    words: LexicalSearch | None = None,
    corpus_parents: Mapping[str, str] | None = None,
    fingerprint: Fingerprint | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
    checkpoint: TrainingCheckpoint | None = None,
) -> TrainingResult:
    """Train an adapter, which transforms query vectors and knows how to rank, on labelled queries.

    A training chooses twice: the transform that serves alone, and the ranking of a retriever, which also weighs words and
    remembered answers (`QueryAdapter.ranking`, applied by `deepmem_integrations.ranking.Ranker`).

    Everything is chosen on queries that took no part in training: see `deepmem_integrations.training.guard`. Where no candidate
    can be believed to beat the untransformed queries, the adapter is the identity, and the report says why.

    Args:
        query_vectors: (n, d), any real dtype.
        relevance: The labels of these n queries, in their order. Where a `Relevance` says that a language model wrote all queries
            (``generated``), the choice is bolder: see ``max_unseen_loss``.
        corpus_vectors: (N, d) with ``corpus_ids``, in memory or memory-mapped; batches of (ids, vectors); or a corpus in shards,
            such as a `ParquetCorpus`. The corpus is read once; of more than 30,000 documents a sample is kept.
        corpus_ids: The N ids.
        validation: The (v, d) vectors of queries of your own and their labels, to choose by in place of held-out training
            queries. Validation queries that are training queries as well are left out.
        max_unseen_loss: How many points (of 100) of nDCG@10 and of recall@10, each, the choice may give up on queries whose
            answers no training query asked for, against the best candidate for these. The default is 1. There is no limit where
            every document has a label, so that nothing is unseen, and where all labels are declared as generated. 0 puts unseen
            answers first.
        seed: Fixes the result. The order of the queries does not change it.
        query_ids: Distinct ids for a bare ``relevance``, which `QueryAdapter.explain` and `QueryAdapter.forget` use; by default
            row numbers.
        query_texts: The n texts, if the adapter is to keep them for `QueryAdapter.explain`. A search by words needs them, too,
            where ``relevance`` is no `Relevance`, which has texts itself.
        corpus_texts: The N texts of the documents, for the choice to weigh words as well. To rank by words later, build a
            `deepmem_integrations.words.WordIndex` over the same texts.
        words: A search by words over the same documents, in place of ``corpus_texts``.
        corpus_parents: Document id → parent, where the labels name parents (`Relevance.level`). A document without a parent is
            its own. Each label then goes to the nearest document of its parent, and every measure counts a parent once.
        fingerprint: The fingerprint of the embedding model, by which another model is refused later.
        progress: Called with (steps done, steps in all) as the training goes on. A thousand steps take about the same time each.
        workers: Who reads the shards of a large corpus and trains the folds, such as `RayWorkers`; by default this process. The
            result is the same. Of a corpus in batches, which has no shards, only the folds go to the workers.
        checkpoint: Keeps what was done, every few seconds at most. A training of the same arguments with the same checkpoint goes
            on from there, and gives the same adapter to the last bit. The ids of an array must be known to differ.

    Returns:
        The adapter and its report.

    Raises:
        MissingExtraError: torch is not installed.
        InvalidRelevanceError: There are no labels, the numbers of labels and vectors differ, or a document is not in the corpus.
        InvalidVectorsError: A vector holds NaN or infinity, or is all zeros.
        EmbeddingMismatchError: Queries and corpus differ in dimension.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> corpus, ids = rng.normal(size=(40, 8)), [f"doc-{row}" for row in range(40)]
        >>> asked = rng.choice(40, size=60)
        >>> queries = corpus[asked] + rng.normal(size=8) + 0.5 * rng.normal(size=(60, 8))
        >>> result = train_adapter(queries, [[(ids[row], 1.0)] for row in asked], corpus, ids)
        >>> result.adapter.transform(queries[0]).shape
        (8,)
        >>> result.report.queries, result.report.documents
        (60, 40)
    """
    started = time.monotonic()
    require("torch", extra="train")
    if max_unseen_loss is not None and not max_unseen_loss >= 0:
        raise ValueError(f"max_unseen_loss is a number of points, 0 or more; got {max_unseen_loss}.")
    if max_unseen_loss is not None:
        max_unseen_loss = float(max_unseen_loss)
    if isinstance(validation, Relevance) or (validation is not None and len(validation) != 2):
        raise InvalidRelevanceError(
            "validation is the pair (query vectors, Relevance), since train_adapter embeds no texts. DeepMemory.train takes a "
            "Relevance."
        )
    query_texts = None if query_texts is None else ordered(query_texts, "query_texts", InvalidRelevanceError)
    corpus_ids = None if corpus_ids is None else ordered(corpus_ids, "corpus_ids", InvalidVectorsError)
    texts = _texts(relevance, query_texts, validation, needed=corpus_texts is not None or words is not None)
    spellings = relevance.queries if isinstance(relevance, Relevance) else query_texts
    given, relevance = _labelled(query_vectors, relevance, query_ids, "labelled")
    if query_texts is not None and len(query_texts) != len(given):
        raise InvalidRelevanceError(f"Got {len(query_texts)} query_texts for {len(given)} query vectors.")
    judges = None if validation is None else _labelled(*validation, None, "validation")
    for some in (relevance, *([] if judges is None else judges[1:])):
        if (some.level is not None) != (corpus_parents is not None):
            raise InvalidRelevanceError(
                "corpus_parents, document id → parent, go with labels that name parents, Relevance(…, level=…), and only so."
            )
    counted = corpus_vectors if isinstance(corpus_vectors, ShardedCorpus) else corpus_ids
    documents = None if counted is None else len(counted)
    steps = Steps(
        progress,
        len(given),
        given.shape[1],
        documents,
        (FOLDS if judges is None else 1) + FOLDS,
        None if workers is None else workers.count,
    )

    with _search(corpus_ids, corpus_texts, words) as search, single_threaded_operations():
        merged = _merge(
            given, relevance, judges, corpus_vectors, corpus_ids, seed, steps.read, corpus_parents, workers, checkpoint
        )
        merged = merged.with_questions(spellings)
        if search is not None:
            merged = merged.with_words(search, texts)
        decision = _choose(merged, max_unseen_loss, steps, workers, checkpoint)
        adapter = _fit(merged, decision, query_texts, fingerprint)
    steps.end()
    report = _report(merged, decision, time.monotonic() - started)
    return TrainingResult(adapter.with_metadata(report=report.to_json()), report, merged.corpus.digest)


def _texts(
    relevance: Relevance | Labels,
    query_texts: Sequence[str] | None,
    validation: tuple[ArrayLike, Relevance | Labels] | None,
    *,
    needed: bool,
) -> Sequence[str]:
    """Return the texts of the queries, where a search by words needs them."""
    if not needed:
        return ()
    if validation is not None and not isinstance(validation[1], Relevance):
        raise InvalidRelevanceError("To weigh words, validation queries need texts: pass (vectors, Relevance).")
    if isinstance(relevance, Relevance):
        return relevance.queries
    if query_texts is None:
        raise InvalidRelevanceError("To weigh words, the queries need texts: pass query_texts, or a Relevance, which has texts.")
    return query_texts


@contextlib.contextmanager
def _search(
    corpus_ids: Sequence[str] | None, corpus_texts: Sequence[str] | None, words: LexicalSearch | None
) -> Iterator[LexicalSearch | None]:
    """Yield the search by words; texts are indexed in a temporary folder."""
    if words is not None and not isinstance(words, LexicalSearch):
        raise TypeError(
            f"words is a search by words, such as a WordIndex; got {words!r}. None leaves words out; corpus_texts takes texts."
        )
    if corpus_texts is None:
        yield words
        return
    if isinstance(corpus_texts, str | Mapping | Set) or not hasattr(corpus_texts, "__len__"):
        raise TypeError(
            f"corpus_texts is a list of texts in the order of corpus_ids; got {type(corpus_texts).__name__}. Of a dict from id "
            "to text, pass [texts[name] for name in corpus_ids]."
        )
    if words is not None:
        raise ValueError("corpus_texts and words are two ways to say the same: leave one of them out.")
    if corpus_ids is None or len(corpus_ids) != len(corpus_texts):
        given = "no corpus_ids" if corpus_ids is None else f"{len(corpus_ids)} ids"
        raise InvalidVectorsError(
            f"corpus_texts go with corpus_ids, one for each document; got {len(corpus_texts)} texts and {given}."
        )
    with tempfile.TemporaryDirectory() as folder:
        yield WordIndex.build(folder, [(corpus_ids, corpus_texts)])


# ---- check and merge -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Merged:
    """The checked inputs of a training, with queries of the same vector merged.

    Attributes:
        relevance: The labels of the n queries, as the caller gave them.
        labels: The same labels, as rows of the corpus sample.
        irrelevant: What the n queries judged irrelevant, as rows of the corpus sample; None where no query did.
        order: (n,) int64, the rows of the n queries in canonical order.
        owners: (n,) int64, for each query in this order the merged query that it belongs to.
        generated: (m,) bool, for each merged query whether a language model wrote all queries that were merged into it.
        data: The m merged queries, their labels, and the documents.
        corpus: The documents that are ranked.
        validation: The vectors, labels and texts of queries to choose by, in place of held-out training queries; or None.
        validation_groups: For each validation query, the question that it asks.
        validation_left_out: How many validation queries were left out: see `TrainingReport`.
    """

    relevance: Relevance
    labels: LabelRows
    irrelevant: LabelRows | None
    order: NDArray[np.int64]
    owners: NDArray[np.int64]
    generated: NDArray[np.bool_]
    data: TrainingData
    corpus: CorpusSample
    validation: tuple[Vectors, LabelRows, Sequence[str]] | None
    validation_groups: NDArray[np.int64]
    validation_left_out: int

    def with_questions(self, texts: Sequence[str] | None) -> "_Merged":
        """Group the merged queries that are spellings of one question.

        Args:
            texts: The n texts of the queries as the caller gave them, or None where they are not known.
        """
        data = self.data
        spellings = None if texts is None else [texts[row] for row in self._firsts()]
        return replace(self, data=replace(data, groups=question_groups(spellings, data.queries, data.named.document_lists())))

    @property
    def different_questions(self) -> int:
        """How many questions the merged queries ask, where spellings of one question count once."""
        assert self.data.groups is not None
        return len(np.unique(self.data.groups))

    def _firsts(self) -> list[int]:
        """Return for each merged query the row of the first of its queries, as the caller gave them."""
        first = np.full(len(self.data.queries), len(self.order))
        np.minimum.at(first, self.owners, np.arange(len(self.order)))
        return [int(row) for row in self.order[first]]

    def questions(self, view: View) -> NDArray[np.int64]:
        """Return the question that each query of a view asks; −1 for queries that cannot be scored."""
        if view == "seen" and self.validation is not None:
            return self.validation_groups
        assert self.data.groups is not None
        return np.where(self.data.labels.labelled, self.data.groups, -1)

    def with_words(self, search: LexicalSearch, texts: Sequence[str]) -> "_Merged":
        """Add a search by words, and the n texts of the queries as the caller gave them."""
        row_of = {name: row for row, name in enumerate(self.corpus.ids)}
        words = QueryWords(search, [texts[row] for row in self._firsts()], row_of, self.corpus.ids)
        return replace(self, data=replace(self.data, words=words))

    def shown(self) -> list[dict[int, int] | None]:
        """Return what was shown for each merged query: the row of each document → its rank; None where any could be labelled.

        Where labels name parents, all documents of a parent that was shown, itself or by one of them, have its rank.
        """
        rows_of: dict[str, list[int]] = {name: [row] for row, name in enumerate(self.corpus.ids)}
        if (parents := self.data.parents) is not None:
            of_parent = [parents.documents_of(number).tolist() for number in range(len(parents.names))]
            rows_of = {name: of_parent[number] for name, number in zip(self.corpus.ids, parents.of_row.tolist(), strict=True)}
            rows_of = {**dict(zip(parents.names, of_parent, strict=True)), **rows_of}
        lists: list[dict[int, int] | None] = [{} for _ in range(len(self.data.queries))]
        for query, owner in zip(self.order.tolist(), self.owners.tolist(), strict=True):
            shown, ranks = self.relevance.shown[query], lists[owner]
            if shown is None or ranks is None:
                lists[owner] = None
                continue
            for rank, name in enumerate(shown, start=1):
                for row in rows_of.get(name, ()):
                    ranks.setdefault(row, rank)
        return lists

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates, the transforms first."""
        return rankings(self.data.words is not None, self.different_questions)

    @property
    def transforms(self) -> tuple[Candidate, ...]:
        """The candidates for a transform that serves alone."""
        return transforms(self.different_questions)

    @property
    def labelled_documents(self) -> int:
        """The number of documents, or parents, with a label."""
        return len(np.unique(self.data.named.documents))

    @property
    def total(self) -> int:
        """The number of documents, or parents, that labels may name."""
        return self.corpus.total if self.data.parents is None else len(self.data.parents.names)

    @property
    def all_generated(self) -> bool:
        """Whether a language model wrote all queries, and the user gave no validation queries."""
        return bool(self.generated.all()) and self.validation is None


def _labelled(
    vectors: ArrayLike, relevance: Relevance | Labels, query_ids: Sequence[str] | None, what: str
) -> tuple[Vectors, Relevance]:
    """Check that there is one vector for each labelled query, and return the unit vectors and the labels."""
    if not isinstance(relevance, Relevance):
        relevance = Relevance.unnamed(relevance, query_ids)
    elif query_ids is not None:
        raise InvalidRelevanceError("query_ids go with a bare relevance; a Relevance has its own.")
    queries = unit_rows(vectors, "query vector" if what == "labelled" else "validation query vector")
    if len(queries) != len(relevance):
        raise InvalidRelevanceError(f"Got {len(queries)} query vectors for {len(relevance)} {what} queries.")
    if not len(relevance):
        raise InvalidRelevanceError(f"There is no {what} query.")
    return queries, relevance


def _merge(
    queries: Vectors,
    relevance: Relevance,
    judges: tuple[Vectors, Relevance] | None,
    corpus_vectors: CorpusVectors | ShardedCorpus,
    corpus_ids: Sequence[str] | None,
    seed: int,
    on_read: Callable[[int], None] = lambda documents: None,
    corpus_parents: Mapping[str, str] | None = None,
    workers: Workers | None = None,
    checkpoint: TrainingCheckpoint | None = None,
) -> _Merged:
    """Read the corpus, look up the labelled documents in it, and merge queries with the same vector."""
    documents: Set[str] = relevance.document_ids | (judges[1].document_ids if judges else frozenset())
    if corpus_parents is not None:
        documents = documents | {name for name, parent in corpus_parents.items() if parent in documents}
    corpus = read_corpus_sample(corpus_vectors, corpus_ids, queries, documents, seed, on_read, workers, checkpoint)
    row_of = {name: row for row, name in enumerate(corpus.ids)}
    parents = None if corpus_parents is None else Parents.of(corpus_parents, corpus.ids)
    if parents is not None:
        relevance = parents.documents(relevance.check(parents.number_of), queries, corpus.ids, corpus.vectors)
        if judges:
            of_judges = parents.documents(judges[1].check(parents.number_of), judges[0], corpus.ids, corpus.vectors)
            judges = judges[0], of_judges
    labels = LabelRows.of(relevance.check(row_of), row_of)
    order, owners, merged_queries, merged_labels = merge_twins(queries, labels)
    irrelevant = merged_irrelevant = None
    if any(relevance.irrelevant):
        irrelevant = LabelRows.of_irrelevant(relevance, row_of)
        # A document that answered one of the merged queries is not irrelevant.
        merged_irrelevant = irrelevant.take(order).united(owners, len(merged_queries)).without(merged_labels)
    validation, validation_groups, left_out = None, np.empty(0, dtype=np.int64), 0
    if judges:
        answered = LabelRows.of(judges[1].check(row_of), row_of)
        fresh = ~have_twins(judges[0], merged_queries) & answered.labelled
        left_out = int((~fresh).sum())
        if not fresh.any():
            raise InvalidRelevanceError(
                "Every validation query is a training query too, or has no document that answers it: hold some out, see "
                "Relevance.split."
            )
        rows = np.flatnonzero(fresh)
        validation = judges[0][fresh], answered.take(rows), [judges[1].queries[row] for row in rows.tolist()]
        named = validation[1] if parents is None else parents.labels(validation[1])
        validation_groups = question_groups(validation[2], validation[0], named.document_lists())
    generated = np.ones(len(merged_queries), dtype=bool)
    np.logical_and.at(generated, owners, np.array(relevance.generated, dtype=bool)[order])
    data = TrainingData.of(merged_queries, merged_labels, corpus.vectors, corpus.statistics, seed, parents)
    data = replace(data, irrelevant=merged_irrelevant)
    return _Merged(relevance, labels, irrelevant, order, owners, generated, data, corpus, validation, validation_groups, left_out)


# ---- choose --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Decision:
    """The choice of a transform and of a ranking, and the measurements that led to it.

    Attributes:
        transform: The chosen transform, and the reason.
        ranking: The chosen ranking, and the reason.
        views: The scores of all candidates on held-out queries; empty where nothing could be measured.
        agreement: How well the labels agree with the vectors: see `choose`.
        max_unseen_loss: How many points the choice was allowed to lose on unseen answers; None where there was no limit.
        shown: Up to which rank of the untransformed search the labels go, where they name nothing else; or 0.
    """

    transform: Choice
    ranking: Choice
    views: Mapping[View, HeldOut]
    agreement: float | None
    max_unseen_loss: float | None
    shown: int


def _choose(
    merged: _Merged,
    max_unseen_loss: float | None,
    steps: Steps,
    workers: Workers | None = None,
    checkpoint: TrainingCheckpoint | None = None,
) -> _Decision:
    """Choose a transform and a ranking by cross-validation, or choose the identity where nothing can be measured."""
    data, generated, questions = merged.data, merged.all_generated, merged.questions("unseen")
    labelled = len(np.unique(questions[questions >= 0]))
    if max_unseen_loss is None and not generated and merged.labelled_documents < merged.total:
        max_unseen_loss = MAX_UNSEEN_LOSS
    agreement: float | None = label_agreement(*_by_question(questions, data.queries, _meant(data, data.labels)))
    depth = 0 if generated else exposure(data.labels, data.near, merged.total)
    ranks: Sequence[Mapping[int, int] | None] = []
    if any(shown is not None for shown in merged.relevance.shown):
        ranks = merged.shown()
    elif depth:
        ranks = [dict(zip(rows[:depth].tolist(), range(1, depth + 1), strict=True)) for rows in data.near]
    shown = Exposure.of(data.labels, ranks, questions) if ranks else None
    if shown is not None:
        depth, data = shown.depth, replace(data, shown=shown.lists, by_chance=shown.by_chance)
    if data.shown is not None:
        agreement = _agreement_of_judges(merged)
    unmeasurable = None
    if merged.total == 1:
        unmeasurable = "a corpus of one document leaves nothing to rank"
    elif labelled < MIN_QUERIES:
        queries = "labelled query is" if labelled == 1 else "labelled queries are"
        least = f"{MIN_QUERIES} at least; spellings of one question count once"
        unmeasurable = f"{labelled} {queries} too few to tell a gain from chance ({least})"
    elif min(map(len, _training_questions(data, questions))) < MIN_QUERIES // 2:
        unmeasurable = (
            "nearly all queries ask for the same documents: what a transform does to the other documents cannot be measured"
        )
    if unmeasurable:
        identity = Choice(Candidate(), unmeasurable)
        return _Decision(identity, identity, {}, agreement, max_unseen_loss, 0)
    # Labels that agree with the vectors need not prove that they gain more than chance gives.
    views = cross_validate(
        data,
        merged.candidates,
        steps.fold,
        merged.validation,
        chance=agreement is None or agreement <= AGREEMENT,
        weights=None if shown is None else shown.weights,
        workers=workers,
        checkpoint=checkpoint,
        basis="" if data.words is None else str(getattr(data.words.search, "fingerprint", "")),
    )
    if depth:
        held = f"held-out training queries, among the first {depth} documents that were shown"
        views = {view: replace(h, queries=held) if h.queries == HELD_OUT else h for view, h in views.items()}
    views = {view: held_out.by_question(merged.questions(view)) for view, held_out in views.items()}
    by_people = np.isin(questions, questions[~merged.generated]) & (questions >= 0)
    people = np.flatnonzero(np.isin(np.unique(questions[questions >= 0]), questions[by_people]))
    if merged.validation is None and MIN_JUDGES <= len(people) < labelled:
        weight = 1.0 if shown is None else mean_by_question(shown.weights, np.where(by_people, questions, -1))
        views["seen"] = views["seen"].take(people, "held-out training queries that people wrote", weight)

    def chosen(count: int) -> Choice:
        first = {view: held_out.first(count) for view, held_out in views.items()}
        return choose(
            first,
            merged.candidates[:count],
            agreement=agreement,
            max_unseen_loss=max_unseen_loss,
            generated=generated,
            usual=usual(data.words is not None, answers=count > len(merged.transforms)) if agreement is None else None,
            seed=data.seed,
        )

    return _Decision(chosen(len(merged.transforms)), chosen(len(merged.candidates)), views, agreement, max_unseen_loss, depth)


def _agreement_of_judges(merged: _Merged) -> float | None:
    """Measure how well the labels of the validation queries agree with the vectors; None where there are no such queries."""
    if merged.validation is None:
        return None
    vectors, labels, _ = merged.validation
    return label_agreement(*_by_question(merged.validation_groups, vectors, _meant(merged.data, labels)))


def _meant(data: TrainingData, labels: LabelRows) -> Vectors:
    """Return the mean vector of what the labels of each query name, (n, d) float32.

    Of a parent it is the mean of all its documents. The nearest one lies near the query although the label may be wrong.
    """
    if data.parents is None:
        return target_means(labels, data.corpus)
    sums = np.zeros((len(data.parents.names), data.corpus.shape[1]), dtype=np.float32)
    np.add.at(sums, data.parents.of_row, data.corpus)
    means = np.asarray(sums / np.bincount(data.parents.of_row)[:, None], dtype=np.float32)
    return target_means(data.parents.labels(labels), means)


def _training_questions(data: TrainingData, questions: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the questions that train in each fold of the unseen view."""
    for fold in folds(data.labels, "unseen", data.seed, data.groups, data.of_row):
        if len(fold.held):
            asked = questions[fold.train]
            yield np.unique(asked[asked >= 0])


def _by_question(questions: NDArray[np.int64], *rows: Vectors) -> list[Vectors]:
    """Average rows over the queries of each question; −1 leaves a query out."""
    kept = questions >= 0
    counts = np.unique(questions[kept], return_counts=True)[1].astype(np.float32)[:, None]
    return [np.asarray(sum_by_group(values[kept], questions[kept]) / counts, dtype=np.float32) for values in rows]


# ---- fit -----------------------------------------------------------------------------------------------------------------


def _fit(
    merged: _Merged, decision: _Decision, query_texts: Sequence[str] | None, fingerprint: Fingerprint | None
) -> QueryAdapter:
    """Train the transform and the ranking on all queries, and keep the queries."""
    chosen, ranked = decision.transform.candidate, decision.ranking.candidate
    fitted = merged.data.fit(chosen)
    searching = fitted if ranked.transform == chosen else merged.data.fit(ranked.transform)
    ranking = None
    if ranked != chosen:
        assert searching.attention is not None
        ranking = replace(
            ranked.ranking(merged.data.words.unit if merged.data.words else 1.0),
            linear=searching.linear,
            attention_temperature=searching.attention.temperature,
            attention_strength=searching.attention.strength,
            search=search_name(merged.data.words.search) if merged.data.words else "WordIndex",
            cosines=_usual_cosines(merged.data, searching),
        )
    assert fitted.attention is not None
    judged = [merged.labels, *([merged.irrelevant] if merged.irrelevant else [])]
    used = np.unique(np.concatenate([rows.documents for rows in judged]))
    named = [rows.named_by(used).take(merged.order) for rows in judged]
    space = merged.data.value_space()
    remembered = RememberedQueries(
        query_ids=tuple(merged.relevance.query_ids[row] for row in merged.order),
        texts=None if query_texts is None else tuple(query_texts[row] for row in merged.order),
        owners=merged.owners,
        labels=named[0],
        document_ids=tuple(merged.corpus.ids[row] for row in used),
        documents=space.place(merged.corpus.vectors[used]),
        space=space,
        trained=len(merged.order),
        trained_in_all=len(merged.order),
        irrelevant=named[1] if merged.irrelevant else None,
    )
    attention, remembered = sorted_into_lists(fitted.attention, fitted.attention.keys, remembered)
    return QueryAdapter(
        fitted.dimension,
        linear=fitted.linear,
        attention=attention,
        remembered_queries=remembered,
        ranking=ranking,
        fingerprint=fingerprint,
    )


def _usual_cosines(data: TrainingData, transform: QueryAdapter) -> NDArray[np.float32]:
    """Average the cosines of the documents at each rank of some training queries' searches, (r,) float32."""
    drawn = np.random.default_rng(data.seed).permutation(len(data.queries))[:USUAL_QUERIES]
    vectors = transform.transform(data.queries[drawn])
    total = np.zeros(min(USUAL_RANKS, len(data.corpus)))
    for block in blocks(len(vectors), len(data.corpus)):
        cosines = vectors[block] @ data.corpus.T
        best = -np.partition(-cosines, len(total) - 1, axis=1)[:, : len(total)]
        total -= np.sort(-best, axis=1).sum(axis=0)
    return np.asarray(total / len(vectors), dtype=np.float32)


# ---- report --------------------------------------------------------------------------------------------------------------


def _report(merged: _Merged, decision: _Decision, seconds: float) -> TrainingReport:
    views, candidates = decision.views, merged.candidates
    return TrainingReport(
        chosen=str(decision.transform.candidate),
        reason=decision.transform.reason,
        seen=_view_report(merged, views, "seen", decision.transform) if views else None,
        unseen=_view_report(merged, views, "unseen", decision.transform) if views else None,
        ranking=_ranking_report(merged, decision),
        agreement=decision.agreement,
        queries=len(merged.data.queries),
        generated=int(merged.generated.sum()),
        documents=merged.corpus.total,
        ranked_documents=len(merged.corpus.ids),
        labelled_documents=merged.labelled_documents,
        merged_queries=len(merged.order) - len(merged.data.queries),
        near_duplicates=len(merged.data.queries) - merged.different_questions,
        irrelevant=0 if merged.irrelevant is None else len(merged.irrelevant.documents),
        validation_left_out=merged.validation_left_out,
        seconds=seconds,
        seed=merged.data.seed,
        max_unseen_loss=decision.max_unseen_loss,
        shown=decision.shown,
        candidates=[_means(views, index, candidates[index]) for index in range(len(merged.transforms))] if views else [],
    )


def _ranking_report(merged: _Merged, decision: _Decision) -> RankingReport | None:
    """Report the ranking beside what each kind of evidence brings alone."""
    views, candidates = decision.views, merged.candidates
    if not views:
        return None
    second = decision.ranking.runner_up
    shown = {
        "without model": Candidate(),
        "transform alone": decision.transform.candidate,
        "words alone": Candidate(vector=False, words=1.0),
        "hybrid (RRF)": Candidate(words=1.0, by_rank=True),
        "answers alone": Candidate(vector=False, answers=1.0),
        "chosen ranking": decision.ranking.candidate,
    }
    return RankingReport(
        chosen=str(decision.ranking.candidate),
        reason=decision.ranking.reason,
        seen=_view_report(merged, views, "seen", decision.ranking),
        unseen=_view_report(merged, views, "unseen", decision.ranking),
        channels=[
            _means(views, candidates.index(candidate), title) for title, candidate in shown.items() if candidate in candidates
        ],
        runner_up=None if second is None else _means(views, candidates.index(second), second),
    )


def _view_report(merged: _Merged, views: Mapping[View, HeldOut], view: View, choice: Choice) -> ViewReport:
    held_out, index = views[view], merged.candidates.index(choice.candidate)
    scores = {"ndcg@10": held_out.ndcg.astype(np.float64), "recall@10": held_out.recall.astype(np.float64)}
    # All but the weight of words grows with the number of queries. With validation queries, all others were learned from.
    all_learned_from = view == "seen" and merged.validation is not None
    untaught = index if all_learned_from else merged.candidates.index(choice.candidate.untaught)

    def gain(name: str, values: NDArray[np.float64]) -> Interval:
        if index == 0:
            return Interval(0.0, 0.0, 0.0)  # the identity changes nothing
        learned = float((values[index] - values[untaught]).mean())
        return promised(values[index] - values[0], choice.optimism.get((view, name), 0.0), learned)

    return ViewReport(
        queries=f"{scores['ndcg@10'].shape[1]:,} {held_out.queries}",
        base={name: float(values[0].mean()) for name, values in scores.items()},
        chosen={name: float(values[index].mean()) for name, values in scores.items()},
        gains={name: gain(name, values) for name, values in scores.items()},
    )


def _means(views: Mapping[View, HeldOut], index: int, name: Candidate | str) -> dict[str, object]:
    """Return the mean scores of one candidate in both views."""
    return {
        "candidate": str(name),
        **{
            f"{view} {metric}": float(values[index].mean(dtype=np.float64))
            for view, held_out in views.items()
            for metric, values in (("ndcg@10", held_out.ndcg), ("recall@10", held_out.recall))
        },
    }
