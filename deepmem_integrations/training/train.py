"""`train_adapter`: arrays in, an adapter and a report out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from deepmem_integrations._extras import require
from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.corpus import CorpusVectors, read_corpus
from deepmem_integrations.evaluation import bootstrap_mean
from deepmem_integrations.fingerprint import Fingerprint
from deepmem_integrations.labels import LabelRows, labelled_vectors
from deepmem_integrations.relevance import Labels, Relevance
from deepmem_integrations.training.memory import Whitening
from deepmem_integrations.training.report import TrainingReport, ViewReport
from deepmem_integrations.training.selection import (
    CANDIDATES,
    FOLDS,
    Candidate,
    Choice,
    HeldOut,
    Problem,
    View,
    choose,
    cross_validate,
    folds,
    single_threaded_operations,
)

MIN_QUERIES = 10
"""With fewer, nothing can be told from chance."""

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
    max_unseen_loss: float = 1.0,
    seed: int = 0,
    fingerprint: Fingerprint | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Learn a transform of query vectors from labelled queries.

    Everything is chosen on held-out training queries, see `deepmem_integrations.training.selection`. Where nothing
    beats the untransformed queries by more than chance, the adapter is the identity and the report says why.

    Args:
        query_vectors: (n, d), any real dtype.
        relevance: The labels of these n queries, in their order.
        corpus_vectors: (N, d) with ``corpus_ids``, or batches of (ids, vectors).
        corpus_ids: The N ids.
        max_unseen_loss: Points (of 100) of nDCG@10 and of recall@10, each, that the choice may give up on queries whose
            answers no training query asked for, against the best candidate for those.
        seed: Fixes the result. The order of the queries does not change it.
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
    if not max_unseen_loss >= 0:
        raise ValueError(f"max_unseen_loss is a number of points, 0 or more; got {max_unseen_loss}.")
    ids, corpus = read_corpus(corpus_vectors, corpus_ids)
    given, given_labels, _ = labelled_vectors(query_vectors, relevance, ids, dimension=corpus.shape[1])
    queries, labels = _in_canonical_order(given, given_labels)

    views: dict[View, HeldOut] = {}
    candidate = Candidate()
    steps = 2 * FOLDS + 1
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, steps)

    if progress:
        progress(0, steps)
    problem = Problem(queries, labels, corpus, Whitening.of(corpus), seed)
    if len(corpus) == 1:
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
        views = cross_validate(problem, tick)
        choice = choose(views, max_unseen_loss=max_unseen_loss, seed=seed)
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
        queries=len(queries),
        documents=len(corpus),
        labelled_documents=len(np.unique(labels.documents)),
        merged_queries=len(given) - len(queries),
        seconds=time.monotonic() - started,
        seed=seed,
        max_unseen_loss=max_unseen_loss,
        candidates=_candidate_means(views),
    )
    adapter = QueryAdapter(
        corpus.shape[1],
        linear=fitted.linear,
        memory=fitted.memory,
        fingerprint=fingerprint,
        metadata={"report": report.to_json()},
    )
    return TrainingResult(adapter, report)


def _in_canonical_order(queries: Vectors, labels: LabelRows) -> tuple[Vectors, LabelRows]:
    """Sort the queries by their vectors and merge equal ones: their documents unite, the larger weight stays.

    So the caller's row order cannot change the folds and batches, and no query is held out while its twin trains. Vectors of
    one text differ a little from batch to batch, so a cosine of 0.99999 counts as equal.
    """
    order = sorted(range(len(queries)), key=lambda row: queries[row].tobytes())
    queries, labels = queries[order], labels.take(np.array(order))
    first = np.arange(len(queries))
    for block in blocks(len(queries), len(queries)):
        rows, twins = np.nonzero(queries[block] @ queries.T > 0.99999)
        for row, twin in zip((rows + block.start).tolist(), twins.tolist(), strict=True):
            first[row] = min(first[row], first[twin])
    merged: dict[int, dict[int, float]] = {}
    for row, representative in enumerate(first.tolist()):
        weights = merged.setdefault(representative, {})
        for document, weight in labels.weight_of(row).items():
            weights[document] = max(weight, weights.get(document, 0.0))
    return queries[list(merged)], LabelRows.of_rows([dict(sorted(weights.items())) for weights in merged.values()])


def _view_report(held_out: HeldOut, index: int) -> ViewReport:
    scores = {"ndcg@10": held_out.ndcg, "recall@10": held_out.recall}
    gains = bootstrap_mean(np.stack([values[index] - values[0] for values in scores.values()], axis=1))
    return ViewReport(
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
