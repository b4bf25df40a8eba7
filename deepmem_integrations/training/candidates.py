"""The candidates that a training chooses from: settings of the two parts of a transform, and weights of a ranking.

A training chooses twice: the transform that serves alone, in an embedding model's wrapper or a query transform, among
`TRANSFORMS`; and what a retriever does, which ranks by words and remembered answers as well, among `rankings`.

To try another setting, add it to `EPOCHS`, `TEMPERATURES`, `STRENGTHS`, `WORDS`, `ANSWERS` or `ANSWER_TEMPERATURES`.
Cross-validation and the guard cover every candidate.
"""

from dataclasses import dataclass

from deepmem_integrations.adapter import Ranking
from deepmem_integrations.training.linear import Negatives

EPOCHS = (8, 16)
"""The numbers of epochs that the linear part is tried with."""
TEMPERATURES = (0.1, 0.13, 0.16)
"""The kernel widths (τ) that the attention part is tried with."""
STRENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""The factors (β) that the attention part is tried with."""
WORDS = (0.1, 0.2, 0.35, 0.6, 1.0, 1.7)
"""The weights that words are tried with. With 1, the words of the best document usually count as much as a cosine of 1."""
ANSWERS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""The weights that remembered answers are tried with."""
ANSWER_TEMPERATURES = (0.1, 0.16)
"""The kernel widths (τ) that remembered answers are tried with."""


@dataclass(frozen=True)
class LinearSettings:
    """Settings of the linear part.

    Attributes:
        negatives: Which documents the softmax runs over: see `Negatives`.
        epochs: How many epochs the linear part is trained for.
    """

    negatives: Negatives
    epochs: int


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of the attention part.

    Attributes:
        temperature: τ, the width of the kernel. With a smaller τ, fewer and more similar training queries count.
        strength: β, the factor by which the attention part moves a query.
    """

    temperature: float
    strength: float


@dataclass(frozen=True)
class AnswerSettings:
    """Settings of the remembered answers.

    Attributes:
        temperature: τ, the width of the kernel by which remembered queries count as alike.
        weight: The weight of the answers in the score.
    """

    temperature: float
    weight: float


@dataclass(frozen=True)
class Candidate:
    """Settings of both parts of a transform, and the weights of a ranking.

    Attributes:
        linear: The settings of the linear part; None leaves the part out.
        attention: The settings of the attention part; None leaves the part out. Without both parts the transform is the
            identity, which leaves queries as they are.
        vector: Whether the cosine counts. Words or answers alone rank where it does not.
        words: The weight of words: see `WORDS`.
        answers: The settings of the remembered answers; None leaves them out.
        by_rank: Whether vectors and words are fused by rank, as in reciprocal rank fusion.
    """

    linear: LinearSettings | None = None
    attention: AttentionSettings | None = None
    vector: bool = True
    words: float = 0.0
    answers: AnswerSettings | None = None
    by_rank: bool = False

    @property
    def transform(self) -> "Candidate":
        """The candidate without words and answers."""
        return Candidate(self.linear, self.attention)

    def ranking(self, word_unit: float) -> Ranking:
        """Return how the candidate ranks.

        Args:
            word_unit: The usual score of the best document by words, by which the weight of words is divided.
        """
        return Ranking(
            vector=float(self.vector),
            words=self.words if self.by_rank else self.words / word_unit,
            answers=self.answers.weight if self.answers else 0.0,
            answers_temperature=(self.answers or _NO_ANSWERS).temperature,
            by_rank=self.by_rank,
        )

    def __str__(self) -> str:
        """Name the parts, as in ``linear(labelled, 8 epochs) + attention(τ=0.1, β=2) + 0.2 words + 0.4 answers(τ=0.1)``."""
        if self.by_rank:
            return "vectors and words fused by rank"
        parts = []
        if self.linear:
            parts.append(f"linear({self.linear.negatives}, {self.linear.epochs} epochs)")
        if self.attention:
            parts.append(f"attention(τ={self.attention.temperature:g}, β={self.attention.strength:g})")
        if self.words:
            parts.append(f"{self.words:g} words" if self.vector else "words alone")
        if self.answers:
            answers = f"answers(τ={self.answers.temperature:g})"
            parts.append(f"{self.answers.weight:g} {answers}" if self.vector else f"{answers} alone")
        return " + ".join(parts) or "identity"


_NO_ANSWERS = AnswerSettings(ANSWER_TEMPERATURES[0], 0.0)
_LINEAR: tuple[LinearSettings | None, ...] = (
    None,
    *(LinearSettings(negatives, epochs) for negatives in ("labelled", "corpus") for epochs in EPOCHS),
)
_ATTENTION: tuple[AttentionSettings | None, ...] = (
    None,
    *(AttentionSettings(temperature, strength) for temperature in TEMPERATURES for strength in STRENGTHS),
)
_ANSWERS: tuple[AnswerSettings, ...] = tuple(AnswerSettings(t, weight) for t in ANSWER_TEMPERATURES for weight in ANSWERS)

TRANSFORMS = tuple(Candidate(linear, attention) for linear in _LINEAR for attention in _ATTENTION)
"""Every transform, that is, every combination of settings of its two parts. The identity comes first."""

_WITHOUT_WORDS = (
    *(Candidate(linear, answers=answers) for linear in _LINEAR for answers in _ANSWERS),
    *(Candidate(vector=False, answers=AnswerSettings(t, 1.0)) for t in ANSWER_TEMPERATURES),
)
_WITH_WORDS = (
    *(Candidate(c.linear, c.attention, words=words) for c in TRANSFORMS for words in WORDS),
    *(Candidate(linear, words=words, answers=answers) for linear in _LINEAR for words in WORDS for answers in _ANSWERS),
    Candidate(vector=False, words=1.0),
    Candidate(words=1.0, by_rank=True),
)


def rankings(words: bool) -> tuple[Candidate, ...]:
    """Return every ranking: the transforms, which come first, and all that rank by words and answers as well.

    An attention part and exact answers learn the same from the same queries, so no candidate has both.

    Args:
        words: Whether there is a search by words.
    """
    return (*TRANSFORMS, *_WITHOUT_WORDS, *(_WITH_WORDS if words else ()))
