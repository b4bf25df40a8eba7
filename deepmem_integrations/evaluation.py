"""How good retrieval is with and without a model, and with its parts alone: recall@k, nDCG@k, MRR@k, and intervals."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from deepmem_integrations._vectors import Vectors, nearest, unit_rows
from deepmem_integrations._workers import Workers
from deepmem_integrations.adapter import QueryAdapter, Ranking
from deepmem_integrations.corpora import Batch, CorpusVectors, ShardedCorpus, read_corpus
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels import LabelRows, Labels, Parents, Relevance, labelled_vectors, question_groups, sum_by_group
from deepmem_integrations.ranking import Ranker, Shortlist
from deepmem_integrations.store_sample import StoreSample
from deepmem_integrations.words import Found, LexicalSearch, search_name, search_words

TOP_K = (1, 3, 5, 10, 50, 100)
"""The cut-offs k that are evaluated by default, as in Deep Lake v3."""

LISTED = 10
"""How many documents an evaluation lists for each query at least."""

FETCHED = 100
"""How many documents each search brings into a ranking at least, as a retriever does by default."""

WITH, WITHOUT = "with model", "without model"
"""The two sides of an evaluation, as its mappings name them."""
TRANSFORM, WORDS, HYBRID = "transform alone", "words alone", "hybrid (RRF)"
"""What stands beside them where a model ranks by words or answers as well."""

FOUND, JUDGED = ("recall", "ndcg", "mrr"), ("judged", "irrelevant")
"""The metrics of what was found, and those of what was judged, which are measured where documents were judged irrelevant."""

Scores = dict[str, NDArray[np.float64]]
"""The name of a metric, e.g. ``recall@10``, → (n,) the value of each query, between 0 and 1."""


def score_rankings(
    rankings: NDArray[np.int64], labels: LabelRows, top_k: Sequence[int] = TOP_K, irrelevant: LabelRows | None = None
) -> Scores:
    """Score ranked lists as trec_eval does.

    ``recall@k`` is the share of a query's documents among the first k. ``ndcg@k`` has linear gains (the weight) and the discount
    1 / log2(rank + 1). ``mrr@k`` is 1 / the rank of the first relevant document, and 0 where that is not among the first k. All
    three are NaN for a query without labels.

    Where documents were judged irrelevant, ``judged@k`` is the share of the first k that were judged at all, and
    ``irrelevant@k`` the share that were judged irrelevant.

    Args:
        rankings: (n, m) int64 rows of the corpus, best first, no row twice for a query. A list may be shorter than k; −1 fills
            it up.
        labels: The labels of the n queries.
        top_k: The cut-offs k.
        irrelevant: What the n queries judged irrelevant.

    Returns:
        Metric name → (n,) float64.

    Example:
        >>> labels = LabelRows.of_rows([{2: 1.0}])
        >>> {name: float(values[0]) for name, values in score_rankings(np.array([[0, 2, 1]]), labels, top_k=[2]).items()}
        {'recall@2': 1.0, 'ndcg@2': 0.63..., 'mrr@2': 0.5}
    """
    n, depth = rankings.shape
    judged = irrelevant is not None and len(irrelevant.documents) > 0
    metrics = (*FOUND, *(JUDGED if judged else ()))
    scores: Scores = {f"{metric}@{k}": np.full(n, np.nan) for metric in metrics for k in top_k}
    most = max([depth, *top_k, *np.diff(labels.starts).tolist()], default=1)
    discounts = 1 / np.log2(np.arange(2, most + 2))
    for query in range(n):
        rows, weights = labels[query]
        if irrelevant is not None and judged:
            listed = rankings[query][rankings[query] >= 0]
            wrong = np.isin(listed, irrelevant[query][0])
            known = wrong | np.isin(listed, rows)
            for k in top_k:
                scores[f"judged@{k}"][query] = known[:k].mean() if len(listed) else 0.0
                scores[f"irrelevant@{k}"][query] = wrong[:k].mean() if len(listed) else 0.0
        if not len(rows):
            continue
        weight_of = labels.weight_of(query)
        gains = np.array([weight_of.get(row, 0.0) for row in rankings[query].tolist()])
        ideal = np.cumsum(np.sort(weights)[::-1] * discounts[: len(weights)])
        hits = np.flatnonzero(gains)
        for k in top_k:
            scores[f"recall@{k}"][query] = np.count_nonzero(hits < k) / len(rows)
            scores[f"ndcg@{k}"][query] = gains[:k] @ discounts[: len(gains[:k])] / ideal[min(k, len(ideal)) - 1]
            scores[f"mrr@{k}"][query] = 1 / (hits[0] + 1) if len(hits) and hits[0] < k else 0.0
    return scores


@dataclass(frozen=True)
class Interval:
    """A mean over the queries with its 95% interval, in the unit of the metric (0 to 1)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write the interval in points, as in ``+8.1 [+5.2, +11.0]``."""
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def bootstrap_mean(
    values: NDArray[np.float64],
    *,
    groups: NDArray[np.int64] | None = None,
    resamples: int = 5_000,
    seed: int = 0,
) -> list[Interval]:
    """Bound column means by the percentile bootstrap (Efron 1979), which resamples rows, or groups of rows.

    Args:
        values: (n, m) with n ≥ 1, e.g. the paired differences of n queries in m metrics. NaN is left out of a mean.
        groups: (n,) int64, the group of each row, from 0: see `question_groups`. Rows of a group are drawn together (the cluster
            bootstrap), since five spellings of a question are no more evidence than one. By default each row is its own group.
        resamples: How many times the groups are drawn.
        seed: Fixes the draws.

    Returns:
        The mean of each column with its 95% interval.

    Example:
        >>> [str(interval) for interval in bootstrap_mean(np.array([[0.1], [0.1], [0.1]]))]
        ['+10.0 [+10.0, +10.0]']
    """
    known = np.isfinite(values).astype(np.float64)
    sums, counts = np.where(known > 0, values, 0.0), known
    if groups is not None:
        sums, counts = (sum_by_group(rows, groups) for rows in (sums, counts))
    n = len(sums)
    rng = np.random.default_rng(seed)
    drawn = (rng.multinomial(n, np.full(n, 1 / n), size=block) for block in [100] * (resamples // 100))
    # A resample may miss all rows of a column that has few.
    means = np.concatenate([(rows @ sums) / np.maximum(rows @ counts, 1) for rows in drawn])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    mean = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    return [Interval(*map(float, column)) for column in zip(mean, low, high, strict=True)]


FEW = 30
"""Below this number of questions, intervals are rough and say little."""


class Evaluation(dict[str, dict[str, float]]):
    """The mean scores with and without the model: ``evaluation["with model"]["recall@10"]``, between 0 and 1.

    Where documents were judged irrelevant, ``judged@k`` is the share of the first k documents that were judged at all, and
    ``irrelevant@k`` the share that were judged irrelevant: the less, the better.

    Where the model ranks by words or remembered answers as well, ``"with model"`` is what a retriever gives, and ``"transform
    alone"``, which is what an embedding model's wrapper or a query transform gives, stands beside it. Where there is a search by
    words, so do ``"words alone"`` and ``"hybrid (RRF)"``, the common fusion of words and untransformed vectors by rank, which
    needs no labels: even where the model makes no use of words.

    A retriever that was asked by itself, beside no plain one, has the side ``"with model"`` alone, and no gains.

    Attributes:
        per_query: Side → metric name → (n,) float64, the score of each query; NaN where a query cannot be scored, since all of
            its documents were judged irrelevant.
        gains: Metric name → `Interval` of the paired difference, with minus without (percentile bootstrap over the questions:
            see ``groups``).
        query_ids: The n query ids, in the order of the scores.
        groups: (n,) int64, the question of each query: spellings of one question are drawn together in the bootstrap.
        top_k: The cut-offs.
        found: Side → for each query the ids of the documents that were found, best first: as many as the largest cut-off, and
            10 at least.
        store_sample: How the store's own search compares with the exact ranking of the whole corpus; None where no store was
            asked.
        embedding_seconds: How many seconds the embedding of the queries took; None where their vectors were passed.
    """

    def __init__(
        self,
        per_query: Mapping[str, Scores],
        query_ids: Sequence[str],
        top_k: Sequence[int],
        found: Mapping[str, Sequence[Sequence[str]]],
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__({side: {m: float(np.nanmean(v)) for m, v in scores.items()} for side, scores in per_query.items()})
        self.per_query = per_query
        self.query_ids = tuple(query_ids)
        self.top_k = tuple(top_k)
        self.found = found
        self.groups = np.arange(len(self.query_ids)) if groups is None else groups
        self.embedding_seconds: float | None = None
        self.store_sample: StoreSample | None = None
        self.gains = self.gains_over(WITHOUT) if WITHOUT in self else {}

    @property
    def questions(self) -> int:
        """How many questions the queries are, where spellings of one question count once."""
        return len(np.unique(self.groups))

    @property
    def unscored(self) -> int:
        """How many queries are left out of recall, nDCG and MRR, since all of their documents were judged irrelevant."""
        return int(np.isnan(self.per_query[WITH][f"recall@{self.top_k[0]}"]).sum())

    def gains_over(self, side: str) -> dict[str, Interval]:
        """Return the paired differences of the model to another side, with their 95% intervals.

        Args:
            side: A key of the mapping, such as ``"hybrid (RRF)"``.

        Returns:
            Metric name → `Interval`. One question alone says nothing of others, so its interval holds every difference.
        """
        names = list(self.per_query[side])
        differences = np.stack([self.per_query[WITH][name] - self.per_query[side][name] for name in names], axis=1)
        gains = bootstrap_mean(differences, groups=self.groups)
        if self.questions == 1:
            gains = [Interval(gain.mean, -1.0, 1.0) for gain in gains]
        return dict(zip(names, gains, strict=True))

    def table(self) -> str:
        """Draw a table of recall at every cut-off, and of the other metrics at 10 (or at the last cut-off), with gains.

        All values are in points of 100.
        """
        last = 10 if 10 in self.top_k else self.top_k[-1]
        gains, over_hybrid = self.gains, self.gains_over(HYBRID) if HYBRID in self else None
        metrics = [*(f"recall@{k}" for k in self.top_k), f"ndcg@{last}", f"mrr@{last}"]
        metrics += [name for metric in JUDGED if (name := f"{metric}@{last}") in self[WITH]]
        columns = {WITHOUT: "without", WORDS: "words", HYBRID: "RRF", TRANSFORM: "transform", WITH: "with"}
        columns = {side: title for side, title in columns.items() if side in self}
        heading = f"{'metric':<12}" + "".join(f"{title:>{max(9, len(title) + 2)}}" for title in columns.values())
        if gains:
            heading += f"   {'gain [95% interval]':<24}" + ("gain over RRF" if over_hybrid else "")
        lines = [heading.rstrip(), "-" * (len(heading) + (11 if over_hybrid else -5 if gains else 0))]
        for name in metrics:
            line = f"{name:<12}"
            line += "".join(f"{100 * self[side][name]:>{max(9, len(title) + 2)}.1f}" for side, title in columns.items())
            if gains:
                line += f"   {_marked(gains[name]):<24}" + (_marked(over_hybrid[name]) if over_hybrid else "")
            lines.append(line.rstrip())
        queries = f"{len(self.query_ids)} queries"
        if self.questions < len(self.query_ids):
            queries += f", {self.questions} different questions"
        lines.append(f"{queries}; * = the 95% interval of the paired difference leaves 0 out" if gains else queries)
        if gains and self.questions < FEW:
            lines.append(f"Fewer than {FEW} different questions say little: an interval is narrow by chance, too")
        if self.unscored:
            lines.append(f"{self.unscored} queries are left out of recall, nDCG and MRR: their documents were judged irrelevant")
        if self.store_sample is not None:
            lines.append(str(self.store_sample))
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the means, gains and counts, and how the store's own search compares, as plain JSON values."""

        def as_json(gains: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
            return {name: {"mean": g.mean, "low": g.low, "high": g.high} for name, g in gains.items()}

        hybrid = {"gain over hybrid": as_json(self.gains_over(HYBRID))} if HYBRID in self else {}
        counts = {"queries": len(self.query_ids), "questions": self.questions, "unscored": self.unscored}
        sample = {"store": asdict(self.store_sample)} if self.store_sample is not None else {}
        return {**self, "gain": as_json(self.gains), **hybrid, **counts, **sample}


def _marked(gain: Interval) -> str:
    return f"{gain}{' *' if gain.low > 0 or gain.high < 0 else ''}"


def cutoffs(top_k: Iterable[int]) -> list[int]:
    """Return cut-offs as a list of plain integers, from any iterable.

    Raises:
        ValueError: There is no cut-off, or one is no integer of 1 or more.
    """
    found = list(top_k) if isinstance(top_k, Iterable) and not isinstance(top_k, str) else []
    if not found or not all(isinstance(k, int | np.integer) and not isinstance(k, bool) and k >= 1 for k in found):
        raise ValueError(f"top_k is a list of cut-offs, each 1 or more; got {top_k!r}.")
    return [int(k) for k in found]


def evaluate(
    query_vectors: ArrayLike,
    relevance: Relevance | Labels,
    corpus_vectors: CorpusVectors | ShardedCorpus,
    corpus_ids: Sequence[str] | None = None,
    *,
    adapter: QueryAdapter | None = None,
    top_k: Sequence[int] = TOP_K,
    words: LexicalSearch | None = None,
    corpus_parents: Mapping[str, str] | None = None,
    workers: Workers | None = None,
) -> Evaluation:
    """Search the whole corpus by exact cosine similarity, with and without an adapter, and score both rankings.

    With an adapter that ranks by words or remembered answers as well, each query is ranked as a retriever would rank it: see
    `Evaluation`.

    Args:
        query_vectors: (n, d), untransformed, any real dtype.
        relevance: The labels of these n queries, in their order.
        corpus_vectors: (N, d); batches of (ids, vectors); or a corpus in shards, of which only the documents that can be ranked
            are held at a time.
        corpus_ids: The N ids, if ``corpus_vectors`` is an array.
        adapter: The model; None compares the untransformed queries with themselves.
        top_k: The cut-offs, each 1 or more; they may be larger than N.
        words: The search by words that the adapter ranks with. It needs a `Relevance`, which has the texts of the queries.
        corpus_parents: Document id → parent, where the labels name parents (`Relevance.level`). A document without a parent is
            its own. Parents are ranked by the first of their documents, and ``found`` names parents.
        workers: Who searches the shards of a corpus in shards, such as `RayWorkers`; by default this process.

    Returns:
        Means, scores of each query, and 95% intervals.

    Raises:
        InvalidRelevanceError: There is no query, or none with a document that answers it; the numbers of queries and vectors
            differ; a document is not in the corpus; or ``words`` are given and ``relevance`` has no texts.
        InvalidVectorsError: See `read_corpus`.
        EmbeddingMismatchError: The dimensions of queries, corpus and adapter differ.

    Example:
        >>> result = evaluate([[1.0, 0.1]], [[("b", 1.0)]], [[1.0, 0.0], [0.0, 1.0]], ["a", "b"], top_k=[1, 2])
        >>> result["without model"]["recall@1"], result["without model"]["recall@2"]
        (0.0, 1.0)
    """
    top_k = cutoffs(top_k)
    found_by_words: dict[str, Found] = {}
    if not isinstance(adapter, QueryAdapter | None):
        raise TypeError(f"adapter is a QueryAdapter (of a TrainingResult: result.adapter); got {type(adapter).__name__}.")
    if isinstance(corpus_vectors, ShardedCorpus):
        given = relevance if isinstance(relevance, Relevance) else Relevance.unnamed(relevance)
        corpus_vectors = (
            ranked_shards(corpus_vectors, query_vectors, given, adapter, top_k, words, found_by_words, workers)
            if corpus_parents is None
            else corpus_vectors.vectors()
        )
    ids, corpus = read_corpus(corpus_vectors, corpus_ids)
    if isinstance(relevance, Relevance) and relevance.level is not None and corpus_parents is None:
        raise InvalidRelevanceError(
            f"The labels name parents, by {relevance.level!r}: pass corpus_parents, which maps the ids of documents to parents."
        )
    parents = None if corpus_parents is None else Parents.of(corpus_parents, ids)
    names = ids if parents is None else parents.names
    queries, labels, irrelevant, query_ids = labelled_vectors(query_vectors, relevance, names, dimension=corpus.shape[1])
    if not labels.labelled.any():
        raise InvalidRelevanceError(
            "All judged documents are irrelevant: recall needs queries with a document that answers them."
        )

    if words is not None and not isinstance(relevance, Relevance):
        raise InvalidRelevanceError("To search by words, the queries need texts: pass a Relevance in place of bare labels.")
    known_texts = relevance.queries if isinstance(relevance, Relevance) else None
    texts = known_texts or [""] * len(queries)
    depth = max(*top_k, LISTED)
    row_of = {name: row for row, name in enumerate(ids)}

    def find(vectors: Vectors, count: int) -> NDArray[np.int64]:
        return nearest(vectors, corpus, count) if parents is None else parents.nearest(vectors, corpus, count)

    def search(vectors: Vectors) -> NDArray[np.int64]:
        found = find(vectors, depth)
        return found if parents is None else parents.of_row[found]

    def rank(model: QueryAdapter, side: str) -> NDArray[np.int64]:
        """Rank as a retriever does: what the vectors find, what the words find, and what remembered queries ask for."""
        fetched = max(depth, FETCHED)
        transformed = model.for_ranking().transform(queries)
        rows = find(transformed, fetched)
        rankings = np.full((len(queries), min(depth, len(names))), -1, dtype=np.int64)
        for number in tqdm(range(len(queries)), desc=f"Ranking, {side}", unit="query", delay=1):
            query = ranker.query(texts[number], queries[number], adapter=model)
            cosines = corpus[rows[number]] @ transformed[number]
            by_words = query.words(fetched, found_by_words)
            shortlist: Shortlist[str] = query.rank([ids[row] for row in rows[number].tolist()], cosines, by_words)
            best = [row_of[name] for name in shortlist.ids if name in row_of]
            if parents is not None:
                best = list(dict.fromkeys(parents.of_row[best].tolist()))
            best = best[:depth]
            rankings[number, : len(best)] = best
        return rankings

    plain = search(queries)
    rankings = {WITHOUT: plain}
    moved = plain if adapter is None or adapter.is_identity else search(adapter.transform(queries))
    learned = None if adapter is None else adapter.ranking
    if learned is not None:
        rankings[TRANSFORM] = moved
    # One for all sides, so that each warning comes once.
    ranker = Ranker(QueryAdapter(corpus.shape[1]) if adapter is None else adapter, words=words or False)
    if words is not None:
        for side, ranking in ((WORDS, Ranking(vector=0, words=1)), (HYBRID, Ranking(words=1, by_rank=True))):
            named = replace(ranking, search=search_name(words))
            rankings[side] = rank(QueryAdapter(corpus.shape[1], ranking=named), side)
    rankings[WITH] = moved if learned is None or adapter is None else rank(adapter, WITH)
    return Evaluation(
        {side: score_rankings(rows, labels, top_k, irrelevant) for side, rows in rankings.items()},
        query_ids,
        top_k,
        {side: [[names[row] for row in ranking if row >= 0] for ranking in rows.tolist()] for side, rows in rankings.items()},
        question_groups(known_texts, queries, labels.document_lists()),
    )


def ranked_shards(
    corpus: ShardedCorpus,
    query_vectors: ArrayLike,
    relevance: Relevance,
    adapter: QueryAdapter | None,
    top_k: Sequence[int],
    words: LexicalSearch | None,
    found_by_words: MutableMapping[str, Found],
    workers: Workers | None = None,
) -> Iterator[Batch]:
    """Yield the documents of a corpus in shards that an evaluation can rank: no others can be among the first.

    They are those nearest to the queries, plain and as the adapter moves them, those that a search by words finds, those that the
    adapter remembers, and those that are judged.

    Args:
        corpus: The corpus.
        query_vectors: (n, d), untransformed.
        relevance: The labels.
        adapter: The model, or None.
        top_k: The cut-offs.
        words: The search by words, or None.
        found_by_words: Is filled: text → what ``words`` found, so that nobody needs to ask again.
        workers: Who searches the shards; by default this process.
    """
    queries = unit_rows(query_vectors, "query vector", dimension=corpus.dimension)
    searches, named = [queries], set(relevance.document_ids)
    depth = max(*top_k, LISTED, FETCHED)
    if adapter is not None:
        searches += [adapter.transform(queries), adapter.for_ranking().transform(queries)]
        named.update(adapter.remembered_queries.document_ids if adapter.remembered_queries else ())
    if words is not None:
        for text in tqdm(dict.fromkeys(relevance.queries), desc="Searching by words", unit="query", delay=1):
            found_by_words[text] = search_words(words, text, depth)
            named.update(found_by_words[text].ids)
    return corpus.around(lambda: np.concatenate(searches), depth, named, workers=workers)
