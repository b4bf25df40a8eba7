"""Queries whose embedding has been transformed, marked so that nothing of ours transforms them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import QueryBundle

from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.errors import InvalidVectorsError
from deepmem_integrations.serving import ServedAdapter, TransformedVector


@dataclass
class TransformedQueryBundle(QueryBundle):
    """A query whose embedding has been transformed."""


def is_transformed(query_bundle: QueryBundle) -> bool:
    """Whether the query carries an embedding that this package has transformed."""
    # LlamaIndex makes new bundles on its way, which keep the very vector.
    return isinstance(query_bundle, TransformedQueryBundle) or isinstance(query_bundle.embedding, TransformedVector)


def given(query_bundle: QueryBundle) -> list[list[float]] | None:
    """The embedding that the caller put into the bundle, if any."""
    return None if query_bundle.embedding is None else [query_bundle.embedding]


def mean_of_transformed(vectors: Sequence[Sequence[float]], served: ServedAdapter, model: Any) -> TransformedVector:
    """Transform each of a query's vectors and take their mean, of length 1.

    Args:
        vectors: (n, d), of the query's embedding strings.
        served: The adapter.
        model: The embedding model they come from, to be checked; None where it is not known.

    Raises:
        InvalidVectorsError: There is no vector, or one that is not finite, or they cancel out.
        EmbeddingMismatchError: Another dimension, or another model than that of the training.
    """
    if not len(vectors):
        raise InvalidVectorsError("The query has neither a text nor an embedding: there is nothing to search for.")
    moved = served.apply(vectors, model)
    if len(moved) > 1:
        moved = unit_rows(moved.mean(axis=0)[None], "mean of the query vectors")
    return TransformedVector(moved[0].tolist())


def transformed(
    query_bundle: QueryBundle, vectors: Sequence[Sequence[float]], served: ServedAdapter, model: Any
) -> TransformedQueryBundle:
    """The query with its transformed embedding; the caller's bundle is left alone. See `mean_of_transformed`."""
    return TransformedQueryBundle(
        query_bundle.query_str,
        image_path=query_bundle.image_path,
        custom_embedding_strs=query_bundle.custom_embedding_strs,
        embedding=mean_of_transformed(vectors, served, model),
    )
