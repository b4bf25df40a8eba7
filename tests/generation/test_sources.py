import json
import os
from pathlib import Path

import pytest

from deepmem_integrations.deeplake import StoredDocument
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.sources import Source, corpus_fingerprint, junk, sources_of

TEXT = (
    "The warranty of the heat pump covers the compressor for ten years and all other parts for two years. "
    "To claim it, the owner sends the invoice and the serial number to the service desk within thirty days."
)


def test_junk_is_found_with_its_reason():
    menu = "\n".join(["Home", "About us", "Products", "Services", "Contact", "News", "Jobs", "Press", "Site map"])
    links = " ".join(f"[Page {row}](https://example.com/{row})" for row in range(8))
    sources = [
        Source("fine", TEXT),
        Source("short", "See page 4."),
        Source("menu", menu),
        Source("links", links),
        Source("footer", "© 2024 Example Inc. All rights reserved. Read our Privacy Policy and the Terms of Service."),
        Source("again", f"  {TEXT}\n"),
        Source("table", "Revenue by year\n" + "\n".join(f"{year} | {year * 3} | {year * 7}" for year in range(2010, 2020))),
        Source("chinese", "保修期是多长时间" * 8),
    ]
    assert junk(sources) == {
        "short": "too short",
        "menu": "navigation",
        "links": "navigation",
        "footer": "boilerplate",
        "again": "repeats another document",
    }


@pytest.mark.slow
def test_real_documents_are_not_junk(collections):
    folder = Path(os.environ["DEEPMEM_DATA"], "data")
    for name in ("tatqa", "scifact", "nfcorpus", "cranfield", "stackfaq"):
        rows = [json.loads(line) for line in (folder / name / "corpus.jsonl").read_text("utf-8").splitlines()]
        found = junk([Source(row["_id"], f"{row['title']} {row['text']}") for row in rows])
        assert len(found) <= 0.02 * len(rows), (name, list(found.items())[:20])


# ---- documents of any framework --------------------------------------------------------------------------------------


def test_documents_of_every_framework_become_sources():
    langchain = pytest.importorskip("langchain_core.documents")
    schema = pytest.importorskip("llama_index.core.schema")
    node = schema.TextNode(id_="n", text="a node", metadata={"heading": "H"}, excluded_llm_metadata_keys=["heading"])
    documents = [
        ("pair", "a pair"),
        Source("source", "a source", "T"),
        StoredDocument("stored", "stored text", {"title": "S"}),
        langchain.Document(id="langchain", page_content="a document", metadata={"Header 1": 7}),
        node,
        schema.NodeWithScore(node=node.model_copy(update={"id_": "scored"}), score=0.5),
    ]
    assert sources_of(documents) == [
        Source("pair", "a pair"),
        Source("source", "a source", "T"),
        Source("stored", "stored text", "S"),
        Source("langchain", "a document", "7"),
        Source("n", "a node", "H"),
        Source("scored", "a node", "H"),
    ]


def test_an_id_that_is_missing_is_found_by_the_text():
    ids = {"one": "d1", "two": "d2"}
    assert sources_of([("", "one"), ("given", "two")], ids.get) == [Source("d1", "one"), Source("given", "two")]
    for documents, message in (
        ([("", "three")], r"Document 0 \('three'…\) has no id in the store"),
        ([("a", "x"), ("a", "y")], r"'a' appears twice \(again in row 1\)"),
        ([("a", "x"), 3], "Document 1 is a int: pass LangChain documents, LlamaIndex nodes, or"),
    ):
        with pytest.raises(GenerationError, match=message):
            sources_of(documents, ids.get)


def test_a_corpus_is_known_by_its_ids_and_texts_in_any_order():
    sources = [Source("a", "one"), Source("b", "two")]
    known = corpus_fingerprint(sources)
    assert corpus_fingerprint(sources[::-1]) == known
    assert corpus_fingerprint([Source("a", "one", "a title"), sources[1]]) == known
    others = [sources[:1], [Source("a", "two"), Source("b", "one")], [Source("a", "one"), Source("bt", "wo")], sources * 2]
    assert len({known, *map(corpus_fingerprint, others)}) == 5
