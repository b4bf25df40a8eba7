"""How well a judge agrees with people: Cohen's κ with its interval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels import Relevance

_DRAWS = 2_000


@dataclass(frozen=True)
class Agreement:
    """Cohen's κ of two judges who said of the same documents whether they answer the same queries.

    κ is the agreement beyond chance: 1 says that the judges always agree, 0 that they agree as often as chance would have it
    (Cohen, "A coefficient of agreement for nominal scales", 1960). The interval is that of a bootstrap over queries, because the
    judgements of one query hang together.

    Attributes:
        kappa: Cohen's κ.
        low: The lower end of its 95% interval.
        high: The upper end of its 95% interval.
        agreed: The share of the pairs on which the judges agree.
        pairs: The number of pairs of a query and a document that both judged.
        queries: The number of queries of these pairs.

    Example:
        >>> people = Relevance({"1": "undo a commit", "2": "a branch"}, {"1": {"a": 1, "b": 0}, "2": {"c": 1, "d": 0}})
        >>> print(Agreement.of(people, people))
        κ 1.00 (1.00 to 1.00, 4 pairs of 2 queries)
    """

    kappa: float
    low: float
    high: float
    agreed: float
    pairs: int
    queries: int

    @classmethod
    def of(cls, judged: Relevance, people: Relevance) -> "Agreement":
        """Compare the judgements that two `Relevance` share. A weight above 0 says that the document answers the query.

        Args:
            judged: What the judge says. Queries are matched by their texts.
            people: What people say.

        Raises:
            InvalidRelevanceError: No pair was judged by both, or people judged all of these pairs alike, so that no agreement
                beyond chance can be measured.
        """
        said = _weights(judged)
        counts = []
        for query, weights in _weights(people).items():
            both = [
                (said.get(query, {})[name] > 0, weight > 0) for name, weight in weights.items() if name in said.get(query, {})
            ]
            if both:
                counts.append([both.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))])
        if not counts:
            raise InvalidRelevanceError("No document was judged for the same query by both, so no agreement can be measured.")
        table = np.array(counts, dtype=np.int64)
        total = table.sum(axis=0)
        if not total[[0, 2]].sum() or not total[[1, 3]].sum():
            kind = "relevant" if total[[0, 2]].sum() else "irrelevant"
            raise InvalidRelevanceError(
                f"All {total.sum()} judged pairs of the sample are {kind}, so chance agrees as well as any judge. Have people "
                "judge documents that answer a query, and others, which weigh 0 or less."
            )
        draws = np.random.default_rng(0).multinomial(len(table), np.full(len(table), 1 / len(table)), size=_DRAWS)
        low, high = np.nanquantile(_kappa(draws @ table), [0.025, 0.975]).tolist()
        if len(table) == 1:  # one query says nothing of others
            low, high = -1.0, 1.0
        agreed = float((total[0] + total[3]) / total.sum())
        return cls(float(_kappa(total[None])[0]), low, high, agreed, int(total.sum()), len(table))

    def __str__(self) -> str:
        """Show κ with its interval."""
        pairs, queries = (
            f"{self.pairs} pair{'s' * (self.pairs != 1)}",
            f"{self.queries} quer{'ies' if self.queries != 1 else 'y'}",
        )
        return f"κ {self.kappa:.2f} ({self.low:.2f} to {self.high:.2f}, {pairs} of {queries})"


def _weights(labels: Relevance) -> dict[str, dict[str, float]]:
    weights: dict[str, dict[str, float]] = {}
    for query, judged in zip(labels.queries, labels.relevance, strict=True):
        of_query = weights.setdefault(query, {})
        for name, weight in judged:
            of_query[name] = max(weight, of_query.get(name, -np.inf))
    return weights


def _kappa(tables: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return κ of (m, 4) counts: both yes, the first alone, the second alone, both no. It is NaN where chance always agrees."""
    shares = tables / tables.sum(axis=1, keepdims=True)
    first, second = shares[:, 0] + shares[:, 1], shares[:, 0] + shares[:, 2]
    chance = first * second + (1 - first) * (1 - second)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(chance < 1, (shares[:, 0] + shares[:, 3] - chance) / (1 - chance), np.nan))
