import pytest

from deepmem_integrations import DeepMemory
from deepmem_integrations.corpora import GivenCorpus
from tests.embeddings import LookupEmbeddings

SCRIPT = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)>"
"""What a document's text or a query might hold, to be shown as text and never run."""


def make_memory(problem, folder):
    """A Deep Memory whose documents have texts with script in them."""
    embeddings = LookupEmbeddings(problem)
    texts = [f"The text of {name}. {SCRIPT}" for name in problem.ids]
    embeddings.vectors |= dict(zip(texts, problem.corpus, strict=True))
    return DeepMemory(GivenCorpus(problem.ids, problem.ids, texts, embeddings), embeddings, folder)


@pytest.fixture(scope="package")
def trained(problem, tmp_path_factory):
    memory = make_memory(problem, tmp_path_factory.mktemp("report"))
    memory.train(problem.train, keep_texts=True, words=False)
    return memory


@pytest.fixture(scope="package")
def report(trained, problem):
    return trained.report(problem.test, tokens=lambda text: len(text.split()), price=2.5, command="deepmem report …")
