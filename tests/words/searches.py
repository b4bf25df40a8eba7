"""What every search by words has to do, whatever the store: the checks that the tests of all stores share."""

import numpy as np
import pytest

from deepmem_integrations.errors import StoreError
from deepmem_integrations.words import LexicalSearch

TEXTS = [
    "Restart the router and wait until all routers answer.",
    "The error ORA-00942 means that a table or view does not exist.",
    'A quote\'s "quote"; DROP TABLE documents; -- & | ! ( ) :* <-> \\ %s :name {ids} $1',
    "to be or not to be",
    "Die Fehlermeldung erscheint, weil der Маршрутизатор fehlt.",
    "The router, the router, the router of a table.",
    "Nothing in common with the others, 東京 大学.",
]

HOSTILE = [
    "'; DROP TABLE documents; --",
    "router'); DELETE FROM langchain_pg_embedding; --",
    "&|!() router <-> :* table",
    "router & ! table",
    '"a" OR "router',
    "router\\' | \\",
    "'router'' \\'' table'",
    "%s %(x)s :name {ids} $1 router",
    "ro\0uter\0 router",
    "lone \ud800 surrogate router",
    "https://example.com/router?a=1&b='2'|c router",
    "router " * 2_000,
    "-router +table AND NOT (x)",
]
"""Queries with the operators, quotes and placeholders of SQL, of Postgres's text search and of the stores' own filters."""

WORDLESS = ["", "   \n\t", "&|!()", "'", "\"\" '' ;--", "\0", "\ud800", "🎉"]


def check_search_by_words(search, ids, texts=TEXTS):
    """Check a search over the texts, whose ids are given in their order."""
    assert isinstance(search, LexicalSearch)
    row = {name: number for number, name in enumerate(ids)}

    def found(query, k=10, filter=None):
        result = search.search(query, k, filter)
        assert result.scores.dtype == np.float32 and len(result.scores) == len(result.ids) == len(set(result.ids))
        assert (np.diff(result.scores) <= 0).all() and (result.scores > 0).all()
        return [row[name] for name in result.ids]

    assert set(found("router")) == {0, 5}
    assert set(found("router ORA-00942")) == {0, 1, 5}, "one of the words is enough"
    assert found("documents quote table")[0] == 2, "who has most of the words comes first"
    assert found("Маршрутизатор") == [4]
    assert found("東京") == [6]
    assert found("xyzzy") == []
    for query in HOSTILE:
        assert {0, 5} <= set(found(query)) or ("DROP" in query and 2 in found(query)), query
    for query in WORDLESS:
        assert found(query) == [], query
    assert found("router table", k=1) == found("router table")[:1]

    everything = found("router table error documents")
    assert set(everything) == {0, 1, 2, 5}
    last = ids[everything[-1]]
    for filter in ({last}, [last, "nobody", "'; DROP", 'a"b\\', "\0", "\ud800"], {last: 1}, lambda name: name == last):
        assert found("router table error documents", 1, filter) == everything[-1:], "a filter does not shorten what is found"
    many = {last, *(f"other-{number}" for number in range(20_000))}
    assert found("router table error documents", 1, many) == everything[-1:]
    assert found("router", 5, set()) == found("router", 5, lambda name: False) == []
    assert found("router", 5, ["nobody", "x'y", "12", "\0"]) == []
    assert set(found("router", 5, set(ids))) == {0, 5}
    with pytest.raises(StoreError, match="k is the number of documents"):
        search.search("router", 0)
    with pytest.raises(StoreError, match="needs a text"):
        search.search(None, 1)
    with pytest.raises(StoreError, match="A filter is"):
        search.search("router", 1, filter="a")
