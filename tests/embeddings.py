"""An embedding model for tests."""

import numpy as np

from tests.problems import Problem


class LookupEmbeddings:
    """An embedding model that knows the problem's texts; any other text gets a vector of its own, fixed by the text."""

    model_name = "lookup"

    def __init__(self, problem: Problem) -> None:
        self.turn = getattr(problem, "turn", None)
        self.dimension = problem.corpus.shape[1]
        self.vectors = dict(zip(problem.ids, problem.corpus, strict=True))
        for queries, vectors in ((problem.train.queries, problem.train_queries), (problem.test.queries, problem.test_queries)):
            self.vectors |= dict(zip(queries, vectors, strict=True))

    def embed_query(self, text: str) -> list[float]:
        if text not in self.vectors:
            seed = int.from_bytes(text.encode()[:16], "little")
            vector = np.random.default_rng(seed).normal(size=self.dimension)
            self.vectors[text] = vector if self.turn is None else vector @ self.turn
        return [float(value) for value in self.vectors[text]]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]
