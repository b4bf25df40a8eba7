"""The full-text search of Milvus: BM25, by a function of the collection."""

from typing import Any

from deepmem_integrations.corpora.stores import kind_of
from deepmem_integrations.errors import StoreError
from deepmem_integrations.words.stores.filtered import Scored, StoreSearch

KINDS = ("langchain_milvus.Milvus", "langchain_milvus.Zilliz", "llama_index.MilvusVectorStore")

_MOST = 16_384
"""Milvus returns no more documents than these."""


class MilvusWords(StoreSearch):
    """The BM25 search of a Milvus collection. Documents that are added later are found, too.

    The collection needs a BM25 function, which makes a sparse vector of every text: LangChain's
    ``Milvus(…, builtin_function=BM25BuiltInFunction(), vector_field=["dense", "sparse"])``, or LlamaIndex's
    ``MilvusVectorStore(…, enable_sparse=True)``. Milvus finds up to 16,384 documents. Milvus Lite searches in the same way, but
    counts how rare a word is in each of its segments apart, and among the documents that a filter lets pass alone.

    Args:
        store: LangChain's ``Milvus``, or LlamaIndex's ``MilvusVectorStore``.
        metadata: A condition in Milvus's language of expressions, such as ``'lang == "en"'``, which Milvus checks.

    Raises:
        StoreError: The store is no Milvus store.
    """

    def __init__(self, store: Any, metadata: str | None = None) -> None:
        if kind_of(store, KINDS) is None:
            raise StoreError(
                f"A search by words in Milvus needs a store among {', '.join(KINDS)}; got {type(store).__name__}. "
                "For other stores, index the texts: WordIndex.build(folder, documents)."
            )
        self.store = store
        self.metadata = metadata

    def is_ready(self) -> bool:
        """Tell whether the collection is there and has a BM25 function."""
        client, name = self.store.client, self.store.collection_name
        return bool(client.has_collection(name)) and _bm25_field(client.describe_collection(name)) is not None

    def fetch(self, text: str, limit: int, ids: list[str] | None) -> Scored:
        """Search in the collection, see `StoreSearch.fetch`."""
        client, collection = self.store.client, self.store.collection_name
        described = client.describe_collection(collection)
        field = _bm25_field(described)
        if field is None:
            raise StoreError(
                f"The Milvus collection {collection!r} has no BM25 function to search words with. Make one with it (LangChain: "
                "builtin_function=BM25BuiltInFunction(); LlamaIndex: enable_sparse=True), or index the texts: "
                "WordIndex.build(folder, documents)."
            )
        key = next(one for one in described["fields"] if one.get("is_primary"))
        conditions = [f"({self.metadata})"] if self.metadata else []
        if ids is not None and (keys := _keys(ids, is_number=key["type"].name.startswith("INT"))):
            conditions.append(f"{key['name']} in {keys}")
        found = client.search(
            collection,
            data=[text],
            anns_field=field,
            search_params={"metric_type": "BM25"},
            filter=" and ".join(conditions),
            limit=min(limit, _MOST),
            output_fields=[key["name"]],
        )
        # Milvus Lite gives the scores with a minus sign, a server without.
        return [(str(one[key["name"]]), abs(float(one["distance"]))) for one in found[0]]


def _bm25_field(described: Any) -> str | None:
    """Return the name of the field that a BM25 function makes, if there is such a function."""
    for function in described.get("functions") or ():
        if function["type"].name == "BM25":
            return str(function["output_field_names"][0])
    return None


def _keys(ids: list[str], is_number: bool) -> str | None:
    """Write ids as Milvus reads a list; None where it could not read them. Where keys are numbers, other strings are left out."""
    if is_number:
        return str([int(name) for name in ids if name.removeprefix("-").isdecimal() and str(int(name)) == name])
    if any(ord(character) < 32 for name in ids for character in name):
        return None
    quoted = ['"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in ids]
    return f"[{', '.join(quoted)}]"
