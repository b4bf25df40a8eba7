"""Word indexes from shards that workers read: equal, to the last bit, to those that one process builds."""

import pickle
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmem_integrations.errors import JobFailedError, StoreError
from deepmem_integrations.words import Analysis, TextShards, WordIndex, analysis, change, shards
from tests.words.conftest import state


@dataclass(frozen=True)
class Page:
    """A shard of a dict of texts."""

    documents: dict[str, str]

    def texts(self):
        names = list(self.documents)
        for first in range(0, len(names), 2):
            some = names[first : first + 2]
            yield some, [self.documents[name] for name in some]


class Apart:
    """Workers in this process, which get copies of everything, as those of other processes do."""

    count = 1

    def __init__(self):
        self.returned = []

    def map(self, function, items, shared=()):
        shared = pickle.dumps(tuple(shared))
        for item in items:
            self.returned.append(function(*pickle.loads(shared), *pickle.loads(pickle.dumps(tuple(item)))))
            yield pickle.loads(pickle.dumps(self.returned[-1]))


def cut(documents, size):
    names = list(documents)
    return [Page({name: documents[name] for name in names[n : n + size]}) for n in range(0, len(names), size)]


def in_shards(documents, size=3, workers=None, **options):
    return TextShards(cut(documents, size), workers or Apart(), **options)


def here(documents):
    return [(list(documents), list(documents.values()))]


words = st.text("abé1-. ", max_size=12)
corpora = st.dictionaries(st.text("xyz", min_size=1, max_size=3), words, max_size=12)


@settings(max_examples=25)
@given(corpora, corpora, st.integers(1, 5), st.sampled_from([1, 4, 1_000]))
def test_an_index_does_not_tell_who_read_its_documents(tmp_path_factory, first, later, size, terms):
    folder = tmp_path_factory.mktemp("words")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change, "SEGMENT_TERMS", terms)
        patch.setattr(shards, "SEGMENT_TERMS", terms)
        patch.setattr(change, "MAX_SEGMENTS", 2)
        one = WordIndex.build(folder / "one", here(first), "fr")
        other = WordIndex.build(folder / "other", in_shards(first, size), "fr")
        assert state(one) == state(other)
        for documents in (later, first | later, dict(reversed(later.items()))):
            assert one.refresh(here(documents)) == other.refresh(in_shards(documents, size))
            assert state(one) == state(other)
        other.verify()


DOCUMENTS = {f"d{n}": f"The report number {n} is about routers and the restart of routers." for n in range(10)}


def test_the_language_is_that_of_the_first_texts(tmp_path):
    index = WordIndex.build(tmp_path, in_shards(DOCUMENTS))
    assert index.language == "en" and index.search("restarts", 3).ids


def test_what_did_not_change_is_neither_analysed_nor_returned(tmp_path):
    index, workers, seen = WordIndex.build(tmp_path, in_shards(DOCUMENTS), "en"), Apart(), []
    done = index.refresh(in_shards(DOCUMENTS | {"d4": "Another text.", "e": "A new text."}, 3, workers, progress=seen.append))
    assert (done.added, done.changed, done.deleted, done.unchanged) == (1, 1, 0, 9)
    assert [[len(arrays["lengths"]) for arrays in shard.segments] for shard in workers.returned] == [[], [1], [], [1]]
    assert seen == [3, 3, 3, 2]


def test_an_id_that_comes_twice_is_named_and_nothing_changes(tmp_path):
    index = WordIndex.build(tmp_path, in_shards(DOCUMENTS), "en")
    for documents in ([Page({"d1": DOCUMENTS["d1"]}), Page({"d1": DOCUMENTS["d1"]})], [Page({"z": "a"}), Page({"z": "b"})]):
        with pytest.raises(StoreError, match="comes twice"):
            index.refresh(TextShards(documents, Apart()))
    index.verify()
    assert len(index) == 10


def test_workers_with_other_rules_for_words_are_refused(tmp_path):
    with pytest.raises(JobFailedError, match="install the same version of PyStemmer on all machines"):
        shards._analysed("en", Analysis("en").signature + "0", shards._keys([], shards.text_hashes([])), Page(DOCUMENTS))


def test_a_document_without_a_text_is_named(tmp_path):
    with pytest.raises(StoreError, match="text of the document 'b' is no string"):
        WordIndex.build(tmp_path, in_shards({"a": "A text.", "b": None}), "en")


def test_documents_are_analysed_anew_where_the_rules_have_changed(tmp_path, monkeypatch):
    one, other = (WordIndex.build(tmp_path / name, in_shards(DOCUMENTS), "en") for name in ("one", "other"))
    monkeypatch.setattr(analysis, "VERSION", 99)
    workers = Apart()
    assert one.refresh(here(DOCUMENTS)) == other.refresh(in_shards(DOCUMENTS, workers=workers))
    assert sum(len(arrays["lengths"]) for shard in workers.returned for arrays in shard.segments) == 10
    assert state(one) == state(other)
    assert other._state.manifest.analysis.startswith("99 ")
