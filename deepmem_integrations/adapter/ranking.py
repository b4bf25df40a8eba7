"""`Ranking`: how a retriever weighs the three kinds of evidence for a document, and the transform that it searches with."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._immutable import ReadOnlyArrays
from deepmem_integrations._vectors import Vectors

Scores = NDArray[np.float32]
"""The scores of candidates along the last axis."""

RANK_CONSTANT = 60
"""The constant of reciprocal rank fusion, as everybody uses it (Cormack, Clarke and Büttcher, SIGIR 2009)."""


@dataclass(frozen=True)
class Ranking(ReadOnlyArrays):
    """The score by which a retriever ranks documents, and the transform of the query that it searches the store with.

    A document's score is ``vector · cosine + words · BM25 + answers · answer``: the cosine with the transformed query, the score
    of its words, and the share of the remembered queries alike that it answered (`QueryAdapter.answers`). A convex combination
    of this kind beats fixed rank fusion, and few labels teach its weights (Bruch, Gai and Ingber, arXiv 2210.11934).

    Attributes:
        vector: The weight of the cosine; 0 or 1.
        words: The weight of the words.
        answers: The weight of the answers.
        answers_temperature: τ, the width of the kernel by which remembered queries count as alike.
        by_rank: Whether 1 / (60 + rank) takes the place of the cosine and of the words' score: reciprocal rank fusion.
        linear: (d, d) float32, the linear part of the retriever's transform, or None.
        attention_temperature: The kernel width of the attention part of the retriever's transform.
        attention_strength: The strength of the attention part; 0 leaves it out.
        search: The name of the search by words whose scores were weighed: see `search_name`.
        cosines: (r,) float32, the mean cosine of the document at each rank of a training query's search, best first. It stands in
            where a store gives no scores.
    """

    vector: float = 1.0
    words: float = 0.0
    answers: float = 0.0
    answers_temperature: float = 0.1
    by_rank: bool = False
    linear: Vectors | None = None
    attention_temperature: float = 0.1
    attention_strength: float = 0.0
    search: str = "WordIndex"
    cosines: Scores = field(default_factory=lambda: np.empty(0, dtype=np.float32))

    @property
    def vectors_alone(self) -> bool:
        """Whether neither words nor answers count, so that the order of the store's search stands."""
        return self.vector > 0 and self.words == 0 and self.answers == 0

    def score(
        self, cosines: NDArray[np.float32], words: NDArray[np.float32], answers: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Score candidates.

        Args:
            cosines: (…, m) float32, the cosines of m candidates with the transformed query.
            words: (…, m) float32, the scores of their words; 0 where a document has no word of the query.
            answers: (…, m) float32, the scores of `QueryAdapter.answers`; 0 where no remembered query alike asked for a document.

        Returns:
            (…, m) float32.

        Example:
            >>> scores = np.array([[0.9, 0.1], [0.0, 4.0], [0.0, 0.5]], dtype=np.float32)
            >>> Ranking(words=0.1, answers=0.8).score(*scores)
            array([0.9, 0.9], dtype=float32)
        """
        if self.by_rank:
            cosines = _reciprocal_ranks(cosines)
            words = np.where(words > 0, _reciprocal_ranks(words), np.float32(0))
        total = np.float32(self.vector) * cosines
        for weight, scores in ((self.words, words), (self.answers, answers)):
            if weight:
                total = total + np.float32(weight) * scores
        return np.asarray(total, dtype=np.float32)

    def __str__(self) -> str:
        """Name the weights, as in ``vector + 0.05 words + 0.4 answers(τ=0.1)``."""
        parts = ["vector"] if self.vector else []
        if self.words:
            parts.append("words" if self.words == 1 else f"{self.words:.3g} words")
        if self.answers:
            weight = "" if self.answers == 1 else f"{self.answers:.3g} "
            parts.append(f"{weight}answers(τ={self.answers_temperature:g})")
        return " + ".join(parts) + (" by rank" if self.by_rank else "")


def _reciprocal_ranks(scores: Scores) -> Scores:
    """Return 1 / (60 + rank) for each score along the last axis; the best has rank 1."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    places = np.broadcast_to(np.arange(1, scores.shape[-1] + 1, dtype=np.float32), scores.shape)
    ranks = np.empty(scores.shape, dtype=np.float32)
    np.put_along_axis(ranks, order, places, axis=-1)
    return np.asarray(1 / (RANK_CONSTANT + ranks), dtype=np.float32)
