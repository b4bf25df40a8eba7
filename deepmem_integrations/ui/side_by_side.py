"""A search with and without the model side by side: what each side finds, and what moved."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from deepmem_integrations.errors import NotTrainedError
from deepmem_integrations.evaluation import FETCHED
from deepmem_integrations.labels.records import Shown
from deepmem_integrations.opened import Opened
from deepmem_integrations.ranking import Ranker

CHANNELS = {"vector": "vectors", "words": "words", "answers": "answers"}
"""The kinds of evidence, and what pages call them."""


@dataclass(frozen=True)
class Result:
    """A document in its place.

    Attributes:
        id: The id of the document.
        text: Its text.
        rank: Its rank on this side, from 1.
        other: Its rank on the other side; None where it is not among the first 100 there.
        ranks: What found the document → its rank there; empty on the side without the model.
        score: The score by which it is ranked, where there is one.
    """

    id: str
    text: str
    rank: int
    other: int | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    score: float | None = None

    @property
    def moved(self) -> str:
        """Say in words how the document moved on its way to this side."""
        if self.other is None:
            return f"new, from beyond {FETCHED}"
        if self.other == self.rank:
            return "same place"
        return f"{'up' if self.rank < self.other else 'down'} from {self.other}"

    @property
    def direction(self) -> str:
        """Return ``"up"``, ``"down"``, ``"new"`` or ``"same"``."""
        if self.other is None:
            return "new"
        return "same" if self.other == self.rank else "up" if self.rank < self.other else "down"


@dataclass(frozen=True)
class SideBySide:
    """What a query finds.

    Attributes:
        query: The query.
        without: What the store finds by the query as it is.
        with_: What a retriever finds; None where there is no model.
        model: The model that served; None where there is none.
        ranking: By what a retriever ranks.
    """

    query: str
    without: list[Result]
    with_: list[Result] | None
    model: str | None
    ranking: str

    def shown(self) -> list[Shown]:
        """Return the documents that were shown, as the feedback log takes them: what a retriever found, then the others."""
        best = self.with_ if self.with_ is not None else self.without
        there = {one.id for one in best}
        return [
            Shown(one.id, one.score, dict(one.ranks)) for one in [*best, *(one for one in self.without if one.id not in there)]
        ]


def search(opened: Opened, ranker: Ranker, query: str, k: int) -> SideBySide:
    """Search without and with the model.

    Args:
        opened: The store.
        ranker: The ranker of its memory, with ``untrained="error"``.
        query: The query.
        k: How many documents each side shows.
    """
    vector = opened.memory.embedder.embed_query(query)
    plain = opened.search(vector.tolist(), max(k, FETCHED), False, {})
    before = {hit.id: rank for rank, hit in enumerate(plain, start=1)}
    try:
        ranked = opened.ranked(ranker.query(query, vector, opened.memory.embedder), max(k, FETCHED))
    except NotTrainedError:
        return SideBySide(query, [Result(hit.id, hit.text, before[hit.id]) for hit in plain[:k]], None, None, "")
    after = {hit.id: rank for rank, (hit, _) in enumerate(ranked, start=1)}
    ranking = ranker.describe()
    with_ = [
        Result(hit.id, hit.text, rank, before.get(hit.id), _ranks(choice.channels, ranking), choice.score)
        for rank, (hit, choice) in enumerate(ranked[:k], start=1)
    ]
    without = [Result(hit.id, hit.text, before[hit.id], after.get(hit.id)) for hit in plain[:k]]
    return SideBySide(query, without, with_, ranker.served.name, ranking)


def _ranks(channels: Mapping[str, int], ranking: str) -> dict[str, int]:
    """Keep the evidence that counts."""
    return {title: channels[name] for name, title in CHANNELS.items() if name in channels and name in ranking}
