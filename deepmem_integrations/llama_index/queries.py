"""Queries whose embedding has been transformed, marked so that this package does not transform them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.embeddings.base import mean_agg
from llama_index.core.schema import QueryBundle

from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.errors import InvalidVectorsError
from deepmem_integrations.serving import ServedAdapter, TransformedVector


@dataclass
class TransformedQueryBundle(QueryBundle):
    """A query whose embedding has been transformed."""


class OnlyThese(list[str]):
    """Ids of nodes to which a search is restricted. An index passes the ids of the nodes that it knows in the same place."""


def is_transformed(query_bundle: QueryBundle) -> bool:
    """Tell whether the query carries an embedding that this package has transformed."""
    # LlamaIndex makes new bundles from a query, and these keep the same vector object.
    return isinstance(query_bundle, TransformedQueryBundle) or isinstance(query_bundle.embedding, TransformedVector)


def given(query_bundle: QueryBundle) -> list[list[float]] | None:
    """Return the embedding that the caller put into the bundle, as a list of one vector, or None without one."""
    return None if query_bundle.embedding is None else [query_bundle.embedding]


def mean_of_transformed(vectors: Sequence[Sequence[float]], served: ServedAdapter, model: Any) -> TransformedVector:
    """Transform each of a query's vectors and take their mean, of length 1.

    Args:
        vectors: (n, d), the vectors of the query's embedding strings.
        served: The adapter to transform with.
        model: The embedding model that the vectors come from, which is checked; None where it is unknown.

    Returns:
        (d,) of length 1; the plain mean, as LlamaIndex takes it, where queries are served plain.

    Raises:
        InvalidVectorsError: There is no vector, a vector is not finite, or the transformed vectors cancel out.
        EmbeddingMismatchError: The adapter was trained with another embedding model, or for another dimension.
    """
    check_vectors(vectors)
    adapter = served.serving(model, len(vectors[0]))
    if adapter is None:
        return TransformedVector(mean_agg([list(vector) for vector in vectors]) if len(vectors) > 1 else vectors[0])
    moved = adapter.transform(vectors)
    if len(moved) > 1:
        moved = unit_rows(moved.mean(axis=0)[None], "mean of the query vectors")
    return TransformedVector(moved[0].tolist())


def transformed(
    query_bundle: QueryBundle, vectors: Sequence[Sequence[float]], served: ServedAdapter, model: Any
) -> TransformedQueryBundle:
    """Return a copy of the query with its transformed embedding: see `mean_of_transformed`."""
    return with_embedding(query_bundle, mean_of_transformed(vectors, served, model))


def with_embedding(query_bundle: QueryBundle, vector: TransformedVector) -> TransformedQueryBundle:
    """Return a copy of the query with a transformed embedding."""
    return TransformedQueryBundle(
        query_bundle.query_str,
        image_path=query_bundle.image_path,
        custom_embedding_strs=query_bundle.custom_embedding_strs,
        embedding=vector,
    )


def check_vectors(vectors: Sequence[Sequence[float]]) -> None:
    """Refuse a query without vectors.

    Raises:
        InvalidVectorsError: There is no vector.
    """
    if not len(vectors):
        raise InvalidVectorsError("The query has neither a text nor an embedding: there is nothing to search for.")
