"""A word index that cannot be read must not stop a retrieval."""

import logging

import pytest

from deepmem_integrations.adapter import QueryAdapter, Ranking
from deepmem_integrations.errors import MissingExtraError
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.ranking import Ranker
from deepmem_integrations.words import WordIndex, analysis
from tests.words.conftest import damages, flip_postings

DOCUMENTS = (["a", "b", "c"], ["Restart the router.", "Routers restart at night.", "The table is missing."])
DAMAGES = {name: damage for name, damage in damages().items() if name not in ("lose_deleted", "offsets")}


@pytest.fixture
def folder(tmp_path):
    """A folder with a model that ranks by words."""
    folder = ModelFolder(tmp_path)
    folder.save_model("model", QueryAdapter(2, ranking=Ranking(words=10.0)))
    folder.write_in_use("model")
    return folder


def ranked(ranker):
    query = ranker.query("restart routers", [1.0, 0.0])
    shortlist = query.rank(["c", "a"], [0.9, 0.1], query.words(10))
    return shortlist.ids


@pytest.mark.parametrize("damage", [*DAMAGES.values(), flip_postings], ids=[*DAMAGES, "flip_postings"])
def test_results_come_without_words_and_a_warning_says_so_once(folder, damage, caplog):
    index = WordIndex.build(folder.words_path, [DOCUMENTS], "en")
    damage(index)
    ranker = Ranker(folder)
    with caplog.at_level(logging.WARNING):
        assert [ranked(ranker) for _ in range(3)] == [["c", "a"]] * 3
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith("Words cannot be searched, so results come without words: ")
    assert "memory.refresh() builds a damaged word index anew" in caplog.text
    WordIndex.build(folder.words_path, [DOCUMENTS], "en")
    assert ranked(ranker)[0] != "c", "words count as soon as the index is whole"


def test_an_index_that_is_damaged_while_it_serves(folder, caplog):
    index = WordIndex.build(folder.words_path, [DOCUMENTS], "en")
    ranker = Ranker(folder)
    assert ranked(ranker)[0] != "c"
    (index.folder / "index.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert ranked(ranker) == ["c", "a"]
        assert ranked(ranker) == ["c", "a"]
    assert len(caplog.records) == 1


def test_pystemmer_may_be_missing_where_an_index_serves(folder, caplog, monkeypatch):
    WordIndex.build(folder.words_path, [DOCUMENTS], "en")

    def missing(package, extra):
        raise MissingExtraError(package, extra)

    monkeypatch.setattr(analysis, "require", missing)
    ranker = Ranker(folder)
    with caplog.at_level(logging.WARNING):
        assert [ranked(ranker) for _ in range(2)] == [["c", "a"]] * 2
    assert len(caplog.records) == 1
    assert 'pip install "deepmem-integrations[words]"' in caplog.text


def test_a_missing_index_is_said_once(folder, caplog):
    ranker = Ranker(folder)
    with caplog.at_level(logging.WARNING):
        assert [ranked(ranker) for _ in range(2)] == [["c", "a"]] * 2
    assert len(caplog.records) == 1
    assert "there is no word index" in caplog.text


def test_faults_of_a_search_of_ones_own_are_not_hidden(folder):
    class Broken:
        name = "WordIndex"

        def search(self, text, k, filter=None):
            raise RuntimeError("the server is gone")

    with pytest.raises(RuntimeError, match="the server is gone"):
        ranked(Ranker(folder, words=Broken()))
