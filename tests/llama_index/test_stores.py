"""Every kind of store for real: exact cosines, look-ups by id, and nothing that filters, node ids or document ids forbid."""

import asyncio
import operator
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import QueryBundle, StorageContext, VectorStoreIndex
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.schema import IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters, SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryResult

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.errors import StoreError
from deepmem_integrations.llama_index import DeepLakeVectorStore, DeepMemoryRetriever
from deepmem_integrations.llama_index.stores import search_of
from deepmem_integrations.ranking import Ranker
from deepmem_integrations.words import WordIndex
from tests.llama_index.helpers import Lookup, ids, in_milvus, remembering

pytestmark = [
    pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning"),  # Chroma reads its own
    pytest.mark.filterwarnings("ignore:table_names\\(\\) is deprecated:DeprecationWarning"),  # LlamaIndex's store in LanceDB
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning"),
]

COUNT, DIMENSION = 40, 8
NAMES = [str(uuid.uuid5(uuid.NAMESPACE_URL, str(row))) for row in range(COUNT)]
VECTORS = np.random.default_rng(0).normal(size=(COUNT, DIMENSION))
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(5, DIMENSION)).astype(np.float32)
TEXTS = [f"word{row % 6} word{row % 7} text" + " more" * (row % 3) for row in range(COUNT)]
METADATA = [{"colour": row % 3, "size": row} for row in range(COUNT)]
SOURCES = [f"source-{row % 4}" for row in range(COUNT)]
PERMIT_ALL = lambda row: True  # noqa: E731


def made(length=1.0):
    """The nodes, with vectors of a length."""
    return [
        TextNode(
            id_=NAMES[row],
            text=TEXTS[row],
            metadata=METADATA[row],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=SOURCES[row])},
            embedding=(length * VECTORS[row]).tolist(),
        )
        for row in range(COUNT)
    ]


class Plain(BasePydanticVectorStore):
    """A store of no known kind, which keeps nodes, applies filters and ignores ids; its scores are ranks, counted down."""

    stores_text: bool = True
    nodes: list = []
    passes: object = PERMIT_ALL

    @property
    def client(self):
        return None

    def add(self, nodes, **options):
        self.nodes = [*self.nodes, *nodes]
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id, **options):
        raise NotImplementedError

    def query(self, query, **options):
        filters = [] if query.filters is None else query.filters.filters
        known = all(getattr(part, "key", "colour") in METADATA[0] for part in filters)
        found = [node for node in self.nodes if not filters or (known and self.passes(node.metadata))]
        found = sorted(found, key=lambda node: -np.dot(node.embedding, query.query_embedding))[: query.similarity_top_k]
        scores = [-float(rank) for rank in range(len(found))]
        return VectorStoreQueryResult(nodes=found, similarities=scores, ids=[node.node_id for node in found])


class Readable(Plain):
    """The same with nodes by id."""

    def get_nodes(self, node_ids=None, filters=None):
        return [node for node in self.nodes if node.node_id in node_ids]


def chroma(folder, space="cosine"):
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore

    client = chromadb.EphemeralClient()
    return ChromaVectorStore(client.create_collection(f"c{uuid.uuid4().hex}", configuration={"hnsw": {"space": space}}))


def qdrant(folder, distance="Cosine"):
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    size = {"text-dense": models.VectorParams(size=DIMENSION, distance=models.Distance(distance))}
    client.create_collection("documents", vectors_config=size)
    return QdrantVectorStore("documents", client)


def faiss(folder, kind="IndexFlatIP", mapped=False):
    import faiss
    from llama_index.vector_stores.faiss import FaissMapVectorStore, FaissVectorStore

    index = getattr(faiss, kind)(DIMENSION)
    return FaissMapVectorStore(faiss.IndexIDMap2(index)) if mapped else FaissVectorStore(index)


def lancedb(folder):
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    return LanceDBVectorStore(uri=str(folder / "lance"))


def postgres(uri, **options):
    from llama_index.vector_stores.postgres import PGVectorStore
    from sqlalchemy.pool import NullPool

    return PGVectorStore(
        uri,
        uri.replace("postgresql://", "postgresql+asyncpg://"),
        table_name=f"t{uuid.uuid4().hex}",
        embed_dim=DIMENSION,
        create_engine_kwargs={"poolclass": NullPool},
        **options,
    )


def slow(parameter):
    name = parameter if isinstance(parameter, str) else "-".join(map(str, parameter))
    return pytest.param(parameter, marks=pytest.mark.slow, id=name)


@pytest.fixture(scope="module")
def index_of(request, tmp_path_factory, embed_model):
    """A function that fills a store of some kind and returns the index over it."""
    opened = {}

    def open_store(kind, *options, nodes=None, fresh=False):
        key = (kind, *options)
        if fresh or nodes is not None or key not in opened:
            folder = tmp_path_factory.mktemp(kind)
            length = next((option for option in options if isinstance(option, float)), 1.0)
            rest = [option for option in options if not isinstance(option, float)]
            if kind == "postgres":
                store = postgres(request.getfixturevalue("postgres"), use_halfvec="half" in rest)
            else:
                store = {
                    "simple": lambda: SimpleVectorStore(),
                    "deeplake": lambda: DeepLakeVectorStore(folder / "dataset"),
                    "chroma": lambda: chroma(folder, *rest),
                    "qdrant": lambda: qdrant(folder, *rest),
                    "faiss": lambda: faiss(folder, *rest),
                    "faiss-map": lambda: faiss(folder, *rest, mapped=True),
                    "lancedb": lambda: lancedb(folder),
                    "milvus": lambda: in_milvus(folder, DIMENSION, similarity_metric=(rest or ["IP"])[0]),
                    "plain": lambda: Plain(),
                    "readable": lambda: Readable(),
                }[kind]()
            context = StorageContext.from_defaults(vector_store=store)
            given_nodes = made(length) if nodes is None else nodes
            index = VectorStoreIndex(given_nodes, storage_context=context, embed_model=embed_model)
            if fresh or nodes is not None:
                return index
            opened[key] = index
        return opened[key]

    yield open_store
    for index in opened.values():
        if type(index.vector_store).__name__ == "PGVectorStore":
            index.vector_store.client.dispose()
        elif type(index.vector_store).__name__ == "QdrantVectorStore":
            index.vector_store.client.close()


@pytest.fixture(scope="module")
def embed_model():
    class Problem:
        ids, corpus = NAMES, VECTORS

        class train:
            queries = [f"query {row}" for row in range(len(QUERIES))]

        class test:
            queries = []

        train_queries, test_queries = QUERIES, []

    return Lookup(Problem)


@pytest.fixture(scope="module")
def words():
    with tempfile.TemporaryDirectory() as folder:
        yield WordIndex.build(Path(folder) / "words", [(NAMES, TEXTS)], language="en")


# ---- cosines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        ("simple",),
        ("simple", 3.0),
        ("deeplake",),
        ("deeplake", 3.0),
        slow(("chroma", "cosine", 3.0)),
        slow(("chroma", "l2")),
        slow(("chroma", "l2", 3.0)),
        slow(("chroma", "ip")),
        slow(("chroma", "ip", 3.0)),
        slow(("qdrant", "Cosine", 3.0)),
        slow(("qdrant", "Dot")),
        slow(("qdrant", "Dot", 3.0)),
        slow(("qdrant", "Euclid")),
        slow(("qdrant", "Euclid", 3.0)),
        slow(("faiss", "IndexFlatIP")),
        slow(("faiss", "IndexFlatIP", 3.0)),
        slow(("faiss", "IndexFlatL2")),
        slow(("faiss", "IndexFlatL2", 3.0)),
        slow(("faiss-map", "IndexFlatL2", 3.0)),
        slow(("lancedb",)),
        slow(("lancedb", 2.0)),
        slow(("milvus", "IP", 3.0)),
        slow(("milvus", "L2", 2.0)),
        slow(("milvus", "COSINE", 2.0)),
        slow(("postgres", 3.0)),
        slow(("postgres", "half")),
    ],
)
async def test_scores_become_exact_cosines(index_of, kind):
    search = search_of(index_of(*kind).as_retriever())
    search.check_lengths()
    unit = QUERIES[0] / np.linalg.norm(QUERIES[0])
    bundle = QueryBundle("", embedding=unit.tolist())
    for found in (search.search(bundle, 15), *([] if kind[0] == "qdrant" else [await search.asearch(bundle, 15)])):
        assert len(found) == 15
        rows = [NAMES.index(name) for name in found]
        exact = VECTORS[rows] @ unit
        precision = 2e-3 if "half" in kind else 1e-5
        np.testing.assert_allclose(search.cosines([one.score for one in found.values()]), exact, atol=precision)


def test_scores_that_tell_no_cosine_give_none(index_of):
    search = search_of(index_of("plain").as_retriever())
    search.check_lengths()
    assert search.cosines([-1.0, -2.0]) is None
    search = search_of(index_of("simple").as_retriever())
    search.check_lengths()
    assert search.cosines([0.5, None]) is None
    assert search.cosines([float("nan")]) is None
    assert search.cosines([]).tolist() == []


@pytest.mark.slow
def test_a_chroma_score_that_has_become_zero_gives_none(index_of):
    search = search_of(index_of("chroma", "l2", 50.0).as_retriever())
    search.check_lengths()
    found = search.search(QueryBundle("", embedding=QUERIES[0].tolist()), 3)
    assert [one.score for one in found.values()] == [0.0] * 3, "exp(−2500)"
    assert search.cosines([0.0] * 3) is None


# ---- nothing that is forbidden -------------------------------------------------------------------------------------

OPERATORS = {
    FilterOperator.EQ: operator.eq,
    FilterOperator.NE: operator.ne,
    FilterOperator.LT: operator.lt,
    FilterOperator.GTE: operator.ge,
    FilterOperator.IN: lambda value, wanted: value in wanted,
    FilterOperator.NIN: lambda value, wanted: value not in wanted,
}


@st.composite
def leaves(draw, operators=tuple(OPERATORS)):
    key, largest = draw(st.sampled_from([("colour", 3), ("size", COUNT)]))
    kind = draw(st.sampled_from(operators))
    value = draw(
        st.lists(st.integers(0, largest), min_size=1, max_size=8, unique=True)
        if kind in (FilterOperator.IN, FilterOperator.NIN)
        else st.integers(0, largest)
    )
    return MetadataFilter(key=key, operator=kind, value=value)


def groups(children):
    conditions = st.sampled_from([FilterCondition.AND, FilterCondition.OR])
    return st.builds(MetadataFilters, filters=st.lists(children, min_size=1, max_size=3), condition=conditions)


def holds(part, metadata):
    if isinstance(part, MetadataFilters):
        return (all if part.condition == FilterCondition.AND else any)(holds(each, metadata) for each in part.filters)
    return OPERATORS[part.operator](metadata[part.key], part.value)


@st.composite
def restrictions(draw, kind):
    """Filters, node ids and document ids, as far as a store takes them."""
    filters = None
    if not kind.startswith("faiss"):
        # LanceDB's store writes != as a comparison of texts, and knows no nin.
        operators = tuple(one for one in OPERATORS if kind != "lancedb" or one not in (FilterOperator.NE, FilterOperator.NIN))
        single = leaves(operators)
        nested = single if kind in ("simple", "lancedb", "milvus") else st.one_of(single, groups(single))
        filters = draw(st.none() | groups(nested))
    node_ids = draw(st.none() | st.lists(st.sampled_from(NAMES), min_size=1, max_size=COUNT, unique=True))
    doc_ids = draw(st.none() | st.lists(st.sampled_from(SOURCES), min_size=1, max_size=3, unique=True))
    return filters, node_ids, doc_ids


SLOW = ["chroma", "qdrant", "faiss", "faiss-map", "lancedb", "milvus", "postgres"]
KINDS = ["simple", "deeplake", "plain", "readable", *map(slow, SLOW)]
HONOURED = {"simple": "node", "deeplake": "both", "qdrant": "both", "milvus": "both"}
"""Which of node ids and document ids the store's search honours; the others' finds are left out afterwards."""


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_finds_a_node_nothing_forbidden_comes_back_and_the_rest_is_ranked(index_of, words, kind):
    index = index_of(kind)

    @settings(max_examples=40)
    @given(
        restrictions(kind),
        st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True), min_size=1, max_size=4),
        st.sampled_from([(1.0, 0.3, 0.0), (1.0, 0.0, 0.9), (1.0, 0.2, 0.7), (0.0, 1.0, 0.5)]),
        st.integers(1, 8),
        st.sampled_from([1, 4, 100]),
        st.integers(0, 6),
        st.integers(0, len(QUERIES) - 1),
    )
    def check(restriction, asked, weights, k, fetch_k, word, number):
        filters, node_ids, doc_ids = restriction

        def permitted(row, honoured="both"):
            return (
                (filters is None or holds(filters, METADATA[row]))
                and (node_ids is None or honoured == "none" or NAMES[row] in node_ids)
                and (doc_ids is None or honoured != "both" or SOURCES[row] in doc_ids)
            )

        if kind in ("plain", "readable"):
            index.vector_store.passes = lambda metadata: filters is None or holds(filters, metadata)
        model = remembering(Ranking(*weights), DIMENSION, QUERIES[: len(asked)], asked)
        plain = VectorIndexRetriever(index, filters=filters, node_ids=node_ids, doc_ids=doc_ids, similarity_top_k=k)
        retriever = DeepMemoryRetriever(plain, memory=model, words=words, fetch_k=fetch_k)
        bundle = QueryBundle(f"word{word} words", embedding=QUERIES[number].tolist())
        found = retriever.retrieve(bundle)

        assert all(permitted(NAMES.index(name)) for name in ids(found))
        if kind in ("plain", "readable"):
            return
        query = Ranker(model, words=words).query(bundle.query_str, QUERIES[number])
        exact = VECTORS @ np.asarray(query.vector, dtype=np.float32)
        candidates = [row for row in range(COUNT) if permitted(row, HONOURED.get(kind, "none"))]
        rows = sorted(candidates, key=lambda row: -exact[row])[: max(k, fetch_k)]
        rows = [row for row in rows if permitted(row)]
        shortlist = query.rank([NAMES[row] for row in rows], exact[rows], query.words(max(k, fetch_k)))
        right = [choice for choice in shortlist.choices() if permitted(NAMES.index(choice.id))][:k]
        assert ids(found) == [choice.id for choice in right]
        np.testing.assert_allclose([one.score for one in found], [choice.score for choice in right], atol=1e-4)

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_where_vectors_alone_count_nothing_forbidden_comes_back_either(index_of, kind):
    if kind in ("plain", "readable"):
        index_of(kind).vector_store.passes = PERMIT_ALL
    plain = VectorIndexRetriever(index_of(kind), node_ids=NAMES[:20], doc_ids=["source-1"], similarity_top_k=COUNT)
    retriever = DeepMemoryRetriever(plain, memory=QueryAdapter(DIMENSION))
    found = retriever.retrieve(QueryBundle("", embedding=QUERIES[0].tolist()))
    exact = VECTORS @ QUERIES[0]
    assert ids(found) == [NAMES[row] for row in sorted(range(1, 20, 4), key=lambda row: -exact[row])]


def test_documents_of_another_framework_are_known_to_the_store_alone(words, embed_model, tmp_path):
    store = DeepLakeVectorStore(tmp_path / "dataset")
    sources = [{"ref_doc_id": "mine" if row % 2 else "yours"} for row in range(6)]
    store.store.add(NAMES[:6], VECTORS[:6], TEXTS[:6], sources)
    plain = VectorIndexRetriever(VectorStoreIndex.from_vector_store(store, embed_model), doc_ids=["mine"])
    model = remembering(Ranking(1.0, 0.1), DIMENSION)
    retriever = DeepMemoryRetriever(plain, memory=model, words=words, fetch_k=1)
    retriever.similarity_top_k = 5
    found = ids(retriever.retrieve(QueryBundle("text", embedding=QUERIES[0].tolist())))
    assert sorted(found) == sorted(NAMES[1:6:2])


@pytest.mark.parametrize(
    "kind", ["simple", "deeplake", *map(slow, ["chroma", "faiss", "faiss-map", "lancedb", "milvus", "postgres"])]
)
async def test_the_async_twin_finds_the_same(index_of, words, kind):
    filters = MetadataFilters(filters=[MetadataFilter(key="colour", value=1)])
    options = {"doc_ids": ["source-1", "source-2"]} if kind.startswith("faiss") else {"filters": filters}
    model = remembering(Ranking(1.0, 0.3, 0.9), DIMENSION, QUERIES[:2], [NAMES[:6], NAMES[6:9]])
    retriever = DeepMemoryRetriever(index_of(kind), memory=model, words=words, fetch_k=2, similarity_top_k=6, **options)
    for number in range(3):
        bundle = QueryBundle("word1 word2", embedding=QUERIES[number].tolist())
        found = retriever.retrieve(bundle)
        assert len(found) > 2, "words and answers brought more than the search"
        assert [(one.node.node_id, one.score) for one in await retriever.aretrieve(bundle)] == [
            (one.node.node_id, one.score) for one in found
        ]


@pytest.mark.slow
async def test_a_qdrant_for_async_alone_looks_nodes_up_and_takes_ranks_for_scores(words, embed_model):
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import AsyncQdrantClient

    store = QdrantVectorStore("documents", aclient=AsyncQdrantClient(":memory:"))
    await store.async_add(made())
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    filters = MetadataFilters(filters=[MetadataFilter(key="colour", value=1)])
    model = remembering(Ranking(1.0, 0.0, 5.0), DIMENSION, QUERIES[:1], [[NAMES[3], NAMES[4], "no uuid"]])
    retriever = DeepMemoryRetriever(index, memory=model, words=words, fetch_k=1, similarity_top_k=2, filters=filters)
    found = await retriever.aretrieve(QueryBundle("", embedding=QUERIES[0].tolist()))
    assert found[0].node.node_id == NAMES[4]
    assert len(found) == 2
    await store._aclient.close()


def test_ranks_stand_in_for_the_scores_of_an_unknown_store(index_of, words):
    index_of("plain").vector_store.passes = PERMIT_ALL
    usual = np.linspace(0.9, 0.5, 4, dtype=np.float32)
    model = remembering(Ranking(1.0, 0.01, cosines=usual), DIMENSION)
    retriever = DeepMemoryRetriever(index_of("plain"), memory=model, words=words, similarity_top_k=4, evidence=True)
    found = retriever.retrieve(QueryBundle("word1", embedding=QUERIES[0].tolist()))
    by_rank = {one.metadata["deepmem"]["vector"]["rank"]: one.metadata["deepmem"]["vector"]["score"] for one in found}
    assert by_rank == {rank: pytest.approx(float(usual[min(rank, 4) - 1])) for rank in by_rank}


# ---- what stores filter by besides ---------------------------------------------------------------------------------


def retrieved(index, words, **options):
    """What comes back when the answers ask for two of the nodes, far from the query."""
    model = remembering(Ranking(1.0, 0.0, 9.0), DIMENSION, QUERIES[:1], [far()])
    retriever = DeepMemoryRetriever(index, memory=model, words=words, fetch_k=1, similarity_top_k=2, **options)
    return ids(retriever.retrieve(QueryBundle("", embedding=QUERIES[0].tolist())))


def far():
    return [NAMES[row] for row in np.argsort(VECTORS @ QUERIES[0])[:2]]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_bring_nodes_that_the_search_did_not_find(index_of, words, kind):
    if kind == "plain":
        index_of(kind).vector_store.passes = PERMIT_ALL
        assert not set(retrieved(index_of(kind), words)) & set(far()), "the store has no nodes by id"
    else:
        assert set(retrieved(index_of(kind), words)) == set(far())


@pytest.mark.slow
def test_chromas_own_filters_hold_for_look_ups(index_of, words):
    size = METADATA[NAMES.index(far()[0])]["size"]
    found = retrieved(index_of("chroma"), words, vector_store_kwargs={"where": {"size": {"$ne": size}}})
    assert far()[0] not in found
    assert far()[1] in found
    found = retrieved(index_of("chroma"), words, vector_store_kwargs={"where_document": {"$contains": "nowhere"}})
    assert found == []


@pytest.mark.slow
def test_with_qdrants_own_filters_only_the_search_finds(index_of, words):
    from qdrant_client import models

    size = METADATA[NAMES.index(far()[0])]["size"]
    condition = models.FieldCondition(key="size", match=models.MatchExcept(**{"except": [size]}))
    options = {"qdrant_filters": models.Filter(must=[condition])}
    found = retrieved(index_of("qdrant"), words, vector_store_kwargs=options)
    assert len(found) == 2
    assert not set(far()) & set(found)


@pytest.mark.slow
def test_postgres_customised_query_holds_for_look_ups(request, words, embed_model):
    size = METADATA[NAMES.index(far()[0])]["size"]

    def customised(statement, table, **options):
        return statement.where(table.metadata_["size"].astext != str(size))

    store = postgres(request.getfixturevalue("postgres"), customize_query_fn=customised)
    index = VectorStoreIndex(made(), storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embed_model)
    found = retrieved(index, words)
    assert far()[0] not in found
    assert far()[1] in found
    store.client.dispose()


# ---- deleted and inserted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["simple", "deeplake", *map(slow, ["chroma", "qdrant", "faiss-map", "postgres"])])
def test_what_was_deleted_from_the_store_never_comes_back(index_of, words, kind):
    index = index_of(kind, fresh=True)
    assert set(retrieved(index, words)) == set(far())
    index.vector_store.delete_nodes([far()[0]])
    assert far()[0] not in retrieved(index, words)
    assert far()[1] in retrieved(index, words)


def test_nodes_that_are_inserted_later_come_back(index_of, words):
    index = index_of("deeplake", fresh=True)
    model = remembering(Ranking(1.0, 0.0, 9.0), DIMENSION, QUERIES[:1], [["new"]])
    retriever = DeepMemoryRetriever(index, memory=model, words=words, similarity_top_k=1)
    index.insert_nodes([TextNode(id_="new", text="new", embedding=VECTORS[0].tolist())])
    assert ids(retriever.retrieve(QueryBundle("", embedding=QUERIES[0].tolist()))) == ["new"]


@pytest.mark.parametrize("kind", ["simple", "deeplake", *map(slow, ["chroma", "qdrant", "faiss", "postgres"])])
def test_no_node_ids_at_all_permit_nothing(index_of, words, kind):
    assert retrieved(index_of(kind), words, node_ids=[]) == []


@pytest.mark.parametrize("kind", ["simple", *map(slow, ["faiss"])])
def test_node_ids_that_name_every_node_forbid_a_node_that_is_inserted_later(index_of, words, kind):
    index = index_of(kind, fresh=True)
    model = remembering(Ranking(1.0, 0.0, 9.0), DIMENSION, QUERIES[:1], [["new"]])
    retriever = DeepMemoryRetriever(index, memory=model, words=words, similarity_top_k=COUNT + 1, node_ids=list(NAMES))
    index.insert_nodes([TextNode(id_="new", text="new", embedding=VECTORS[0].tolist())])
    assert sorted(ids(retriever.retrieve(QueryBundle("", embedding=QUERIES[0].tolist())))) == sorted(NAMES)


def test_an_index_brings_no_node_of_another_index_that_shares_its_store(embed_model, words):
    context = StorageContext.from_defaults(vector_store=SimpleVectorStore())
    nodes = made()
    mine, _ = (VectorStoreIndex(part, storage_context=context, embed_model=embed_model) for part in (nodes[:20], nodes[20:]))
    model = remembering(Ranking(1.0, 1.0, 9.0), DIMENSION, QUERIES[:1], [NAMES])
    retriever = DeepMemoryRetriever(mine, memory=model, words=words, similarity_top_k=COUNT)
    assert sorted(ids(retriever.retrieve(QueryBundle("word3", embedding=QUERIES[0].tolist())))) == sorted(NAMES[:20])


@pytest.mark.slow
def test_a_faiss_index_finds_nodes_that_are_inserted_later(index_of, words):
    index = index_of("faiss", fresh=True)
    retriever = DeepMemoryRetriever(index, memory=remembering(Ranking(1.0, 0.1), DIMENSION), words=words, similarity_top_k=1)
    index.insert_nodes([TextNode(id_="new", text="new", embedding=(QUERIES[0] / np.linalg.norm(QUERIES[0])).tolist())])
    assert ids(retriever.retrieve(QueryBundle("", embedding=QUERIES[0].tolist()))) == ["new"]


@pytest.mark.parametrize("kind", ["simple", "deeplake", *map(slow, ["chroma", "qdrant", "faiss", "milvus", "postgres"])])
def test_an_index_node_is_followed_wherever_it_was_found(index_of, words, kind):
    inner = TextNode(id_="inner", text="inside")
    nodes = made()
    row = NAMES.index(far()[0])
    nodes[row] = IndexNode(id_=far()[0], text="points", index_id="i", obj=inner, embedding=VECTORS[row].tolist())
    index = index_of(kind, nodes=[node for node in nodes if not isinstance(node, IndexNode)])
    index._object_map = {"i": inner}
    index.insert_nodes([nodes[row]])
    found = retrieved(index, words)
    assert "inner" in found
    assert far()[0] not in found


def of_colour_0(base):
    """A class of stores that finds nodes of one colour alone."""

    class Tenant(base):
        def query(self, query, **options):
            found = super().query(query, **options)
            rows = [row for row, name in enumerate(found.ids) if METADATA[NAMES.index(name)]["colour"] == 0]
            kept = {"ids": [found.ids[row] for row in rows], "similarities": [found.similarities[row] for row in rows]}
            nodes = None if found.nodes is None else [found.nodes[row] for row in rows]
            return VectorStoreQueryResult(nodes=nodes, **kept)

    return Tenant


@pytest.mark.parametrize("kind", ["simple", "readable", *map(slow, ["faiss-map", "postgres"])])
def test_a_store_that_searches_in_its_own_way_is_not_bypassed(index_of, words, kind):
    index = index_of(kind, fresh=True)
    index.vector_store.__class__ = of_colour_0(type(index.vector_store))
    model = remembering(Ranking(1.0, 0.5, 9.0), DIMENSION, QUERIES[:1], [NAMES])
    retriever = DeepMemoryRetriever(index, memory=model, words=words, similarity_top_k=COUNT)
    found = ids(retriever.retrieve(QueryBundle("word3", embedding=QUERIES[0].tolist())))
    assert found
    assert {METADATA[NAMES.index(name)]["colour"] for name in found} == {0}


async def test_a_refusing_store_ranks_what_its_search_found(words, embed_model):
    class Refusing(Plain):
        def query(self, query, **options):
            if query.node_ids:
                raise NotImplementedError("node_ids")
            return super().query(query)

    store = Refusing()
    index = VectorStoreIndex(made(), storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embed_model)
    found = retrieved(index, words)
    assert found == await asyncio.to_thread(retrieved, index, words)
    assert len(found) == 2


@pytest.mark.parametrize("error", [ValueError("not supported"), KeyError("gone"), NotImplementedError()], ids=repr)
@pytest.mark.parametrize("by_search", [True, False])
async def test_a_store_that_reads_no_nodes_by_id_ranks_all_the_same(words, embed_model, error, by_search, caplog):
    class Unreadable(Plain):
        def get_nodes(self, node_ids=None, filters=None):
            raise error

        def query(self, query, **options):
            if query.node_ids and not by_search:
                raise error
            return super().query(query, **options)

    store = Unreadable()
    index = VectorStoreIndex(made(), storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embed_model)
    for _ in range(2):
        assert len(retrieved(index, words)) == len(await asyncio.to_thread(retrieved, index, words)) == 2
    model = remembering(Ranking(1.0, 0.0, 9.0), DIMENSION, QUERIES[:1], [far()])
    retriever = DeepMemoryRetriever(index, memory=model, words=words, fetch_k=1, similarity_top_k=2)
    caplog.clear()
    for _ in range(2):
        assert len(await retriever.aretrieve(QueryBundle("", embedding=QUERIES[0].tolist()))) == 2
    assert len([line for line in caplog.messages if "Unreadable looks no nodes up by id" in line]) == (not by_search)


async def test_a_store_that_reads_asynchronously_is_awaited(words, embed_model):
    class Asynchronous(Readable):
        def get_nodes(self, node_ids=None, filters=None):
            raise RuntimeError("There is no current event loop in this thread.")

        async def aget_nodes(self, node_ids=None, filters=None):
            return Readable.get_nodes(self, node_ids)

        def query(self, query, **options):
            assert not query.node_ids
            return super().query(query, **options)

        async def aquery(self, query, **options):
            return self.query(query, **options)

    store = Asynchronous()
    index = VectorStoreIndex(made(), storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embed_model)
    model = remembering(Ranking(1.0, 0.0, 9.0), DIMENSION, QUERIES[:1], [far()])
    retriever = DeepMemoryRetriever(index, memory=model, words=words, fetch_k=1, similarity_top_k=2)
    found = await retriever.aretrieve(QueryBundle("", embedding=QUERIES[0].tolist()))
    assert set(ids(found)) == set(far())


@pytest.mark.parametrize("kind", ["simple", "deeplake", *map(slow, ["chroma", "qdrant", "milvus", "postgres"])])
def test_whole_numbers_name_nodes_as_texts_do(index_of, kind):
    search = search_of(index_of(kind).as_retriever())
    bundle = QueryBundle("", embedding=QUERIES[0].tolist())
    assert set(search.search(bundle, 3, "size")) < {str(row) for row in range(COUNT)}
    assert search.look_up(["none", "no such"], bundle, "size") == {}
    found = search.look_up(["3", "17", "none"], bundle, "size")
    assert {name: node.node_id for name, node in found.items()} == {"3": NAMES[3], "17": NAMES[17]}


def test_what_is_set_changes_no_other_retriever(index_of, words):
    own = index_of("simple").as_retriever(similarity_top_k=3)
    first = DeepMemoryRetriever(own, memory=QueryAdapter(DIMENSION), words=words)
    second = first.without_model()
    second.similarity_top_k, second.words, second.answers = 5, False, False
    assert (own.similarity_top_k, first.similarity_top_k, second.similarity_top_k) == (3, 3, 5)
    assert (first.words, first.answers, second.words, second.answers) == (words, True, False, False)
    bundle = QueryBundle("word3", embedding=QUERIES[0].tolist())
    assert [len(retriever.retrieve(bundle)) for retriever in (own, first, second)] == [3, 3, 5]


async def test_a_store_that_ignores_filters_is_refused(words, embed_model):
    class Deaf(Plain):
        def query(self, query, **options):
            asked.append((query.filters, options))
            return super().query(replace(query, filters=None))

    asked = []
    filters = MetadataFilters(filters=[MetadataFilter(key="colour", value=0)])
    for store, refused in ((Deaf(), True), (Plain(passes=lambda metadata: metadata["colour"] == 0), False)):
        index = VectorStoreIndex(
            made(), storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embed_model
        )
        for memory in (QueryAdapter(DIMENSION), remembering(Ranking(1.0, 0.5, 9.0), DIMENSION, QUERIES[:1], [NAMES])):
            retriever = DeepMemoryRetriever(index, memory=memory, words=words, filters=filters)
            if refused:
                for call in (retriever.retrieve, lambda text, ask=retriever.aretrieve: asyncio.run(ask(text))):
                    with pytest.raises(StoreError, match="Deaf ignores filters, .* finds documents all the same"):
                        await asyncio.to_thread(call, "word3")
            else:
                found = [*retriever.retrieve("word3"), *await retriever.aretrieve("word3")]
                assert {node.metadata["colour"] for node in found} == {0}
    index = VectorStoreIndex(made(), storage_context=StorageContext.from_defaults(vector_store=Deaf()), embed_model=embed_model)
    for options in ({"where": "colour = 0"}, {"tenant": "a"}):
        retriever = DeepMemoryRetriever(index, memory=QueryAdapter(DIMENSION), vector_store_kwargs=options)
        with pytest.raises(StoreError, match=f"Deaf ignores {next(iter(options))}"):
            retriever.retrieve("word3")
    retriever = DeepMemoryRetriever(index, memory=QueryAdapter(DIMENSION), vector_store_kwargs={"nprobes": 3})
    assert len(retriever.retrieve("word3")) == 2
    assert asked[-1] == (None, {"nprobes": 3})
    switch = DeepMemoryRetriever(index, memory=QueryAdapter(DIMENSION), vector_store_kwargs={"prefilter": True})
    assert len(switch.retrieve("word3")) == 2, "a switch forbids nothing"
