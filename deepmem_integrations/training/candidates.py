"""The candidates that a training chooses from: settings of the two parts of a transform, and weights of a ranking.

A training chooses twice: the transform that serves alone, in an embedding model's wrapper or a query transform, among
`TRANSFORMS`; and what a retriever does, which ranks by words and remembered answers as well, among `rankings`.

There are few candidates on purpose, because each further one makes it likelier that the best of them is best by luck. To choose
between two numbers of epochs or three kernel widths as well gained nothing on the test collections: see ``benchmarks/NOTES.md``.
To try another setting, add it to `STRENGTHS`, `WORDS` or `ANSWERS`. Cross-validation and the guard cover every candidate.
"""

from dataclasses import dataclass

from deepmem_integrations.adapter import Ranking
from deepmem_integrations.training.linear import Negatives

TEMPERATURE = 0.13
"""The width of the kernel (τ) of the attention part and of the remembered answers."""
STRENGTHS = (1.0, 3.0, 10.0, 30.0)
"""The factors (β) that the attention part is tried with."""
MANY = 200
"""From how many questions on the greatest of `STRENGTHS` is tried. It moves a query far; with fewer, one training in forty
chose it by luck and lost more than a point: see ``benchmarks/NOTES.md``."""
WORDS = (0.1, 0.2, 0.35, 0.6, 1.0, 1.7)
"""The weights that words are tried with. With 1, the words of the best document usually count as much as a cosine of 1."""
ANSWERS = (0.05, 0.2, 0.8, 3.2, 12.8)
"""The weights that remembered answers are tried with."""


@dataclass(frozen=True)
class Candidate:
    """Settings of both parts of a transform, and the weights of a ranking.

    Attributes:
        linear: The negatives of the linear part; None leaves the part out.
        attention: β, the factor by which the attention part moves a query; 0 leaves the part out. Without both parts the
            transform is the identity, which leaves queries as they are.
        vector: Whether the cosine counts. Words or answers alone rank where it does not.
        words: The weight of words: see `WORDS`.
        answers: The weight of the remembered answers: see `ANSWERS`.
        by_rank: Whether vectors and words are fused by rank, as in reciprocal rank fusion.
    """

    linear: Negatives | None = None
    attention: float = 0.0
    vector: bool = True
    words: float = 0.0
    answers: float = 0.0
    by_rank: bool = False

    @property
    def transform(self) -> "Candidate":
        """The candidate without words and answers."""
        return Candidate(self.linear, self.attention)

    @property
    def untaught(self) -> "Candidate":
        """The candidate without what grows with the number of training queries: with the weight of words alone."""
        return Candidate(vector=self.vector or not self.words, words=self.words, by_rank=self.by_rank)

    def ranking(self, word_unit: float) -> Ranking:
        """Return how the candidate ranks.

        Args:
            word_unit: The usual score of the best document by words, by which the weight of words is divided.
        """
        return Ranking(
            vector=float(self.vector),
            words=self.words if self.by_rank else self.words / word_unit,
            answers=self.answers,
            answers_temperature=TEMPERATURE,
            by_rank=self.by_rank,
        )

    def __str__(self) -> str:
        """Name the parts, as in ``linear(labelled) + attention(β=2) + 0.2 words`` or ``0.2 words + 0.4 answers``."""
        if self.by_rank:
            return "vectors and words fused by rank"
        parts = []
        if self.linear:
            parts.append(f"linear({self.linear})")
        if self.attention:
            parts.append(f"attention(β={self.attention:g})")
        if self.words:
            parts.append(f"{self.words:g} words" if self.vector else "words alone")
        if self.answers:
            parts.append(f"{self.answers:g} answers" if self.vector else "answers alone")
        return " + ".join(parts) or "identity"


_LINEAR: tuple[Negatives | None, ...] = (None, "labelled", "corpus")

TRANSFORMS = tuple(Candidate(linear, attention) for linear in _LINEAR for attention in (0.0, *STRENGTHS))
"""Every transform, that is, every combination of settings of its two parts. The identity comes first."""

_WITHOUT_WORDS = (
    *(Candidate(linear, answers=answers) for linear in _LINEAR for answers in ANSWERS),
    Candidate(vector=False, answers=1.0),
)
_WITH_WORDS = (
    *(Candidate(c.linear, c.attention, words=words) for c in TRANSFORMS for words in WORDS),
    *(Candidate(linear, words=words, answers=answers) for linear in _LINEAR for words in WORDS for answers in ANSWERS),
    Candidate(vector=False, words=1.0),
    Candidate(words=1.0, by_rank=True),
)


def usual(words: bool, answers: bool) -> Candidate:
    """Return the candidate that is tried first where labels tell little, as clicks do: each part at a moderate weight.

    Args:
        words: Whether there is a search by words.
        answers: Whether the ranking is chosen; otherwise the transform that serves alone.
    """
    return Candidate("labelled", words=WORDS[1] if words and answers else 0.0, answers=ANSWERS[1] if answers else 0.0)


def transforms(questions: int) -> tuple[Candidate, ...]:
    """Return the transforms that a training tries.

    Args:
        questions: How many questions the training queries ask: see `MANY`.
    """
    return _tried(TRANSFORMS, questions)


def rankings(words: bool, questions: int = MANY) -> tuple[Candidate, ...]:
    """Return the rankings that a training tries: the transforms come first, then what ranks by words and answers as well.

    An attention part and exact answers learn the same from the same queries, so no candidate has both.

    Args:
        words: Whether there is a search by words.
        questions: See `transforms`.
    """
    return _tried((*TRANSFORMS, *_WITHOUT_WORDS, *(_WITH_WORDS if words else ())), questions)


def _tried(candidates: tuple[Candidate, ...], questions: int) -> tuple[Candidate, ...]:
    return tuple(candidate for candidate in candidates if questions >= MANY or candidate.attention < STRENGTHS[-1])
