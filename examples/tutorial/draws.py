"""Repeats the tutorial's measurement with ten draws of the questions, on the data set that the tutorial left.

    python -m examples.tutorial.tutorial
    python -m examples.tutorial.draws

The first draw is the tutorial's own. The script uses the recorded questions and needs no key.
"""

import os
import random
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from deepmem_integrations import DeepMemory
from deepmem_integrations.demo.langchain import MiniLMEmbeddings
from deepmem_integrations.langchain import DeepLake, SyntheticQueryGenerator
from examples.tutorial.offline import RecordedQuestions

FOLDER = Path(os.environ.get("FOLDER", "deepmem-tutorial"))
DRAWS = 10


class RememberingEmbeddings(MiniLMEmbeddings):
    """The tutorial's embedding model, which embeds each text once."""

    def __init__(self) -> None:
        super().__init__()
        self._vectors: dict[str, list[float]] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed the texts that are new, and return the vectors of all."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors |= dict(zip(new, super().embed_documents(new), strict=True))
        return [self._vectors[text] for text in texts]


def main() -> None:
    db = DeepLake(FOLDER / "dataset", embedding=RememberingEmbeddings())
    memory = DeepMemory.from_langchain(db, path=FOLDER / "draws")  # the tutorial's own model stays in use
    documents = db.deep_memory.documents()
    recorded = RecordedQuestions((d.id, d.metadata["source"].rpartition("/")[2], d.page_content) for d in documents)
    documents = [document for document in documents if document.id in recorded.known]
    labels = SyntheticQueryGenerator(llm=recorded, queries_per_document=4).generate(documents).relevance

    measured: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)  # recalls with their gains
    for draw in range(DRAWS):
        order = random.Random(draw).sample(range(len(labels)), len(labels))
        train, test, rest = labels.take(order[:100]), labels.take(order[100:200]), labels.take(order[200:])
        for questions in (train, train + rest):
            memory.train(questions)
            evaluation = memory.measure(test)
            recalls = {side: 100 * scores["recall@10"] for side, scores in evaluation.items()}
            for side, recall in recalls.items():
                measured[f"{len(questions)} questions", side].append((recall, recall - recalls["without model"]))
            told = ", ".join(f"{side} {recall:.0f}" for side, recall in recalls.items())
            print(f"draw {draw}, {len(questions)} questions: {told}   ({memory.adapter.ranking})", flush=True)

    print(f"\nrecall@10 over {DRAWS} draws{'':<18}{'mean':>6}{'worst':>7}{'best':>7}{'gain':>7}{'worst':>7}{'best':>7}")
    for (trained, side), values in measured.items():
        numbers = [f(column) for column in zip(*values, strict=True) for f in (fmean, min, max)]
        print(f"{trained:<16}{side:<24}" + "".join(f"{number:>7.1f}" for number in numbers))


if __name__ == "__main__":
    main()
