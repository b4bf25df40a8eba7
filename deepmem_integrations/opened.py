"""An open store with its memory, as the command line and the web application search it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepmem_integrations.evaluation import FETCHED
from deepmem_integrations.memory import DeepMemory
from deepmem_integrations.ranking import Choice, RankedQuery, Shortlist


@dataclass(frozen=True)
class Hit:
    """A document that a search found.

    Attributes:
        id: The id of the document.
        text: Its text.
        cosine: Its cosine with the query; None where nobody asked, or the store does not tell.
        metadata: Its metadata.
    """

    id: str
    text: str
    cosine: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


Found = list[Hit]
"""Documents, best first."""
Where = Mapping[str, Sequence[str | int | float | bool]]
"""A filter in the words of no store: metadata key → the values of which a document has one. An empty one forbids nothing."""


@dataclass(frozen=True)
class Opened:
    """An open store.

    Attributes:
        memory: The Deep Memory of the store.
        search: Finds the documents nearest to a vector: (vector, k, whether their cosines are wanted, filter) → documents, best
            first. It raises a StoreError.
        get: Looks documents up: (ids, filter) → documents. Unknown ids are left out, and ids that the filter forbids, or that
            the store cannot look up under it. It raises a StoreError.
    """

    memory: DeepMemory
    search: Callable[[list[float], int, bool, Where], Found]
    get: Callable[[list[str], Where], Found]

    def ranked(self, query: RankedQuery, k: int, where: Where | None = None) -> list[tuple[Hit, Choice]]:
        """Search as a retriever does: by vector and by words, ranked together with remembered answers.

        Args:
            query: The query, as a ranker of the memory makes it.
            k: How many documents to return at most.
            where: Metadata that the documents must have.

        Raises:
            StoreError: The store cannot be searched.
        """
        where = where or {}
        fetched = k if query.vectors_alone else max(k, FETCHED)
        hits = self.search(list(query.vector), fetched, True, where)
        cosines = [hit.cosine for hit in hits if hit.cosine is not None]
        shortlist: Shortlist[Hit] = query.rank(
            [hit.id for hit in hits],
            cosines if len(cosines) == len(hits) else None,
            query.words(fetched),
            {hit.id: hit for hit in hits},
        )
        if query.vectors_alone:
            shortlist.ids = [hit.id for hit in hits]  # rounded cosines must not change the store's order
        while wanted := shortlist.missing(k):
            shortlist.add(wanted, {hit.id: hit for hit in self.get(wanted, where)})
        return shortlist.best(k)
