"""The steps of the demo: ingest, train, evaluate, compare."""

import warnings
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from deepmem_integrations._files import printable
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.demo.documents import ApiDocument, api_documents
from deepmem_integrations.embedding import Embedder, load_embedding
from deepmem_integrations.evaluation import TRANSFORM, WITH, WITHOUT, Evaluation
from deepmem_integrations.labels import InvalidLabelsWarning, Relevance
from deepmem_integrations.memory import DeepMemory

SHOWN = 4
"""How many test questions are shown side by side."""


def load_questions(split: str, documents: list[ApiDocument]) -> Relevance:
    """Load the recorded questions of a split (``"train"``, ``"test"``) whose documents the installed version has.

    A label may name any symbol of a document; it is replaced by the document's id.
    """
    with as_file(files("deepmem_integrations.demo") / "questions" / f"{split}.jsonl") as path:
        recorded = Relevance.from_jsonl(path)
    id_of = {symbol: document.id for document in documents for symbol in document.symbols}
    labels = [[(id_of.get(name, name), weight) for name, weight in row] for row in recorded.labels]
    named = Relevance(recorded.queries, labels, recorded.query_ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InvalidLabelsWarning)
        return named.check({document.id for document in documents}, on_invalid="drop")


def run_demo(folder: Path, *, embedding: str = "minilm", seed: int = 0) -> Evaluation:
    """Run the whole demo, and print what happens.

    Args:
        folder: The folder of the data set and the model; those of an earlier run are replaced.
        embedding: See `load_embedding`.
        seed: Fixes the training and the questions shown.

    Returns:
        The evaluation on the test questions.
    """
    embedder = Embedder(load_embedding(embedding))
    documents = api_documents()
    train, test = load_questions("train", documents), load_questions("test", documents)
    say(f"Documents: the API documentation inside deeplake {version('deeplake')}, {len(documents)} docstrings.")
    say(f"Questions: written by a large language model, {len(train)} for training and {len(test)} others for the test.")
    for split, relevance in (("training", train), ("test", test)):
        for reason, count in relevance.left_out.items():
            say(f"  {split} questions: {count} × {reason} of this deeplake version, left out")

    heading(f"1. Embed the documents with {embedding} and ingest them into a Deep Lake v4 data set")
    vectors = embedder.embed_documents([document.text for document in documents], progress="Embedding documents")
    store = DeepLakeStore(folder / "dataset", overwrite=True)
    store.add(
        [document.id for document in documents],
        vectors,
        [document.text for document in documents],
        [{"symbols": list(document.symbols)} for document in documents],
    )
    say(f"{len(store)} documents, {store.dimension} dimensions, in {store.path}")

    heading("2. Train: memory.train(train_questions)")
    memory = DeepMemory.from_deeplake(store, embedder)
    job_id = memory.train(train, seed=seed)
    memory.status(job_id)
    ranking = memory.adapter.ranking
    say(f"A retriever ranks by: {ranking or 'the transformed vector alone'}")

    heading("3. Evaluate on questions that took no part in training: memory.evaluate(test_questions)")
    evaluation = memory.evaluate(test)
    say("\n" + evaluation.table())
    tell_columns(evaluation)
    asked, tested = (unit_rows(embedder.embed_queries(questions.queries), "query vector") for questions in (train, test))
    across, among = share_repeated(train, asked, test, tested), share_repeated(train, asked)
    say(
        f"The nearest training question has the same answer for {100 * across:.0f}% of the test questions, and for "
        f"{100 * among:.0f}% of the\ntraining questions, on which step 2 made its choice."
    )

    heading("4. The same questions side by side")
    show_side_by_side(test, evaluation, seed)
    return evaluation


def tell_columns(evaluation: Evaluation) -> None:
    """Say what the columns of an evaluation's table are, and where the transform alone beats the retriever."""
    if TRANSFORM not in evaluation:
        return
    say(
        "\nwith is what DeepMemoryRetriever finds, which ranks as step 2 says. transform is what the transformed vector finds\n"
        "alone, in wrappers of embedding models, query transforms and v3's deep_memory=True. The other columns need no\n"
        "training: plain vectors (without), words alone, and both fused by rank (RRF)."
    )
    metrics = ("recall@1", "recall@10", "ndcg@10")
    better = [name for name in metrics if evaluation[TRANSFORM][name] > evaluation[WITH][name]]
    if better:
        pairs = (f"{name} {100 * evaluation[TRANSFORM][name]:.1f} to {100 * evaluation[WITH][name]:.1f}" for name in better)
        say(f"The transform alone does better here than the retriever in {', '.join(pairs)}.")


def share_repeated(
    train: Relevance, train_vectors: Vectors, others: Relevance | None = None, vectors: Vectors | None = None
) -> float:
    """Measure for which share of questions the nearest training question has an answer in common.

    Args:
        train: The n training questions.
        train_vectors: (n, d) float32 unit rows.
        others: The m questions; by default each training question among the others.
        vectors: (m, d) float32 unit rows of these.
    """
    asked = [{document for document, _ in labels} for labels in train.labels]
    if others is None or vectors is None:
        similarities, wanted = train_vectors @ train_vectors.T, asked
        np.fill_diagonal(similarities, -np.inf)
    else:
        similarities, wanted = vectors @ train_vectors.T, [{document for document, _ in labels} for labels in others.labels]
    nearest = similarities.argmax(axis=1).tolist()
    return sum(bool(asked[row] & answers) for row, answers in zip(nearest, wanted, strict=True)) / len(wanted)


def show_side_by_side(test: Relevance, evaluation: Evaluation, seed: int) -> None:
    """Count how often the first answer changed, and print the first three answers to some of those questions."""
    without, with_ = (evaluation.found[side] for side in (WITHOUT, WITH))
    right = [{document for document, _ in labels} for labels in test.labels]
    changed = [row for row in range(len(test)) if without[row][0] != with_[row][0]]
    mended = sum(with_[row][0] in right[row] and without[row][0] not in right[row] for row in changed)
    broken = sum(without[row][0] in right[row] and with_[row][0] not in right[row] for row in changed)
    say(
        f"The first answer changed for {len(changed)} of {len(test)} test questions: wrong to right {mended} times, "
        f"right to wrong {broken} times.\n{min(SHOWN, len(changed))} of them, drawn at random (* = a right answer):"
    )
    for row in np.random.default_rng(seed).permutation(changed)[:SHOWN].tolist():
        say(f"\n? {test.queries[row]}\n    {'without':<46}with Deep Memory (the retriever)")
        for rank, pair in enumerate(zip(without[row][:3], with_[row][:3], strict=True), start=1):
            cells = [f"{'*' if name in right[row] else ' '} {name.removeprefix('deeplake.')}" for name in pair]
            say(f"  {rank} {cells[0]:<46}{cells[1]}")


def heading(text: str) -> None:
    """Print a heading."""
    say(f"\n== {text}")


def say(text: str) -> None:
    """Print a line at once, in order with the progress bars."""
    print(printable(text), flush=True)  # noqa: T201 - the demo talks to its user
