"""The nodes of a LlamaIndex index: read from its store, or taken from its docstore or the caller and embedded again."""

from collections.abc import Iterable

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode, MetadataMode

from deepmem_integrations.corpora.corpus import Corpus, GivenCorpus, HasCorpus
from deepmem_integrations.corpora.llama_index_stores import KINDS, check_lengths
from deepmem_integrations.corpora.stores import kind_of
from deepmem_integrations.embedding import untransformed
from deepmem_integrations.errors import StoreError


def read_index(index: VectorStoreIndex, nodes: Iterable[BaseNode] | None) -> tuple[Corpus, BaseEmbedding]:
    """Return the corpus and the embedding model of an index: see `DeepMemory.from_llama_index`.

    Raises:
        StoreError: The argument is no vector index, or its store has no reader and its docstore is empty.
        EmbeddingError: This package's own wrapper of the embedding model lies inside another tool's wrapper.
    """
    if not isinstance(index, VectorStoreIndex):
        raise StoreError(
            f"from_llama_index takes a VectorStoreIndex; got {type(index).__name__}. Make one from a vector store with "
            "VectorStoreIndex.from_vector_store(vector_store, embed_model=…)."
        )
    model: BaseEmbedding = untransformed(index._embed_model)
    store = index.vector_store
    if nodes is None:
        if isinstance(store, HasCorpus):
            return store.corpus(), model
        kind = kind_of(store, KINDS)
        if kind is not None:
            return KINDS[kind](index), model
        nodes = index.docstore.get_nodes(list(index.index_struct.nodes_dict.values()))
        if not nodes:
            raise StoreError(
                f"The nodes of a {type(store).__name__} cannot be listed here. Pass the nodes: from_llama_index(…, nodes=[…]). "
                f"Nodes can be listed in DeepLakeVectorStore, {', '.join(KINDS)}, and in every index whose docstore keeps them."
            )
    check_lengths(index)
    nodes = list(nodes)
    # LlamaIndex embeds a node's text together with the metadata that is meant for embedding.
    texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
    return GivenCorpus(nodes, [node.node_id for node in nodes], texts, model), model
