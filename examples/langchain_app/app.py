"""Ask questions about Deep Lake's API with a small, complete RAG application in LangChain. One line turns Deep Memory on.

    python examples/langchain_app/app.py train                         # once: index documents and train on recorded questions
    python examples/langchain_app/app.py ask "How do I undo a commit?"
    python examples/langchain_app/app.py ask "How do I undo a commit?" --deep-memory

The documents are the docstrings of the installed ``deeplake`` package, the store is Chroma, and the
embedding model comes in a package. With ``OPENAI_API_KEY``, a chat model writes the answer. Without the key, the answer is an
extract of the documents that were found.
"""

import argparse
import os
from pathlib import Path

from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from deepmem_integrations import DeepMemory
from deepmem_integrations.demo.documents import api_documents
from deepmem_integrations.demo.langchain import ExtractiveChatModel, MiniLMEmbeddings
from deepmem_integrations.demo.run import load_questions
from deepmem_integrations.langchain import DeepMemoryRetriever

PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Answer from these documents alone; say so if they do not tell.\n\n{context}"), ("human", "{question}")]
)


def chat_model():
    if not os.environ.get("OPENAI_API_KEY"):
        return ExtractiveChatModel()
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="gpt-4o-mini", temperature=0)


def open_store(folder):
    return Chroma(
        "api", MiniLMEmbeddings(), persist_directory=str(folder / "chroma"), collection_metadata={"hnsw:space": "cosine"}
    )


def train(folder):
    documents = api_documents()
    vectorstore = open_store(folder)
    vectorstore.add_documents([Document(id=document.id, page_content=document.text) for document in documents])
    memory = DeepMemory.from_langchain(vectorstore, path=folder / "models")
    memory.status(memory.train(load_questions("train", documents)))
    # The column "with" is DeepMemoryRetriever's, which the application uses.
    print(memory.evaluate(load_questions("test", documents)).table())


def build_chain(folder, deep_memory):
    vectorstore = open_store(folder)
    memory = DeepMemory.from_langchain(vectorstore, path=folder / "models")
    retriever = vectorstore.as_retriever(search_kwargs={"k": 3})
    if deep_memory:  # this one line turns Deep Memory on
        retriever = DeepMemoryRetriever(vectorstore=vectorstore, memory=memory, k=3)
    joined = retriever | (lambda documents: "\n\n".join(f"{d.id}\n{d.page_content}" for d in documents))
    return retriever, {"context": joined, "question": RunnablePassthrough()} | PROMPT | chat_model() | StrOutputParser()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "ask"])
    parser.add_argument("question", nargs="?")
    parser.add_argument("--deep-memory", action="store_true", help="retrieve with Deep Memory")
    parser.add_argument(
        "--folder", type=Path, default=Path("deepmem-langchain-app"), help="the folder of the store and the models"
    )
    arguments = parser.parse_args()
    if arguments.command == "train":
        return train(arguments.folder)
    if not arguments.question:
        parser.error("ask needs a question")
    retriever, chain = build_chain(arguments.folder, arguments.deep_memory)
    print("Found:", ", ".join(document.id for document in retriever.invoke(arguments.question)))
    print(chain.invoke(arguments.question))


if __name__ == "__main__":
    main()
