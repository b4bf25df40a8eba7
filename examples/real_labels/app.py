"""Train on labels that people made: any test collection in BEIR's layout, in LangChain, without a key.

    python examples/real_labels/app.py FOLDER

FOLDER holds ``corpus.jsonl``, ``queries.jsonl``, ``qrels/train.tsv`` and ``qrels/test.tsv``, as BEIR's collections do (SciFact,
NFCorpus, FiQA, …). People judged which documents answer which query. The test queries take no part in the training.
"""

import json
import sys
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.demo.langchain import MiniLMEmbeddings
from deepmem_integrations.langchain import DeepMemoryRetriever


def read_documents(folder):
    with open(folder / "corpus.jsonl", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield Document(f"{row.get('title', '')}\n{row['text']}".strip(), id=row["_id"])


def main():
    folder = Path(sys.argv[1])
    train, test = Relevance.from_beir(folder, "train"), Relevance.from_beir(folder, "test")
    vectorstore = InMemoryVectorStore(MiniLMEmbeddings())
    vectorstore.add_documents(list(read_documents(folder)))  # the slow part: some 30 abstracts a second on two cores
    memory = DeepMemory.from_langchain(vectorstore, path="real-labels.deepmemory")
    memory.status(memory.train(train))
    print(memory.measure(test).table())
    retriever = DeepMemoryRetriever(vectorstore=vectorstore, memory=memory, k=5)
    print(test.queries[0], "→", [document.id for document in retriever.invoke(test.queries[0])])


if __name__ == "__main__":
    main()
