"""An open store with its memory, as the command line and the web application search it."""

from collections.abc import Callable
from dataclasses import dataclass

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.evaluation import FETCHED
from deepmem_integrations.memory import DeepMemory
from deepmem_integrations.ranking import Choice, Ranker, Shortlist


@dataclass(frozen=True)
class Hit:
    """A document that a search found.

    Attributes:
        id: The id of the document.
        text: Its text.
        cosine: Its cosine with the query; None where nobody asked, or the store does not tell.
    """

    id: str
    text: str
    cosine: float | None = None


Found = list[Hit]
"""Documents, best first."""


@dataclass(frozen=True)
class Opened:
    """An open store.

    Attributes:
        memory: The Deep Memory of the store.
        search: Finds the documents nearest to a vector: (vector, k, whether their cosines are wanted) → documents, best first. It
            raises a StoreError.
        get: Looks documents up by id; unknown ids are left out. It raises a StoreError.
    """

    memory: DeepMemory
    search: Callable[[list[float], int, bool], Found]
    get: Callable[[list[str]], Found]

    def ranked(self, ranker: Ranker, text: str, vector: Vectors, k: int) -> list[tuple[Hit, Choice]]:
        """Search as a retriever does: by vector and by words, ranked together with remembered answers.

        Args:
            ranker: The ranker of the memory.
            text: The query.
            vector: (d,) float32, its untransformed vector.
            k: How many documents to return at most.

        Raises:
            NotTrainedError: No model is in use, and the ranker was told that this is an error.
            StoreError: The store cannot be searched.
        """
        query = ranker.query(text, vector, self.memory.embedder)
        fetched = k if query.vectors_alone else max(k, FETCHED)
        hits = self.search(list(query.vector), fetched, True)
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
            shortlist.add(wanted, {hit.id: hit for hit in self.get(wanted)})
        return shortlist.best(k)
