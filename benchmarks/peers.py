"""The methods of the comparison. Each is a function that takes a corpus and training queries, and returns a ranking function."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import bm25s
import llama_index.finetuning.embeddings.adapter_utils  # the engine would import it while its time is measured
import numpy as np
import Stemmer
import torch
from llama_index.core.embeddings import BaseEmbedding
from llama_index.finetuning import EmbeddingAdapterFinetuneEngine, EmbeddingQAFinetuneDataset
from nudge import NUDGEM, NUDGEN
from numpy.typing import NDArray

from benchmarks.data import Corpus, Queries
from benchmarks.results import DEPTH
from deepmem_integrations import evaluate, train_adapter
from deepmem_integrations._vectors import Vectors, largest, nearest

Rank = Callable[[Queries], NDArray[np.int64]]
"""A function from n queries to (n, min(N, DEPTH)) corpus rows, best first. It must not look at the labels of the queries."""


@dataclass(frozen=True)
class Fitted:
    """The result of a training.

    Attributes:
        rank: The function that ranks the corpus for queries.
        note: What was chosen during the training.
    """

    rank: Rank
    note: str = ""


@dataclass(frozen=True)
class Peer:
    """One row of the comparison.

    Attributes:
        title: The name of the method for readers.
        fit: The function that trains the method on a corpus and training queries.
        packages: The distributions that do the work, whose versions are recorded.
        rewrites_index: Whether document vectors change, so that the store has to be written again.
        collections: The only collections that the method is measured on; None for all.
    """

    title: str
    fit: Callable[[Corpus, Queries], Fitted]
    packages: tuple[str, ...] = ()
    rewrites_index: bool = False
    collections: tuple[str, ...] | None = None


def _transformed(corpus: Corpus, transform: Callable[[Vectors], Vectors], note: str = "") -> Fitted:
    return Fitted(lambda queries: nearest(transform(queries.vectors), corpus.vectors, DEPTH), note)


def no_adaptation(corpus: Corpus, train: Queries) -> Fitted:
    """Rank by the vectors as they are."""
    return _transformed(corpus, lambda vectors: vectors)


def ours(corpus: Corpus, train: Queries, **options: float) -> Fitted:
    """Train an adapter of this library."""
    result = train_adapter(train.vectors, train.relevance, corpus.vectors, corpus.ids, seed=0, **options)
    return _transformed(corpus, result.adapter.transform, f"{result.report.chosen}: {result.report.reason}")


class Lookup(BaseEmbedding):
    """A LlamaIndex embedding model that looks up the vectors of known texts."""

    vectors: dict[str, list[float]]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.vectors[text]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.vectors[query]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self.vectors[query]


def llama_index(corpus: Corpus, train: Queries, **options: int) -> Fitted:
    """Train LlamaIndex's EmbeddingAdapterFinetuneEngine, with its defaults except for ``options``."""
    lookup = Lookup(vectors=_by_text(corpus.texts, corpus.vectors) | _by_text(train.relevance.queries, train.vectors))
    dataset = EmbeddingQAFinetuneDataset(
        queries={query_id: query for query_id, query, _ in train.relevance},
        corpus=dict(zip(corpus.ids, corpus.texts, strict=True)),
        relevant_docs={query_id: [name for name, _ in labels] for query_id, _, labels in train.relevance},
    )
    with tempfile.TemporaryDirectory() as folder:
        engine = EmbeddingAdapterFinetuneEngine(
            dataset, lookup, dim=corpus.vectors.shape[1], model_output_path=folder, device="cpu", **options
        )
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            engine.finetune()
        model = engine.get_finetuned_model(device="cpu")

    def rank(queries: Queries) -> NDArray[np.int64]:
        lookup.vectors |= _by_text(queries.relevance.queries, queries.vectors)
        vectors = [model.get_query_embedding(query) for query in queries.relevance.queries]
        return nearest(np.array(vectors, dtype=np.float32), corpus.vectors, DEPTH)

    return Fitted(rank)


def nudge(corpus: Corpus, train: Queries, *, kind: str) -> Fitted:
    """Move the document vectors with NUDGE-M or NUDGE-N (Zeighami et al. 2024). A fifth of the queries is the validation set."""

    def answered(queries: Queries) -> dict[str, object]:
        labels = corpus.rows(queries.relevance)
        return {"q_embs": queries.vectors, "q_ans_indx": [labels[row][0].tolist() for row in range(len(labels))]}

    fit, validation = train.hold_out()
    with contextlib.redirect_stdout(io.StringIO()):
        method = {"M": NUDGEM, "N": NUDGEN}[kind]()
        moved = method.finetune_embeddings(corpus.vectors, answered(fit), answered(validation))
    # The package expects a search by dot product over the moved vectors, which are not normalised.
    return Fitted(lambda queries: nearest(queries.vectors, np.asarray(moved, dtype=np.float32), DEPTH))


RIDGE_STRENGTHS = (*np.logspace(-1, 6, 15).tolist(), 1.5e4)
"""The values of λ to choose from. The last one is the default of DREditor's code."""


def ridge(corpus: Corpus, train: Queries, *, published: bool) -> Fitted:
    """Fit q ← q(I + ΔW) by ridge regression of the mean v of a query's documents on the query q, in closed form.

    With ``published``, the method is DREditor (arXiv 2401.12540), which minimises ‖Q(I + ΔW) − V‖² + λ mean‖v ΔW‖². There is
    no package; the formula is that of the authors' code. Without ``published``, the penalty is the usual λ‖ΔW‖² / d, which stays
    well-posed with fewer queries than dimensions. λ is chosen on held-out training queries.
    """

    def solve(queries: Queries, strength: float) -> Vectors:
        labels, q = corpus.rows(queries.relevance), queries.vectors.astype(np.float64)
        targets = [labels[row] for row in range(len(labels))]
        v = np.stack([np.average(corpus.vectors[rows], axis=0, weights=weights) for rows, weights in targets]).astype(np.float64)
        identity = np.eye(q.shape[1])
        prior = v.T @ v / len(v) if published else identity / len(identity)
        # Where DREditor's matrix is singular, its code fails. The solution of least norm is taken instead.
        delta = np.linalg.lstsq(strength * prior + q.T @ q, q.T @ (v - q))[0]
        return (identity + delta).astype(np.float32)

    fit, held_out = train.hold_out()
    best = max(RIDGE_STRENGTHS, key=lambda strength: _ndcg(corpus, held_out, held_out.vectors @ solve(fit, strength)))
    matrix = solve(train, best)
    return _transformed(corpus, lambda vectors: vectors @ matrix, f"λ {best:g}")


TRIPLET_RATES = (1e-3, 3e-3, 1e-2)
TRIPLET_MARGIN = 0.3
TRIPLET_EPOCHS = 100


def triplet(corpus: Corpus, train: Queries) -> Fitted:
    """Train a linear adapter with random initial weights by a triplet loss against random negatives (after Chroma's report).

    The report has no package. The learning rate and the number of epochs are chosen on held-out training queries.
    """
    fit, held_out = train.hold_out()
    labels = corpus.rows(fit.relevance)
    queries, documents = torch.from_numpy(fit.vectors), torch.from_numpy(corpus.vectors)
    loss_of = torch.nn.TripletMarginWithDistanceLoss(
        distance_function=lambda a, b: 1 - torch.cosine_similarity(a, b), margin=TRIPLET_MARGIN
    )
    best, chosen, note = -1.0, np.eye(documents.shape[1], dtype=np.float32), ""
    for rate in TRIPLET_RATES:
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        adapter = torch.nn.Linear(documents.shape[1], documents.shape[1], bias=False)
        optimizer = torch.optim.Adam(adapter.parameters(), lr=rate)
        for epoch in range(1, TRIPLET_EPOCHS + 1):
            positive = np.array([rng.choice(labels[row][0]) for row in range(len(labels))])
            negative = np.array([_other(rng, len(documents), labels[row][0]) for row in range(len(labels))])
            for batch in np.array_split(rng.permutation(len(labels)), max(1, len(labels) // 64)):
                loss = loss_of(adapter(queries[batch]), documents[positive[batch]], documents[negative[batch]])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if epoch % 5 == 0:
                matrix = adapter.weight.detach().numpy().T.copy()
                if (ndcg := _ndcg(corpus, held_out, held_out.vectors @ matrix)) > best:
                    best, chosen, note = ndcg, matrix, f"learning rate {rate:g}, {epoch} epochs"
    return _transformed(corpus, lambda vectors: vectors @ chosen, note)


def bm25(corpus: Corpus, train: Queries) -> Fitted:
    """Rank by words instead of vectors."""
    score = _bm25(corpus.texts)
    return Fitted(lambda queries: largest(score(queries.relevance.queries), min(DEPTH, len(corpus.ids))))


def bm25_and_vectors(corpus: Corpus, train: Queries) -> Fitted:
    """Rank by reciprocal rank fusion of BM25 and the plain vectors, with the usual constant of 60 (Cormack et al. 2009)."""
    score = _bm25(corpus.texts)
    count = len(corpus.ids)

    def rank(queries: Queries) -> NDArray[np.int64]:
        fused = np.zeros((len(queries), count))
        for scores in (score(queries.relevance.queries), queries.vectors @ corpus.vectors.T):
            ranking = largest(scores, count)
            np.put_along_axis(
                fused, ranking, np.take_along_axis(fused, ranking, axis=1) + 1 / (60 + np.arange(1, count + 1)), axis=1
            )
        return largest(fused, min(DEPTH, count))

    return Fitted(rank)


def _bm25(texts: Sequence[str]) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Index texts with bm25s' defaults, English stop words and stems, and return a function from n queries to scores, (n, N)."""
    tokens = partial(bm25s.tokenize, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False, return_ids=False)
    retriever = bm25s.BM25()
    retriever.index(tokens(list(texts)), show_progress=False)
    return lambda queries: np.stack([retriever.get_scores(words) for words in tokens(list(queries))])


def _ndcg(corpus: Corpus, queries: Queries, vectors: Vectors) -> float:
    return evaluate(vectors, queries.relevance, corpus.vectors, corpus.ids, top_k=(10,))["without model"]["ndcg@10"]


def _other(rng: np.random.Generator, count: int, relevant: NDArray[np.int64]) -> int:
    """Draw a random row that is not relevant."""
    while (row := int(rng.integers(count))) in relevant:
        pass
    return row


def _by_text(texts: Sequence[str], vectors: Vectors) -> dict[str, list[float]]:
    return dict(zip(texts, vectors.tolist(), strict=True))


TORCH, LLAMA_INDEX = ("torch",), ("llama-index-finetuning", "llama-index-core", "llama-index-embeddings-adapter")

PEERS = {
    "none": Peer("no adaptation", no_adaptation),
    "llama-index": Peer("LlamaIndex adapter", llama_index, LLAMA_INDEX),
    "llama-index-4": Peer("LlamaIndex adapter, 4 epochs", partial(llama_index, epochs=4), LLAMA_INDEX),
    "triplet": Peer("random linear, triplet loss", triplet, TORCH),
    "ridge": Peer("ridge to the identity", partial(ridge, published=False)),
    "dreditor": Peer("ridge as in DREditor", partial(ridge, published=True)),
    "nudge-m": Peer("NUDGE-M", partial(nudge, kind="M"), ("nudge-ft",), rewrites_index=True),
    "nudge-n": Peer("NUDGE-N", partial(nudge, kind="N"), ("nudge-ft",), rewrites_index=True),
    "ours": Peer("ours", ours, TORCH),
    "ours-unseen": Peer("ours, max_unseen_loss=0", partial(ours, max_unseen_loss=0), TORCH, collections=("tatqa",)),
    "bm25": Peer("BM25", bm25, ("bm25s",)),
    "bm25-vectors": Peer("BM25 + vectors (RRF)", bm25_and_vectors, ("bm25s",)),
}
