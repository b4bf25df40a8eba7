"""Every Python block of the README runs, in a fresh process, in the order in which a reader meets them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

SWAPS = {
    "vectorstore.as_retriever": """
        import numpy as np
        from langchain_core.embeddings import DeterministicFakeEmbedding
        from langchain_core.vectorstores import InMemoryVectorStore
        from deepmem_integrations import QueryAdapter
        from deepmem_integrations.langchain import DeepMemoryRetriever
        vectorstore = InMemoryVectorStore.from_texts(["a", "b"], DeterministicFakeEmbedding(size=4))
        memory = QueryAdapter(4, linear=np.eye(4, dtype=np.float32))
        {block}
        assert len(retriever.invoke("a")) == 2
    """,
    "index.as_retriever": """
        import numpy as np
        from llama_index.core import MockEmbedding, VectorStoreIndex
        from llama_index.core.schema import TextNode
        from deepmem_integrations import QueryAdapter
        from deepmem_integrations.llama_index import DeepMemoryRetriever
        memory = QueryAdapter(4, linear=np.eye(4, dtype=np.float32))
        index = VectorStoreIndex([TextNode(text="a"), TextNode(text="b")], embed_model=MockEmbedding(4))
        {block}
        assert len(retriever.retrieve("a")) == 2
    """,
}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_readme_runs(number, tmp_path):
    block = BLOCKS[number]
    for mark, frame in SWAPS.items():
        if mark in block and "# before" in block:
            lines = [line.strip() for line in frame.strip().splitlines()]
            block = "\n".join(lines).replace("{block}", block)
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readme_has_its_two_commands_and_both_swaps():
    assert len(BLOCKS) == 6
    assert len(re.findall(r"^python3 -m venv .* && \.venv/bin/deepmem demo$", README, re.MULTILINE)) == 1
    assert len(re.findall(r"^python3 -m venv .* && \.venv/bin/pytest$", README, re.MULTILINE)) == 1
