"""Every kind of store for real: its scores as cosines, its lookups by id, and what a filter forbids."""

import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.corpora.langchain_search import SCORED
from deepmem_integrations.corpora.langchain_stores import check_lengths
from deepmem_integrations.deeplake.tql import Condition, is_in
from deepmem_integrations.errors import StoreError
from deepmem_integrations.langchain import DeepLake, DeepMemoryRetriever
from deepmem_integrations.langchain.stores import StoreAccess, store_access
from deepmem_integrations.ranking import Ranker
from deepmem_integrations.words import WordIndex
from tests.langchain.helpers import remembering
from tests.langchain.opening import in_duckdb, in_lancedb, in_milvus, in_sklearn, in_sqlitevec

pytestmark = [
    # langchain-chroma reads the configuration of its own collections.
    pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Passing a list to DataFrame.from_dict is deprecated"),  # DuckDB's store
]

WORDS = "amber birch coral delta ember fjord grove heron".split()
DIMENSION = 32  # as in other tests: in one process, all of PGVector has one dimension
COUNT = 40
RNG = np.random.default_rng(3)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


VECTORS = unit(RNG.normal(size=(COUNT, DIMENSION)))
IDS = [str(uuid.uuid5(uuid.NAMESPACE_URL, str(row))) for row in range(COUNT)]
TEXTS = [" ".join([f"number{row}", *RNG.choice(WORDS, size=3)]) for row in range(COUNT)]
METADATA = [{"half": row % 2, "third": row % 3, "name": IDS[row], "number": row} for row in range(COUNT)]
GONE = IDS[35:]
"""Documents that are deleted from the store, and that words and answers still know."""
HERE = IDS[:35]
QUERIES = unit(RNG.normal(size=(6, DIMENSION)))


class Fixed(Embeddings):
    """The vectors of the documents, in another length, and of the queries ``question 0`` to ``question 5``."""

    def __init__(self, length=1.0) -> None:
        self.vectors = dict(zip(TEXTS, length * VECTORS, strict=True))
        self.vectors |= {f"question {row} {word}": vector for row, vector in enumerate(QUERIES) for word in WORDS}
        self.vectors["This is a dummy text"] = QUERIES[0]  # by which SQLiteVec learns the dimension

    def embed_query(self, text):
        return self.vectors[text].tolist()

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


@dataclass(frozen=True)
class Asked:
    """A filter: for each key the values that pass; all keys must pass, or one of them."""

    keys: dict[str, list[int]]
    any: bool = False

    def __call__(self, metadata):
        return (any if self.any else all)(metadata[key] in values for key, values in self.keys.items())


def as_function(asked):
    return lambda document: asked(document.metadata)


def as_operators(asked):
    conditions = [{key: {"$in": values}} for key, values in asked.keys.items()]
    return conditions[0] if len(conditions) == 1 else {"$or" if asked.any else "$and": conditions}


def as_metadata(asked):
    if asked.any:
        return Condition(" OR ".join(is_in(f"metadata['{key}']", values) for key, values in asked.keys.items()))
    return asked.keys


def as_qdrant(asked):
    from qdrant_client import models

    conditions = [
        models.FieldCondition(key=f"metadata.{key}", match=models.MatchAny(any=values)) for key, values in asked.keys.items()
    ]
    return models.Filter(should=conditions) if asked.any else models.Filter(must=conditions)


def as_lance(asked):
    conditions = [f"metadata.{key} IN ({', '.join(map(str, values))})" for key, values in asked.keys.items()]
    return (" OR " if asked.any else " AND ").join(conditions)


def as_milvus(asked):
    return (" or " if asked.any else " and ").join(f"{key} in {values}" for key, values in asked.keys.items())


@dataclass
class Kind:
    """A kind of store with one of its metrics."""

    open: Any
    filter: Any
    length: float = 1.0
    slow: bool = True
    fixtures: list[str] = field(default_factory=list)
    option: str = "filter"
    thresholds: bool = True
    deletes: bool = True
    id_key: str | None = None

    def options(self, asked):
        """The options of a search under a filter, and whether each document passes."""
        if asked is None or self.filter is None:
            return {}, lambda _: True
        before = {"prefilter": True} if self.filter is as_lance else {}
        return {self.option: self.filter(asked), **before}, asked


def in_memory(embeddings, folder):
    return InMemoryVectorStore(embeddings)


def in_deeplake(embeddings, folder):
    return DeepLake(folder / "dataset", embedding=embeddings)


def in_faiss(strategy):
    def opened(embeddings, folder):
        import faiss
        from langchain_community.docstore.in_memory import InMemoryDocstore
        from langchain_community.vectorstores import FAISS

        index = faiss.IndexFlatIP(DIMENSION) if strategy == "MAX_INNER_PRODUCT" else faiss.IndexFlatL2(DIMENSION)
        return FAISS(embeddings, index, InMemoryDocstore(), {}, distance_strategy=strategy)

    return opened


def in_chroma(space):
    def opened(embeddings, folder):
        from langchain_chroma import Chroma

        configuration = {"hnsw": {"space": space, "ef_search": 100}}
        return Chroma(f"by-{space}", embeddings, persist_directory=str(folder), collection_configuration=configuration)

    return opened


def in_qdrant(distance):
    def opened(embeddings, folder):
        from langchain_qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient, models

        client = QdrantClient(path=str(folder), force_disable_check_same_thread=True)
        kind = models.Distance[distance]
        client.create_collection("documents", vectors_config=models.VectorParams(size=DIMENSION, distance=kind))
        return QdrantVectorStore(
            client, "documents", embeddings, distance=kind, validate_embeddings=False, validate_collection_config=False
        )

    return opened


def in_pgvector(strategy):
    def opened(embeddings, folder, uri):
        from langchain_postgres import PGVector
        from sqlalchemy import create_engine

        engine = create_engine(uri.replace("postgresql://", "postgresql+psycopg://"))
        return PGVector(
            embeddings,
            connection=engine,
            collection_name="documents",
            pre_delete_collection=True,  # all collections share one table, whose key is the id
            distance_strategy=strategy,
            embedding_length=DIMENSION,
        )

    return opened


def in_pgvectorstore(strategy):
    def opened(embeddings, folder, uri):
        from langchain_postgres import Column, PGEngine, PGVectorStore
        from langchain_postgres.v2.indexes import DistanceStrategy

        engine = PGEngine.from_connection_string(uri.replace("postgresql://", "postgresql+psycopg://"))
        columns = [Column("half", "INTEGER"), Column("third", "INTEGER")]
        engine.init_vectorstore_table("documents", DIMENSION, metadata_columns=columns, overwrite_existing=True)
        return PGVectorStore.create_sync(
            engine,
            embeddings,
            "documents",
            metadata_columns=["half", "third"],
            distance_strategy=DistanceStrategy[strategy],
        )

    return opened


KINDS = {
    "memory": Kind(in_memory, as_function, slow=False),
    "deeplake": Kind(in_deeplake, as_metadata, slow=False),
    "faiss l2": Kind(in_faiss("EUCLIDEAN_DISTANCE"), as_operators),
    "faiss l2 long": Kind(in_faiss("EUCLIDEAN_DISTANCE"), as_operators, length=3.0),
    "faiss dot": Kind(in_faiss("MAX_INNER_PRODUCT"), as_operators),
    "faiss dot long": Kind(in_faiss("MAX_INNER_PRODUCT"), as_operators, length=3.0),
    "chroma cosine": Kind(in_chroma("cosine"), as_operators),
    "chroma l2": Kind(in_chroma("l2"), as_operators, length=0.5),
    "chroma dot": Kind(in_chroma("ip"), as_operators),
    "qdrant cosine": Kind(in_qdrant("COSINE"), as_qdrant),
    "qdrant l2": Kind(in_qdrant("EUCLID"), as_qdrant, length=2.0),
    "qdrant dot": Kind(in_qdrant("DOT"), as_qdrant),
    "pgvector cosine": Kind(in_pgvector("cosine"), as_operators, fixtures=["postgres"]),
    "pgvector l2": Kind(in_pgvector("l2"), as_operators, length=2.0, fixtures=["postgres"]),
    "pgvector dot": Kind(in_pgvector("inner"), as_operators, fixtures=["postgres"]),
    "pgvectorstore cosine": Kind(in_pgvectorstore("COSINE_DISTANCE"), as_operators, fixtures=["postgres"]),
    "pgvectorstore l2": Kind(in_pgvectorstore("EUCLIDEAN"), as_operators, length=2.0, fixtures=["postgres"]),
    "pgvectorstore dot": Kind(in_pgvectorstore("INNER_PRODUCT"), as_operators, fixtures=["postgres"]),
    "milvus l2": Kind(in_milvus, as_milvus, length=2.0, option="expr"),
    "milvus cosine": Kind(partial(in_milvus, metric="COSINE"), as_milvus, length=2.0, option="expr"),
    "milvus dot": Kind(partial(in_milvus, metric="IP"), as_milvus, length=3.0, option="expr"),
    "lancedb": Kind(in_lancedb, as_lance, length=2.0),
    "sqlitevec": Kind(in_sqlitevec, None, thresholds=False, length=3.0, deletes=False, id_key="name"),
    "sklearn": Kind(in_sklearn, None, thresholds=False, length=3.0, deletes=False),
    "sklearn l2": Kind(partial(in_sklearn, metric="euclidean"), None, thresholds=False, length=3.0, deletes=False),
    "duckdb": Kind(in_duckdb, None, thresholds=False, length=3.0, deletes=False),
    "memory by name": Kind(in_memory, as_function, slow=False, id_key="name"),
    "deeplake by name": Kind(in_deeplake, as_metadata, slow=False, id_key="name"),
    "faiss by name": Kind(in_faiss("EUCLIDEAN_DISTANCE"), as_operators, id_key="name"),
    "chroma by name": Kind(in_chroma("cosine"), as_operators, id_key="name"),
    "qdrant by name": Kind(in_qdrant("COSINE"), as_qdrant, id_key="name"),
    "pgvector by name": Kind(in_pgvector("cosine"), as_operators, fixtures=["postgres"], id_key="name"),
    "pgvectorstore by name": Kind(in_pgvectorstore("COSINE_DISTANCE"), as_operators, fixtures=["postgres"], id_key="name"),
    "milvus by name": Kind(in_milvus, as_milvus, option="expr", id_key="name"),
    "lancedb by name": Kind(in_lancedb, as_lance, id_key="name"),
    "sklearn by name": Kind(in_sklearn, None, thresholds=False, deletes=False, id_key="name"),
    "duckdb by name": Kind(in_duckdb, None, thresholds=False, deletes=False, id_key="name"),
}


@dataclass(frozen=True)
class Filled:
    """A store of one kind with the documents that are left after some were deleted, and an index of all words."""

    kind: Kind
    store: Any
    words: WordIndex

    @property
    def access(self):
        return store_access(self.store, Fixed(self.kind.length), self.kind.id_key)

    def retriever(self, **options):
        return DeepMemoryRetriever(vectorstore=self.store, embeddings=Fixed(self.kind.length), id_key=self.kind.id_key, **options)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] if kind.slow else []) for name, kind in KINDS.items()]
)
def filled(request, tmp_path_factory):
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp("store")
    store = kind.open(Fixed(kind.length), folder, *(request.getfixturevalue(name) for name in kind.fixtures))
    count = COUNT if kind.deletes else len(HERE)
    # Where the metadata names documents, the store has ids of its own.
    names = IDS if kind.id_key is None else [str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in IDS]
    columns = list(zip(names, TEXTS, METADATA, strict=True))[:count]
    documents = [Document(id=name, page_content=text, metadata=dict(meta)) for name, text, meta in columns]
    store.add_documents(documents, ids=names[:count])
    if kind.deletes:
        store.delete(names[len(HERE) :])
    yield Filled(kind, store, WordIndex.build(folder / "words", [(IDS, TEXTS)], language="en"))
    if hasattr(store, "client"):
        store.client.close()
    if hasattr(store, "_PGVectorStore__vs"):
        store._engine._run_as_sync(store._engine.close())
    elif hasattr(store, "_engine"):
        store._engine.dispose()


def names(documents):
    return [str(document.id or document.metadata.get("_id")) for document in documents]


def test_scores_become_the_exact_cosines(filled):
    access = filled.access
    assert type(access) is not StoreAccess
    for query in QUERIES:
        found = access.calls.find(access.search_method, query.tolist(), k=35)
        rows = [IDS.index(access.name_of(document)) for document, _ in found]
        assert sorted(rows) == list(range(35))
        cosines = access.cosines([score for _, score in found], {})
        np.testing.assert_allclose(cosines, VECTORS[rows] @ query, atol=2e-6)


ASKED = st.builds(
    Asked,
    st.fixed_dictionaries(
        {},
        optional={
            "half": st.lists(st.integers(0, 1), min_size=1, max_size=2, unique=True),
            "third": st.lists(st.integers(0, 2), min_size=1, max_size=2, unique=True),
        },
    ).filter(bool),
    st.booleans(),
)


def test_whole_numbers_name_documents_as_texts_do(filled):
    if filled.kind.id_key is None:
        pytest.skip("the store's own ids name its documents")
    access = store_access(filled.store, Fixed(filled.kind.length), "number")
    found = access.calls.find(access.search_method, QUERIES[0].tolist(), k=3)
    assert {access.name_of(document) for document, _ in found} < {str(row) for row in range(35)}
    assert access.lookup(["none", "no such"], {}) == {}
    asked = Asked({"half": [1]})
    for options, allowed in (filled.kind.options(None), filled.kind.options(asked)):
        looked_up = access.lookup(["3", "4", "36", "none"], options)
        assert list(looked_up) == [name for name in ("3", "4") if allowed(METADATA[int(name)])]
        assert [document.metadata["number"] for document in looked_up.values()] == [int(name) for name in looked_up]


WEIGHTS = st.sampled_from([0.0, 0.3, 5.0])
MANY = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@MANY
@given(asked=ASKED, ids=st.lists(st.sampled_from([*IDS, "no such id", "7"]), min_size=1, max_size=9, unique=True))
def test_a_lookup_by_ids_finds_what_is_there_and_passes_the_filter(filled, asked, ids):
    if any(name not in IDS for name in ids) and filled.kind.fixtures:
        ids = [name for name in ids if name in IDS] or IDS[:1]  # Postgres refuses what is no UUID
    access = filled.access
    for options, allowed in (filled.kind.options(None), filled.kind.options(asked)):
        assert access.obeys(options)
        found = access.lookup(ids, options)
        assert list(found) == [name for name in ids if name in HERE and allowed(METADATA[IDS.index(name)])]
        assert names(found.values()) == list(found)
        for name, document in found.items():
            row = IDS.index(name)
            assert (document.page_content, document.metadata.items() >= METADATA[row].items()) == (TEXTS[row], True)


@MANY
@given(
    asked=st.none() | ASKED,
    number=st.integers(0, len(QUERIES) - 1),
    word=st.sampled_from(WORDS),
    k=st.integers(1, 12),
    candidates=st.integers(1, 50),
    weights=st.tuples(WEIGHTS, WEIGHTS),
    answers=st.lists(
        st.dictionaries(st.sampled_from(IDS), st.sampled_from([0.5, 1.0]), min_size=1, max_size=4), min_size=6, max_size=6
    ),
    threshold=st.booleans(),
)
async def test_nothing_comes_back_that_the_filter_forbids_whichever_channel_found_it(
    filled, asked, number, word, k, candidates, weights, answers, threshold
):
    """The promise, and the order: that of an exact ranking of the documents that the filter lets through."""
    adapter = remembering(QUERIES, answers, Ranking(1.0, *weights))
    query = f"question {number} {word}"
    options, passes = filled.kind.options(asked)
    allowed = [row for row in range(35) if passes(METADATA[row])]
    threshold = threshold and filled.kind.thresholds
    if threshold:
        options["score_threshold"] = -100.0
    search_type = "similarity_score_threshold" if threshold else "similarity"
    retriever = filled.retriever(
        memory=adapter,
        words=filled.words,
        k=k,
        fetch_k=candidates,
        evidence=True,
        search_type=search_type,
        search_kwargs=options,
    )
    found = retriever.invoke(query)
    ids = names(found)
    assert set(ids) <= {IDS[row] for row in allowed}
    assert len(ids) == len(set(ids))
    assert names(await retriever.ainvoke(query)) == ids

    ranked = Ranker(adapter, words=filled.words).query(query, QUERIES[number])
    wanted = k if ranked.vectors_alone else max(k, candidates)
    cosines = VECTORS @ QUERIES[number]
    best = sorted(range(35), key=lambda row: -cosines[row])
    best = [row for row in best if row in allowed][:wanted]
    words = ranked.words(wanted)
    right = ranked.rank([IDS[row] for row in best], cosines[best], words, others=not threshold)
    missing = right.missing(len(right.ids))
    right.add(missing, {IDS[row]: None for row in allowed})
    scores = [choice.score for choice in right.choices(k)]
    np.testing.assert_allclose([document.metadata["deepmem"]["score"] for document in found], scores, atol=1e-5)


def by_threshold(store, threshold, **options):
    search = {"k": 35, "score_threshold": threshold, **options}
    plain = store.as_retriever(search_type="similarity_score_threshold", search_kwargs=search)
    return DeepMemoryRetriever.from_retriever(plain, QueryAdapter(DIMENSION))


@pytest.mark.filterwarnings("ignore:Relevance scores must be between 0 and 1")  # LangChain's, of negative ones
@pytest.mark.parametrize("query", [TEXTS[3], "question 0 amber"])
async def test_a_threshold_lets_the_best_documents_pass_by_every_metric(filled, query):
    store = filled.store
    if not filled.kind.thresholds:
        with pytest.raises(StoreError):  # the store's own retriever raises a NotImplementedError
            by_threshold(store, 0.5).invoke(query)
        return
    vector = np.array(store.embeddings.embed_query(query))
    scores = (VECTORS[:35] @ vector) / np.linalg.norm(vector)
    order = np.argsort(-scores)
    measure = check_lengths(store)
    if measure is not None and measure.metric == "l2":  # LangChain's relevance scores are right, for a query of any length
        found = store.similarity_search_with_relevance_scores(query, k=35)
        relevance = {document.page_content: score for document, score in found}
        scores = np.array([relevance[text] for text in TEXTS[:35]])
    elif measure is not None and type(store).__name__ in ("QdrantVectorStore", "Milvus") and measure.metric == "cosine":
        scores = (scores + 1) / 2  # as both packages have it
    assert query not in TEXTS or scores[order[0]] == pytest.approx(1, abs=1e-4)
    for place in (0, 2, 12):
        right = {TEXTS[row] for row in order[: place + 1]}
        retriever = by_threshold(store, float(scores[order[place]] + scores[order[place + 1]]) / 2)
        assert {document.page_content for document in retriever.invoke(query)} == right
        if type(store).__name__ != "Milvus":  # whose async client keeps to its first event loop
            assert {document.page_content for document in await retriever.ainvoke(query)} == right
    options, _ = filled.kind.options(Asked({"half": [1]}))
    odd = by_threshold(store, -100.0, fetch_k=100, **options)
    expected = {TEXTS[row] for row in range(35) if row % 2 or filled.kind.filter is None}
    assert {document.page_content for document in odd.invoke(query)} == expected


def test_the_stores_own_documents_are_left_alone(filled):
    adapter = remembering(QUERIES, [{IDS[3]: 1.0}] * 6, Ranking(answers=1.0))
    retriever = filled.retriever(memory=adapter, k=2, words=False)
    (first, _) = retriever.invoke("question 0 amber", evidence=True)
    assert names([first]) == [IDS[3]]
    assert first.metadata["deepmem"]["answers"]["rank"] == 1
    assert all("deepmem" not in document.metadata for document in retriever.invoke("question 0 amber"))


@pytest.mark.slow
async def test_a_postgres_store_that_is_opened_for_async_alone_looks_up_as_well(postgres):
    from langchain_postgres import PGVector
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    engine = create_async_engine(postgres.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    store = PGVector(
        Fixed(),
        connection=engine,
        collection_name="async",
        embedding_length=DIMENSION,
        pre_delete_collection=True,
    )
    mine = [f"async {name}" for name in IDS]  # all collections share one table, whose key is the id
    columns = zip(mine, TEXTS, METADATA, strict=True)
    await store.aadd_documents([Document(id=name, page_content=text, metadata=meta) for name, text, meta in columns], ids=mine)
    far = np.argsort(VECTORS @ QUERIES[0])[:6].tolist()
    adapter = remembering(QUERIES[:1], [{mine[row]: 1.0 for row in far}], Ranking(answers=9.0))
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=10, fetch_k=12)
    assert set(names(await retriever.ainvoke("question 0 amber"))[:6]) == {mine[row] for row in far}
    found = names(await retriever.ainvoke("question 0 amber", filter={"half": {"$eq": 1}}))
    odd = [mine[row] for row in far if row % 2 == 1]
    assert set(found[: len(odd)]) == set(odd)
    assert all(mine.index(name) % 2 == 1 for name in found)
    await engine.dispose()


# ---- stores of other kinds -------------------------------------------------------------------------------------------


class Other(VectorStore):
    """A store of a kind that nobody knows: a search by vector without scores, and documents by id."""

    def __init__(self, inner) -> None:
        self.inner = inner

    @property
    def embeddings(self):
        return self.inner.embeddings

    from_texts = similarity_search = None

    def similarity_search_by_vector(self, embedding, k=4, **kwargs):
        return self.inner.similarity_search_by_vector(embedding, k, **kwargs)

    def get_by_ids(self, ids, /):
        return self.inner.get_by_ids(ids)


class WithoutIds(Other):
    """A store of an older kind, whose documents have no ids."""

    def similarity_search_by_vector(self, embedding, k=4, **kwargs):
        return [
            document.model_copy(update={"id": None}) for document in super().similarity_search_by_vector(embedding, k, **kwargs)
        ]

    def get_by_ids(self, ids, /):  # which tells the ids all the same
        return super().get_by_ids(ids)


class Tenant(Other):
    """A store whose search keeps to a half of the documents, and whose get_by_ids does not."""

    def similarity_search_by_vector(self, embedding, k=4, **kwargs):
        return self.inner.similarity_search_by_vector(embedding, k, filter=lambda document: document.metadata["half"] == 1)


class TenantInMemory(InMemoryVectorStore):
    """The same, of a known kind."""

    def similarity_search_by_vector(self, embedding, k=4, **kwargs):
        return super().similarity_search_by_vector(embedding, k, filter=lambda document: document.metadata["half"] == 1)


def half_alone(search):
    """A search that finds one half of the documents alone."""
    return lambda embedding, k=4, filter=None: search(embedding, k, filter=lambda document: document.metadata["half"] == 1)


class TenantInside(InMemoryVectorStore):
    """The same, below the public methods."""

    def _similarity_search_with_score_by_vector(self, embedding, k=4, filter=None):
        return half_alone(super()._similarity_search_with_score_by_vector)(embedding, k)


def patched():
    """The same, for one store."""
    store = in_memory_store()
    store.similarity_search_with_score_by_vector = half_alone(store.similarity_search_with_score_by_vector)
    store.similarity_search_by_vector = half_alone(store.similarity_search_by_vector)
    return store


class Unnamed(Other):
    """A store without get_by_ids."""

    get_by_ids = VectorStore.get_by_ids


def in_memory_store(kind=InMemoryVectorStore):
    store = kind(Fixed())
    columns = zip(IDS, TEXTS, METADATA, strict=True)
    store.add_documents([Document(id=name, page_content=text, metadata=dict(meta)) for name, text, meta in columns])
    return store


@pytest.fixture
def answered():
    """An adapter whose remembered queries ask for one document, which is far from all of them."""
    far = int(np.argmin((QUERIES @ VECTORS.T).max(axis=0)))
    return remembering(QUERIES, [{IDS[far]: 1.0}] * len(QUERIES), Ranking(answers=5.0)), IDS[far]


def test_an_unknown_store_gives_ranks_and_documents_by_id(answered):
    adapter, far = answered
    retriever = DeepMemoryRetriever(vectorstore=Other(in_memory_store()), memory=adapter, k=3, fetch_k=5)
    best = np.argsort(-(VECTORS @ QUERIES[0]))
    right = [far, *(IDS[row] for row in best[:2])]
    assert names(retriever.invoke("question 0 amber")) == right
    known = retriever.invoke("question 0 amber", filter=lambda document: True)
    assert names(known) == [IDS[row] for row in best[:3]], "under a filter that nobody knows, nothing is looked up"


def test_documents_without_ids_come_in_the_order_of_the_search(answered):
    store = in_memory_store()
    retriever = DeepMemoryRetriever(vectorstore=WithoutIds(store), memory=answered[0], k=3, fetch_k=40, evidence=True)
    found = retriever.invoke("question 0 amber")
    best = np.argsort(-(VECTORS @ QUERIES[0]))
    assert [document.page_content for document in found] == [TEXTS[row] for row in best[:3]]
    assert [document.metadata["deepmem"]["answers"]["rank"] for document in found] == [None] * 3


class TenantUnknown(Tenant):
    """The same, with another get_by_ids above it."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: TenantUnknown(in_memory_store()),
        lambda: in_memory_store(TenantInMemory),
        lambda: in_memory_store(TenantInside),
        patched,
    ],
)
def test_a_store_that_searches_in_its_own_way_is_not_bypassed(make, answered):
    store = make()
    assert type(store_access(store)) is StoreAccess
    assert not store_access(store).obeys({})
    retriever = DeepMemoryRetriever(vectorstore=store, memory=answered[0], k=30)
    for number in range(len(QUERIES)):
        found = retriever.invoke(f"question {number} amber")
        assert found
        assert all(document.metadata["half"] == 1 for document in found)


async def test_a_store_that_cannot_look_up_gives_what_its_search_found(answered):
    retriever = DeepMemoryRetriever(vectorstore=Unnamed(in_memory_store()), memory=answered[0], k=3, fetch_k=5)
    best = np.argsort(-(VECTORS @ QUERIES[0]))
    for found in (retriever.invoke("question 0 amber"), await retriever.ainvoke("question 0 amber")):
        assert names(found) == [IDS[row] for row in best[:3]]


def test_options_that_nobody_knows_stop_every_lookup(answered):
    access = store_access(in_memory_store())
    assert access.obeys({"filter": None, "anything": None})
    assert access.obeys({"filter": as_function(Asked({"half": [1]}))})
    assert not access.obeys({"score_threshold": 0.5})
    assert not access.obeys({"filter": None, "namespace": "a"})


def test_faiss_takes_the_relevance_of_its_index():
    import faiss
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.vectorstores import FAISS

    for index, strategy in ((faiss.IndexFlatIP, "EUCLIDEAN_DISTANCE"), (faiss.IndexFlatL2, "MAX_INNER_PRODUCT")):
        store = FAISS(Fixed(), index(DIMENSION), InMemoryDocstore(), {}, distance_strategy=strategy)
        store.add_texts(TEXTS, ids=IDS)
        assert names(by_threshold(store, 0.95).invoke(TEXTS[3])) == [IDS[3]]


@pytest.mark.parametrize("ranking", [Ranking(), Ranking(1.0, 0.3, 5.0)])
def test_faiss_fetches_until_enough_pass_the_filter(ranking, monkeypatch):
    from langchain_community.vectorstores import FAISS

    monkeypatch.setattr("deepmem_integrations.langchain.vector_search._LEAST_FETCHED", 5)
    store = FAISS.from_texts(TEXTS, Fixed(), ids=IDS, metadatas=METADATA)
    right = [row for row in np.argsort(-(VECTORS @ QUERIES[0])).tolist() if row % 3 == 1]
    adapter = remembering(QUERIES, [{IDS[right[0]]: 1.0}] * 6, ranking)
    options = {"vectorstore": store, "memory": adapter, "words": False, "k": 9}
    filtered = DeepMemoryRetriever(**options, fetch_k=9, search_kwargs={"filter": {"third": 1}})
    assert names(filtered.invoke(f"question 0 {WORDS[0]}")) == [IDS[row] for row in right[:9]]
    own = DeepMemoryRetriever(**options, search_kwargs={"filter": {"third": 1}, "fetch_k": 9})
    assert len(own.invoke(f"question 0 {WORDS[0]}")) < 9, "the caller's own number of documents to filter holds"


def test_a_relevance_function_of_the_users_own_holds():
    from langchain_community.vectorstores import FAISS

    store = FAISS.from_texts(
        TEXTS, Fixed(), ids=IDS, distance_strategy="MAX_INNER_PRODUCT", relevance_score_fn=lambda dot: dot / 2
    )
    for threshold, right in ((0.45, [IDS[3]]), (0.55, [])):
        search = {"search_type": "similarity_score_threshold", "search_kwargs": {"score_threshold": threshold}}
        found = DeepMemoryRetriever(vectorstore=store, memory=QueryAdapter(DIMENSION), **search).invoke(TEXTS[3])
        assert names(found) == right


def test_deep_lake_by_distance_has_no_threshold(tmp_path):
    store = DeepLake(tmp_path / "data", embedding=Fixed())
    store.add_texts(TEXTS, ids=IDS)
    with pytest.raises(StoreError, match="compared with cosine similarities: leave distance_metric='l2' out"):
        by_threshold(store, 0.5, distance_metric="l2").invoke(TEXTS[3])


def test_deep_lake_by_distance_gives_no_cosines(tmp_path):
    access = store_access(DeepLake(tmp_path / "data", embedding=Fixed()))
    assert access.search_method == SCORED[0]
    assert access.cosines([0.5], {"distance_metric": "l2"}) is None
    assert access.cosines([0.5], {"distance_metric": "COS"}) == pytest.approx([0.5])
    assert access.cosines([1.7], {}) is None, "no cosine is so large"
    assert access.cosines([None], {}) is None
