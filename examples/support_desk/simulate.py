"""Four weeks of the support desk with simulated users, and what each way to learn from them is worth.

    python examples/support_desk/simulate.py

Users ask the demo's training questions, see ten documents, look at the one of rank r with probability 1/r, and open it if it
answers; one decision in ten goes wrong. Each week ends with a retraining. The recall is measured on questions that nobody asks.
"""

import argparse
import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
from desk import Desk

from deepmem_integrations import Relevance
from deepmem_integrations.demo.documents import api_documents
from deepmem_integrations.demo.langchain import MiniLMEmbeddings
from deepmem_integrations.demo.run import load_questions
from deepmem_integrations.evaluation import WITH

WEEKS, NOISE = 4, 0.1


class CachedEmbeddings(MiniLMEmbeddings):
    """The embedding model, which computes each text once for all desks."""

    def __init__(self):
        super().__init__()
        self._vectors = {}

    def embed_documents(self, texts):
        """Embed what is new."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, super().embed_documents(new), strict=True))
        return [self._vectors[text] for text in texts]


def opened(shown, right, rng):
    """Return the ranks, from 1, that a user opens."""
    looked = [rank for rank in range(1, len(shown) + 1) if rng.random() < 1 / rank]
    return [rank for rank in looked if (shown[rank - 1] in right) != (rng.random() < NOISE)]


def ask(desk, questions, rng):
    """Let a user ask each question."""
    for question, labels in zip(questions.queries, questions.labels, strict=True):
        query_id, shown = desk.search(question)
        for rank in opened(shown, {name for name, _ in labels}, rng):
            desk.log.click(query_id, shown[rank - 1], position=rank)
    desk.log.flush()


def all_shown(desk):
    """Take everything that was shown for relevant, which no policy of the library does."""
    logged = list(desk.log.queries())
    return Relevance([one.text for one in logged], [[(name, 1.0) for name in one.document_ids] for one in logged])


def recall(desk, test):
    """Measure recall@10 of the retriever with the model in use, or of plain vectors where there is none."""
    if desk.memory.folder.in_use_name() is None:
        found = [[document.id for document in desk.langchain.invoke(question)] for question in test.queries]
        right = [{name for name, _ in labels} for labels in test.labels]
        return float(np.mean([len(names & set(ids)) / len(names) for names, ids in zip(right, found, strict=True)]))
    return desk.memory.measure(test, top_k=[10])[WITH]["recall@10"]


def simulate(folder, embeddings, train, test, seed):
    """Return arm → the recall after each week, from before the first one."""
    rng = np.random.default_rng(seed)
    weeks = np.array_split(rng.permutation(len(train)), WEEKS)
    loop, naive, given = (Desk(folder / name, embeddings) for name in ("loop", "naive", "given"))
    naive.pooled = lambda question, found: found  # it shows what its model finds, and nothing else
    recalls = {"no labels": [recall(given, test)], "all shown": [recall(naive, test)]}
    recalls |= {"clicks": [recall(loop, test)], "true labels": [recall(given, test)]}
    for week, rows in enumerate(weeks):
        for desk in (loop, naive):
            ask(desk, train.take(rows), rng)
        clicked = loop.log.labels(policy="clicks")
        asked = {train.query_ids[row] for rows in weeks[: week + 1] for row in rows}
        known = [row for row, name in enumerate(train.query_ids) if name in asked]
        for name, desk, labels in (
            ("clicks", loop, clicked),
            ("all shown", naive, all_shown(naive)),
            ("true labels", given, train.take(rng.permutation(known)[: len(clicked)])),  # of as many questions
        ):
            desk.memory.retrain(labels, policy=None, in_use="if better", by="simulation")
            recalls[name].append(recall(desk, test))
        recalls["no labels"].append(recalls["no labels"][0])
    return recalls


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    documents = api_documents()
    train, test = load_questions("train", documents), load_questions("test", documents)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # of models that are refused, week by week
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        recalls = simulate(Path(folder), CachedEmbeddings(), train, test, seed)
    print(f"recall@10 on {len(test)} questions" + "".join(f"{f'week {week}':>9}" for week in range(WEEKS + 1)))
    for name, values in recalls.items():
        print(f"{name:<26}" + "".join(f"{100 * value:>9.1f}" for value in values))
    behind = 100 * (recalls["true labels"][-1] - recalls["clicks"][-1])
    print(f"In the end, clicks are {behind:.1f} points behind as many true labels.")


if __name__ == "__main__":
    main()
