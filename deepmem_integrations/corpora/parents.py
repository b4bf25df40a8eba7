"""The parents of a corpus's documents, which labels may name by a metadata key."""

from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import Any

from deepmem_integrations._texts import parent_of, parents_by_id
from deepmem_integrations._vectors import Vectors
from deepmem_integrations.corpora.corpus import Batch, Corpus
from deepmem_integrations.errors import StoreError


class CorpusAtLevel:
    """A corpus with what the labels of a level name: the parents of its documents, or the documents themselves.

    Args:
        corpus: The documents.
        level: The metadata key that holds the parents; None where labels name documents.

    Attributes:
        parent_of: Document id → parent, of those documents that have one: of all documents of a corpus that can be listed, and
            otherwise of those that `around` has yielded so far. None where labels name documents.

    Raises:
        StoreError: No document has the key, or the documents cannot be read.
    """

    def __init__(self, corpus: Corpus, level: str | None) -> None:
        self._corpus, self._level = corpus, level
        self.parent_of: dict[str, str] | None = None
        if level is not None:
            listed = corpus.listed
            self.parent_of = parents_by_id(chain.from_iterable(corpus.documents()), level) if listed else {}

    def around(
        self, queries: Callable[[], Vectors], k: int, names: Collection[str], ids: Collection[str] = ()
    ) -> Iterator[Batch]:
        """Yield the documents that training or evaluation on some queries has to rank: see `Corpus.around`.

        Args:
            queries: See there.
            k: How many documents, or parents, to find for each query.
            names: What labels name: documents, or parents, to be yielded in any case.
            ids: The ids of further documents to yield in any case.

        Raises:
            StoreError: See there; or no document that is found has the key.
        """
        if self.parent_of is not None and self._corpus.listed:  # the nearest documents may be of few parents
            yield from self._corpus.vectors()
            return
        if self.parent_of is None:
            yield from self._corpus.around(queries, k, {*names, *ids})
            return
        yield from self._corpus.around(queries, k, ids, parents=names, named_by=self._named)
        if not self.parent_of:
            raise StoreError(
                f"Not one of the documents that the store finds has {self._level!r} in its metadata, which the labels name "
                "parents by (level)."
            )

    def name_of(self, document_id: str) -> str:
        """Return what labels name a document by."""
        return (self.parent_of or {}).get(document_id, document_id)

    def _named(self, document_id: str, document: Any) -> str:
        """Return what labels name a document by that was found now."""
        assert self._level is not None
        assert self.parent_of is not None
        if (parent := parent_of(document, self._level)) is not None:
            self.parent_of[document_id] = parent
        return self.name_of(document_id)
