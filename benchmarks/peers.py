"""The methods that are compared. Each is a short function that learns from training queries and returns a ranking function."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

import bm25s
import llama_index.finetuning.embeddings.adapter_utils  # so that the engine does not import it while it is timed
import numpy as np
import Stemmer
import torch
from llama_index.core.embeddings import BaseEmbedding
from llama_index.finetuning import EmbeddingAdapterFinetuneEngine, EmbeddingQAFinetuneDataset
from nudge import NUDGEM, NUDGEN
from numpy.typing import NDArray

from benchmarks.data import Corpus, Queries
from benchmarks.results import DEPTH
from deepmem_integrations import QueryAdapter, evaluate, train_adapter
from deepmem_integrations._vectors import Vectors, largest, nearest, unit_rows
from deepmem_integrations.evaluation import score_rankings
from deepmem_integrations.ranking import Ranker, Shortlist
from deepmem_integrations.words import WordIndex

Rank = Callable[[Queries], NDArray[np.int64]]
"""Ranks the corpus: queries → (n, min(N, DEPTH)) corpus rows, best first. A ranking function must not use the queries' labels."""

S = TypeVar("S")
Scorer = Callable[[Queries], Callable[[S], Vectors]]
"""Scores the corpus: n queries → setting → (n, N). What settings share is computed once."""


@dataclass(frozen=True)
class Fitted:
    """The result of a training.

    Attributes:
        rank: The function that ranks the corpus after the training.
        note: The hyper-parameters or the candidate that the training chose.
    """

    rank: Rank
    note: str = ""


@dataclass(frozen=True)
class Peer:
    """One row of the comparison.

    Attributes:
        title: The method's name in the table.
        fit: Trains the method: (corpus, training queries) → `Fitted`.
        packages: The distributions that the method uses.
        rewrites_index: Whether document vectors change, so that the store has to be written again.
        collections: The collections that the method runs on. None: all collections.
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
    """Train an adapter with this library."""
    result = train_adapter(train.vectors, train.relevance, corpus.vectors, corpus.ids, seed=0, **options)
    return _transformed(corpus, result.adapter.transform, f"{result.report.chosen}: {result.report.reason}")


def ours_retriever(corpus: Corpus, train: Queries, **options: float) -> Fitted:
    """Train an adapter with this library, and rank as its retrievers do: by vectors, words and remembered answers."""
    folder = tempfile.TemporaryDirectory()
    index = WordIndex.build(folder.name, [(corpus.ids, corpus.texts)])
    result = train_adapter(train.vectors, train.relevance, corpus.vectors, corpus.ids, words=index, seed=0, **options)
    report = result.report.ranking

    def rank(queries: Queries) -> NDArray[np.int64]:
        assert folder.name  # keeps the index until the queries are ranked
        return rank_as_retrievers(result.adapter, index, corpus, queries)

    return Fitted(rank, f"{report.chosen}: {report.reason}" if report else result.report.reason)


def rank_as_retrievers(adapter: QueryAdapter, index: WordIndex, corpus: Corpus, queries: Queries) -> NDArray[np.int64]:
    """Rank by vectors, words and remembered answers, as the adapter has learned: (n, DEPTH) rows of the corpus, best first."""
    row_of = {name: row for row, name in enumerate(corpus.ids)}
    ranker, ranking = Ranker(adapter, words=index), []
    for text, vector in zip(queries.relevance.queries, queries.vectors, strict=True):
        query = ranker.query(text, vector)
        transformed = np.array(query.vector, dtype=np.float32)
        rows = nearest(transformed[None], corpus.vectors, DEPTH)[0]
        found = [corpus.ids[row] for row in rows.tolist()]
        shortlist: Shortlist[str] = query.rank(found, corpus.vectors[rows] @ transformed, query.words(DEPTH))
        ranking.append([row_of[name] for name in shortlist.ids[: len(rows)]])
    return np.array(ranking)


class Lookup(BaseEmbedding):
    """An embedding model for LlamaIndex that looks up the vectors of texts embedded before."""

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
        with contextlib.redirect_stderr(io.StringIO()):  # the engine prints progress bars
            engine.finetune()
        model = engine.get_finetuned_model(device="cpu")

    def rank(queries: Queries) -> NDArray[np.int64]:
        lookup.vectors |= _by_text(queries.relevance.queries, queries.vectors)
        vectors = [model.get_query_embedding(query) for query in queries.relevance.queries]
        return nearest(np.array(vectors, dtype=np.float32), corpus.vectors, DEPTH)

    return Fitted(rank)


def nudge(corpus: Corpus, train: Queries, *, kind: str) -> Fitted:
    """Move the document vectors by NUDGE-M or NUDGE-N (Zeighami et al. 2024). A fifth of the queries is the validation set."""

    def answered(queries: Queries) -> dict[str, object]:
        labels = corpus.rows(queries.relevance)
        return {"q_embs": queries.vectors, "q_ans_indx": [labels[row][0].tolist() for row in range(len(labels))]}

    fit, validation = train.hold_out()
    with contextlib.redirect_stdout(io.StringIO()):
        method = {"M": NUDGEM, "N": NUDGEN}[kind]()
        moved = method.finetune_embeddings(corpus.vectors, answered(fit), answered(validation))
    # The package ranks by the dot product of unnormalised vectors.
    return Fitted(lambda queries: nearest(queries.vectors, np.asarray(moved, dtype=np.float32), DEPTH))


RIDGE_STRENGTHS = (*np.logspace(-1, 6, 15).tolist(), 1.5e4)
"""The values of λ to choose from. The last is the default of DREditor's code."""


def ridge(corpus: Corpus, train: Queries, *, published: bool) -> Fitted:
    """Fit a ridge regression of the mean v of a query's documents on the query q, in closed form: q ← q(I + ΔW).

    With ``published``, the method is DREditor (arXiv 2401.12540), which minimises ‖Q(I + ΔW) − V‖² + λ mean‖v ΔW‖². DREditor
    has no package, so the formula of its authors' code is used. Without ``published``, the penalty is the usual λ‖ΔW‖² / d,
    which stays well-posed with fewer queries than dimensions. λ is chosen on held-out training queries.
    """

    def solve(queries: Queries, strength: float) -> Vectors:
        labels, q = corpus.rows(queries.relevance), queries.vectors.astype(np.float64)
        targets = [labels[row] for row in range(len(labels))]
        v = np.stack([np.average(corpus.vectors[rows], axis=0, weights=weights) for rows, weights in targets]).astype(np.float64)
        identity = np.eye(q.shape[1])
        prior = v.T @ v / len(v) if published else identity / len(identity)
        # DREditor's matrix may be singular, where its code fails. The least-norm solution is taken instead.
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
    """Train a linear adapter with random initial weights and a triplet loss against random negatives, after Chroma's report.

    The report has no package. The learning rate and the epoch are chosen on held-out training queries.
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
    """Rank by words instead of vectors, with BM25."""
    score = _bm25(corpus.texts)
    return Fitted(lambda queries: largest(score(queries.relevance.queries), min(DEPTH, len(corpus.ids))))


def bm25_and_vectors(corpus: Corpus, train: Queries) -> Fitted:
    """Fuse the ranks of BM25 and of the vectors as they are, with the usual constant of 60.

    The formula is reciprocal rank fusion (Cormack et al. 2009).
    """
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


WORD_WEIGHTS = (0.0, *np.geomspace(0.001, 1, 16).round(4).tolist())


def words_weight(corpus: Corpus, train: Queries) -> Fitted:
    """Add BM25 to the cosine, score = cosine + w · BM25, with a weight w that is learned from the training queries.

    A convex combination of the scores (Bruch et al. 2022, arXiv 2210.11934) is the same, up to its scale.
    """
    words = _bm25(corpus.texts)

    def score(queries: Queries) -> Callable[[float], Vectors]:
        cosines, matches = _cosines(queries, corpus), words(queries.relevance.queries)
        return lambda weight: cosines + weight * matches

    return _choose(corpus, train, lambda _: score, WORD_WEIGHTS, "w {:g}".format)


PEFA_WEIGHTS = tuple(np.linspace(1, 0, 21).round(2).tolist())
PEFA_NEIGHBOURS = (1, 2, 4, 8, 16, 32, 64, 128)


def pefa_xl(corpus: Corpus, train: Queries) -> Fitted:
    """Add the answers of the nearest training queries to the cosine, as in PEFA-XL (Chang et al. 2024, arXiv 2312.02429).

    The score of query q and document d is λ⟨q, d⟩ + (1 − λ) / k · Σ ⟨q, qᵢ⟩ · yᵢ(d), with the sum over the k training queries qᵢ
    nearest to q and their labels yᵢ. λ and k are chosen on held-out training queries. The authors' code is an example in the
    repository of libpecos, whose package has no such function and requires numpy 1, so the formula is used.
    """

    def fit(kept: Queries) -> Scorer[tuple[float, int]]:
        answers = _answers(kept, corpus)

        def score(queries: Queries) -> Callable[[tuple[float, int]], Vectors]:
            cosines, kernel = _cosines(queries, corpus), queries.vectors @ kept.vectors.T

            @cache
            def votes(k: int) -> Vectors:
                rows = largest(kernel, min(k, len(kept)))
                near = np.zeros_like(kernel)
                np.put_along_axis(near, rows, np.take_along_axis(kernel, rows, axis=1), axis=1)
                return near @ answers / rows.shape[1]

            return lambda setting: setting[0] * cosines + (1 - setting[0]) * votes(setting[1])

        return score

    settings = [(weight, k) for weight in PEFA_WEIGHTS for k in PEFA_NEIGHBOURS]
    return _choose(corpus, train, fit, settings, lambda chosen: "λ {:g}, k {}".format(*chosen))


def pefa_xs(corpus: Corpus, train: Queries) -> Fitted:
    """Move every document vector towards the training queries that it answers, as in PEFA-XS (arXiv 2312.02429).

    The vector becomes λd + (1 − λ)p, where p is the sum of d and of the queries that d answers, times their weights, scaled to
    length 1. In the sum, d stands for the document's own text, which the authors' code counts as a query of the document. The
    questions that the authors generate are left out. λ is chosen on held-out training queries.
    """

    def fit(kept: Queries) -> Scorer[float]:
        asked = unit_rows(corpus.vectors + _answers(kept, corpus).T @ kept.vectors, "document vector")

        def score(queries: Queries) -> Callable[[float], Vectors]:
            cosines, moved = _cosines(queries, corpus), queries.vectors @ asked.T
            return lambda weight: weight * cosines + (1 - weight) * moved

        return score

    return _choose(corpus, train, fit, PEFA_WEIGHTS, "λ {:g}".format)


def questions(corpus: Corpus, train: Queries) -> Fitted:
    """Index the labelled questions, too: a document scores as its vector or as the best of the questions that it answers.

    The documents that one question points to are ordered by their own cosines. At random, nfcorpus, where a question has some
    forty documents, loses ten points of nDCG@10.
    """
    labels = corpus.rows(train.relevance)

    def rank(queries: Queries) -> NDArray[np.int64]:
        cosines, asked = _cosines(queries, corpus), queries.vectors @ train.vectors.T
        scores = cosines.copy()
        for question in range(len(labels)):
            rows, _ = labels[question]
            scores[:, rows] = np.maximum(scores[:, rows], asked[:, question, None])
        return largest(scores + 1e-4 * cosines, min(DEPTH, len(corpus.ids)))  # the second term decides between equal scores

    return Fitted(rank)


def _choose(
    corpus: Corpus, train: Queries, fit: Callable[[Queries], Scorer[S]], settings: Sequence[S], note: Callable[[S], str]
) -> Fitted:
    """Fit the setting that ranks held-out training queries best, by nDCG@10 in five folds. Of equal settings the first wins."""
    totals = np.zeros(len(settings))
    for kept, held_out in train.folds():
        score, labels = fit(kept)(held_out), corpus.rows(held_out.relevance)
        rankings = (largest(score(setting), min(10, len(corpus.ids))) for setting in settings)
        totals += [score_rankings(ranking, labels, top_k=(10,))["ndcg@10"].sum() for ranking in rankings]
    best, fitted = settings[int(totals.argmax())], fit(train)
    return Fitted(lambda queries: largest(fitted(queries)(best), min(DEPTH, len(corpus.ids))), note(best))


def _cosines(queries: Queries, corpus: Corpus) -> Vectors:
    return queries.vectors @ corpus.vectors.T


def _answers(queries: Queries, corpus: Corpus) -> Vectors:
    """Return the weights of the labels as a matrix, (n, N), 0 without a label."""
    labels = corpus.rows(queries.relevance)
    answers = np.zeros((len(queries), len(corpus.ids)), dtype=np.float32)
    answers[np.repeat(np.arange(len(labels)), np.diff(labels.starts)), labels.documents] = labels.weights
    return answers


def _bm25(texts: Sequence[str]) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Index texts with bm25s' defaults, English stop words and stems. Returns a function: n queries → scores, (n, N).

    A query of stop words alone scores 0 everywhere; bm25s refuses it.
    """
    tokens = partial(bm25s.tokenize, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False, return_ids=False)
    retriever = bm25s.BM25()
    retriever.index(tokens(list(texts)), show_progress=False)
    none = np.zeros(len(texts), dtype=np.float32)
    return lambda queries: np.stack([retriever.get_scores(words) if words else none for words in tokens(list(queries))])


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
    "ours": Peer("ours, the transform alone", ours, TORCH),
    "ours-retriever": Peer("ours, a retriever", ours_retriever, TORCH),
    "ours-retriever-seen": Peer("ours, a retriever, max_unseen_loss=100", partial(ours_retriever, max_unseen_loss=100), TORCH),
    "ours-unseen": Peer("ours, max_unseen_loss=0", partial(ours, max_unseen_loss=0), TORCH, collections=("tatqa",)),
    "bm25": Peer("BM25", bm25, ("bm25s",)),
    "bm25-vectors": Peer("BM25 + vectors (RRF)", bm25_and_vectors, ("bm25s",)),
    "words-weight": Peer("BM25 + vectors, learned weight", words_weight, ("bm25s",)),
    "pefa-xl": Peer("PEFA-XL", pefa_xl),
    "pefa-xs": Peer("PEFA-XS", pefa_xs, rewrites_index=True),
    "questions": Peer("labelled questions indexed", questions),
}
