"""Runs the tutorial in LlamaIndex: crawl, ingest, write questions, train, evaluate, answer, and see what a lower top_k saves.

    python -m examples.tutorial_llama_index.tutorial

The script has the same requirements as the LangChain tutorial beside it, and reads the same environment variables
``OPENAI_API_KEY``, ``SITE`` and ``FOLDER``.
"""

import os
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import html2text
import requests
from bs4 import BeautifulSoup
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode

from deepmem_integrations import DeepMemory
from deepmem_integrations.llama_index import DeepLakeVectorStore, DeepMemoryRetriever, SyntheticQueryGenerator
from examples.tutorial.offline import RecordedQuestions, documentation_site
from examples.tutorial.top_k import print_top_k_table

FOLDER = Path(os.environ.get("FOLDER", "deepmem-tutorial-llama-index"))
WITH_KEY = bool(os.environ.get("OPENAI_API_KEY"))


def models():
    if not WITH_KEY:
        from deepmem_integrations.demo.llama_index import ExtractiveLLM, MiniLMEmbedding

        return MiniLMEmbedding(), ExtractiveLLM()
    from llama_index.embeddings.openai import OpenAIEmbedding
    from llama_index.llms.openai import OpenAI

    return OpenAIEmbedding(model="text-embedding-3-small"), OpenAI(model="gpt-4o-mini", temperature=0)


def fetch(url: str) -> bytes:
    response = requests.get(url, timeout=30)
    response.raise_for_status()
    return response.content


def crawl() -> Iterator[Document]:
    """Parse every link of three parts of the documentation, and turn each page into text."""
    with ExitStack() as stack:
        site = os.environ.get("SITE") or stack.enter_context(documentation_site())
        links = []
        for part in ("tutorial.html", "sql.html", "admin.html"):
            soup = BeautifulSoup(fetch(urljoin(site, part)), "html.parser")
            links += [urldefrag(urljoin(site, a["href"])).url for a in soup.find_all("a", href=True)]
        links = [link for link in dict.fromkeys(links) if link.startswith(site) and link.endswith(".html")]
        with ThreadPoolExecutor(8) as pool:
            for link, page in zip(links, pool.map(fetch, links), strict=True):
                to_text = html2text.HTML2Text()
                to_text.ignore_links = to_text.ignore_images = True
                text = to_text.handle(page.decode("utf-8"))
                yield Document(text=text, metadata={"page": link.rpartition("/")[2]})


def split(documents: list[Document]) -> list[TextNode]:
    """Split pages into pieces of up to 1024 tokens, named by page and number.

    The pieces are about as long as the 4096 characters of the LangChain tutorial.
    """
    nodes = SentenceSplitter(chunk_size=1024).get_nodes_from_documents(documents)
    count: dict[str, int] = {}
    for node in nodes:
        page = node.metadata["page"]
        count[page] = count.get(page, 0) + 1
        node.id_ = f"{page}/{count[page]}"
    return nodes


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    embed_model, llm = models()

    print("== 1. The data set")
    documents = list(crawl())
    nodes = split(documents)
    print(f"{len(documents)} pages, {len(nodes)} pieces of up to 1024 tokens")
    vector_store = DeepLakeVectorStore(dataset_path=str(FOLDER / "dataset"), embed_model=embed_model)
    storage = StorageContext.from_defaults(vector_store=vector_store)
    index = VectorStoreIndex(nodes, storage_context=storage, embed_model=embed_model)

    print("\n== 2. Questions, and training")
    memory = DeepMemory.from_llama_index(index)
    if WITH_KEY:
        generator = SyntheticQueryGenerator(llm=llm, queries_per_document=4, max_documents=123, embedding=embed_model)
    else:
        recorded = RecordedQuestions((node.node_id, node.metadata["page"], node.text) for node in nodes)
        print(
            f"Headings in the recording that this version of the documentation lacks: {len(recorded.missing)} {recorded.missing}"
        )
        nodes = [node for node in nodes if node.node_id in recorded.known]
        generator = SyntheticQueryGenerator(llm=recorded, queries_per_document=4)
    generation = generator.generate(nodes)
    print(generation)
    labels = generation.relevance
    order = random.Random(0).sample(range(len(labels)), len(labels))
    train, test, rest = labels.take(order[:100]), labels.take(order[100:200]), labels.take(order[200:])

    def retrievers(k: int) -> dict[str, BaseRetriever]:
        return {
            "without": index.as_retriever(similarity_top_k=k),
            "transform": index.as_retriever(similarity_top_k=k, vector_store_kwargs={"deep_memory": True}),
            "retriever": DeepMemoryRetriever(index, memory=memory, similarity_top_k=k),  # by words and answers, too
        }

    for title, questions in (("100 questions", train), (f"{len(train + rest)} questions", train + rest)):
        print(f"\n== 3. Trained on {title}, evaluated on 100 others")
        memory.status(memory.train(questions))
        recall = memory.evaluate(test)
        print(recall.table())
        print(f"The retriever ranks by: {memory.adapter.ranking or 'the transformed vector alone'}")
        found = {
            side: [[(node.node_id, node.text) for node in retriever.retrieve(question)] for question in test.queries]
            for side, retriever in retrievers(20).items()
        }
        print("\n== 4. What a lower top_k saves")
        print_top_k_table(found, test)

        print("\n== 5. Answers at k = 10: a question whose document only the retriever with Deep Memory finds, not the plain one")
        gain = recall.per_query["with model"]["recall@10"] - recall.per_query["without model"]["recall@10"]
        if not (gain > 0).any():
            print("There is no such question.")
            continue
        row = int(gain.argmax())
        print(f"? {test.queries[row]}   ({test.labels[row][0][0]})")
        for side, retriever in retrievers(10).items():
            print(f"  {side}: {RetrieverQueryEngine.from_args(retriever, llm=llm).query(test.queries[row])}")

    print("\n== 6. The report: every win and loss, and why")
    print(memory.report(test, FOLDER / "report.html"))
    print(f"The page is {FOLDER / 'report.html'}.")


if __name__ == "__main__":
    main()
