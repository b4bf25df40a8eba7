"""The search by words of a Deep Lake data set."""

from typing import Any

from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.deeplake import Filter as MetadataFilter
from deepmem_integrations.deeplake.tql import literal
from deepmem_integrations.errors import StoreError
from deepmem_integrations.words.lexical_search import Filter, Found, check_search
from deepmem_integrations.words.stores.filtered import Scored, filtered


class DeepLakeWords:
    """The BM25 search of a Deep Lake v4 data set. Documents that are added later are found, too.

    Deep Lake ranks by BM25 and keeps the scores to itself, so a document's score is 1 / rank.

    Args:
        store: A `DeepLakeStore`, or a vector store of LangChain or LlamaIndex that has one as ``store``.
        metadata: Metadata that documents must have, which Deep Lake checks itself.

    Raises:
        StoreError: ``store`` is no Deep Lake store.
    """

    def __init__(self, store: Any, metadata: MetadataFilter | None = None) -> None:
        inner = store if isinstance(store, DeepLakeStore) else getattr(store, "store", None)
        if not isinstance(inner, DeepLakeStore):
            raise StoreError(
                f"A search by words needs a Deep Lake store of deepmem_integrations; got {type(store).__name__}. "
                "For other stores, index the texts: WordIndex.build(folder, documents)."
            )
        self.store = inner
        self.metadata = metadata

    def is_ready(self) -> bool:
        """Tell whether the data set is there and has a text index."""
        try:
            return bool(len(self.store)) and self.search("a", 1) is not None
        except StoreError:
            return False

    def search(self, text: str, k: int, filter: Filter | None = None) -> Found:
        """Return the k best documents for a text.

        Args:
            text: The words to look for.
            k: At least 1.
            filter: Which documents may be found, by id.

        Raises:
            StoreError: The data set has no text index; `DeepLakeStore.create_text_index` makes one.
        """
        check_search(text, k)
        return filtered(lambda limit: self._fetch(text, limit), k, filter)

    def _fetch(self, text: str, limit: int) -> Scored:
        layout = self.store.layout
        order = f"ORDER BY BM25_SIMILARITY({layout.text}, {literal(text)}) DESC LIMIT {int(limit)}"
        found = self.store.query(f"SELECT * {self.store.where(self.metadata)} {order}")
        return [(document.id, 1 / rank) for rank, document in enumerate(found, start=1)]
