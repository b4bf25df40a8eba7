"""The full-text search of a real Postgres, over the tables of three vector stores."""

import uuid

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from deepmem_integrations.errors import StoreError
from deepmem_integrations.words import PostgresWords, lexical_search_of
from tests.words.searches import TEXTS, check_search_by_words

pytestmark = pytest.mark.slow

# langchain-postgres makes one table class a process, for vectors as long as the first: 32, as in all other tests.
EMBEDDING = DeterministicFakeEmbedding(size=32)
IDS = [str(uuid.UUID(int=number + 1)) for number in range(len(TEXTS))]
DOCUMENTS = [
    Document(id=name, page_content=text, metadata={"half": number % 2, "whose": "it's"})
    for number, (name, text) in enumerate(zip(IDS, TEXTS, strict=True))
]


@pytest.fixture(scope="module")
def uri(postgres):
    return postgres.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture(scope="module")
def sql(uri):
    """Executes statements, and disposes of its engine at the end."""
    from sqlalchemy import create_engine, text

    engine = create_engine(uri)

    def execute(statement):
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return result.all() if result.returns_rows else []

    execute.engine = engine
    yield execute
    engine.dispose()


def pgvector(sql, name='it\'s "mine"', **options):
    from langchain_postgres import PGVector

    return PGVector(EMBEDDING, connection=sql.engine, collection_name=name, embedding_length=32)


@pytest.fixture(scope="module")
def collection(sql):
    other = pgvector(sql, "another collection")
    other.add_documents([Document(id="other", page_content="router router table error documents quote")])
    store = pgvector(sql)
    store.add_documents(DOCUMENTS)
    return store


@pytest.fixture(scope="module")
def pg_engine(uri):
    from langchain_postgres import PGEngine

    engine = PGEngine.from_connection_string(uri)
    yield engine
    engine._run_as_sync(engine.close())


def table_store(pg_engine, name, config=None, **options):
    from langchain_postgres import Column, PGVectorStore

    half = [Column("half", "INTEGER")]
    pg_engine.init_vectorstore_table(name, 32, metadata_columns=half, hybrid_search_config=config, **options)
    columns = {"content_column": options["content_column"]} if "content_column" in options else {}
    store = PGVectorStore.create_sync(
        pg_engine, EMBEDDING, name, metadata_columns=["half"], hybrid_search_config=config, **columns
    )
    store.add_documents(DOCUMENTS)
    return store


def test_pgvector_searches_its_own_collection(collection):
    search = lexical_search_of(collection)
    assert isinstance(search, PostgresWords) and search.language == "english"
    check_search_by_words(search, IDS)
    assert search.search("routers restarting", 5).ids == search.search("router restart", 5).ids, "words are stemmed"
    assert search.search("to be or not to be", 5).ids == [], "stop words alone"


def test_pgvector_checks_metadata_itself(collection):
    odd = PostgresWords(collection, metadata={"half": {"$eq": 1}})
    assert set(odd.search("router table error documents", 10).ids) == {IDS[1], IDS[5]}
    assert odd.search("router table error documents", 10, filter={IDS[0], IDS[5]}).ids == [IDS[5]]
    assert PostgresWords(collection, metadata={"whose": "it's"}).search("router", 10).ids == [IDS[5], IDS[0]]
    assert PostgresWords(collection, metadata={"whose": "x' OR '1'='1"}).search("router", 10).ids == []


def test_languages_are_codes_or_configurations(collection):
    assert PostgresWords(collection, language="de").language == "german"
    assert PostgresWords(collection, language="ja").language == "simple"
    assert PostgresWords(collection, language="de").search("Fehlermeldungen", 5).ids == [IDS[4]]
    assert PostgresWords(collection, language="simple").search("Fehlermeldungen", 5).ids == []
    assert IDS[3] in PostgresWords(collection, language="simple").search("to be or not to be", 5).ids
    with pytest.raises(StoreError, match="cannot search by words in the language \"klin'gon\": .*klin'gon"):
        PostgresWords(collection, language="klin'gon").search("router", 5)


def test_a_collection_that_is_gone_or_empty_has_nothing(sql):
    store = pgvector(sql, "to be deleted")
    assert PostgresWords(store).search("router", 5).ids == []
    store.delete_collection()
    assert PostgresWords(store).search("router", 5).ids == []


async def test_a_store_that_is_opened_for_async_alone_is_refused(uri, sql):
    from langchain_postgres import PGEngine, PGVector, PGVectorStore
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(uri)
    store = PGVector(EMBEDDING, connection=engine, embedding_length=32)
    with pytest.raises(StoreError, match="async_mode=True.* Open it a second time without"):
        PostgresWords(store)
    assert lexical_search_of(store) is None
    own = PGEngine.from_engine(engine)
    await own.ainit_vectorstore_table("async_alone", 32)
    table = await PGVectorStore.create(own, EMBEDDING, "async_alone")
    with pytest.raises(StoreError, match=r"no event loop of its own.* PGEngine\.from_connection_string"):
        PostgresWords(table)
    await engine.dispose()


@pytest.mark.parametrize("stored", [False, True])
def test_pgvectorstore_searches_its_table(pg_engine, sql, stored):
    from langchain_postgres.v2.hybrid_search_config import HybridSearchConfig

    config = HybridSearchConfig(tsv_column="Its words", tsv_lang="pg_catalog.english") if stored else None
    store = table_store(pg_engine, f'Docu"ments {stored}'.replace('"', "'"), config, content_column="The text")
    search = lexical_search_of(store)
    assert isinstance(search, PostgresWords)
    assert search.language == ("pg_catalog.english" if stored else "english")
    assert ("Its words" in str(search._table.columns().words)) is stored
    check_search_by_words(search, IDS)
    odd = PostgresWords(store, metadata={"half": {"$eq": 1}})
    assert set(odd.search("router table error documents", 10).ids) == {IDS[1], IDS[5]}
    assert odd.search("router table error documents", 10, filter={IDS[0], IDS[5]}).ids == [IDS[5]]
    either = {"$or": [{"half": 1}, {"half": {"$gt": 5}}]}
    assert set(PostgresWords(store, metadata=either).search("router error documents", 10).ids) == {IDS[1], IDS[5]}


def test_an_index_over_the_texts_is_used(pg_engine, collection, sql):
    """The statements fit an index over the expression, although the language is a parameter."""
    import sqlalchemy

    def explained(connection, cursor, statement, *parameters):
        return f"EXPLAIN {statement}" if statement.startswith("WITH") else statement, parameters[0]

    def plan(search, connection):
        sqlalchemy.event.listen(connection, "before_cursor_execute", explained, retval=True)
        connection.exec_driver_sql("SET enable_seqscan = off")
        return "\n".join(row[0] for row in connection.execute(search._statement(sqlalchemy, "router", 5, None)))

    store = table_store(pg_engine, "indexed")
    sql("CREATE INDEX indexed_words ON indexed USING gin (to_tsvector('english', content))")
    sql("CREATE INDEX collection_words ON langchain_pg_embedding USING gin (to_tsvector('english', document))")

    async def table_plan():
        async with store._PGVectorStore__vs.engine.connect() as connection:
            return await connection.run_sync(lambda connection: plan(PostgresWords(store), connection))

    assert "indexed_words" in pg_engine._run_as_sync(table_plan())
    with sql.engine.connect() as connection:
        assert "collection_words" in plan(PostgresWords(collection), connection)


@pytest.mark.parametrize("hybrid", [False, True])
def test_llama_indexs_store_searches_its_table(postgres, hybrid):
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
    from llama_index.vector_stores.postgres import PGVectorStore

    store = PGVectorStore(
        connection_string=postgres.replace("postgresql://", "postgresql+psycopg2://"),
        async_connection_string=postgres.replace("postgresql://", "postgresql+asyncpg://"),
        table_name=f"nodes_{hybrid}".lower(),
        embed_dim=32,
        hybrid_search=hybrid,
        text_search_config="english",
    )
    search = lexical_search_of(store)
    assert isinstance(search, PostgresWords)
    assert search.search("router", 5).ids == [], "the table is made with the first search"
    vectors = EMBEDDING.embed_documents(TEXTS)
    store.add(
        [
            TextNode(
                id_=name,
                text=text,
                embedding=vector,
                metadata={"half": number % 2, "who's": "it's", "early": "yes" if number < 3 else "no"},
            )
            for number, (name, text, vector) in enumerate(zip(IDS, TEXTS, vectors, strict=True))
        ]
    )
    check_search_by_words(search, IDS)
    assert (search._table.columns().words is not None) is hybrid

    def found(*filters, condition=FilterCondition.AND):
        metadata = MetadataFilters(filters=list(filters), condition=condition)
        return set(PostgresWords(store, metadata=metadata).search("router table error documents", 10).ids)

    odd = MetadataFilter(key="half", value=1)
    assert found(odd) == {IDS[1], IDS[5]}
    assert found(odd, MetadataFilter(key="early", value="yes")) == {IDS[1]}
    assert found(odd, MetadataFilter(key="early", value="yes"), condition=FilterCondition.OR) == {IDS[0], IDS[1], IDS[2], IDS[5]}
    assert found(MetadataFilter(key="half", value=1, operator=FilterOperator.LT)) == {IDS[0], IDS[2]}
    assert found(MetadataFilter(key="half", value=["1", "'"], operator=FilterOperator.IN)) == {IDS[1], IDS[5]}
    assert found(MetadataFilter(key="half", value=[1], operator=FilterOperator.NIN)) == {IDS[0], IDS[2]}
    assert found(MetadataFilter(key="who's", value="it's")) == {IDS[0], IDS[1], IDS[2], IDS[5]}
    assert found(MetadataFilter(key="who's", value="x' OR '1'='1")) == set()
    assert found(MetadataFilters(filters=[odd])) == {IDS[1], IDS[5]}
    with pytest.raises(StoreError, match="cannot check the filter 'text_match'"):
        found(MetadataFilter(key="who's", value="x", operator=FilterOperator.TEXT_MATCH))
    store._engine.dispose()


def test_other_stores_are_refused():
    with pytest.raises(StoreError, match=r"needs a store among langchain_postgres\.PGVector, .*; got int\. .*WordIndex"):
        PostgresWords(1)
