"""The vectors of the documents, for everything that compares vectors: coverage, pairs, near-duplicates and the round trip."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, nearest, unit_rows
from deepmem_integrations.corpora import read_corpus
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.sources import HasDocuments, Source

_SAME_TEXT = 0.95  # two documents whose vectors have this cosine or more say the same


class DocumentVectors:
    """The vectors of a corpus and the embedding model that made them.

    Args:
        embedder: The embedding model.
        ids: The ids of the N documents.
        vectors: (N, d) float32 unit rows.

    Attributes:
        rows: Document id → row number.
        ids: A tuple of N ids.
        vectors: (N, d) float32 unit rows.
    """

    def __init__(self, embedder: Embedder, ids: Sequence[str], vectors: Vectors) -> None:
        self._embedder = embedder
        self.ids = tuple(ids)
        self.rows = {name: row for row, name in enumerate(self.ids)}
        self.vectors = vectors

    @classmethod
    def of(cls, sources: Sequence[Source], embedding: Any, *, progress: bool) -> "DocumentVectors":
        """Embed the documents, or read the vectors of a `DeepMemory` from its store where the store can be listed.

        Raises:
            GenerationError: A document is not in the store of the `DeepMemory`.
        """
        if isinstance(embedding, HasDocuments) and embedding.corpus.listed:
            ids, vectors = read_corpus(embedding.corpus.vectors())
            stored = cls(embedding.embedder, ids, vectors)
            for source in sources:
                if source.id not in stored.rows:
                    raise GenerationError(
                        f"The document {source.id!r} is not in the store, so no label may name it. "
                        "Pass the store's own documents (memory.documents())."
                    )
            return stored
        embedder = embedding.embedder if isinstance(embedding, HasDocuments) else Embedder.of(embedding)
        texts = [f"{source.title} {source.text}".strip() for source in sources]
        vectors = embedder.embed_documents(texts, progress="Embedding documents" if progress else None)
        ids = [source.id for source in sources]
        return cls(embedder, ids, unit_rows(vectors, "document vector", ids=ids) if ids else vectors)

    def of_sources(self, sources: Sequence[Source]) -> Vectors:
        """Return the vectors of these documents, (n, d) float32."""
        return self.vectors[[self.rows[source.id] for source in sources]]

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Embed queries as (n, d) float32 unit rows."""
        return unit_rows(self._embedder.embed_queries(texts), "query vector")

    def nearest(self, queries: Vectors, k: int) -> NDArray[np.int64]:
        """Return the row numbers of the k documents nearest to each query, (n, k) int64, best first."""
        return nearest(queries, self.vectors, k)

    def partner(self, source: Source, among: dict[str, Source]) -> Source | None:
        """Return the nearest other document that does not say the same, or None where the ten nearest rows hold none."""
        own = self.rows[source.id]
        for row in self.nearest(self.vectors[[own]], 10)[0]:
            other = among.get(self.ids[row])
            if row != own and other is not None and float(self.vectors[row] @ self.vectors[own]) < _SAME_TEXT:
                return other
        return None
