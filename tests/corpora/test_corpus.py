import numpy as np
import pytest

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.corpora import GivenCorpus, HasCorpus, ListedCorpus, read_corpus
from deepmem_integrations.errors import InvalidRelevanceError


@pytest.fixture
def counted(problem, embeddings, tmp_path):
    """A Deep Memory over a listed corpus, and the texts that its embedding model was asked for."""
    asked = []

    class Counted:
        def embed_query(self, text):
            asked.append(text)
            return embeddings.embed_query(text)

        def embed_documents(self, texts):
            return [self.embed_query(text) for text in texts]

    corpus = GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings)
    return DeepMemory(corpus, Counted(), tmp_path / "models"), asked


def test_a_listed_corpus_gives_everything_and_embeds_no_query(problem, embeddings):
    corpus = GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings)
    ids, vectors = read_corpus(corpus.around(lambda: pytest.fail("the queries were embedded"), 3, {"doc-1"}))
    assert corpus.listed
    assert ids == problem.ids
    np.testing.assert_allclose(vectors, problem.corpus, atol=1e-6)


def test_labels_are_checked_before_queries_are_embedded(counted, problem):
    memory, asked = counted
    wrong = problem.train.take(range(20)) + Relevance(["a question"], [[("nowhere", 1.0)]])
    with pytest.raises(InvalidRelevanceError, match="'nowhere' is not in the corpus"):
        memory.train(wrong)
    with pytest.raises(InvalidRelevanceError, match="'nowhere' is not in the corpus"):
        memory.train(problem.train.take(range(20)), validation=wrong)
    assert asked == []
    memory.train(problem.train.take(range(20)))
    del asked[:]
    with pytest.raises(InvalidRelevanceError, match="'nowhere' is not in the corpus"):
        memory.measure(wrong)
    assert asked == []


def test_a_store_of_ones_own_needs_two_methods(problem, embeddings, tmp_path):
    class Shelf(ListedCorpus):
        def vectors(self):
            yield problem.ids[:150], problem.corpus[:150]
            yield problem.ids[150:], problem.corpus[150:]

        def documents(self):
            yield [(name, name) for name in problem.ids]

    memory = DeepMemory(Shelf(), embeddings, tmp_path)
    memory.train(problem.train)
    result = memory.measure(problem.test, top_k=[10])
    assert result["with model"]["recall@10"] > result["without model"]["recall@10"]
    assert len(memory.documents()) == len(problem.ids)


def test_both_deep_lake_stores_read_themselves(db, deeplake_index):
    assert isinstance(db, HasCorpus)
    assert isinstance(deeplake_index.vector_store, HasCorpus)
    assert not isinstance(deeplake_index, HasCorpus)
