"""Vector stores that URIs name. Stores are only read, and a store that does not exist is not created."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import typer

from deepmem_integrations._extras import require
from deepmem_integrations._files import is_plain_name, read_json, user_path
from deepmem_integrations._pickles import POINTS, Record, read_records
from deepmem_integrations._redaction import redact, redacted
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.cli.options import STORES, load_object, models_path
from deepmem_integrations.corpora import LanceCorpus, ParquetCorpus
from deepmem_integrations.corpora.faiss import FaissFolder, FaissFolderCorpus
from deepmem_integrations.deeplake import DeepLakeStore, StoredDocument
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import DeepMemoryError, InvalidVectorsError, MissingExtraError, StoreError
from deepmem_integrations.memory import DeepMemory
from deepmem_integrations.opened import Found, Hit, Opened, Where
from deepmem_integrations.words import LexicalSearch

TIMEOUT = 60
"""For how many seconds a server may leave a request unanswered."""

_PICKLES = threading.Lock()
"""Held while a package reads pickles with the reader of `_pickles`."""


def open_store(uri: str, embedding: str, path: Path | None, *, models: bool = True, words: str | None = None) -> Opened:
    """Open a store.

    Args:
        uri: See `options.STORES`.
        embedding: See `load_embedding`.
        path: The folder of the models.
        models: Whether the models are needed. If not, their folder need not be known.
        words: A search by words in place of the word index: see `options.Words`.

    Raises:
        StoreError: The URI names no store, or the store cannot be opened.
        EmbeddingError: There is no such embedding model.
        MissingExtraError: A package that the store or the embedding model needs is not installed.
        BadParameter: The folder of the models is not known, or ``words`` names no search by words.
    """
    from deepmem_integrations.embedding import load_embedding

    own = None if words is None else load_object(words, "--words")
    if own is not None and not isinstance(own, LexicalSearch):
        raise typer.BadParameter(f"--words: {words} is a {type(own).__name__}, and no object with search(text, k, filter).")

    kind, _, place = uri.partition(":")
    if (kind not in ("deeplake", "faiss", *_COLUMNS) and kind not in _OPEN) or not place:
        raise StoreError(f"{redacted(uri)!r} names no vector store. Write {'; or '.join(STORES)}.")
    folder = models_path(uri, path) if models or path or kind == "deeplake" else Path(os.devnull)
    embedder = Embedder(load_embedding(embedding))
    with _store_errors(uri, "opened"):
        if kind == "deeplake":
            opened = _deeplake(place, embedder, folder)
        elif kind == "faiss":
            opened = _faiss(place, embedder, folder)
        elif kind in _COLUMNS:
            opened = _columns(kind, place, embedder, folder)
        else:
            open_kind, filter_of = _OPEN[kind]
            opened = _langchain(open_kind(place, _langchain_embeddings(embedder)), folder, filter_of)
    if own is not None:
        opened.memory.lexical_search = own

    def search(vector: list[float], k: int, cosines: bool, where: Where) -> Found:
        with _store_errors(uri, f"searched with a vector of {len(vector)} dimensions"):
            return opened.search(vector, k, cosines, where)

    def get(ids: list[str], where: Where) -> Found:
        with _store_errors(uri, "asked for documents by id"):
            return opened.get(ids, where)

    return Opened(opened.memory, search, get)


def _deeplake(place: str, embedder: Embedder, folder: Path) -> Opened:
    store = DeepLakeStore(place, read_only=True)
    memory = DeepMemory.from_deeplake(store, embedder, folder)
    return Opened(
        memory,
        lambda vector, k, _, where: _hits(store.search(vector, k, filter=_lists(where))),
        lambda ids, where: _hits(store.get(ids, filter=_lists(where))),
    )


def _faiss(place: str, embedder: Embedder, folder: Path) -> Opened:
    store = FaissFolder(_existing(place))

    def passing(found: list[StoredDocument], where: Where) -> list[StoredDocument]:
        return [one for one in found if all(one.metadata.get(key) in values for key, values in where.items())]

    def search(vector: list[float], k: int, scored: bool, where: Where) -> Found:
        fetched = max(k, len(store.ids)) if where else k  # the index knows no metadata, so all documents are ranked
        return _hits(passing(store.search(vector, fetched, scored=scored), where)[:k])

    return Opened(
        DeepMemory(FaissFolderCorpus(store), embedder, folder), search, lambda ids, where: _hits(passing(store.get(ids), where))
    )


_COLUMNS: dict[str, type[LanceCorpus | ParquetCorpus]] = {"lance": LanceCorpus, "parquet": ParquetCorpus}


def _columns(kind: str, place: str, embedder: Embedder, folder: Path) -> Opened:
    """Open documents whose ids, vectors and texts are columns, and whose search reads them all."""
    path, _, columns = place.rpartition("#") if "#" in place else (place, "", "")
    named: dict[str, Any] = dict(parse_qsl(columns, strict_parsing=bool(columns)))
    if unknown := named.keys() - {"id", "vector", "text"}:
        raise StoreError(f"{min(unknown)!r} is none of the columns that are needed: id, vector and text.")
    corpus = _COLUMNS[kind](user_path(path), **named)

    def get(ids: list[str], where: Where) -> Found:
        if where:
            raise StoreError(
                f"{kind.title()} is searched without a filter: leave it out, or load the documents into a vector store."
            )
        wanted = set(ids)
        found = {one.id: one for batch in corpus.documents() for one in batch if one.id in wanted} if ids else {}
        return _hits([found[name] for name in ids if name in found])

    def search(vector: list[float], k: int, _: bool, where: Where) -> Found:
        query = unit_rows([vector], "query vector")
        near: list[tuple[float, str]] = []
        for ids, vectors in corpus.around(lambda: query, k, ()):
            near += zip((np.asarray(vectors) @ query[0]).tolist(), ids, strict=True)
        cosine_of = {name: cosine for cosine, name in sorted(near, key=lambda one: -one[0])[:k]}
        return [replace(hit, cosine=cosine_of[hit.id]) for hit in get(list(cosine_of), where)]

    return Opened(DeepMemory(corpus, embedder, folder), search, get)


def _hits(documents: Iterable[StoredDocument]) -> Found:
    return [Hit(one.id, one.text, one.score, one.metadata) for one in documents]


def _lists(where: Where) -> dict[str, Any] | None:
    return {key: list(values) for key, values in where.items()} or None


def _langchain(vectorstore: Any, folder: Path, filter_of: Callable[[Where], Any]) -> Opened:
    from deepmem_integrations.corpora.langchain_stores import document_id
    from deepmem_integrations.langchain.stores import store_access

    access = store_access(vectorstore)

    def options(where: Where) -> dict[str, Any]:
        return {"filter": filter_of(where)} if where else {}

    def search(vector: list[float], k: int, cosines: bool, where: Where) -> Found:
        method = access.search_method if cosines else "similarity_search_by_vector"
        asked = getattr(vectorstore, method)(vector, k=k, **options(where))
        found = [one if isinstance(one, tuple) else (one, None) for one in asked]
        known = access.cosines([score for _, score in found], options(where)) if cosines else None
        values: list[float | None] = [None] * len(found) if known is None else known.tolist()
        return [
            Hit(document_id(document, vectorstore), document.page_content, value, document.metadata)
            for (document, _), value in zip(found, values, strict=True)
        ]

    def get(ids: list[str], where: Where) -> Found:
        if where and not access.obeys(options(where)):
            return []
        known = access.lookup(ids, options(where))
        return [Hit(name, document.page_content, metadata=document.metadata) for name, document in known.items()]

    return Opened(DeepMemory.from_langchain(vectorstore, folder), search, get)


def _langchain_embeddings(embedder: Embedder) -> Any:
    """Wrap the embedding model as a LangChain ``Embeddings``."""
    require("langchain_core", extra="langchain")
    from langchain_core.embeddings import Embeddings

    class Model(Embeddings):
        model_name = embedder.name

        def embed_query(self, text: str) -> list[float]:
            return [float(value) for value in embedder.embed_query(text)]

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[float(value) for value in vector] for vector in embedder.embed_documents(texts)]

    return Model()


def _chroma(place: str, embeddings: Any) -> Any:
    folder, name = _two(place, "chroma:FOLDER#COLLECTION")
    chroma = require("langchain_chroma", distribution="langchain-chroma").Chroma
    chromadb = require("chromadb", distribution="langchain-chroma")
    settings = chromadb.Settings(anonymized_telemetry=False)
    if "://" in folder:
        from urllib.parse import urlsplit

        url = urlsplit(folder)
        host, port, ssl = url.hostname, url.port or 8000, url.scheme == "https"
        # The client waits for ever and has no setting for it, and it asks the server before anything of it can be changed.
        client = _within(TIMEOUT, lambda: chromadb.HttpClient(host, port, ssl=ssl, settings=settings))
        client._server._session.timeout = TIMEOUT
    else:
        folder = _existing(folder)
        if not Path(folder, "chroma.sqlite3").is_file():
            raise StoreError(f"{folder!r} has no chroma.sqlite3, so it is not a folder of Chroma.")
        client = chromadb.PersistentClient(folder, settings=settings)
    return chroma(name, embeddings, client=client, create_collection_if_not_exists=False)


def _qdrant(place: str, embeddings: Any) -> Any:
    address, name = _two(place, "qdrant:FOLDER#COLLECTION")
    store = require("langchain_qdrant", distribution="langchain-qdrant").QdrantVectorStore
    client = require("qdrant_client", distribution="langchain-qdrant").QdrantClient
    # The key is not part of the URI, which a shell would remember.
    key = os.environ.get("QDRANT_API_KEY")
    if "://" in address:
        opened = client(url=address, api_key=key, check_compatibility=False, timeout=TIMEOUT)
    else:
        folder = Path(_existing(address))
        _check_qdrant(folder)
        with _points_without_pickle(folder):
            opened = client(path=str(folder))
    if not opened.collection_exists(name):
        there = ", ".join(collection.name for collection in opened.get_collections().collections) or "none"
        raise StoreError(f"There is no collection {name!r} in {address}. There: {there}.")
    return store(opened, name, embeddings, validate_collection_config=False)


def _check_qdrant(folder: Path) -> None:
    """Refuse a folder that would lead the client out of the folder, or let it hang."""
    meta = folder / "meta.json"
    if not meta.is_file():
        raise StoreError(f"{str(folder)!r} has no meta.json, so it is not a folder of Qdrant.")
    found = read_json(meta)
    names = found.get("collections") if isinstance(found, dict) else None
    if not isinstance(names, dict) or not all(map(is_plain_name, names)):
        raise StoreError(f"{meta} does not list collections as Qdrant does.")
    storages = [folder / "collection" / name / "storage.sqlite" for name in names]
    for path in [meta, *storages]:
        if not path.is_file() or folder.resolve() not in path.resolve().parents:
            raise StoreError(f"{path} is no file in {str(folder)!r}, where the collections of Qdrant are.")


@contextlib.contextmanager
def _points_without_pickle(folder: Path) -> Iterator[None]:
    """Let the client of Qdrant, which unpickles each point of a local folder, read points as data."""
    persistence: Any = require("qdrant_client.local.persistence", distribution="langchain-qdrant")
    models = require("qdrant_client.http.models", distribution="langchain-qdrant")

    def vector(value: Any) -> Any:
        return models.SparseVector(**value.fields) if isinstance(value, Record) else value

    def point(data: bytes) -> Any:
        fields = read_records(data, POINTS, f"a point in {folder}").fields
        found = fields["vector"]
        found = {name: vector(value) for name, value in found.items()} if isinstance(found, dict) else vector(found)
        return models.PointStruct(id=fields["id"], vector=found, payload=fields.get("payload"))

    if getattr(getattr(persistence, "pickle", None), "loads", None) is None:
        raise StoreError(
            "This version of qdrant-client reads local folders in a way that is not known here, and may run code that a folder "
            "holds. If you trust the folder, load the store yourself and use DeepMemory.from_langchain."
        )
    with _PICKLES:
        before = persistence.pickle
        persistence.pickle = SimpleNamespace(loads=point, dumps=before.dumps)
        try:
            yield
        finally:
            persistence.pickle = before


def _pgvector(place: str, embeddings: Any) -> Any:
    address, name = _two(place, "pgvector:postgresql+psycopg://USER:PASSWORD@HOST/DATABASE#COLLECTION")
    langchain_postgres = require("langchain_postgres", distribution="langchain-postgres")
    sqlalchemy = require("sqlalchemy", distribution="langchain-postgres")
    limits = _postgres_limits(sqlalchemy.make_url(address))
    engine = sqlalchemy.create_engine(address, connect_args=limits)
    # PGVector creates a collection that does not exist, so the collections are listed first.
    names: list[str] = []
    try:
        tables = sqlalchemy.inspect(engine).get_table_names()
        if "langchain_pg_collection" in tables:
            with engine.connect() as connection:
                names = list(connection.execute(sqlalchemy.text("select name from langchain_pg_collection")).scalars())
    finally:
        engine.dispose()  # it connects again when it is used
    if name in names:
        return langchain_postgres.PGVector(embeddings, connection=engine, collection_name=name, create_extension=False)
    if name in tables:
        tables_engine = langchain_postgres.PGEngine.from_connection_string(address, connect_args=limits)
        return langchain_postgres.PGVectorStore.create_sync(tables_engine, embeddings, name)
    known = ", ".join(sorted({*names, *tables} - {"langchain_pg_collection", "langchain_pg_embedding"})) or "none"
    raise StoreError(f"There is no collection and no table {name!r} in this database. There: {known}.")


def _postgres_limits(url: Any) -> dict[str, Any]:
    """Return the time limits of a connection through libpq, but for those that the URL sets itself."""
    if url.get_driver_name() not in ("psycopg", "psycopg2", "psycopg_async"):
        return {}
    limits = {
        "connect_timeout": TIMEOUT,
        "options": f"-c statement_timeout={TIMEOUT}s",
        "tcp_user_timeout": 1_000 * TIMEOUT,  # a server whose machine is gone
    }
    return {name: value for name, value in limits.items() if name not in url.query}


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """Do some work that may never end, in a thread that is left behind if it does not.

    Raises:
        TimeoutError: The work has not ended in time.
    """
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="deepmem opens a store", daemon=True).start()
    return done.result(seconds)


def _comparisons(where: Where) -> dict[str, Any]:
    """Write a filter as Chroma and PGVector take it. Chroma joins two conditions at least."""

    def joined(how: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return parts[0] if len(parts) == 1 else {how: parts}

    return joined("$and", [joined("$or", [{key: {"$eq": one}} for one in values]) for key, values in where.items()])


def _conditions(where: Where) -> Any:
    """Write a filter as Qdrant takes it."""
    models = require("qdrant_client.http.models", distribution="qdrant-client")

    def equal(key: str, value: str | int | float | bool) -> Any:
        field = f"metadata.{key}"
        if isinstance(value, float):
            return models.FieldCondition(key=field, range=models.Range(gte=value, lte=value))
        return models.FieldCondition(key=field, match=models.MatchValue(value=value))

    return models.Filter(must=[models.Filter(should=[equal(key, one) for one in values]) for key, values in where.items()])


_OPEN: dict[str, tuple[Callable[[str, Any], Any], Callable[[Where], Any]]] = {
    "chroma": (_chroma, _comparisons),
    "qdrant": (_qdrant, _conditions),
    "pgvector": (_pgvector, _comparisons),
}


def _two(place: str, written: str) -> tuple[str, str]:
    address, _, name = place.rpartition("#")
    if not address or not name:
        raise StoreError(f"{place!r} names no collection: write {written}.")
    return address, name


def _existing(folder: str) -> str:
    if not Path(user_path(folder)).is_dir():
        raise StoreError(f"There is no folder {folder!r}.")
    return user_path(folder)


@contextlib.contextmanager
def _store_errors(uri: str, what: str) -> Iterator[None]:
    """Turn the errors of the stores' own packages into a StoreError, and keep passwords and keys out of messages."""
    try:
        yield
    except InvalidVectorsError as error:
        raise InvalidVectorsError(f"The store {redacted(uri)} cannot be {what}: {redact(str(error), uri)}") from None
    except DeepMemoryError as error:
        if isinstance(error, MissingExtraError) or redact(str(error), uri) == str(error):
            raise
        raise type(error)(redact(str(error), uri)) from None  # the cause may hold the password as well
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # Chroma's damaged folders raise pyo3's PanicException, which is no Exception
        told = f"{type(error).__name__}: {error}"
        if "timeout" in told.lower() or "timed out" in told:
            told = f"the server gave no answer for {TIMEOUT} seconds, see whether it is at work ({told})"
        message = redact(told, uri)
        hides = message != told
        raise StoreError(f"The store {redacted(uri)} cannot be {what}: {message}") from (None if hides else error)
