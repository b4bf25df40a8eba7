import contextlib
import logging
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepmem_integrations.errors import StorageError, StoreError
from deepmem_integrations.words import Analysis, LexicalSearch, WordIndex, analysis, change, segment, state
from deepmem_integrations.words import index as module
from deepmem_integrations.words import manifest as manifest_module
from tests.test_locks import Msvcrt
from tests.words import worker
from tests.words.conftest import (
    DOCUMENTS,
    batches,
    bm25,
    check_against_the_formula,
    damages,
    flip_postings,
    manifest,
    ranking,
    segment_file,
)

QUERIES = [
    "how do I restart a router",
    "ORA-00942 missing table",
    "router router router",
    "10,000 dollars in 2022",
    "parse requests, 研究 and 東京",
    "to be",
    "nothing of the kind: xyzzy",
    "",
]


# ---- ranking ---------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_formula(index):
    check_against_the_formula(index, DOCUMENTS, QUERIES)
    for query in QUERIES:
        for k in (1, 2, 3, 100):
            assert index.search(query, k).ids == ranking(DOCUMENTS, query, k)


def test_a_search_returns_ids_and_float32_scores(index):
    assert isinstance(index, LexicalSearch)
    ids, scores = index.search("router", 5)
    assert ids == ["router"]
    assert scores.dtype == np.float32 and scores.shape == (1,)
    ids, scores = index.search("xyzzy", 5)
    assert ids == [] and scores.dtype == np.float32 and scores.shape == (0,)
    assert index.scores("router", []).shape == (0,)
    assert index.scores("router", ["router", "router", "gone"]).dtype == np.float32


def test_equal_scores_come_in_the_order_of_ids(tmp_path):
    names = [f"d{number:03}" for number in range(300)]
    random.Random(0).shuffle(names)
    index = WordIndex.build(tmp_path, [(names, ["same words"] * 300)], language="en")
    assert index.search("words", 10).ids == sorted(names)[:10]
    assert index.search("words", 7, filter=lambda name: name > "d1").ids == [f"d{number}" for number in range(100, 107)]


@given(
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.integers(0, 4_000),
    st.sampled_from(["few", "ties", "sorted", "spread", "apart"]),
)
def test_the_best_scores_are_found_however_they_lie(seed, k, size, kind):
    rng = np.random.default_rng(seed)
    scores = {
        "few": lambda: np.where(rng.random(size) < 0.01, rng.random(size), 0),
        "ties": lambda: rng.integers(0, 3, size),
        "sorted": lambda: np.arange(size),
        "spread": lambda: rng.random(size),
        "apart": lambda: np.where(np.arange(size) % 16 == 0, 1 + rng.random(size), 0),  # all high scores are in the sample
    }[kind]().astype(np.float32)
    rows = state.best(scores, k)
    above = np.sort(scores[scores > 0])[::-1]
    limit = above[:k][-1] if len(above) else np.inf
    assert rows.tolist() == np.flatnonzero((scores > 0) & (scores >= limit)).tolist()


@pytest.mark.parametrize("few", [0, 10_000])
def test_filters_hold_whatever_their_form(tmp_path, monkeypatch, few):
    monkeypatch.setattr(module, "_FEW_IDS", few)
    rng = random.Random(0)
    documents = {f"d{number}": " ".join(rng.choices(["alpha", "beta", "gamma", "delta"], k=8)) for number in range(500)}
    index = WordIndex.build(tmp_path, batches(documents, 50), language="en")
    scores = bm25(documents, "alpha beta")
    for allowed in (set(), {"d3"}, {"d3", "no such"}, set(rng.sample(sorted(documents), 40)), set(documents)):
        everything = index.search("alpha beta", 1_000)
        expected = [name for name in everything.ids if name in allowed]
        for filter in (allowed, frozenset(allowed), sorted(allowed), dict.fromkeys(allowed), allowed.__contains__):
            for k in (1, 7, 1_000):
                found = index.search("alpha beta", k, filter=filter)
                assert found.ids == expected[:k]
                np.testing.assert_allclose(found.scores, [scores[name] for name in found.ids], rtol=2e-5)


def test_wrong_arguments_are_named(index):
    for k in (0, -1, 1.5, True, None):
        with pytest.raises(StoreError, match="k is the number of documents to return, 1 or more"):
            index.search("router", k)
    with pytest.raises(StoreError, match="A filter is a function .* or a set of ids; got 'router'"):
        index.search("router", 1, filter="router")
    with pytest.raises(StoreError, match="needs a text; got int"):
        index.search(3, 1)

    def broken(name):
        raise ValueError("the filter's own fault")

    with pytest.raises(ValueError, match="the filter's own fault"):
        index.search("router", 1, filter=broken)


@pytest.mark.parametrize("documents", [{"a": "Restart the router."}, "a text", [("a", "b", "c")], [7]])
def test_what_is_no_batch_of_documents_is_named(tmp_path, documents):
    with pytest.raises(StoreError, match=r"Documents come in batches of \(ids, texts\)"):
        WordIndex.build(tmp_path, documents)


# ---- documents -------------------------------------------------------------------------------------------------------


def test_an_empty_index_serves_and_grows(tmp_path):
    index = WordIndex.build(tmp_path / "a", [])
    assert len(index) == 0 and index.language is None and index.search("x", 3).ids == []
    assert index.scores("x", ["a"]).tolist() == [0]
    assert index.fingerprint == "0" * 64
    assert tuple(vars(index.refresh([])).values()) == (0, 0, 0, 0)
    german = {"a": "Der Bericht ist nicht für die Kunden.", "b": "Wie wird das Gerät von den Nutzern gestartet?"}
    index.refresh(batches(german))
    assert index.language == "de", "the first documents tell the language"
    check_against_the_formula(index, german, ["Berichte"], "de")
    index.refresh([])
    assert len(index) == 0 and index.search("Bericht", 1).ids == [] and index.fingerprint == "0" * 64


def test_the_language_is_recognised_or_given(tmp_path):
    english = {str(number): f"The report {number} is not for the customers of it." for number in range(10)}
    assert WordIndex.build(tmp_path, batches(english)).language == "en"
    assert WordIndex.build(tmp_path, batches(english), language="de").language == "de"
    assert WordIndex.open(tmp_path).language == "de"
    assert WordIndex.build(tmp_path, batches({"a": "ORA-00942"})).language is None
    with pytest.raises(StoreError, match="does not know the language"):
        WordIndex.build(tmp_path, batches(english), language="klingon")
    assert len(WordIndex.open(tmp_path)) == 1, "what was there stays"


@pytest.mark.parametrize(
    "faulty, message",
    [
        ([(["a", "a"], ["x", "y"])], "The document id 'a' comes twice"),
        ([(["a"], ["x"]), (["a"], ["x"])], "The document id 'a' comes twice"),
        ([(["router", "router"], ["x", "y"])], "The document id 'router' comes twice"),
        ([(["router"], ["x"]), (["router"], ["x"])], "The document id 'router' comes twice"),
        ([(["a", 3], ["x", "y"])], "Document ids are strings; got 3"),
        ([(["a"], [None])], "The text of the document 'a' is no string, but NoneType"),
        ([(["a"], ["x", "y"])], "1 ids and 2 texts"),
        ([("ab", "xy")], "two lists of strings; got a single string"),
    ],
)
def test_faulty_documents_change_nothing(index, faulty, message):
    before = (index.fingerprint, index.statistics)
    for write in (index.refresh, index.update, lambda documents: WordIndex.build(index.folder, documents, language="en")):
        with pytest.raises(StoreError, match=message):
            write(faulty)
        index.reopen()
        assert (index.fingerprint, index.statistics) == before
    check_against_the_formula(index, DOCUMENTS, QUERIES[:2])


def test_any_id_and_any_text_pass(tmp_path):
    documents = {
        "": "empty id alpha",
        " ": "space alpha",
        "ein/Pfad\\mit:allem": "alpha",
        "\ud800": "lone surrogate \udfff alpha",
        "a\x00b": "nul \x00 alpha",
        "猫" * 500: "alpha 猫",
        "long": "alpha " + "beta " * 200_000,
        "word": "alpha" * 50_000,
    }
    index = WordIndex.build(tmp_path, batches(documents), language="en")
    check_against_the_formula(index, documents, ["alpha", "beta", "猫", "nul"])
    assert all(name in index for name in documents) and "no" not in index and 3 not in index
    assert not index.refresh(batches(documents))


def test_the_fingerprint_is_of_ids_and_texts_in_any_order(tmp_path, index):
    def of(documents, **kwargs):
        return WordIndex.build(tmp_path / "other", batches(documents), **kwargs).fingerprint

    items = list(DOCUMENTS.items())
    assert of(dict(reversed(items)), language="de") == index.fingerprint
    changed = {
        "text": {**DOCUMENTS, "router": "other"},
        "id": {**dict(items[1:]), "Router": DOCUMENTS["router"]},
        "fewer": dict(items[1:]),
        "swapped": {**DOCUMENTS, "router": DOCUMENTS["oracle"], "oracle": DOCUMENTS["router"]},
    }
    assert len({index.fingerprint, *(of(documents, language="en") for documents in changed.values())}) == 5


# ---- changes ---------------------------------------------------------------------------------------------------------


def test_a_refresh_counts_and_follows(index):
    documents = {**DOCUMENTS, "router": "The switch restarts.", "new": "A new table for the router."}
    del documents["oracle"]
    result = index.refresh(batches(documents))
    assert (result.added, result.changed, result.deleted, result.unchanged) == (1, 1, 1, len(DOCUMENTS) - 2)
    assert result
    check_against_the_formula(index, documents, QUERIES)
    assert "oracle" not in index
    before = index.statistics
    result = index.refresh(batches(dict(reversed(documents.items())), size=2))
    assert not result and result.unchanged == len(documents)
    assert index.statistics == before, "nothing is written where nothing changed"


def test_a_comparison_tells_what_a_refresh_would_change(index):
    documents = {**DOCUMENTS, "router": "The switch restarts.", "new": "A new table.", "newer": "A newer table."}
    del documents["oracle"]
    index.update(batches({"parser": "another segment"}))
    documents["parser"] = "another segment"
    before = index.statistics
    told = index.compare(batches(documents))
    assert (told.added, told.changed, told.deleted, told.unchanged) == (2, 1, 1, len(DOCUMENTS) - 2)
    assert index.statistics == before, "nothing is written"
    assert index.refresh(batches(documents)) == told
    assert not index.compare(batches(documents))
    assert index.compare([]).deleted == len(documents)
    with pytest.raises(StoreError, match="ids are strings"):
        index.compare([([1], ["a"])])


def test_an_update_leaves_other_documents_alone(index):
    result = index.update(batches({"router": "switch", "new": "router", "parser": DOCUMENTS["parser"]}), ["oracle", "no such"])
    assert (result.added, result.changed, result.deleted, result.unchanged) == (1, 1, 1, len(DOCUMENTS) - 2)
    documents = {**DOCUMENTS, "router": "switch", "new": "router"}
    del documents["oracle"]
    check_against_the_formula(index, documents, QUERIES)
    for faulty in ("router", "brand new"):
        with pytest.raises(StoreError, match=f"{faulty!r} is both among the documents to update and among those to delete"):
            index.update([([faulty], ["text"])], [faulty])
    with pytest.raises(StoreError, match="Document ids are strings"):
        index.update(delete=[3])
    check_against_the_formula(index, documents, QUERIES)


WORDS = ["alpha", "beta", "gamma", "delta", "running", "runs", "ORA-1", "the", "東京", ""]
TEXT = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
NAME = st.integers(0, 12).map(lambda number: f"d{number}")
CHANGE = st.tuples(
    st.sampled_from(["refresh", "update", "merge"]), st.dictionaries(NAME, TEXT, max_size=8), st.sets(NAME, max_size=5)
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAME, TEXT, max_size=10), st.lists(CHANGE, max_size=6), st.sampled_from([0.25, 10.0]), st.integers(1, 4))
def test_a_changed_index_is_the_index_built_anew(tmp_path, start, changes, share, most):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        patch.setattr(change, "MERGE_SHARE", share)  # 10: segments and deleted rows stay for long
        patch.setattr(change, "MAX_SEGMENTS", most)
        patch.setattr(segment, "_BLOCK", 5)
        patch.setattr(change, "SEGMENT_TERMS", 7)  # several segments for a handful of documents
        index, documents = WordIndex.build(Path(folder) / "changed", batches(start), language="en"), dict(start)
        for kind, some, gone in changes:
            if kind == "refresh":
                index.refresh(batches(some, 2))
                documents = dict(some)
            elif kind == "update":
                gone -= some.keys()
                index.update(batches(some, 2), sorted(gone))
                documents = {name: text for name, text in {**documents, **some}.items() if name not in gone}
            else:
                index.merge()
                assert index.statistics.deleted == 0 and index.statistics.segments <= 1
        anew = WordIndex.build(Path(folder) / "anew", batches(documents), language="en")
        assert index.fingerprint == anew.fingerprint
        assert index.statistics.documents == anew.statistics.documents == len(documents)
        for query in ("alpha", "alpha beta running", "ORA-1 東京 the", "the"):
            one, other = index.search(query, 20), anew.search(query, 20)
            assert one.ids == other.ids
            assert (one.scores == other.scores).all(), "to the last bit"
            assert (index.scores(query, list(documents)) == anew.scores(query, list(documents))).all()
        check_against_the_formula(index, documents, ["alpha running", "ORA-1 東京"])
        index.verify()


def test_segments_are_merged_before_they_are_many(tmp_path):
    documents = {f"d{number}": f"word{number} common" for number in range(200)}
    index = WordIndex.build(tmp_path, batches(documents, 50), language="en")
    most = 0
    for number in range(40):
        documents[f"d{number}"] = f"changed{number} common"
        index.refresh(batches(documents, 50))
        most = max(most, index.statistics.segments)
        assert index.statistics.deleted <= change.MERGE_SHARE * 240
    assert 2 < most <= change.MAX_SEGMENTS
    check_against_the_formula(index, documents, ["changed3", "word190 common"])
    files = [file for entry in manifest(index)["segments"] for file in (entry, entry["deleted"]) if file]
    assert {path.name for path in tmp_path.iterdir()} == {"index.json", "lock", *(file["name"] for file in files)}


def test_nothing_of_deleted_documents_is_left_after_a_merge(index):
    index.update(delete=["oracle"])
    raw = b"".join(path.read_bytes() for path in index.folder.iterdir())
    assert b"ora-00942" in raw
    index.merge()
    raw = b"".join(path.read_bytes() for path in index.folder.iterdir())
    assert b"ora-00942" not in raw and b"oracle" not in raw
    before = index.statistics
    index.merge()
    assert index.statistics == before


def test_a_large_index_is_built_in_parts(tmp_path, monkeypatch):
    documents = {f"d{number}": f"alpha word{number % 7} {'beta ' * (number % 300)}" for number in range(400)}
    whole = WordIndex.build(tmp_path / "whole", batches(documents, 64), language="en")
    monkeypatch.setattr(change, "SEGMENT_TERMS", 5_000)
    parts = WordIndex.build(tmp_path / "parts", batches(documents, 64), language="en")
    assert parts.statistics.segments == 1
    assert parts.search("alpha beta word3", 400).ids == whole.search("alpha beta word3", 400).ids
    check_against_the_formula(parts, documents, ["beta word3"])


def test_other_rules_for_words_are_noticed(index, monkeypatch, caplog):
    monkeypatch.setattr(analysis, "VERSION", 99)
    with caplog.at_level(logging.WARNING):
        again = WordIndex.open(index.folder)
        again.search("router", 1)
        again.search("router", 1)
    assert len([record for record in caplog.records if "another version of PyStemmer" in record.message]) == 1
    with pytest.raises(StoreError, match=r"refresh\(documents\) with all of them"):
        again.update([(["new"], ["text"])])
    result = again.refresh(batches({**DOCUMENTS, "router": "switch"}))
    assert (result.added, result.changed, result.deleted, result.unchanged) == (0, 1, 0, len(DOCUMENTS) - 1)
    assert manifest(again)["analysis"] == Analysis("en").signature
    check_against_the_formula(again, {**DOCUMENTS, "router": "switch"}, QUERIES)
    assert again.statistics.deleted == 0


def test_words_of_other_rules_are_not_merged_as_if_they_were_of_these(index, monkeypatch):
    """Before, the merged index named the new rules, and no refresh found out."""
    index.update(delete=["router"])
    monkeypatch.setattr(analysis, "VERSION", 99)
    with pytest.raises(StoreError, match=r"refresh\(documents\) with all of them"):
        index.merge()
    assert index.refresh(batches(DOCUMENTS)).added == 1
    check_against_the_formula(index, DOCUMENTS, QUERIES)


# ---- processes, threads and accidents --------------------------------------------------------------------------------


def test_other_objects_see_a_change_by_themselves(index):
    other = WordIndex.open(index.folder)
    assert not other.reopen()
    index.update([(["new"], ["xyzzy"])])
    assert other.search("xyzzy", 1).ids == ["new"] and len(other) == len(DOCUMENTS) + 1
    WordIndex.build(index.folder, [(["other"], ["plugh"])], language="en")
    assert other.search("plugh", 1).ids == index.search("plugh", 1).ids == ["other"]
    assert index.statistics.generation == 3


def test_changes_in_quick_succession_are_all_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    index = WordIndex.build(tmp_path, [], language="en")
    other = WordIndex.open(tmp_path)
    for number in range(300):
        index.update([(["d"], [worker.word(number)])])
        assert other.search(worker.word(number), 1).ids == ["d"]


@pytest.mark.parametrize("how", ["build", "merge"])
def test_a_state_that_is_replaced_while_it_is_opened_is_read_again(index, monkeypatch, how):
    index.update([(["new"], ["xyzzy"])], ["oracle"])
    reads = [manifest_module.Manifest.read(index.folder / "index.json")]
    if how == "build":
        WordIndex.build(index.folder, [(["other"], ["xyzzy"])], language="en")
    else:
        index.merge()
    read = manifest_module.Manifest.read
    monkeypatch.setattr(manifest_module.Manifest, "read", lambda path: reads.pop() if reads else read(path))
    assert WordIndex.open(index.folder).search("xyzzy", 1).ids == ["other" if how == "build" else "new"]


def test_an_index_serves_on_when_its_folder_is_gone(index):
    shutil.rmtree(index.folder)
    assert index.search("router", 1).ids == ["router"]
    with pytest.raises(StorageError, match="There is no word index in"):
        index.reopen()


def test_pickle_takes_the_folder_along(index):
    data = pickle.dumps(index)
    assert len(data) < 500
    assert pickle.loads(data).search("router", 1).ids == ["router"]
    assert repr(index) == f"WordIndex({str(index.folder)!r})"


def test_a_relative_folder_stays_the_same_after_chdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = WordIndex.build("words", batches(DOCUMENTS), language="en")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    index.update([(["new"], ["xyzzy"])])
    assert index.search("xyzzy", 1).ids == ["new"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_reads_and_writes(index):
    index.search("router", 1)
    if not (child := os.fork()):
        code = 1
        with contextlib.suppress(BaseException):
            index.update([(["child"], ["xyzzy"])])
            code = 0 if index.search("xyzzy", 1).ids == ["child"] else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert index.search("xyzzy", 1).ids == ["child"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_folder_that_cannot_be_written_serves(request):
    folder = Path(tempfile.mkdtemp())
    request.addfinalizer(lambda: shutil.rmtree(folder))
    index = WordIndex.build(folder / "words", batches(DOCUMENTS), language="en")
    index.search("router", 1)
    for path in (folder / "words" / "index.json", folder, folder / "words"):
        path.chmod(0o555)
    if not (child := os.fork()):
        code = 1
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:
                os.seteuid(65_534)  # to the superuser no folder is read-only
            again = WordIndex.open(folder / "words")
            assert again.search("router", 1).ids == ["router"]
            for write in (again.refresh, lambda documents: WordIndex.build(folder / "new", documents, language="en")):
                with pytest.raises(StorageError, match=f"Cannot write {folder}"):
                    write(batches({"a": "x"}))
            assert len(again) == len(DOCUMENTS)
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for path in (folder, folder / "words"):
        path.chmod(0o755)


@pytest.mark.parametrize(
    "failing", [(change, "write_arrays"), (manifest_module, "write_text"), (change, "merge")], ids=["arrays", "state", "merge"]
)
def test_a_full_disk_leaves_the_old_state(index, monkeypatch, failing):
    def full(*args):
        raise StorageError("Cannot write: No space left on device.")

    documents = {**DOCUMENTS, **{f"new{number}": "router" for number in range(20)}}
    with monkeypatch.context() as patch:
        patch.setattr(*failing, full)
        with pytest.raises(StorageError, match="No space left"):
            index.refresh(batches(documents))
        if failing[1] != "merge":
            with pytest.raises(StorageError, match="No space left"):
                WordIndex.build(index.folder, batches(documents), language="en")
        check_against_the_formula(index, DOCUMENTS, QUERIES[:2])
    check_against_the_formula(WordIndex.open(index.folder), DOCUMENTS, QUERIES[:2])
    index.refresh(batches(documents))
    check_against_the_formula(index, documents, QUERIES[:2])
    assert len(list(index.folder.glob("segment-*"))) == index.statistics.segments, "nothing is left of the failed change"


def run(*arguments, **kwargs):
    return subprocess.Popen([sys.executable, "-m", "tests.words.worker", *map(str, arguments)], text=True, **kwargs)


@pytest.mark.parametrize("how", ["build", "refresh"])
@pytest.mark.slow
def test_kill_9_leaves_the_old_state_or_the_new(tmp_path, how):
    folder, rng = tmp_path / "words", random.Random(0)
    WordIndex.build(folder, worker.batches(0), language="en")
    reader, generations = WordIndex.open(folder), set()
    for round in range(6):
        # Each process begins with a version that the one before has not come to, so that there is something to change.
        process = run("write", folder, how, 1 + 49 * round, stdout=subprocess.PIPE)
        assert process.stdout.readline() == "started\n"
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.wait()
        process.stdout.close()
        index = WordIndex.open(folder)
        index.verify()
        for one in (index, reader):
            worker.check(one)
        assert reader.fingerprint == index.fingerprint
        generations.add(index.statistics.generation)
    assert len(generations) == 6, "each process made a change before the one that was cut short"
    index.refresh(worker.batches(0))
    index.merge()
    needed = {entry["name"] for entry in manifest(index)["segments"]} | {"index.json", "lock"}
    assert {path.name for path in folder.iterdir()} == needed, "the next writer cleans up"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["build", "refresh", "merge"])
@pytest.mark.slow
def test_a_process_may_end_at_every_step(tmp_path, how):
    """A process that ends before the n-th call that touches a file, for every n, leaves the old state or the new one."""
    old, new = worker.documents(3), worker.documents(4) if how != "merge" else worker.documents(3)
    prints = {WordIndex.build(tmp_path / "print", batches(documents), language="en").fingerprint for documents in (old, new)}
    steps, outcomes = 0, set()
    while True:
        folder = tmp_path / str(steps)
        index = WordIndex.build(folder, batches(old), language="en")
        index.update([(["d1"], ["changed"])])
        index.update([(["d1"], [old["d1"]])])
        if not (child := os.fork()):
            end_before(steps)
            with contextlib.suppress(BaseException):
                if how == "build":
                    WordIndex.build(folder, batches(new), language="en")
                elif how == "refresh":
                    index.refresh(batches(new))
                else:
                    index.merge()
                os._exit(0)
            os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        after = WordIndex.open(folder)
        after.verify()
        worker.check(after)
        assert after.fingerprint in prints
        assert after.fingerprint == index.fingerprint and index.search("everywhere", 3).ids == after.search("everywhere", 3).ids
        outcomes.add(after.statistics.generation)
        after.refresh(batches(new))
        worker.check(after)
        if code != 9:
            break
        steps += 1
    assert code == 0 and steps > 4 and outcomes == {3, 4}, (code, steps, outcomes)


def end_before(step):
    """Make this process end, with code 9, before its n-th call that touches a file."""
    count = iter(range(10_000))

    def counting(function):
        def call(*args, **kwargs):
            if next(count) == step:
                os._exit(9)
            return function(*args, **kwargs)

        return call

    os.replace, os.fsync, os.unlink = counting(os.replace), counting(os.fsync), counting(os.unlink)
    Path.unlink = counting(Path.unlink)
    for owner, name in ((change, "write_arrays"), (manifest_module, "write_text")):
        setattr(owner, name, counting(getattr(owner, name)))


@pytest.mark.slow
def test_readers_in_other_processes_see_whole_states(tmp_path):
    folder = tmp_path / "words"
    index = WordIndex.build(folder, worker.batches(0), language="en")
    readers = [run("read", folder, 2.5, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    version = 0
    while any(reader.poll() is None for reader in readers):
        version = (version + 1) % 300
        index.refresh(worker.batches(version))
    for reader in readers:
        out, err = reader.communicate()
        assert reader.returncode == 0, err
        assert int(out) > 3, "the reader saw several states"


def test_threads_read_while_one_writes(tmp_path):
    index = WordIndex.build(tmp_path, worker.batches(0), language="en")
    failures, done = [], threading.Event()

    def read():
        try:
            while not done.is_set():
                found = index.search("everywhere", 1_000)
                assert len(found.ids) == len(set(found.ids)) >= 60
                assert len(index.scores("everywhere word3", found.ids)) == len(found.ids)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in range(1, 30):
        index.refresh(worker.batches(version))
    done.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_writers_wait_for_one_another(tmp_path):
    WordIndex.build(tmp_path, [], language="en")

    def add(name):
        for number in range(5):
            WordIndex.open(tmp_path).update([([f"{name}{number}"], ["text"])])

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(WordIndex.open(tmp_path)) == 20


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_a_missing_index_says_what_to_do(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(StorageError, match=r"There is no word index in .*WordIndex\.build\("):
            WordIndex.open(folder)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="There is no word index in"):
        WordIndex.open(tmp_path / "file")


@pytest.mark.parametrize("damage", damages().values(), ids=damages())
def test_a_damaged_index_says_so_and_can_be_built_anew(tmp_path, damage):
    index = WordIndex.build(tmp_path / "words", batches(DOCUMENTS), language="en")
    damage(index)
    with pytest.raises(StorageError, match=r"is damaged \(.*\)\. Build the index again .*WordIndex\.build\("):
        WordIndex.open(index.folder)
    with pytest.raises(StorageError, match="is damaged"):
        WordIndex.open(index.folder).refresh(batches(DOCUMENTS))
    again = WordIndex.build(index.folder, batches(DOCUMENTS), language="en")
    check_against_the_formula(again, DOCUMENTS, QUERIES[:2])


def test_a_flipped_bit_is_found_by_verify(index):
    index.verify()
    path = segment_file(index)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="its checksum does not match"):
        WordIndex.open(index.folder).verify()
    path.unlink()
    with pytest.raises(StorageError, match="the file is missing"):
        index.verify()


def test_postings_out_of_range_are_no_wrong_answers(index):
    flip_postings(index)
    with pytest.raises(StorageError, match="is damaged"):
        WordIndex.open(index.folder).search("router", 1)


def test_a_newer_format_asks_for_an_upgrade(index):
    path = index.folder / "index.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(StorageError, match=r"written in format 2, newer than this package knows \(1\)\. Upgrade"):
        WordIndex.open(index.folder)


def test_the_files_are_safetensors(index):
    from safetensors.numpy import load_file

    index.update([(["more"], ["router"])], ["oracle"])
    for path in index.folder.glob("*.safetensors"):
        arrays = load_file(path)
        assert arrays.keys() >= ({"rows"} if path.name.startswith("deleted") else {"starts", "documents", "counts", "lengths"})


def test_opening_reads_next_to_nothing(tmp_path):
    documents = {f"d{number}": " ".join(f"word{(number * 7 + other) % 5_000}" for other in range(40)) for number in range(5_000)}
    index = WordIndex.build(tmp_path, batches(documents, 500), language="en")
    assert index.statistics.bytes > 1_000_000
    times = []
    for _ in range(20):
        start = time.perf_counter()
        WordIndex.open(tmp_path)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


def test_an_index_is_written_with_the_locks_of_windows(tmp_path, monkeypatch):
    """What Windows would refuse otherwise, such as the deletion of a mapped file, is not played here."""
    monkeypatch.setattr("deepmem_integrations._locks.fcntl", None)
    monkeypatch.setattr("deepmem_integrations._locks.LOCKS_AVAILABLE", False)
    monkeypatch.setattr("deepmem_integrations._locks._msvcrt", Msvcrt())
    index = WordIndex.build(tmp_path, batches(DOCUMENTS), language="en")
    assert index.refresh(batches({**DOCUMENTS, "new": "Another router."})).added == 1
    assert index.update(delete=["new"]).deleted == 1
    index.merge()
    assert WordIndex.open(tmp_path).search("router", 5).ids == ["router"]
