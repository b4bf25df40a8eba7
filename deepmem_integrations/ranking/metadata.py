"""`Metadata`: the metadata of a document together with the evidence for its place in a ranking."""

from collections.abc import Mapping
from typing import Any

EVIDENCE = "deepmem"
"""The key of the metadata that holds the evidence."""


class _Evidence(dict[str, Any]):
    """Evidence, which equals all other evidence, so that documents whose metadata were copied into a plain dict stay equal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Evidence) or super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other


class Metadata(dict[str, Any]):
    """The metadata of a document or a node, with the evidence for its place under ``"deepmem"``.

    Evidence belongs to one query, and a document that two queries find is one document. Chains recognise it by comparing
    documents (LangChain's ``MultiQueryRetriever``) or by a hash of ``str(metadata)`` (LlamaIndex's ``QueryFusionRetriever``). So
    a comparison and ``str`` leave the evidence out. ``repr`` shows it.

    Example:
        >>> first, second = (Metadata({"page": 3, "deepmem": {"score": score}}) for score in (0.9, 0.4))
        >>> first["deepmem"], first == second == {"page": 3}, str(first)
        ({'score': 0.9}, True, "{'page': 3}")
    """

    @classmethod
    def with_evidence(cls, metadata: Mapping[str, Any], evidence: Mapping[str, Any]) -> "Metadata":
        """Return metadata with more evidence than they hold already.

        Example:
            >>> Metadata.with_evidence({"page": 3, "deepmem": {"score": 0.9}}, {"query_id": "7"})["deepmem"]
            {'score': 0.9, 'query_id': '7'}
        """
        held = metadata.get(EVIDENCE)
        return cls({**metadata, EVIDENCE: _Evidence({**(held if isinstance(held, Mapping) else {}), **evidence})})

    def __eq__(self, other: object) -> bool:
        """Compare all but the evidence."""
        return isinstance(other, dict) and _bare(self) == _bare(other)

    def __ne__(self, other: object) -> bool:
        """Compare all but the evidence."""
        return not self == other

    def __str__(self) -> str:
        """Write all but the evidence."""
        return str(_bare(self))


def _bare(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name != EVIDENCE}
