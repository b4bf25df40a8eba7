"""Ask questions about Deep Lake's API with a small, complete RAG application in LlamaIndex. One line turns Deep Memory on.

    python examples/llama_index_app/app.py train                       # once: index documents and train on recorded questions
    python examples/llama_index_app/app.py ask "How do I undo a commit?"
    python examples/llama_index_app/app.py ask "How do I undo a commit?" --deep-memory

The documents are the docstrings of the installed ``deeplake`` package, the store is LlamaIndex's own, and the
embedding model comes in a package. With ``OPENAI_API_KEY``, a language model writes the answer. Without the key, the answer is an
extract of the documents that were found.
"""

import argparse
import os
from pathlib import Path

from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode

from deepmem_integrations import DeepMemory
from deepmem_integrations.demo.documents import api_documents
from deepmem_integrations.demo.llama_index import ExtractiveLLM, MiniLMEmbedding
from deepmem_integrations.demo.run import load_questions
from deepmem_integrations.llama_index import DeepMemoryRetriever


def language_model():
    if not os.environ.get("OPENAI_API_KEY"):
        return ExtractiveLLM()
    from llama_index.llms.openai import OpenAI

    return OpenAI(model="gpt-4o-mini", temperature=0)


def train(folder):
    documents = api_documents()
    nodes = [TextNode(id_=document.id, text=document.text) for document in documents]
    index = VectorStoreIndex(nodes, embed_model=MiniLMEmbedding())
    index.storage_context.persist(folder / "index")
    memory = DeepMemory.from_llama_index(index, path=folder / "models")
    memory.status(memory.train(load_questions("train", documents)))
    # The column "with" is DeepMemoryRetriever's, which the application uses.
    print(memory.evaluate(load_questions("test", documents)).table())


def build_engine(folder, deep_memory):
    storage = StorageContext.from_defaults(persist_dir=str(folder / "index"))
    index = load_index_from_storage(storage, embed_model=MiniLMEmbedding())
    memory = DeepMemory.from_llama_index(index, path=folder / "models")
    retriever = index.as_retriever(similarity_top_k=3)
    if deep_memory:  # this one line turns Deep Memory on
        retriever = DeepMemoryRetriever(index, memory=memory, similarity_top_k=3)
    return RetrieverQueryEngine.from_args(retriever, llm=language_model())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "ask"])
    parser.add_argument("question", nargs="?")
    parser.add_argument("--deep-memory", action="store_true", help="retrieve with Deep Memory")
    parser.add_argument(
        "--folder", type=Path, default=Path("deepmem-llama-index-app"), help="the folder of the index and the models"
    )
    arguments = parser.parse_args()
    if arguments.command == "train":
        return train(arguments.folder)
    if not arguments.question:
        parser.error("ask needs a question")
    response = build_engine(arguments.folder, arguments.deep_memory).query(arguments.question)
    print("Found:", ", ".join(found.node_id for found in response.source_nodes))
    print(response)


if __name__ == "__main__":
    main()
