"""Pools: for each query the documents that several rankings find first, which are the documents to judge."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, zip_longest
from typing import Any, Protocol

import numpy as np

from deepmem_integrations._vectors import Vectors, nearest
from deepmem_integrations.corpora import Corpus, id_and_text, read_corpus
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.feedback import unrecorded
from deepmem_integrations.generation.sources import Source, sources_of
from deepmem_integrations.labels import Relevance
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.ranking import Ranker, Shortlist
from deepmem_integrations.words import search_words

Ranked = Callable[[str], Iterable[Any]]
"""A ranking: a function from a query to documents, best first, in any form that `sources_of` takes."""


class Rankable(Protocol):
    """What a pool needs of a `DeepMemory`: its documents, its embedding model and the model in use."""

    @property
    def corpus(self) -> Corpus:
        """The documents with their vectors."""
        ...

    @property
    def embedder(self) -> Embedder:
        """The embedding model."""
        ...

    @property
    def folder(self) -> ModelFolder:
        """The models."""
        ...

    def documents(self) -> list[Any]:
        """Return all documents with their ids."""
        ...


@dataclass(frozen=True)
class Pool:
    """A query with the documents to judge.

    Attributes:
        query_id: The id of the query.
        query: The text of the query.
        sources: The documents, the first of all rankings first.
        generated: Whether a language model wrote the query.
        time: When the query was asked, or None.
    """

    query_id: str
    query: str
    sources: tuple[Source, ...]
    generated: bool = False
    time: datetime | None = None


def memory_rankings(memory: Rankable, queries: Sequence[str], depth: int) -> list[list[list[str]]]:
    """Rank the documents of a memory's store for each query: by plain vectors, by words, and by the model in use.

    Words and the model are left out where there are none.

    Returns:
        For each ranking and each query the ids of the first documents.
    """
    ids, vectors = read_corpus(memory.corpus.vectors())
    embedded = memory.embedder.embed_queries(list(queries))
    rankings = [_names(ids, nearest(embedded, vectors, depth))]
    ranker = Ranker(memory, untrained="plain")
    if (search := ranker.lexical_search) is not None:
        rankings.append([search_words(search, query, depth).ids for query in queries])
    if (adapter := ranker.served.serving(memory.embedder)) is not None:
        rankings.append(
            [
                _ranked(ranker, query, vector, adapter, ids, vectors, depth)
                for query, vector in zip(queries, embedded, strict=True)
            ]
        )
    return rankings


def _ranked(
    ranker: Ranker, text: str, vector: Vectors, adapter: Any, ids: Sequence[str], vectors: Vectors, depth: int
) -> list[str]:
    query = ranker.query(text, vector, adapter=adapter)
    transformed = np.array(query.vector, dtype=np.float32)
    rows = nearest(transformed[None], vectors, 10 * depth)[0]
    shortlist: Shortlist[str] = query.rank(
        [ids[row] for row in rows.tolist()], vectors[rows] @ transformed, query.words(10 * depth)
    )
    return shortlist.ids[:depth]


def _names(ids: Sequence[str], rows: Any) -> list[list[str]]:
    return [[ids[row] for row in found] for found in rows.tolist()]


def pools_of(labels: Relevance, rankings: Sequence[Ranked], memory: Any, documents: dict[str, Source], depth: int) -> list[Pool]:
    """Pool the first documents of all rankings for each query.

    Args:
        labels: The queries. Their judgements make no difference.
        rankings: Functions from a query to documents.
        memory: A `Rankable`, or None.
        documents: Id → the documents of the memory.
        depth: How many documents to take from each ranking.

    Raises:
        GenerationError: A document that a ranking found has no id.
    """
    by_memory = memory_rankings(memory, labels.queries, depth) if memory is not None and len(labels) else []
    pools = []
    for row, query in enumerate(labels.queries):
        with unrecorded():
            ranked = [list(islice(_once(ranking(query)), depth)) for ranking in rankings]
        found = [[documents[name] for name in ranking[row] if name in documents] for ranking in by_memory]
        found += map(sources_of, ranked)
        pool = {source.id: source for tier in zip_longest(*found) for source in tier if source is not None}
        pools.append(Pool(labels.query_ids[row], query, tuple(pool.values()), labels.generated[row], labels.times[row]))
    return pools


def _once(documents: Iterable[Any]) -> Iterator[Any]:
    """Yield each document where it comes first: a search of parts of pages, or of several stores, may find one twice."""
    seen: set[str] = set()
    for document in documents:
        name = (id_and_text(document) or (None,))[0]
        if name is None or name not in seen:
            yield document
        if name is not None:
            seen.add(name)


def sample_pools(sample: Relevance, documents: dict[str, Source]) -> list[Pool]:
    """Pool, for each query of a sample, the documents that people judged.

    Raises:
        GenerationError: None of these documents is known, or people judged parents.
    """
    if sample.level is not None:
        raise GenerationError(
            f"sample= names parents, by {sample.level!r}, and a judge reads documents: pass labels of documents."
        )
    wanted: dict[str, dict[str, Source]] = {}
    for query, judged in zip(sample.queries, sample.relevance, strict=True):
        wanted.setdefault(query, {}).update({name: documents[name] for name, _ in judged if name in documents})
    pools = [Pool(str(row), query, tuple(found.values())) for row, (query, found) in enumerate(wanted.items())]
    if not any(pool.sources for pool in pools):
        raise GenerationError(
            "Not one document of sample= is known, so the judge cannot judge it. Pass memory=, or the documents as documents=."
        )
    return pools
