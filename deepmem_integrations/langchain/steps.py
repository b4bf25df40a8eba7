"""`LabelStep`: what makes labels, as a step of a chain."""

import contextlib
import copy
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig

from deepmem_integrations.labels import Relevance

_Input = TypeVar("_Input")
_Taken = TypeVar("_Taken", contravariant=True)


class Worker(Protocol[_Taken]):
    """What does the work of a `LabelStep`: a query generator or a judge."""

    concurrency: int

    def __call__(self, input: _Taken, /) -> Relevance:
        """Make labels."""
        ...

    async def acall(self, input: _Taken, /) -> Relevance:
        """Do the same as a call with the model's async methods."""
        ...

    def stream(self, input: _Taken, /) -> Iterator[Relevance]:
        """Yield labels as they arrive."""
        ...

    def astream(self, input: _Taken, /) -> AsyncGenerator[Relevance, None]:
        """Do the same as `stream` with the model's async methods."""
        ...


class LabelStep(Runnable[_Input, Relevance]):
    """A step of a chain that makes labels. A subclass sets ``_worker``, and joins pieces of the input."""

    _worker: Worker[_Input]

    @staticmethod
    @abstractmethod
    def _joined(inputs: Sequence[Any]) -> Any:
        """Join pieces of the input, which a chain may stream."""

    def invoke(self, input: _Input, config: RunnableConfig | None = None, **kwargs: Any) -> Relevance:
        """Make labels.

        Args:
            input: What the step takes: see the class.
            config: The config of the call, as for every Runnable.
            kwargs: No further arguments are known.

        Returns:
            The labels. ``left_out`` counts, for each reason, what was left out.

        Raises:
            GenerationError: A document has no id, the checkpoint belongs to another run, or not one request was answered.
        """
        return self._call_with_config(self._call, input, config, **kwargs)

    async def ainvoke(self, input: _Input, config: RunnableConfig | None = None, **kwargs: Any) -> Relevance:
        """Do the same as `invoke` with the model's async methods."""
        return await self._acall_with_config(self._acall, input, config, **kwargs)

    def stream(self, input: _Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Relevance]:
        """Yield labels as they arrive, a `Relevance` for each piece of the input, always in the same order. The pieces add up."""
        return self.transform(iter([input]), config, **kwargs)

    async def astream(self, input: _Input, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Relevance]:
        """Do the same as `stream` with the model's async methods."""

        async def inputs() -> AsyncIterator[_Input]:
            yield input

        async for piece in self.atransform(inputs(), config, **kwargs):
            yield piece

    def transform(self, input: Iterator[_Input], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Relevance]:
        """Yield labels as `stream` does, for an input that arrives in pieces. The step waits for all of them first."""
        yield from self._transform_stream_with_config(input, self._pieces, config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[_Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Relevance]:
        """Do the same as `transform` with the model's async methods."""
        async for piece in self._atransform_stream_with_config(input, self._apieces, config, **kwargs):
            yield piece

    # LangChain calls these methods with a run manager, which they do not need, and with the config of the call.

    def _call(self, input: _Input, run_manager: Any, config: RunnableConfig) -> Relevance:
        return self._configured(config)(input)

    async def _acall(self, input: _Input, run_manager: Any, config: RunnableConfig) -> Relevance:
        return await self._configured(config).acall(input)

    def _pieces(self, inputs: Iterator[_Input], run_manager: Any, config: RunnableConfig) -> Iterator[Relevance]:
        yield from self._configured(config).stream(self._joined(list(inputs)))

    async def _apieces(self, inputs: AsyncIterator[_Input], run_manager: Any, config: RunnableConfig) -> AsyncIterator[Relevance]:
        whole = self._joined([piece async for piece in inputs])
        async with contextlib.aclosing(self._configured(config).astream(whole)) as pieces:
            async for relevance in pieces:
                yield relevance

    def _configured(self, config: RunnableConfig) -> Worker[_Input]:
        """Return a copy of the worker with the concurrency of this call, if the config sets one."""
        worker = copy.copy(self._worker)
        worker.concurrency = config.get("max_concurrency") or worker.concurrency
        return worker
