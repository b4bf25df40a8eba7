"""Explain what a model does to one query."""

import heapq
import logging
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.adapter import Explanation, RankedDocument, degrees
from deepmem_integrations.corpora import unit_batches
from deepmem_integrations.errors import InvalidVectorsError, StoreError
from deepmem_integrations.evaluation import FETCHED
from deepmem_integrations.memory.base import MemoryBase
from deepmem_integrations.ranking import RankedQuery, Ranker, Shortlist

_logger = logging.getLogger(__name__)


class ExplanationMixin(MemoryBase):
    """The method of a `DeepMemory` that explains."""

    def explain(self, query: str, top: int = 5) -> Explanation:
        """Tell what the model in use does to a query, and what vectors, words and remembered answers bring for it.

        The documents are ranked as a retriever ranks them, beside their ranks without the model. A corpus that can be listed is
        searched exactly, which reads all of its vectors; of any other, the documents that the store finds are embedded again.
        Where the store cannot be read, a warning says so, and the explanation names no documents.

        Args:
            query: What a user would ask.
            top: How many documents, training queries and remembered queries to name at most.

        Raises:
            ModelNotFoundError: No model is in use yet.
            EmbeddingMismatchError: The model was trained with another embedding model.
        """
        adapter = self.adapter
        self.served.check(adapter, self.embedder)
        vector = self.embedder.embed_queries([query])[0]
        explanation = adapter.explain(vector, top)
        ranked = Ranker(self).query(query, vector, adapter=adapter)
        try:
            answers = adapter.answers(vector) if ranked.ranking.answers else ()
            documents = self._ranked_documents(ranked, unit_rows(vector[None], "query vector")[0], answers, top)
        except (StoreError, InvalidVectorsError) as error:
            _logger.warning("The explanation names no documents: %s", error)
            documents = ()
        moved = degrees(unit_rows(vector[None], "query vector"), np.array([ranked.vector], dtype=np.float32))
        return replace(explanation, ranking=str(ranked.ranking), ranking_degrees=moved, documents=documents)

    def _ranked_documents(
        self, query: RankedQuery, plain: Vectors, answers: Collection[str], top: int
    ) -> tuple[RankedDocument, ...]:
        """Rank the documents of the corpus as a retriever does.

        Args:
            query: The query.
            plain: (d,) the untransformed query, of length 1.
            answers: The ids of the documents that remembered queries ask for.
            top: How many documents to return at most.
        """
        vector, fetched = np.array(query.vector, dtype=np.float32), max(top, FETCHED)
        words = query.words(fetched)
        others = {*(words.ids if words else ()), *answers}
        there: set[str] = set()
        found: list[tuple[float, str]] = []
        before: list[tuple[float, str]] = []
        for ids, vectors in unit_batches(self.corpus.around(lambda: np.stack([vector, plain]), fetched, others)):
            there |= others.intersection(ids)
            found = heapq.nsmallest(fetched, [*found, *zip((-(vectors @ vector)).tolist(), ids, strict=True)])
            before = heapq.nsmallest(fetched, [*before, *zip((-(vectors @ plain)).tolist(), ids, strict=True)])
        names, cosines = [name for _, name in found], [-distance for distance, _ in found]
        shortlist: Shortlist[str] = query.rank(names, cosines, words)
        shortlist.add(list(others), {name: name for name in there})  # the others are gone from the store
        without = {name: rank for rank, (_, name) in enumerate(before, start=1)}
        weights = {"vector": 1.0, "words": query.ranking.words, "answers": query.ranking.answers}
        return tuple(
            RankedDocument(
                choice.id,
                choice.score,
                {name: (of.score, of.rank) for name, of in choice.evidence.items() if weights[name]},
                without.get(choice.id),
            )
            for choice in shortlist.choices(top)
        )
