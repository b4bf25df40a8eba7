"""The support desk behind the page: one corpus in both frameworks, one model, one log of what users thought of it."""

from pathlib import Path

from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from deepmem_integrations import DeepMemory, FeedbackLog, RetrainPolicy
from deepmem_integrations.demo.documents import api_documents
from deepmem_integrations.demo.langchain import MiniLMEmbeddings
from deepmem_integrations.demo.llama_index import MiniLMEmbedding
from deepmem_integrations.feedback import interleave
from deepmem_integrations.langchain import DeepMemoryRetriever
from deepmem_integrations.llama_index import DeepMemoryRetriever as LlamaIndexRetriever

SHOWN = 10
"""How many documents a page shows."""


class Desk:
    """Searches the documentation inside the installed ``deeplake`` package, and learns from what users open.

    Each framework has a store of its own in memory, filled with the same vectors. The models and the log lie in ``folder``.
    """

    def __init__(self, folder, embeddings=None):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.documents = {document.id: document.text for document in api_documents()}
        embeddings = embeddings or MiniLMEmbeddings()
        vectors = embeddings.embed_documents(list(self.documents.values()))

        self.store = InMemoryVectorStore(embeddings)
        nodes = []
        for (name, text), vector in zip(self.documents.items(), vectors, strict=True):
            self.store.store[name] = {"id": name, "vector": vector, "text": text, "metadata": {}}
            nodes.append(TextNode(id_=name, text=text, embedding=vector))
        index = VectorStoreIndex(nodes, embed_model=MiniLMEmbedding())

        self.memory = DeepMemory.from_langchain(self.store, path=folder / "models")
        self.log = FeedbackLog(folder / "feedback.db")
        self.langchain = DeepMemoryRetriever(vectorstore=self.store, memory=self.memory, k=SHOWN)
        self.llama_index = LlamaIndexRetriever(index, memory=self.memory, similarity_top_k=SHOWN)
        if self.memory.lexical_search is None:
            self.memory.refresh()  # builds the index of words

    def search(self, question, framework="langchain", user=None):
        """Return the id of the query in the log, and the documents to show, best first."""
        if framework == "llama_index":
            found = [one.node_id for one in self.llama_index.retrieve(question)]
        else:
            found = [document.id for document in self.langchain.invoke(question)]
        shown = self.pooled(question, found)
        return self.log.record(question, shown, user=user), shown

    def pooled(self, question, found):
        """Put documents of two other rankings among those that the model found.

        Users can only open what they see: without other rankings, their clicks would confirm the model for ever.
        """
        plain = [document.id for document in self.langchain.without_model().invoke(question)]
        words = self.memory.lexical_search.search(question, SHOWN).ids
        return interleave(found, words, plain, k=SHOWN, seed=question)

    def retrain(self):
        """Do what a nightly job does: train again if there is enough news, and use the model if it is better."""
        self.log.flush()
        return self.memory.retrain(self.log.labels(policy="clicks"), policy=RetrainPolicy(new_labels=50), by="nightly")
