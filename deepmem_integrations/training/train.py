"""`train_adapter`: arrays in, an adapter and a report out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmem_integrations._extras import require
from deepmem_integrations._vectors import Vectors, blocks, unit_rows
from deepmem_integrations.adapter import Fingerprint, QueryAdapter, RememberedQueries, sorted_into_lists
from deepmem_integrations.corpora import CorpusVectors
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.evaluation import bootstrap_mean
from deepmem_integrations.labels import LabelRows, Labels, Relevance
from deepmem_integrations.training.attention import target_means
from deepmem_integrations.training.choice import MAX_UNSEEN_LOSS, Choice, choose, label_agreement
from deepmem_integrations.training.cross_validation import HeldOut, cross_validate
from deepmem_integrations.training.folds import FOLDS, View, folds
from deepmem_integrations.training.problem import CANDIDATES, Candidate, Problem, single_threaded_operations
from deepmem_integrations.training.report import TrainingReport, ViewReport
from deepmem_integrations.training.stand_in import read_training_corpus

MIN_QUERIES = 10
"""With fewer, nothing can be told from chance."""
MIN_JUDGES = 30
"""Among generated labels, so many queries that people wrote are enough to choose by them alone."""
TWINS = 0.99999
"""The cosine above which two vectors are those of the same text."""

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all) as training goes on."""


@dataclass(frozen=True)
class TrainingResult:
    """A trained adapter and the report on how it was chosen."""

    adapter: QueryAdapter
    report: TrainingReport


def train_adapter(
    query_vectors: ArrayLike,
    relevance: Relevance | Labels,
    corpus_vectors: CorpusVectors,
    corpus_ids: Sequence[str] | None = None,
    *,
    validation: tuple[ArrayLike, Relevance | Labels] | None = None,
    max_unseen_loss: float | None = None,
    seed: int = 0,
    query_ids: Sequence[str] | None = None,
    query_texts: Sequence[str] | None = None,
    fingerprint: Fingerprint | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Learn a transform of query vectors from labelled queries.

    Everything is chosen on queries that took no part in training, see `deepmem_integrations.training.choice`. Where nothing
    can be believed to beat the untransformed queries, the adapter is the identity and the report says why.

    Args:
        query_vectors: (n, d), any real dtype.
        relevance: The labels of these n queries, in their order. Where a `Relevance` says that a language model wrote all
            of them (``generated``), the choice is bolder, see ``max_unseen_loss``.
        corpus_vectors: (N, d) with ``corpus_ids``, in memory or memory-mapped, or batches of (ids, vectors). It is read once;
            of more than 30,000 documents a part is kept that stands for all.
        corpus_ids: The N ids.
        validation: (v, d) vectors of queries of your own, with their labels, to choose by, in place of held-out training
            queries. Those that are training queries too are left out.
        max_unseen_loss: Points (of 100) of nDCG@10 and of recall@10, each, that the choice may give up on queries whose
            answers no training query asked for, against the best candidate for those. 1 by default; without limit where
            every document has a label, so that nothing is unseen, and where all labels are declared as generated. 0 puts
            unseen answers first.
        seed: Fixes the result. The order of the queries does not change it.
        query_ids: Distinct ids for a bare ``relevance``, to explain and forget by; by default row numbers.
        query_texts: The n texts, if the adapter is to keep them, to explain by.
        fingerprint: The embedding model, to be refused if another is used later.
        progress: Called as training goes on.

    Returns:
        The adapter and its report.

    Raises:
        MissingExtraError: torch is not installed.
        InvalidRelevanceError: No labels, labels that differ in number from the vectors, or an unknown document.
        InvalidVectorsError: Empty, NaN, zero or otherwise unusable vectors.
        EmbeddingMismatchError: Queries and corpus differ in dimension.
    """
    started = time.monotonic()
    require("torch", extra="train")
    if max_unseen_loss is not None and not max_unseen_loss >= 0:
        raise ValueError(f"max_unseen_loss is a number of points, 0 or more; got {max_unseen_loss}.")
    given, relevance = _labelled(query_vectors, relevance, query_ids, "labelled")
    if query_texts is not None and len(query_texts) != len(given):
        raise InvalidRelevanceError(f"Got {len(query_texts)} query_texts for {len(given)} query vectors.")
    judges = None if validation is None else _labelled(*validation, None, "validation")

    documents = relevance.document_ids | (judges[1].document_ids if judges else frozenset())
    corpus = read_training_corpus(corpus_vectors, corpus_ids, given, documents, seed)
    row_of = {name: row for row, name in enumerate(corpus.ids)}
    given_labels = LabelRows.of(relevance.check(row_of), row_of)
    order, owners, queries, labels = _in_canonical_order(given, given_labels)
    held_out, overlap = None, 0
    if judges:
        fresh = ~_twins(judges[0], queries)
        overlap = int((~fresh).sum())
        if not fresh.any():
            raise InvalidRelevanceError("Every validation query is a training query too: hold some out, see Relevance.split.")
        held_out = judges[0][fresh], LabelRows.of(judges[1].check(row_of), row_of).take(np.flatnonzero(fresh))

    written = np.ones(len(queries), dtype=bool)  # by a language model, every one of those merged into a query
    np.logical_and.at(written, owners, np.array(relevance.generated, dtype=bool)[order])
    labelled_documents = len(np.unique(labels.documents))
    bold = bool(written.all()) and judges is None
    limit = max_unseen_loss
    if limit is None and not bold and labelled_documents < corpus.total:
        limit = MAX_UNSEEN_LOSS

    views: dict[View, HeldOut] = {}
    candidate = Candidate()
    steps = (FOLDS if held_out is None else 1) + FOLDS + 1
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, steps)

    if progress:
        progress(0, steps)
    problem = Problem(queries, labels, corpus.vectors, corpus.statistics, seed)
    agreement = label_agreement(queries, target_means(labels, corpus.vectors))
    if corpus.total == 1:
        choice = Choice(candidate, "a corpus of one document leaves nothing to rank")
    elif len(queries) < MIN_QUERIES:
        choice = Choice(
            candidate,
            f"{len(queries)} labelled queries are too few to tell a gain from chance ({MIN_QUERIES} at least)",
        )
    elif min(len(fold.train) for fold in folds(labels, "unseen", seed) if len(fold.held)) < MIN_QUERIES // 2:
        reason = "nearly all queries ask for the same documents: what a transform does to the other documents cannot be measured"
        choice = Choice(candidate, reason)
    else:
        views = cross_validate(problem, tick, held_out)
        people = np.flatnonzero(~written)
        if held_out is None and MIN_JUDGES <= len(people) < len(queries):
            views["seen"] = views["seen"].take(people, "held-out training queries that people wrote")
        choice = choose(views, agreement=agreement, max_unseen_loss=limit, generated=bold, seed=seed)
    with single_threaded_operations():
        fitted = problem.fit(choice.candidate)
    if progress:
        progress(steps, steps)

    index = CANDIDATES.index(choice.candidate)
    report = TrainingReport(
        chosen=str(choice.candidate),
        reason=choice.reason,
        seen=_view_report(views["seen"], index) if views else None,
        unseen=_view_report(views["unseen"], index) if views else None,
        agreement=agreement,
        queries=len(queries),
        generated=int(written.sum()),
        documents=corpus.total,
        ranked_documents=len(corpus.ids),
        labelled_documents=labelled_documents,
        merged_queries=len(given) - len(queries),
        validation_left_out=overlap,
        seconds=time.monotonic() - started,
        seed=seed,
        max_unseen_loss=limit,
        candidates=_candidate_means(views),
    )
    attention, remembered = fitted.attention, None
    if attention is not None:
        used, rows = np.unique(given_labels.documents, return_inverse=True)
        space = problem.value_space()
        remembered = RememberedQueries(
            query_ids=tuple(relevance.query_ids[row] for row in order),
            texts=None if query_texts is None else tuple(query_texts[row] for row in order),
            owners=owners,
            labels=replace(given_labels, documents=rows.astype(np.int64).reshape(-1)).take(order),
            document_ids=tuple(corpus.ids[row] for row in used),
            documents=space.place(corpus.vectors[used]),
            space=space,
            trained=len(given),
            trained_in_all=len(given),
        )
        attention, remembered = sorted_into_lists(attention, attention.keys, remembered)
    adapter = QueryAdapter(
        corpus.vectors.shape[1],
        linear=fitted.linear,
        attention=attention,
        remembered_queries=remembered,
        fingerprint=fingerprint,
        metadata={"report": report.to_json()},
    )
    return TrainingResult(adapter, report)


def _labelled(
    vectors: ArrayLike, relevance: Relevance | Labels, query_ids: Sequence[str] | None, what: str
) -> tuple[Vectors, Relevance]:
    """Check that query vectors and their labels belong together."""
    if not isinstance(relevance, Relevance):
        relevance = Relevance([f"query {row}" for row in range(len(relevance))], relevance, query_ids)
    elif query_ids is not None:
        raise InvalidRelevanceError("query_ids go with a bare relevance; a Relevance has its own.")
    queries = unit_rows(vectors, "query vector" if what == "labelled" else "validation query vector")
    if len(queries) != len(relevance):
        raise InvalidRelevanceError(f"Got {len(queries)} query vectors for {len(relevance)} {what} queries.")
    if not len(relevance):
        raise InvalidRelevanceError(f"There is no {what} query.")
    return queries, relevance


def _in_canonical_order(queries: Vectors, labels: LabelRows) -> tuple[NDArray[np.int64], NDArray[np.int64], Vectors, LabelRows]:
    """Sort the queries by their vectors and merge equal ones: their documents unite, the larger weight stays.

    So the caller's row order cannot change the folds and batches, and no query is held out while its twin trains. Vectors of
    one text differ a little from batch to batch, so a cosine of 0.99999 counts as equal.

    Returns:
        The rows in their new order; for each of them the merged query it belongs to; the merged queries and their labels.
    """
    # By the first components, as long as they tell all queries apart: rounding elsewhere does not change the order.
    columns = 8 if len(np.unique(queries[:, :8], axis=0)) == len(queries) else queries.shape[1]
    order = np.lexsort(queries[:, :columns].T[::-1])
    queries, labels = queries[order], labels.take(order)
    first = np.arange(len(queries))
    for block in blocks(len(queries), len(queries)):
        rows, twins = np.nonzero(queries[block] @ queries.T > TWINS)
        for row, twin in zip((rows + block.start).tolist(), twins.tolist(), strict=True):
            first[row] = min(first[row], first[twin])
    merged: dict[int, dict[int, float]] = {}
    for row, representative in enumerate(first.tolist()):
        weights = merged.setdefault(representative, {})
        for document, weight in labels.weight_of(row).items():
            weights[document] = max(weight, weights.get(document, 0.0))
    kept = np.array(list(merged))
    merged_labels = LabelRows.of_rows([dict(sorted(weights.items())) for weights in merged.values()])
    return order, np.searchsorted(kept, first), queries[kept], merged_labels


def _twins(queries: Vectors, others: Vectors) -> NDArray[np.bool_]:
    """(n,) which queries are among the others."""
    found = np.zeros(len(queries), dtype=bool)
    for block in blocks(len(queries), len(others)):
        found[block] = (queries[block] @ others.T > TWINS).any(axis=1)
    return found


def _view_report(held_out: HeldOut, index: int) -> ViewReport:
    scores = {"ndcg@10": held_out.ndcg, "recall@10": held_out.recall}
    gains = bootstrap_mean(np.stack([values[index] - values[0] for values in scores.values()], axis=1))
    return ViewReport(
        queries=f"{scores['ndcg@10'].shape[1]:,} {held_out.queries}",
        base={name: float(values[0].mean()) for name, values in scores.items()},
        chosen={name: float(values[index].mean()) for name, values in scores.items()},
        gains=dict(zip(scores, gains, strict=True)),
    )


def _candidate_means(views: dict[View, HeldOut]) -> list[dict[str, object]]:
    if not views:
        return []
    return [
        {
            "candidate": str(candidate),
            **{
                f"{view} {name}": float(values[index].mean())
                for view, held_out in views.items()
                for name, values in (("ndcg@10", held_out.ndcg), ("recall@10", held_out.recall))
            },
        }
        for index, candidate in enumerate(CANDIDATES)
    ]
