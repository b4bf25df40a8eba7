"""The nodes of a LlamaIndex index: read from its store, or taken from its docstore or the caller and embedded again."""

from collections.abc import Iterable, Mapping
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode, MetadataMode, QueryBundle
from llama_index.core.vector_stores.types import FilterCondition, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.corpora.corpus import Corpus, CorpusView, GivenCorpus, HasCorpus, check_metric
from deepmem_integrations.corpora.llama_index_stores import KINDS, NodesCorpus, measure, metric_of
from deepmem_integrations.corpora.stores import kind_of
from deepmem_integrations.embedding import untransformed
from deepmem_integrations.errors import StoreError


def search_ids(index: VectorStoreIndex, id_key: str | None, filter: MetadataFilters | None, vector: Vectors, k: int) -> list[str]:
    """Return the names of the k nodes that the index's own retriever finds for a query vector, best first.

    Args:
        index: The index.
        id_key: The metadata key that names nodes; None where their ids do.
        filter: The filters that the nodes have to pass; None for all nodes.
        vector: (d,) float32, the query vector.
        k: How many nodes to find.
    """
    retriever = index.as_retriever(similarity_top_k=k, filters=filter)
    nodes = [one.node for one in retriever.retrieve(QueryBundle("", embedding=vector.tolist()))]
    return [node.node_id if id_key is None else str(node.metadata[id_key]) for node in nodes]


def read_index(
    index: VectorStoreIndex,
    nodes: Iterable[BaseNode] | None,
    *,
    embed_model: BaseEmbedding | None = None,
    id_key: str | None = None,
    metric: str | None = None,
    filter: MetadataFilters | None = None,
) -> tuple[Corpus, BaseEmbedding]:
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
    if filter is not None and not isinstance(filter, MetadataFilters):
        raise StoreError(f"A filter of LlamaIndex is a MetadataFilters; got {type(filter).__name__}.")
    check_metric(metric)
    model: BaseEmbedding = untransformed(embed_model or index._embed_model)
    corpus = _corpus(index, nodes, model, metric)
    if filter is None and id_key is None:
        return corpus, model

    def view(node: BaseNode) -> BaseNode | None:
        if filter is not None and not passes(filter, node.metadata):
            return None
        return node if id_key is None else _named(node, id_key)

    return CorpusView(corpus, view), model


def _corpus(index: VectorStoreIndex, nodes: Iterable[BaseNode] | None, model: BaseEmbedding, metric: str | None) -> Corpus:
    store = index.vector_store
    if nodes is None:
        if isinstance(store, HasCorpus):
            return store.corpus()
        kind = kind_of(store, KINDS)
        if kind is not None:
            return KINDS[kind](index, metric)
        if NodesCorpus.reads(store):
            return NodesCorpus(index, metric)
        nodes = index.docstore.get_nodes(list(index.index_struct.nodes_dict.values()))
        if not nodes:
            raise StoreError(
                f"The nodes of a {type(store).__name__} cannot be listed here. Pass the nodes: from_llama_index(…, nodes=[…]). "
                f"Nodes can be listed in DeepLakeVectorStore, {', '.join(KINDS)}, in every store whose get_nodes() returns all "
                "nodes, and in every index whose docstore keeps them."
            )
    measure(index, metric)
    nodes = list(nodes)
    # LlamaIndex embeds a node's text together with the metadata that is meant for embedding.
    texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
    names = [node.node_id for node in nodes]
    return GivenCorpus(nodes, names, texts, model, metric or metric_of(index), type(store).__name__)


def passes(filters: MetadataFilters, metadata: Mapping[str, Any]) -> bool:
    """Tell whether metadata passes filters, nested to any depth, as LlamaIndex's own store in memory understands them.

    Raises:
        StoreError: A filter cannot compare with the metadata.
    """
    found = [passes(part, metadata) if isinstance(part, MetadataFilters) else _passes(part, metadata) for part in filters.filters]
    if filters.condition == FilterCondition.OR:
        return any(found)
    if filters.condition == FilterCondition.NOT:
        return not any(found)
    return all(found)


def _passes(part: MetadataFilter, metadata: Mapping[str, Any]) -> bool:
    try:
        return build_metadata_filter_fn(lambda _: metadata, MetadataFilters(filters=[part]))("")
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"The filter on {part.key!r} cannot compare {metadata.get(part.key)!r} with {part.value!r} ({error})."
        ) from error


def _named(node: BaseNode, id_key: str) -> BaseNode:
    """Return a node with the id that names it."""
    name = node.metadata.get(id_key)
    if name is None:
        raise StoreError(
            f"The node {node.node_id!r} has no {id_key!r} in its metadata, which names documents (id_key); its keys are: "
            f"{', '.join(map(repr, node.metadata)) or 'none'}."
        )
    return node.model_copy(update={"id_": str(name)})
