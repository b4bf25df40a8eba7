"""`Explanation`: how far each part of an adapter turned a query, and which training queries moved the query."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Influence:
    """The influence of a training query, or of several with the same vector, on a query that an adapter transformed.

    Attributes:
        query_ids: The ids of the training queries.
        texts: The texts of the training queries; empty if the adapter keeps no texts.
        documents: Document id → weight of the documents that answer the training queries.
        similarity: The cosine between the training queries and the query, −1 to 1, in the centred and whitened kernel space.
        share: The share of the training queries in the attention part's movement, along its direction. Over all training
            queries the shares add up to 1.
    """

    query_ids: tuple[str, ...]
    texts: tuple[str, ...]
    documents: Mapping[str, float]
    similarity: float
    share: float

    def __str__(self) -> str:
        """Describe the influence in one line."""
        name = " | ".join(repr(text) for text in self.texts) or ", ".join(self.query_ids)
        return f"{100 * self.share:5.1f}%  (similarity {self.similarity:.2f})  {name} → {', '.join(self.documents)}"


@dataclass(frozen=True)
class Explanation:
    """An account of what an adapter did to one query. `QueryAdapter.explain` returns it, and ``str`` of it is meant for people.

    Attributes:
        degrees: The angle between the query and the transformed query, in degrees.
        linear_degrees: How far the linear part alone turned the query, in degrees.
        attention_degrees: How far the attention part then turned the query that the linear part had turned, in degrees.
        influences: The training queries that moved the query most, the strongest first.

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

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain JSON values. In them the attention part has its former name, ``memory``."""
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
        """Describe the explanation in a few lines for people."""
        linear, attention = f"linear part {self.linear_degrees:.1f}°", f"attention part {self.attention_degrees:.1f}°"
        return "\n".join([f"moved by {self.degrees:.1f}° ({linear}, {attention})", *map(str, self.influences)])
