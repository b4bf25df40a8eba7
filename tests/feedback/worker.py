"""A process of a service that `test_load.py` kills: ``python -m tests.feedback.worker PLACE FOLDER NAME QUERIES``.

It answers queries and hears of thumbs and clicks. After every few queries it flushes the log, and then writes the ids of these
queries into ``FOLDER/NAME.acknowledged``. A query that fails goes to ``FOLDER/NAME.failed``.
"""

import os
import sys
import traceback
from pathlib import Path

from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

from deepmem_integrations import QueryAdapter
from deepmem_integrations.feedback import FeedbackLog
from deepmem_integrations.langchain import DeepMemoryRetriever

EACH = 7
"""After how many queries the log is flushed."""


def main(place: str, folder: str, name: str, queries: int) -> None:
    embeddings = DeterministicFakeEmbedding(size=8)
    store = InMemoryVectorStore.from_texts(
        [f"text {row}" for row in range(9)], embeddings, ids=[f"doc-{row}" for row in range(9)]
    )
    log = FeedbackLog(place)
    retriever = DeepMemoryRetriever(vectorstore=store, memory=QueryAdapter(8), k=3, record=log)
    acknowledged = os.open(Path(folder, f"{name}.acknowledged"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    asked = []
    for row in range(queries):
        try:
            documents = retriever.invoke(f"question {row} of {name}")
            query_id = documents[0].metadata["deepmem"]["query_id"]
            log.thumb(query_id, documents[0].id, up=True)
            log.click(query_id, documents[1].id, position=2)
        except Exception:
            Path(folder, f"{name}.failed").write_text(traceback.format_exc())
            raise
        asked.append(query_id)
        if len(asked) == EACH or row == queries - 1:
            log.flush(60)
            os.write(acknowledged, "".join(f"{one}\n" for one in asked).encode())
            asked.clear()


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
