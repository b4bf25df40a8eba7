"""Corpora of Parquet files, on disk; tests/test_cluster.py reads them from S3."""

import os
import pickle

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from deepmem_integrations import DeepMemory, QueryAdapter, Relevance, evaluate, train_adapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.corpora import ParquetCorpus, parquet, read_corpus
from deepmem_integrations.errors import InvalidRelevanceError, InvalidVectorsError, StoreError
from deepmem_integrations.words import WordIndex


def write(path, ids, vectors, rows=20, **columns):
    pq.write_table(pa.table({"id": ids, "vector": vectors, **columns}), path, row_group_size=rows)


def fixed(vectors):
    return pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(vectors).ravel()), len(vectors[0]))


@pytest.fixture
def folder(problem, tmp_path):
    """The problem's documents in three files, with ids, vectors and texts."""
    place = tmp_path / "pages"
    (place / "more").mkdir(parents=True)
    for number, name in enumerate(["a.parquet", "b.parquet", "more/c.parquet"]):
        rows = slice(100 * number, 100 * number + 100)
        ids = problem.ids[rows]
        write(place / name, ids, fixed(problem.corpus[rows]), text=[f"text of {name}" for name in ids], page=list(range(100)))
    return place


def test_shards_follow_row_groups_and_hold_all_documents(folder, problem, monkeypatch):
    monkeypatch.setattr(parquet, "SHARD_ROWS", 60)
    corpus = ParquetCorpus(folder)
    assert [(shard.first, shard.count) for shard in corpus.shards()] == [
        (0, 60), (60, 40), (100, 60), (160, 40), (200, 60), (260, 40),
    ]  # fmt: skip
    assert (len(corpus), corpus.dimension) == (300, 32)
    ids, vectors = read_corpus(corpus.vectors())
    assert ids == problem.ids
    np.testing.assert_allclose(vectors, problem.corpus, atol=1e-6)
    assert corpus.known({"doc-7", "doc-299", "no-such"}) == {"doc-7", "doc-299"}
    found = [document for batch in corpus.documents() for document in batch]
    assert (found[5].id, found[5].text, found[5].metadata) == ("doc-5", "text of doc-5", {"page": 5})
    assert sum(len(texts) for _, texts in corpus.texts()) == 300
    again = pickle.loads(pickle.dumps(corpus.shards()[4]))
    assert next(again.batches())[0] == problem.ids[200:260]


@pytest.mark.parametrize("path", ["pages", "~/pages/*.parquet"])
def test_files_are_found_where_the_process_changes_its_folder(folder, path, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    corpus = ParquetCorpus(path)
    monkeypatch.chdir("/")
    assert next(corpus.vectors())[0][0] == "doc-0"
    assert corpus.fingerprint() == ParquetCorpus(corpus.paths).fingerprint()


@pytest.mark.parametrize("path", ["a.parquet", "*.parquet", ["b.parquet", "a.parquet"]])
def test_files_patterns_and_lists(folder, path):
    path = [str(folder / one) for one in path] if isinstance(path, list) else folder / path
    first = next(ParquetCorpus(path).vectors())[0][0]
    assert first == ("doc-100" if isinstance(path, list) else "doc-0")


@pytest.mark.parametrize(
    "vectors",
    [
        pa.array([[3.0, 4.0], [1.0, 0.0]], pa.list_(pa.float64())),
        pa.array([[3.0, 4.0], [1.0, 0.0]], pa.large_list(pa.float32())),
        pa.array([[3, 4], [1, 0]], pa.list_(pa.int8())),
        pa.FixedSizeListArray.from_arrays(pa.array(np.array([3, 4, 1, 0], dtype=np.float16)), 2),
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[3, 4], [1, 0]], dtype=np.float32)),
    ],
    ids=lambda vectors: str(vectors.type)[:12],
)
def test_lists_of_any_numbers(vectors, tmp_path):
    write(tmp_path / "x.parquet", [1, 2], vectors)
    ids, found = read_corpus(ParquetCorpus(tmp_path / "x.parquet").vectors())
    assert ids == ["1", "2"], "whole numbers are ids, too"
    np.testing.assert_allclose(found, [[0.6, 0.8], [1.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("ids", "vectors", "error", "message"),
    [
        (["a", "b"], [[1.0, 2.0], [1.0]], InvalidVectorsError, r"vector 1 \(id 'b'\).*1 numbers where others have 2"),
        (["a", "b"], [[1.0, 2.0], None], InvalidVectorsError, r"vector 1 \(id 'b'\).*no vector"),
        (["a", "b"], [[1.0, 2.0], [1.0, None]], InvalidVectorsError, "a number that is missing"),
        (["a", "b"], [[1.0, 2.0], [0.0, 0.0]], InvalidVectorsError, r"vector 1 \(id 'b'\) is all zeros"),
        (["a", None], [[1.0, 2.0], [1.0, 1.0]], StoreError, "has no id in the column 'id'"),
        (["a", "a"], [[1.0, 2.0], [1.0, 1.0]], InvalidVectorsError, "'a' appears twice"),
        (["a", "b"], [1.0, 2.0], StoreError, "holds double; lists of numbers are needed"),
    ],
)
def test_what_cannot_be_used_is_named(ids, vectors, error, message, tmp_path):
    write(tmp_path / "x.parquet", ids, vectors)
    with pytest.raises(error, match=message):
        read_corpus(ParquetCorpus(tmp_path / "x.parquet").vectors())


def test_missing_files_and_columns_are_named(folder, tmp_path):
    with pytest.raises(StoreError, match="Cannot read .*nothing"):
        len(ParquetCorpus(tmp_path / "nothing.parquet"))
    with pytest.raises(StoreError, match="There is no Parquet file in"):
        len(ParquetCorpus(tmp_path / "*.parquet"))
    with pytest.raises(StoreError, match="no column 'embedding'. Its columns are 'id', 'vector', 'text', 'page'"):
        len(ParquetCorpus(folder, vector="embedding"))
    with pytest.raises(StoreError, match="no column 'body'"):
        next(ParquetCorpus(folder, text="body").texts())


def test_training_and_evaluation_are_those_of_an_array(folder, problem, monkeypatch):
    monkeypatch.setattr(parquet, "SHARD_ROWS", 60)
    result = train_adapter(problem.train_queries, problem.train, ParquetCorpus(folder))
    of_array = train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids)
    assert result.report.chosen == of_array.report.chosen
    np.testing.assert_allclose(
        result.adapter.transform(problem.test_queries), of_array.adapter.transform(problem.test_queries), atol=1e-4
    )
    for adapter in (None, result.adapter):
        found = evaluate(problem.test_queries, problem.test, ParquetCorpus(folder), adapter=adapter, top_k=[1, 10])
        wanted = evaluate(problem.test_queries, problem.test, problem.corpus, problem.ids, adapter=adapter, top_k=[1, 10])
        assert found.found == wanted.found
        assert found == wanted
    with pytest.raises(InvalidRelevanceError, match="'doc-7' is not in the corpus"):
        train_adapter(problem.train_queries, [[("doc-7", 1.0)]] * 240, ParquetCorpus(folder / "b.parquet"))


def test_what_spark_and_delta_lake_write_beside_the_data_is_left_out(folder, problem):
    for name in ("_delta_log/0.checkpoint.parquet", "_temporary/0/a.parquet", "more/._c.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no documents")
    assert len(ParquetCorpus(folder)) == 300
    assert len(ParquetCorpus(folder.rename(folder.with_name("_pages")))) == 300, "the folder itself may have any name"


def test_files_of_other_writers_are_found(folder):
    (folder / "a.parquet").rename(folder / "A.PARQUET")
    (folder / "b.parquet").rename(folder / "b.parq")
    (folder / "more" / "c.parquet").rename(folder / "more" / "000000_0")
    (folder / "more" / "NOTES").write_text("no documents, in a few words")
    (folder / "year=2026_$folder$").touch()
    (folder / "latest").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe")
    (folder / "notes.md").write_text("no documents")
    assert len(ParquetCorpus(folder)) == 300


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_file_that_is_replaced_while_it_is_read_is_told(folder, problem, moment):
    """Before, its rows were missing in silence where the new file has other row groups, as after a compaction."""

    def replace():
        rows = problem.corpus[:100]
        write(folder / "new", problem.ids[:100], fixed(rows), rows=5)
        (folder / "new").replace(folder / "a.parquet")

    shard = ParquetCorpus(folder / "a.parquet").shards()[0]
    if moment == "before":
        replace()
    with pytest.raises(StoreError, match=r"a\.parquet was written while it was read: start anew"):
        for _ in shard.read(["id"], 10):
            replace()
    assert len(ParquetCorpus(folder / "a.parquet")) == 100


def test_a_file_whose_name_looks_like_a_pattern(folder):
    path = (folder / "a.parquet").rename(folder / "a [2026].parquet")
    assert len(ParquetCorpus(path)) == 100


@pytest.mark.parametrize("ids", [[0.0, 1.0], [b"a", b"b"], [True, False], [["a"], ["b"]]], ids=["float", "bytes", "bool", "list"])
def test_ids_that_are_neither_texts_nor_whole_numbers_are_refused(tmp_path, ids):
    write(tmp_path / "a.parquet", ids, [[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(StoreError, match="column 'id' of .* holds .*, where ids are texts or whole numbers"):
        ParquetCorpus(tmp_path / "a.parquet").shards()


def test_a_null_is_an_empty_text_and_a_missing_number_is_named(tmp_path):
    write(tmp_path / "a.parquet", ["a", "b"], [[1.0, 0.0], [0.0, 1.0]], text=["a text", None])
    corpus = ParquetCorpus(tmp_path / "a.parquet")
    assert [texts for _, texts in corpus.texts()] == [["a text", ""]]
    vectors = [[1.0, 0.0]] * 40 + [[0.0, None]] + [[1.0, 0.0]] * 3
    write(tmp_path / "b.parquet", [f"doc-{row}" for row in range(44)], vectors, rows=44)
    with pytest.raises(InvalidVectorsError, match=r"vector 40 \(id 'doc-40'\)"):
        list(ParquetCorpus(tmp_path / "b.parquet").vectors())


def test_without_texts_what_is_gone_is_pruned(folder, problem, embeddings, tmp_path):
    for name in ("a.parquet", "b.parquet", "more/c.parquet"):
        pq.write_table(pq.read_table(folder / name).drop_columns(["text"]), folder / name)
    memory = DeepMemory(ParquetCorpus(folder), embeddings, tmp_path / "m")
    memory.train(problem.train, words=False)
    if memory.adapter.remembered_queries is None:
        pytest.skip("the model remembers no queries")
    (folder / "more" / "c.parquet").unlink()
    memory.prune()
    assert memory.adapter.remembered_queries.document_ids
    assert all(int(name.split("-")[1]) < 200 for name in memory.adapter.remembered_queries.document_ids)


def test_ids_may_be_the_texts(tmp_path):
    write(tmp_path / "a.parquet", ["a", "b"], [[1.0, 0.0], [0.0, 1.0]])
    corpus = ParquetCorpus(tmp_path / "a.parquet", text="id")
    assert [document.text for batch in corpus.documents() for document in batch] == ["a", "b"]


def test_words_are_searched_once_for_each_query(folder, problem, tmp_path):
    class Counting:
        name = "WordIndex"

        def __init__(self, index):
            self.asked, self._index = [], index

        def search(self, text, k, filter=None):
            self.asked.append(text)
            return self._index.search(text, k, filter)

    corpus = ParquetCorpus(folder)
    index = WordIndex.build(tmp_path / "words", corpus.texts(), "en")
    queries, labels = problem.test_queries[:3], [[(name, 1.0)] for name in ("doc-1", "doc-2", "doc-3")]
    test = Relevance(["text of doc-1", "text of doc-2", "text of doc-1"], labels)
    counting, adapter = Counting(index), QueryAdapter(32, ranking=Ranking(words=1.0))
    result = evaluate(queries, test, corpus, adapter=adapter, words=counting)
    assert counting.asked == ["text of doc-1", "text of doc-2"]
    array = evaluate(queries, test, *reversed(read_corpus(corpus.vectors())), adapter=adapter, words=Counting(index))
    assert result == array and result.found == array.found
    assert result["words alone"]["recall@1"] == pytest.approx(2 / 3)


def test_credentials_that_cannot_travel_are_told(folder, problem, embeddings, tmp_path):
    class Credential:
        """As `azure.identity.DefaultAzureCredential`."""

    memory = DeepMemory(ParquetCorpus(folder, storage_options={"auto_mkdir": Credential()}), embeddings, tmp_path / "m")
    assert len(memory.corpus) == 300
    with pytest.raises(StoreError, match="cannot be passed to the process that trains .*Credential.*leave the credentials"):
        memory.train(problem.train, words=False)


def test_files_of_other_dimensions_are_told(folder, problem):
    write(folder / "more" / "c.parquet", ["x"], fixed([[1.0, 2.0]]), text=["x"])
    with pytest.raises(InvalidVectorsError, match="has 2 dimensions, and the queries have 32"):
        evaluate(problem.test_queries, problem.test, ParquetCorpus(folder))
