"""Labels that name parents: training, evaluating, remembering, forgetting, with the frameworks' own splitters and retrievers."""

import asyncio

import numpy as np
import pytest
from langchain_classic.retrievers import MultiVectorRetriever, ParentDocumentRetriever
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.stores import InMemoryStore
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import CharacterTextSplitter

from deepmem_integrations import DeepMemory, QueryAdapter, Relevance, evaluate, train_adapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.errors import InvalidRelevanceError, StoreError
from deepmem_integrations.evaluation import WITH, WITHOUT
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.langchain import DeepMemoryEmbeddings, DeepMemoryRetriever
from deepmem_integrations.training import train as training
from deepmem_integrations.training.linear import _Softmax
from tests.langchain.helpers import Lookup

pytestmark = pytest.mark.slow  # each trains
PARTS = 3


def page(name):
    """Return the page of a document of the problem: three documents in turn are the parts of a page."""
    return f"page-{int(name.split('-')[1]) // PARTS}"


def of_pages(labels, level="doc_uri"):
    return Relevance(
        labels.queries, [[(page(name), weight) for name, weight in row] for row in labels.labels], labels.query_ids, level=level
    )


@pytest.fixture
def langchain(problem, lookup):
    documents = [Document(name, id=name, metadata={"doc_uri": page(name)}) for name in problem.ids]
    store = InMemoryVectorStore(lookup)
    store.add_documents(documents)
    return store


@pytest.fixture
def lookup(problem):
    return Lookup(problem)


@pytest.fixture
def trained(problem, langchain, tmp_path):
    memory = DeepMemory.from_langchain(langchain, tmp_path / "m")
    memory.train(of_pages(problem.train), words=False)
    return memory


def parents_of(problem):
    return {name: page(name) for name in problem.ids}


def test_training_by_page_beats_the_untransformed_queries_and_nearly_equals_labels_of_parts(problem):
    told = {"corpus_parents": parents_of(problem)}
    by_page = train_adapter(problem.train_queries, of_pages(problem.train), problem.corpus, problem.ids, **told)
    by_part = train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids)

    def measure(result):
        test = problem.test_queries, of_pages(problem.test), problem.corpus, problem.ids
        return evaluate(*test, adapter=result.adapter, **told)

    before, after = (measure(by_page)[side]["ndcg@10"] for side in (WITHOUT, WITH))
    assert after > before + 0.1
    assert after > measure(by_part)[WITH]["ndcg@10"] - 0.05
    assert by_page.report.labelled_documents == len({page(name) for name in problem.train.document_ids})


def test_evaluation_ranks_parents_by_their_first_part(problem):
    labels = of_pages(problem.test)
    result = evaluate(problem.test_queries, labels, problem.corpus, problem.ids, corpus_parents=parents_of(problem), top_k=[5])
    for query, found in zip(problem.test_queries, result.found[WITHOUT], strict=True):
        ranking = [page(problem.ids[row]) for row in np.argsort(-(problem.corpus @ query), kind="stable")]
        assert found == list(dict.fromkeys(ranking))[:10]


def test_a_parent_of_a_thousand_parts_takes_one_place(problem):
    rng = np.random.default_rng(0)
    corpus = np.concatenate([problem.corpus, problem.test_queries.mean(axis=0) + 0.1 * rng.normal(size=(1000, 32))])
    ids = [*problem.ids, *(f"long-{row}" for row in range(1000))]
    told = {"corpus_parents": parents_of(problem) | {f"long-{row}": "long" for row in range(1000)}}
    labels = of_pages(problem.train).take(range(60))
    result = train_adapter(problem.train_queries[:60], labels, corpus, ids, **told)
    evaluation = evaluate(problem.test_queries, of_pages(problem.test), corpus, ids, adapter=result.adapter, **told)
    for side in evaluation:
        assert all(len(set(found)) == len(found) >= 10 for found in evaluation.found[side])
    plain = evaluate(problem.test_queries, problem.test, corpus, ids)
    assert evaluation[WITHOUT]["recall@10"] > plain[WITHOUT]["recall@10"]


def test_folds_draw_parents(problem):
    """No part of a page that is held out in the unseen view is a label of a training query."""
    merged = training._merge(
        problem.train_queries / np.linalg.norm(problem.train_queries, axis=1, keepdims=True),
        of_pages(problem.train),
        None,
        problem.corpus,
        problem.ids,
        0,
        corpus_parents=parents_of(problem),
    )
    data = merged.data
    for fold in training.folds(data.labels, "unseen", 0, None, data.of_row):
        held, trained = (set(data.of_row[labels.documents].tolist()) for labels in (fold.held_labels, fold.train_labels))
        assert held and trained and not held & trained


def test_a_part_of_the_same_page_is_no_negative(problem):
    """The other parts of a query's page are left out of its softmax."""
    labels, pool = LabelRows.of_rows([{0: 1.0}, {4: 1.0}]), np.arange(6)
    softmax = _Softmax(labels, problem.corpus[:6], pool, np.array([[1, 3], [0, 1]]), np.random.default_rng(0), pool // 3)
    documents, counts = softmax.documents(np.array([0, 1]))
    assert len(documents) == 6
    assert (counts.numpy() < -1).tolist() == [[False, True, True, False, False, False], [False, False, False, True, False, True]]


def test_the_memory_works_by_page(problem, trained, caplog):
    assert trained.adapter.metadata["level"] == "doc_uri"
    evaluation = trained.measure(of_pages(problem.test))
    assert evaluation[WITH]["ndcg@10"] > evaluation[WITHOUT]["ndcg@10"] + 0.1
    assert "warning" not in caplog.text.lower()
    again = asyncio.run(trained.ameasure(of_pages(problem.test)))
    assert again == evaluation


def test_a_report_is_of_pages(problem, trained, tmp_path):
    labels = of_pages(problem.test)
    gone = Relevance(["what is gone?"], [[("page-999", 1.0)]], ["gone"], level="doc_uri")
    with pytest.raises(InvalidRelevanceError, match="'page-999'"):
        trained.report(labels + gone)
    model = trained.adapter
    model = QueryAdapter(**(model._parts()._asdict() | {"ranking": Ranking(answers=0.5)})).with_metadata(**model.metadata)
    trained.folder.save_model("with-answers", model)
    with pytest.warns(UserWarning, match="Left out 1 of 121"):
        report = trained.report(labels + gone, tmp_path / "report.html", model="with-answers", on_invalid="drop")
    values, evaluation = report.to_json(), trained.measure(labels, model="with-answers")
    assert values["provenance"]["level"] == "doc_uri"
    assert "doc_uri" in (tmp_path / "report.html").read_text(encoding="utf-8")
    recall = values["curves"]["all"]["scores"]
    assert recall[WITH]["recall@10"]["mean"] == pytest.approx(evaluation[WITH]["recall@10"])
    assert recall["answers alone"]["recall@10"]["mean"] > 0.2
    assert values["curves"]["seen"]["queries"] > 20, "pages that were asked for, and not only the very parts"
    assert values["labels"]["documents without labels"]["count"] + values["labels"]["training"]["documents labelled"] == 100
    assert values["labels"]["labels without documents"]["count"] == 0
    shown = [one for query in values["queries"] for one in query["after"]]
    assert all(one["id"].startswith("page-") and one["text"].startswith("doc-") for one in shown)
    named = [document for query in values["queries"] for document in query["evidence"]["alike"]["documents"]]
    assert named and all(name.startswith("page-") for name in named)
    lengths = values["advice"]["rows"][0]["context"][WITH]
    assert 3 * len("doc-1") <= lengths <= 3 * len("doc-299"), "a page is as long as its three parts"


def test_labels_of_parts_become_labels_of_their_pages(langchain, tmp_path):
    documents = DeepMemory.from_langchain(langchain, tmp_path).documents()
    labels = Relevance(
        ["a", "b", "c"],
        [[("doc-0", 1.0), ("doc-1", -1.0), ("doc-2", 0.5)], [("doc-3", -1.0), ("page-2", 1.0)], [("gone", 1.0)]],
        times=[1.0, 2.0, 3.0],
        shown=[["doc-0", "doc-5", "doc-1"], None, ["gone"]],
    )
    with pytest.warns(UserWarning, match="document not in the corpus"):
        pages = labels.at_level("doc_uri", documents)
    assert pages.labels == ((("page-0", 1.0),), (("page-2", 1.0),))
    assert pages.irrelevant == ((), (("page-1", -1.0),))
    assert pages.shown == (("page-0", "page-1"), None)
    assert (pages.level, pages.times, pages.query_ids) == ("doc_uri", labels.times[:2], ("0", "1"))
    assert pages.left_out["document not in the corpus"] == 1
    with pytest.raises(InvalidRelevanceError, match="name parents already"):
        pages.at_level("doc_uri", documents)
    with pytest.raises(StoreError, match="Not one of the 300 documents has 'uri'"):
        labels.at_level("uri", documents)


def test_clicks_on_pages_are_compared_by_how_candidates_order_what_was_shown(problem):
    """Whether the labels say that pages were shown, as those of at_level do, or their parts."""
    rng, pages = np.random.default_rng(0), sorted(set(map(page, problem.ids)))
    shown, of_parts = [], []
    for ((name, _),) in problem.train.labels:
        ten = rng.permutation([page(name), *rng.choice(pages, size=9, replace=False)])
        shown.append(["gone", *ten])
        of_parts.append(["gone", *(f"doc-{PARTS * int(one.split('-')[1]) + 1}" for one in ten)])
    labels, parents = of_pages(problem.train), parents_of(problem)
    merged = [
        training._merge(
            unit_rows(problem.train_queries, "query"),
            Relevance(labels.queries, labels.labels, shown=lists, level="doc_uri"),
            *(None, problem.corpus, problem.ids, 0),
            corpus_parents=parents,
        )
        for lists in (shown, of_parts)
    ]
    by_page, by_part = (one.shown() for one in merged)
    assert by_page == by_part
    ranks = by_page[0]
    first = int(shown[merged[0].order[0]][1].split("-")[1])
    assert [ranks[PARTS * first + part] for part in range(PARTS)] == [2] * PARTS
    assert len(ranks) == PARTS * len(set(shown[merged[0].order[0]]) - {"gone"})
    told = Relevance(labels.queries, labels.labels, shown=shown, level="doc_uri")
    report = train_adapter(problem.train_queries, told, problem.corpus, problem.ids, corpus_parents=parents).report
    assert report.shown == 11
    assert report.seen.base["recall@10"] > 0.9, "of eleven"


def test_a_store_that_is_never_read_in_full(problem, langchain, trained, tmp_path, caplog):
    """What the store finds tells its own parents: training, evaluating, reporting and remembering need no listing."""
    memory = DeepMemory.from_langchain(langchain, tmp_path / "n", scan=False)
    memory.train(of_pages(problem.train), words=False)
    found, whole = (one.measure(of_pages(problem.test)) for one in (memory, trained))
    assert found[WITHOUT] == whole[WITHOUT], "as many pages are found as recall@100 asks for"
    assert found[WITH]["ndcg@10"] == pytest.approx(whole[WITH]["ndcg@10"], abs=0.05)
    values = memory.report(of_pages(problem.test)).to_json()
    assert values["curves"]["all"]["scores"][WITH]["recall@10"]["mean"] == pytest.approx(found[WITH]["recall@10"])
    assert values["curves"]["seen"]["queries"] > 20
    memory.remember(Relevance(["what is on page 99?"], [[("page-99", 1.0)]], ["q-new"], level="doc_uri"))
    assert "page-99" in memory.adapter.metadata["parents"].values()
    memory.train(of_pages(problem.train), words=False, in_use="if better")
    assert memory.audit()[-1].figures["questions"] >= 20
    with pytest.raises(InvalidRelevanceError, match="'page-999'"):
        memory.measure(of_pages(problem.test) + Relevance(["?"], [[("page-999", 1.0)]], level="doc_uri"))
    assert "1 labelled parents are not among the 1000 nearest of any query" in caplog.text
    with pytest.raises(StoreError, match="Not one of the documents that the store finds has 'uri'"):
        memory.measure(of_pages(problem.test, "uri"))


def test_unknown_parents(problem, trained):
    labels = of_pages(problem.train) + Relevance(["new"], [[("page-999", 1.0)]], level="doc_uri")
    with pytest.raises(InvalidRelevanceError, match="'page-999'"):
        trained.train(labels, words=False)
    with pytest.raises(InvalidRelevanceError, match="'page-999'"):
        trained.measure(labels)
    with pytest.raises(InvalidRelevanceError, match="'page-999'"):
        trained.remember(Relevance(["new"], [[("page-999", 1.0)]], level="doc_uri"))
    with pytest.warns(UserWarning, match="Left out 1 of 241"):
        trained.train(labels, words=False, on_invalid="drop")


def test_a_model_is_put_in_use_by_a_test_on_pages(problem, langchain, tmp_path):
    memory = DeepMemory.from_langchain(langchain, tmp_path / "n")
    memory.train(of_pages(problem.train), words=False, in_use="if better")
    figures = memory.audit()[-1].figures
    assert figures["questions"] >= 20 and figures["scores"]["new model"]["recall@10"] > 0.5
    with pytest.raises(InvalidRelevanceError, match="name parents by 'doc_uri' and those documents"):
        memory.train(of_pages(problem.train), validation=problem.test)


def test_remembered_and_forgotten_by_page(problem, trained):
    new = "what is on page 99?"
    trained.remember(Relevance([new], [[("page-99", 1.0)]], ["q-new"], level="doc_uri"))
    remembered = trained.adapter.remembered_queries
    row = remembered.query_ids.index("q-new")
    (part,) = remembered.documents_of(row)
    assert page(part) == "page-99"
    vector = np.array(trained.embedder.embed_queries([new])[0])
    rows = [name for name in problem.ids if page(name) == "page-99"]
    assert part == max(rows, key=lambda name: float(problem.corpus[problem.ids.index(name)] @ vector))
    assert trained.adapter.metadata["parents"][part] == "page-99"

    gone = page(problem.train.labels[0][0][0])
    trained.forget(document_ids=[gone, "page-99"])
    adapter = trained.adapter
    assert not {page(name) for name in adapter.remembered_queries.document_ids} & {gone, "page-99"}
    assert not {gone, "page-99"} & set(adapter.metadata["parents"].values())
    assert "q-new" not in adapter.remembered_queries.query_ids
    with pytest.raises(InvalidRelevanceError, match="knows none of the ids"):
        trained.forget(document_ids=["page-99"])


def test_documents_without_the_key_stand_for_themselves(problem, lookup, tmp_path, caplog):
    store = InMemoryVectorStore(lookup)
    keyed = problem.ids[:240]
    store.add_documents([Document(name, id=name, metadata={"doc_uri": page(name)}) for name in keyed])
    store.add_documents([Document(name, id=name) for name in problem.ids[240:]])
    memory = DeepMemory.from_langchain(store, tmp_path / "m")
    memory.train(of_pages(problem.train), words=False)
    assert "60 of 300 documents have no 'doc_uri'" in caplog.text
    own = Relevance(["a", "b"], [[("doc-299", 1.0)], [("page-0", 1.0)]], level="doc_uri")
    assert memory.measure(own, top_k=[140])[WITH]["recall@140"] == 1.0  # 80 pages and 60 documents
    with pytest.raises(StoreError, match="Not one of the 300 documents has 'uri'.*'doc_uri'"):
        memory.measure(of_pages(problem.test, "uri"))


def test_after_a_re_chunking_the_labels_stay_and_answers_move(problem, lookup, langchain, trained, tmp_path):
    """Every part is cut anew: pages keep their names, so labels stay as they are, and remembered answers move by text."""
    before = {document.id: document.page_content for document in trained.documents()}
    store = InMemoryVectorStore(lookup)
    store.add_documents([Document(name, id=f"new-{name}", metadata={"doc_uri": page(name)}) for name in problem.ids])
    memory = DeepMemory.from_langchain(store, tmp_path / "m")
    memory.relabel(before)
    assert all(name.startswith("new-") for name in memory.adapter.remembered_queries.document_ids)
    assert set(memory.adapter.metadata["parents"]) == set(memory.adapter.remembered_queries.document_ids)
    memory.train(of_pages(problem.train), words=False)
    assert memory.measure(of_pages(problem.test))[WITH]["ndcg@10"] > 0.5


class TestLangChain:
    def test_parent_document_retriever(self, problem, lookup, tmp_path):
        """Parents come from the retriever's own docstore, and parts keep the metadata of their parents."""
        store, k = InMemoryVectorStore(lookup), {"k": 30}
        pages = [
            Document("\n\n".join(problem.ids[row : row + PARTS]), metadata={"doc_uri": page(problem.ids[row])})
            for row in range(0, 300, PARTS)
        ]
        splitter = CharacterTextSplitter(separator="\n\n", chunk_size=8, chunk_overlap=0)
        plain = ParentDocumentRetriever(vectorstore=store, docstore=InMemoryStore(), child_splitter=splitter, search_kwargs=k)
        plain.add_documents(pages)
        memory = DeepMemory.from_langchain(store, tmp_path / "m")
        memory.train(of_pages(problem.train), words=False)
        served = InMemoryVectorStore(DeepMemoryEmbeddings(lookup, memory=memory))
        served.store = store.store
        retriever = plain.model_copy(update={"vectorstore": served})
        evaluation = memory.measure(of_pages(problem.test), retriever=retriever, plain=plain)
        assert evaluation[WITH]["ndcg@10"] > evaluation[WITHOUT]["ndcg@10"] + 0.1
        assert asyncio.run(memory.ameasure(of_pages(problem.test), retriever=retriever, plain=plain)) == evaluation
        by_id = of_pages(problem.train, level="doc_id")  # the key of the retriever, whose values it has drawn
        with pytest.raises(InvalidRelevanceError, match="values of 'doc_id'"):
            memory.train(by_id)

    def test_multi_vector_retriever_and_ours(self, problem, langchain, trained):
        """Summaries or parts in the store, whole pages in a docstore, joined by the level's own key."""
        docstore = InMemoryStore()
        docstore.mset([(name, Document(name, id=name)) for name in {page(part) for part in problem.ids}])
        plain = MultiVectorRetriever(vectorstore=langchain, docstore=docstore, id_key="doc_uri", search_kwargs={"k": 30})
        ours = DeepMemoryRetriever(vectorstore=langchain, memory=trained, k=30)

        def pages(text):
            return docstore.mget(list(dict.fromkeys(part.metadata["doc_uri"] for part in ours.invoke(text))))

        evaluation = trained.measure(of_pages(problem.test), retriever=RunnableLambda(pages), plain=plain)
        assert evaluation[WITH]["ndcg@10"] > evaluation[WITHOUT]["ndcg@10"] + 0.1
        alone = trained.measure(of_pages(problem.test), retriever=ours)
        assert alone[WITH]["recall@100"] == pytest.approx(evaluation[WITH]["recall@100"])
        assert asyncio.run(trained.ameasure(of_pages(problem.test), retriever=ours)) == alone


class TestLlamaIndex:
    @pytest.fixture
    def nodes(self, problem):
        from llama_index.core.node_parser import HierarchicalNodeParser, SentenceSplitter
        from llama_index.core.schema import Document as Source

        sources = [
            Source(text="\n\n".join(problem.ids[row : row + PARTS]), id_=page(problem.ids[row])) for row in range(0, 300, PARTS)
        ]
        split = lambda size: SentenceSplitter(chunk_size=size, chunk_overlap=0, tokenizer=str.split, paragraph_separator="\n\n")  # noqa: E731
        parser = HierarchicalNodeParser.from_defaults(
            node_parser_ids=["page", "part"], node_parser_map={"page": split(10), "part": split(1)}
        )
        return parser.get_nodes_from_documents(sources)

    def test_auto_merging_retriever(self, problem, nodes, tmp_path):
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.node_parser import get_leaf_nodes
        from llama_index.core.retrievers import AutoMergingRetriever

        from deepmem_integrations.llama_index import DeepMemoryRetriever
        from tests.llama_index.helpers import Lookup

        leaves = get_leaf_nodes(nodes)
        assert len(leaves) == len(problem.ids)
        storage = StorageContext.from_defaults()
        storage.docstore.add_documents(nodes)
        index = VectorStoreIndex(leaves, storage_context=storage, embed_model=Lookup(problem))
        memory = DeepMemory.from_llama_index(index, tmp_path / "m")
        memory.train(of_pages(problem.train, "ref_doc_id"), words=False)
        labels = of_pages(problem.test, "ref_doc_id")
        ours = DeepMemoryRetriever(index, memory=memory, similarity_top_k=30)
        merging = AutoMergingRetriever(ours, storage)
        plain = AutoMergingRetriever(index.as_retriever(similarity_top_k=30), storage)
        evaluation = memory.measure(labels, retriever=merging, plain=plain)
        assert evaluation[WITH]["ndcg@10"] > evaluation[WITHOUT]["ndcg@10"] + 0.1
        assert memory.measure(labels)[WITH]["ndcg@10"] > 0.5
        assert asyncio.run(memory.ameasure(labels, retriever=merging, plain=plain)) == evaluation
