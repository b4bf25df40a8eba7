"""Real stores of LangChain that open in this process, as the tests of several parts open them."""

import sqlite3
import warnings


def in_lancedb(embeddings, folder, **options):
    from langchain_community.vectorstores import LanceDB

    return LanceDB(uri=str(folder / "lance"), embedding=embeddings, mode="append", **options)


def in_milvus(embeddings, folder, metric="L2", **options):
    from langchain_milvus import Milvus

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Milvus's packages warn of one another
        index = {"index_type": "FLAT", "metric_type": metric, "params": {}}
        connection = {"uri": str(folder / "milvus.db")}
        return Milvus(embeddings, connection_args=connection, index_params=index, auto_id=False, **options)


def in_sqlitevec(embeddings, folder, table="documents"):
    import sqlite_vec
    from langchain_community.vectorstores import SQLiteVec

    # Where Python's own SQLite loads no extensions, the package pysqlite3-binary does.
    package = sqlite3
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        import pysqlite3 as package
    connection = package.connect(str(folder / "documents.sqlite"), check_same_thread=False)
    connection.row_factory = package.Row
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    connection.enable_load_extension(False)
    return SQLiteVec(table=table, connection=connection, embedding=embeddings)


def in_sklearn(embeddings, folder, metric="cosine"):
    from langchain_community.vectorstores import SKLearnVectorStore

    return SKLearnVectorStore(embeddings, metric=metric)


def in_duckdb(embeddings, folder):
    import duckdb
    from langchain_community.vectorstores import DuckDB

    return DuckDB(connection=duckdb.connect(str(folder / "documents.duckdb")), embedding=embeddings)
