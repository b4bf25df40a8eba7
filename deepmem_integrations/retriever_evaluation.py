"""How good what a retriever returns is: any retriever, chain or query engine is asked every query, and its ids are scored."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.corpora import parent_of
from deepmem_integrations.errors import InvalidRelevanceError, StoreError
from deepmem_integrations.evaluation import LISTED, WITH, WITHOUT, Evaluation, score_rankings
from deepmem_integrations.feedback import unrecorded
from deepmem_integrations.labels import LabelRows, Relevance, question_groups

_logger = logging.getLogger(__name__)

CONCURRENCY = 4
"""How many queries a retriever is asked at a time by default."""

IdKey = str | Callable[[Any], Any]
"""A metadata key that holds the id of a document, or a function from a document or node to its id."""

_METHODS = (("invoke", "ainvoke"), ("query", "aquery"), ("retrieve", "aretrieve"))
"""How a Runnable of LangChain, a query engine and a retriever of LlamaIndex are asked. Some query engines retrieve as well."""

Found = dict[str, list[list[str]]]
"""Side → for each query the ids of the documents that were found, best first."""


class AskedRetriever:
    """A retriever, chain or query engine of either framework, which is asked for the ids of documents. No query is recorded.

    Args:
        retriever: An object with ``invoke`` and ``ainvoke`` that takes the text of a query, and returns documents or a mapping
            with one list of documents; with ``query`` and ``aquery``, whose answer has ``source_nodes``; or with ``retrieve``
            and ``aretrieve``, which returns nodes.
        id_key: Where the ids are; None takes the ids of the documents or nodes themselves.

    Raises:
        StoreError: The object cannot be asked.

    Example:
        >>> from langchain_core.documents import Document
        >>> from langchain_core.runnables import RunnableLambda
        >>> found = RunnableLambda(lambda text: [Document("How to install", id="page-1")])
        >>> AskedRetriever(found).ask("install")
        ['page-1']
    """

    def __init__(self, retriever: Any, id_key: IdKey | None = None) -> None:
        usable = not isinstance(retriever, type) and not hasattr(retriever, "stores_text")  # which LlamaIndex's stores have
        known = [both for both in _METHODS if usable and all(callable(getattr(retriever, name, None)) for name in both)]
        if not known:
            hint = " Call its as_retriever()." if hasattr(retriever, "as_retriever") else ""
            raise StoreError(
                "A retriever is asked by invoke (LangChain's retrievers and chains), by query (LlamaIndex's query engines) or by "
                f"retrieve (LlamaIndex's retrievers), each with its async twin; got {_kind(retriever)}.{hint}"
            )
        self.retriever, self.id_key = retriever, id_key
        self._method, self._async_method = known[0]

    def ask(self, text: str) -> list[str]:
        """Return the ids of the documents that are found for a query, best first. Parts of one parent may have the same id.

        Raises:
            StoreError: The answer holds no documents, or a document has no id.
        """
        with unrecorded():
            return self._ids(getattr(self.retriever, self._method)(text))

    async def aask(self, text: str) -> list[str]:
        """Do the same as `ask`, asynchronously."""
        with unrecorded():
            return self._ids(await getattr(self.retriever, self._async_method)(text))

    def _ids(self, answer: Any) -> list[str]:
        return [self._id_of(found) for found in self._documents(answer)]

    def _documents(self, answer: Any) -> Sequence[Any]:
        answer = getattr(answer, "source_nodes", answer)
        if isinstance(answer, Mapping):
            lists = [value for value in answer.values() if _are_documents(value)]
            lists = [value for value in lists if value] or lists[:1]
            answer = lists[0] if len(lists) == 1 else answer
        if not _are_documents(answer):
            keys = f" with the keys {', '.join(map(str, answer))}" if isinstance(answer, Mapping) else ""
            raise StoreError(
                f"{_kind(self.retriever)} returned {_kind(answer)}{keys}, and no list of documents. Pass the part of the chain "
                "that finds the documents, or a chain whose answer has them beside it."
            )
        return answer  # type: ignore[no-any-return]

    def _id_of(self, found: Any) -> str:
        document = getattr(found, "node", found)  # LlamaIndex's retrievers return nodes with scores
        metadata = document.metadata
        name: Any
        if callable(self.id_key):
            name = self.id_key(document)
        elif self.id_key is not None:
            name = metadata.get(self.id_key)
        elif hasattr(document, "node_id"):
            name = document.node_id
        else:
            name = document.id
            if name is None and "_collection_name" in metadata:
                name = metadata.get("_id")  # LangChain's Qdrant tells the id there
        if name is None:
            where = "no id" if self.id_key is None else f"no id by id_key={self.id_key!r}"
            where = "no id, neither of its own nor by the key" if callable(self.id_key) else where
            raise StoreError(
                f"{_kind(self.retriever)} found a {type(document).__name__} with {where}; its metadata has the keys "
                f"{', '.join(map(repr, metadata)) or '(none)'}. Name the key that holds the id with id_key=…, or add the "
                "documents with ids."
            )
        return str(name)


def _are_documents(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(hasattr(one, "page_content") or hasattr(one, "get_content") for one in value)


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


@dataclass(frozen=True)
class RetrieverTest:
    """A test of a retriever on labelled queries, beside a plain retriever where there is one.

    Attributes:
        labels: The n labelled queries.
        sides: `evaluation.WITH` → the retriever; `evaluation.WITHOUT` → the plain one, if there is one.
        top_k: The cut-offs.
        concurrency: How many queries are asked at a time.
        corpus_ids: The ids of the corpus that labels may name; empty where labels name something else, such as parents of the
            documents, and None where the corpus cannot be listed.
        vectors: (n, d) float32 unit rows, the queries' vectors, by which spellings of a question are told.

    Raises:
        ValueError: ``concurrency`` is below 1.
        InvalidRelevanceError: No query has a document that answers it.
    """

    labels: Relevance
    sides: Mapping[str, AskedRetriever]
    top_k: Sequence[int]
    concurrency: int = CONCURRENCY
    corpus_ids: frozenset[str] | None = None
    vectors: Vectors | None = None

    def __post_init__(self) -> None:
        whole = isinstance(self.concurrency, int | np.integer) and not isinstance(self.concurrency, bool)
        if not whole or self.concurrency < 1:
            raise ValueError(f"concurrency is a number of queries, 1 or more; got {self.concurrency!r}.")
        if not any(self.labels.labels):
            raise InvalidRelevanceError("There is no query with a document that answers it.")

    @cached_property
    def _judged(self) -> frozenset[str]:
        return frozenset(name for judged in self.labels.relevance for name, _ in judged)

    def ask(self) -> Found:
        """Ask every query of each side."""
        return {side: self._ask(side, asked) for side, asked in self.sides.items()}

    async def aask(self) -> Found:
        """Do the same as `ask`, asynchronously."""
        return {side: await self._aask(side, asked) for side, asked in self.sides.items()}

    def _ask(self, side: str, asked: AskedRetriever) -> list[list[str]]:
        failed = threading.Event()  # ends the test for all threads at once; to cancel what waits takes a moment

        def ask(row: int) -> list[str]:
            if failed.is_set():
                return []
            try:
                return asked.ask(self.labels.queries[row])
            except Exception as error:
                failed.set()
                error.add_note(self._place(row))
                raise

        with self._bar(side) as bar, ThreadPoolExecutor(int(self.concurrency)) as pool:
            # A context of its own lets the callbacks and traces around the call see each query.
            waiting = [pool.submit(contextvars.copy_context().run, ask, row) for row in range(len(self.labels))]
            try:
                found = []
                for one in waiting:  # in their order, so that the same query is named each time
                    found.append(one.result())
                    bar.update()
                return found
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # the first error ends the test
                raise

    async def _aask(self, side: str, asked: AskedRetriever) -> list[list[str]]:
        gate = asyncio.Semaphore(self.concurrency)
        with self._bar(side) as bar:

            async def ask(row: int) -> list[str]:
                async with gate:
                    try:
                        found = await asked.aask(self.labels.queries[row])
                    except Exception as error:
                        error.add_note(self._place(row))
                        raise
                    bar.update()
                    return found

            tasks = [asyncio.ensure_future(ask(row)) for row in range(len(self.labels))]
            try:
                return list(await asyncio.gather(*tasks))
            except BaseException:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                raise

    def _bar(self, side: str) -> "tqdm[Any]":
        return tqdm(total=len(self.labels), desc=f"Asking, {side}", unit="query", delay=1)

    def _place(self, row: int) -> str:
        return f"The query is row {row} of the labels, query id {self.labels.query_ids[row]!r}."

    def score(self, found: Found) -> Evaluation:
        """Score what was found against the labels.

        Args:
            found: What `ask` returned.

        Raises:
            StoreError: Not one of the documents that a side found is known to the labels, or to a corpus that the labels name.
        """
        for side, lists in found.items():
            self._check_known(side, lists)
        self._warn_of_missing({name for lists in found.values() for ids in lists for name in ids})
        depth = max(*self.top_k, LISTED)
        found = {side: [ids[:depth] for ids in lists] for side, lists in found.items()}
        names = dict.fromkeys(sorted(self._judged))
        for lists in found.values():
            names |= dict.fromkeys(name for ids in lists for name in ids)
        row_of = {name: row for row, name in enumerate(names)}
        labels, irrelevant = LabelRows.of(self.labels, row_of), LabelRows.of_irrelevant(self.labels, row_of)

        def scores(lists: list[list[str]]) -> dict[str, Any]:
            rankings = np.full((len(lists), max(map(len, lists), default=0)), -1, dtype=np.int64)
            for row, ids in enumerate(lists):
                # A document counts where it comes first. Coming again, it takes a place from others, as it does for users.
                again = [name in ids[:place] for place, name in enumerate(ids)]
                rankings[row, : len(ids)] = np.where(again, -1, [row_of[name] for name in ids])
            return score_rankings(rankings, labels, self.top_k, irrelevant)

        groups = question_groups(self.labels.queries, self.vectors, labels.document_lists())
        return Evaluation(
            {side: scores(lists) for side, lists in found.items()}, self.labels.query_ids, self.top_k, found, groups
        )

    def _warn_of_missing(self, found: set[str]) -> None:
        """Warn of labelled documents that are nowhere. A retriever may well find some that this one corpus does not hold."""
        if self.corpus_ids is None or self.corpus_ids.isdisjoint(self._judged):
            return  # labels that name parents of the documents share no id with the corpus
        missing = sorted(self.labels.document_ids - self.corpus_ids - found)
        if missing:
            _logger.warning(
                "%d of the documents that the labels name, %r for example, are not in the store, and were found for no query: "
                "they count as not found.",
                len(missing),
                missing[0],
            )

    def _check_known(self, side: str, lists: list[list[str]]) -> None:
        ids, kind = {name for one in lists for name in one}, _kind(self.sides[side].retriever)
        if not ids:
            _logger.warning("%s found no document for any query (%s).", kind, side)
            return
        known = self._judged
        if self.corpus_ids is not None and not self.corpus_ids.isdisjoint(known):
            known = known | self.corpus_ids
        if not ids.isdisjoint(known):
            return
        told = (
            f"{kind} found {len(ids)} different documents ({side}), and not one of them is known: it found {min(ids)!r}, for "
            f"example, and the labels name {min(self._judged)!r}. Say with id_key=… where the ids are that the labels name."
        )
        if self.corpus_ids is None:  # a corpus that cannot be listed may hold them
            _logger.warning("%s", told)
        else:
            raise StoreError(told)


def by_level(level: str | None) -> IdKey | None:
    """Return a function from a document to the parent that labels of a level name; None where they name documents.

    A document without the key stands for itself, as a parent does that a retriever returns in place of its parts.
    """
    if level is None:
        return None

    def name_of(document: Any) -> str | None:
        parent = parent_of(document, level)
        return parent if parent is not None else getattr(document, "node_id", None) or getattr(document, "id", None)

    return name_of


def sides_of(retriever: Any, plain: Any = None, id_key: IdKey | None = None) -> dict[str, AskedRetriever]:
    """Return the sides of a test: the plain retriever, if there is one, and the retriever.

    Args:
        retriever: See `AskedRetriever`.
        plain: The retriever to compare with. By default a retriever with a method ``without_model``, as a `DeepMemoryRetriever`
            has, is compared with what the method returns.
        id_key: See `AskedRetriever`.

    Raises:
        StoreError: An object cannot be asked.
    """
    # The class is asked, because a binding of LangChain forwards the methods of its retriever and forgets what it binds.
    if plain is None and hasattr(type(retriever), "without_model"):
        plain = retriever.without_model()
    sides = {} if plain is None else {WITHOUT: AskedRetriever(plain, id_key)}
    return {**sides, WITH: AskedRetriever(retriever, id_key)}
