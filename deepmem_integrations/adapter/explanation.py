"""`Explanation`: what a model did to a query, and what vectors, words and remembered answers bring for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Share:
    """What one remembered query, or several with the same vector, have part in."""

    query_ids: tuple[str, ...]
    texts: tuple[str, ...]
    documents: Mapping[str, float]
    similarity: float
    share: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "query_ids": list(self.query_ids),
            "texts": list(self.texts),
            "documents": dict(self.documents),
            "similarity": self.similarity,
            "share": self.share,
        }

    def __str__(self) -> str:
        """Describe the part in one line."""
        name = " | ".join(repr(text) for text in self.texts) or ", ".join(self.query_ids)
        documents = ", ".join(document if weight > 0 else f"not {document}" for document, weight in self.documents.items())
        return f"{100 * self.share:5.1f}%  (similarity {self.similarity:.2f})  {name} → {documents}"


@dataclass(frozen=True)
class Influence(_Share):
    """The influence of a training query, or of several with the same vector, on a query that an adapter transformed.

    Attributes:
        query_ids: The ids of the training queries.
        texts: The texts of the training queries; empty if the adapter keeps no texts.
        documents: Document id → weight of the documents that answer the training queries; below 0 if judged irrelevant.
        similarity: The cosine between the training queries and the query, −1 to 1, in the centred and whitened kernel space.
        share: The share of the training queries in the attention part's movement, along its direction. Over all training
            queries the shares add up to 1.
    """


@dataclass(frozen=True)
class Vote(_Share):
    """The vote of a remembered query, or of several with the same vector, for the documents that answer it.

    Attributes:
        query_ids: The ids of the remembered queries.
        texts: The texts of the remembered queries; empty if the adapter keeps no texts.
        documents: Document id → weight of the documents that answer the remembered queries; below 0 if judged irrelevant.
        similarity: The cosine between the remembered queries and the query, −1 to 1, in the centred and whitened kernel space.
        share: The share of the vote, between 0 and 1. Over all remembered queries the shares add up to less than 1, and to the
            less, the farther all of them are from the query.
    """


@dataclass(frozen=True)
class RankedDocument:
    """A document in its place, and what brought it there.

    Attributes:
        id: The id of the document.
        score: The score by which the document is ranked: see `Ranking.score`.
        channels: ``"vector"``, ``"words"`` and ``"answers"``, as far as they count → the score (the cosine, the BM25 score, or
            the score of the remembered answers), and the rank among the documents that this channel found, from 1. The rank is
            None where the channel did not find the document; its cosine is then the lowest of those that were found.
        without: The rank of the document without the model, by plain vectors, from 1; None beyond the first 100, and where an
            adapter alone was asked.
    """

    id: str
    score: float
    channels: Mapping[str, tuple[float, int | None]]
    without: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        channels = {name: {"score": score, "rank": rank} for name, (score, rank) in self.channels.items()}
        return {"id": self.id, "score": self.score, **channels, "without": self.without}


@dataclass(frozen=True)
class Explanation:
    """An account of what a model did to one query, and of how documents are ranked for it.

    `QueryAdapter.explain` and `DeepMemory.explain` return it, and ``str`` of it is meant for people.

    Attributes:
        degrees: The angle between the query and the transformed query, in degrees.
        linear_degrees: How far the linear part alone turned the query, in degrees.
        attention_degrees: How far the attention part then turned the query that the linear part had turned, in degrees.
        influences: The training queries that moved the query most, the strongest first.
        ranking: The weights by which a retriever ranks, as in ``vector + 0.05 words + 0.4 answers(τ=0.1)``; None where the
            adapter alone was asked, and it ranks by the transformed query alone.
        ranking_degrees: How far the retriever's transform turned the query, in degrees; a ranking may have its own transform.
        documents: The documents that rank first, best first. An adapter alone knows the documents of remembered answers.
        votes: The remembered queries behind the answers, the strongest first.

    Example:
        >>> influence = Influence(("q-7",), ("undo a commit",), {"git-revert": 1.0}, similarity=0.81, share=0.9)
        >>> print(Explanation(12.0, 5.0, 8.0, (influence,)))
        moved by 12.0° (linear part 5.0°, attention part 8.0°)
         90.0%  (similarity 0.81)  'undo a commit' → git-revert
    """

    degrees: float
    linear_degrees: float
    attention_degrees: float
    influences: tuple[Influence, ...]
    ranking: str | None = None
    ranking_degrees: float | None = None
    documents: tuple[RankedDocument, ...] = ()
    votes: tuple[Vote, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain JSON values. In them the attention part has its former name, ``memory``."""
        return {
            "degrees": self.degrees,
            "linear_degrees": self.linear_degrees,
            "memory_degrees": self.attention_degrees,
            "influences": [influence.to_json() for influence in self.influences],
            "ranking": self.ranking,
            "ranking_degrees": self.ranking_degrees,
            "documents": [document.to_json() for document in self.documents],
            "votes": [vote.to_json() for vote in self.votes],
        }

    def __str__(self) -> str:
        """Describe the explanation in a few lines for people."""
        linear, attention = f"linear part {self.linear_degrees:.1f}°", f"attention part {self.attention_degrees:.1f}°"
        what = "" if self.ranking is None else "a transform alone: "
        lines = [f"{what}moved by {self.degrees:.1f}° ({linear}, {attention})", *map(str, self.influences)]
        if self.ranking is not None:
            moved = "" if self.ranking_degrees is None else f", with the query moved by {self.ranking_degrees:.1f}°"
            lines.append(f"a retriever ranks by {self.ranking}{moved}")
            lines += self._table()
        if self.votes:
            lines += ["remembered queries behind the answers:", *map(str, self.votes)]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        """Draw a row for each document: its score, score and rank in each channel that counts, and the rank without a model."""
        if not self.documents:
            return []
        names = list(self.documents[0].channels)
        width = max(len("document"), *(len(document.id) for document in self.documents))
        compared = any(document.without is not None for document in self.documents)
        head = f"     {'document':<{width}}{'score':>9}" + "".join(f"{name:>17}" for name in names)
        lines = [head + f"{'without':>10}" * compared]
        for place, document in enumerate(self.documents, start=1):
            cells = "".join(f"{document.channels[name][0]:>10.3f}{_rank(document.channels[name][1]):>7}" for name in names)
            before = f"{_rank(document.without):>10}" * compared
            lines.append(f"{place:>3}  {document.id:<{width}}{document.score:>9.3f}{cells}{before}")
        return lines


def _rank(rank: int | None) -> str:
    return "–" if rank is None else f"#{rank}"
