"""Which training queries moved a query, and how far each part of the adapter turned it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Influence:
    """A training query, or several with the same vector, that moved a query.

    Attributes:
        query_ids: The ids of the training queries.
        texts: Their texts; empty where the adapter does not keep texts.
        documents: Document id → weight of the documents that the training queries point to.
        similarity: The similarity of the two queries, −1 to 1, in the centred and whitened kernel space.
        share: The share of the attention part's movement, along its direction. Over all training queries the shares add up to 1.
    """

    query_ids: tuple[str, ...]
    texts: tuple[str, ...]
    documents: Mapping[str, float]
    similarity: float
    share: float

    def __str__(self) -> str:
        """Say it in one line."""
        name = " | ".join(repr(text) for text in self.texts) or ", ".join(self.query_ids)
        return f"{100 * self.share:5.1f}%  (similarity {self.similarity:.2f})  {name} → {', '.join(self.documents)}"


@dataclass(frozen=True)
class Explanation:
    """What an adapter did to one query.

    Attributes:
        degrees: The angle between the query and the transformed query.
        linear_degrees: How far the linear part alone turned the query.
        attention_degrees: How far the attention part turned it from there.
        influences: The training queries that moved the query most, the strongest first.
    """

    degrees: float
    linear_degrees: float
    attention_degrees: float
    influences: tuple[Influence, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values. The attention part has its former name in them, ``memory``."""
        return {
            "degrees": self.degrees,
            "linear_degrees": self.linear_degrees,
            "memory_degrees": self.attention_degrees,
            "influences": [
                {
                    "query_ids": list(influence.query_ids),
                    "texts": list(influence.texts),
                    "documents": dict(influence.documents),
                    "similarity": influence.similarity,
                    "share": influence.share,
                }
                for influence in self.influences
            ],
        }

    def __str__(self) -> str:
        """Say it in a few lines for people."""
        linear, attention = f"linear part {self.linear_degrees:.1f}°", f"attention part {self.attention_degrees:.1f}°"
        return "\n".join([f"moved by {self.degrees:.1f}° ({linear}, {attention})", *map(str, self.influences)])
