"""Measure retrieval with and without a model."""

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepmem_integrations._extras import require
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.cluster import check_address, workers_on
from deepmem_integrations.corpora import (
    CorpusAtLevel,
    DeepLakeCorpus,
    ShardedCorpus,
    Where,
    id_and_text,
    in_shards,
    passes,
    read_corpus,
)
from deepmem_integrations.errors import InvalidRelevanceError, MissingExtraError, StorageError, StoreError
from deepmem_integrations.evaluation import LISTED, TOP_K, WITH, WITHOUT, Evaluation, cutoffs, evaluate
from deepmem_integrations.evaluation_log import EvaluationLog
from deepmem_integrations.labels import Labels, OnInvalid, Relevance
from deepmem_integrations.memory.models import ModelsMixin
from deepmem_integrations.report import CUTOFFS, ContextLength, CountTokens, EvaluationReport
from deepmem_integrations.retriever_evaluation import CONCURRENCY, AskedRetriever, IdKey, RetrieverTest, by_level, sides_of
from deepmem_integrations.store_sample import StoreSample, sample_store
from deepmem_integrations.words import LexicalSearch, check_searchable

_logger = logging.getLogger(__name__)


class EvaluationMixin(ModelsMixin):
    """The methods of a `DeepMemory` that measure."""

    def evaluate(
        self,
        relevance: Labels | Relevance | None = None,
        queries: Sequence[str] | Relevance | None = None,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        top_k: Sequence[int] = TOP_K,
        qvs_params: Mapping[str, Any] | None = None,
        *,
        model: str | None = None,
        filter: Where | None = None,
        retriever: Any = None,
        plain: Any = None,
        id_key: IdKey | None = None,
        concurrency: int = CONCURRENCY,
        on_invalid: OnInvalid = "raise",
        on: str | None = None,
    ) -> Evaluation:
        """Compare retrieval with and without a model, and print v3's two blocks.

        By default the whole corpus is searched exactly, by cosine similarity. Where labels name parents (`Relevance.level`),
        parents are ranked by the first of their documents. On up to 50 of the queries the store's own search by vector is asked
        as well, and a warning tells if it finds other documents, because its index is approximate or ranks by another metric: see
        `StoreSample`.

        With a ``retriever``, what users get is measured: the retriever is asked every query, with its own filter, search type
        and number of documents, and what it returns is scored. Cut-offs beyond that number score what there is.

        A warning is logged where queries took part in the training of the model, which then knows their answers.

        Args:
            relevance: For each query, its documents as (id, weight); or a `Relevance` with texts and labels.
            queries: The texts of the queries.
            embedding_function: Embeds the queries in place of the store's embedding model.
            embedding: The (n, d) query vectors, if they are at hand.
            top_k: The cut-offs.
            qvs_params: ``{"log_queries": True}`` adds the queries and the documents that they found to a Deep Lake data set, as
                v3 did: see `EvaluationLog`. ``"branch"`` names a branch of the data set.
            model: The name of a model; by default the model in use. A retriever serves the model of its own.
            filter: Which documents are searched, those of one tenant for example: the metadata that they must have, as in
                ``{"tenant": "acme", "lang": ["en", "de"]}``, where a list holds the values that are allowed; or a function from a
                document to a truth value. A retriever brings its own filter.
            retriever: A retriever, a chain that returns documents, or a query engine, of LangChain or LlamaIndex, ours or not:
                see `AskedRetriever`.
            plain: The retriever to compare with. A `DeepMemoryRetriever` is compared with itself without the model, any other
                retriever with nothing: the evaluation then has the side ``"with model"`` alone.
            id_key: The metadata key that holds the ids which the labels name, or a function from a document to its id. By default
                the level of the labels, where they name parents, the memory's own ``id_key``, or else the documents' ids.
            concurrency: How many queries the retriever is asked at a time, in threads.
            on_invalid: ``"drop"`` leaves out judgements of documents that are not in the store, with a warning that counts them.
            on: The Ray cluster that searches a corpus in shards, such as a `ParquetCorpus` or a Deep Lake data set: see `train`.
                By default this machine.

        Returns:
            The metrics as fractions, e.g. ``evaluation["with model"]["recall@10"]`` beside ``["without model"]``. ``gains``
            holds the differences with their intervals, and ``table()`` shows everything as text.

        Raises:
            ModelNotFoundError: There is no model yet, or no model has this name.
            InvalidRelevanceError: The labels cannot be used.
            EmbeddingMismatchError: The model was trained with another embedding model.
            StoreError: No document passes the filter, or the documents cannot be listed to apply the filter. The retriever cannot
                be asked, what it returns are no documents, they have no ids, or not one of them is known to the labels or the
                corpus.
            TypeError: An option does not go with a retriever, or goes with a retriever alone.
        """
        result = self.measure(
            _labels_of(relevance, queries),
            embedding_function=embedding_function,
            embedding=embedding,
            top_k=top_k,
            qvs_params=qvs_params,
            model=model,
            filter=filter,
            retriever=retriever,
            plain=plain,
            id_key=id_key,
            concurrency=concurrency,
            on_invalid=on_invalid,
            on=on,
        )
        _print_blocks(result)
        return result

    async def aevaluate(
        self,
        relevance: Labels | Relevance | None = None,
        queries: Sequence[str] | Relevance | None = None,
        **options: Any,
    ) -> Evaluation:
        """Do the same as `evaluate`, without blocking the event loop. A retriever is asked by its async methods.

        Args:
            relevance: See `evaluate`.
            queries: See `evaluate`.
            options: The other options of `evaluate`, by name.
        """
        result = await self.ameasure(_labels_of(relevance, queries), **options)
        _print_blocks(result)
        return result

    def measure(
        self,
        labels: Relevance,
        *,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        top_k: Sequence[int] = TOP_K,
        qvs_params: Mapping[str, Any] | None = None,
        model: str | None = None,
        filter: Where | None = None,
        retriever: Any = None,
        plain: Any = None,
        id_key: IdKey | None = None,
        concurrency: int = CONCURRENCY,
        on_invalid: OnInvalid = "raise",
        on: str | None = None,
    ) -> Evaluation:
        """Compare retrieval with and without a model, as `evaluate` does, but print nothing.

        Args:
            labels: Labelled queries that took no part in the training.
            embedding_function: See `evaluate`.
            embedding: See `evaluate`.
            top_k: See `evaluate`.
            qvs_params: See `evaluate`.
            model: See `evaluate`.
            filter: See `evaluate`.
            retriever: See `evaluate`.
            plain: See `evaluate`.
            id_key: See `evaluate`.
            concurrency: See `evaluate`.
            on_invalid: See `evaluate`.
            on: See `evaluate`.

        Returns:
            See `evaluate`.

        Raises:
            ModelNotFoundError: There is no model yet, or no model has this name.
            InvalidRelevanceError: The labels cannot be used.
            EmbeddingMismatchError: The model was trained with another embedding model.
            StoreError: See `evaluate`.
            TypeError: See `evaluate`.
        """
        _check_labels(labels)
        top_k = cutoffs(top_k)
        if on is not None:
            check_address(on)
            if retriever is not None:
                raise TypeError("on= searches the corpus on a cluster: a retriever= is asked from this process. Leave one out.")
            if in_shards(self.corpus) is None:
                raise StoreError(
                    "on= searches a corpus in shards: Parquet files, Lance or Deep Lake data sets. This store is read and "
                    "searched by this process: leave on= out."
                )
        if retriever is not None:
            if on_invalid == "drop":
                raise TypeError(
                    'on_invalid="drop" looks labels up in the store: for a retriever, drop them with Relevance.prune(ids).'
                )
            test = self._retriever_test(
                labels,
                sides_of(retriever, plain, id_key or by_level(labels.level) or self.id_key),
                top_k,
                concurrency,
                embedding_function=embedding_function,
                embedding=embedding,
                model=model,
                qvs_params=qvs_params,
                filter=filter,
            )
            return test.score(test.ask())
        if plain is not None or id_key is not None:
            raise TypeError("plain= and id_key= go with retriever=, the retriever that is asked: pass it as well.")
        return self._measured(
            labels,
            embedding_function=embedding_function,
            embedding=embedding,
            top_k=top_k,
            qvs_params=qvs_params,
            model=model,
            filter=filter,
            on_invalid=on_invalid,
            on=on,
        )[0]

    def _measured(
        self,
        labels: Relevance,
        *,
        top_k: Sequence[int],
        model: str | None,
        on_invalid: OnInvalid,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        qvs_params: Mapping[str, Any] | None = None,
        filter: Where | None = None,
        on: str | None = None,
    ) -> tuple[Evaluation, Relevance, Vectors, dict[str, str] | None]:
        """Measure as `measure` does without a retriever.

        Returns:
            The evaluation; the labels and the (n, d) query vectors that it is of; and document id → parent, where the labels name
            parents.
        """
        log = EvaluationLog.wanted(qvs_params, self._evaluations_path())
        embedder = self._embedder(embedding_function)
        model, adapter = self.folder.in_use() if model is None else (model, self.folder.load_model(model))
        seconds: float | None = None

        @functools.cache
        def embed() -> Vectors:
            nonlocal seconds
            if embedding is not None:
                return unit_rows(embedding, "query vector")
            adapter.check(embedder.fingerprint())
            started = time.monotonic()
            vectors = embedder.embed_queries(labels.queries, progress="Embedding queries")
            seconds = time.monotonic() - started
            return vectors

        def searches() -> Vectors:
            # The documents nearest to the plain and to the transformed queries are enough: no others can be ranked first.
            return np.concatenate([embed(), adapter.transform(embed()), adapter.for_ranking().transform(embed())])

        remembered = adapter.remembered_queries
        known = remembered.document_ids if remembered else ()
        levelled = CorpusAtLevel(self.corpus, labels.level)
        given = labels
        kept: Sequence[int] = ()
        ids: list[str] | None = None
        vectors: Vectors | ShardedCorpus
        # Here, a store that is more than its shards is read as a whole, and its own search is compared.
        by_shards = on is not None or isinstance(self.corpus, ShardedCorpus)
        shards = in_shards(self.corpus) if by_shards and filter is None and levelled.parent_of is None else None
        if shards is not None:
            vectors, there = shards, shards.known(labels.document_ids)
        else:
            if isinstance(self.corpus, ShardedCorpus):
                batches = self.corpus.vectors()
            else:
                batches = levelled.around(searches, max(*top_k, LISTED), labels.document_ids, known)
            ids, vectors = read_corpus(batches)
            kept = range(len(ids)) if filter is None else self._passing(filter, ids)
            there = {levelled.name_of(ids[row]) for row in kept}
        parent_of = levelled.parent_of
        # Before the queries of a listed corpus are embedded, which may cost money.
        labels = labels.check(there, on_invalid=on_invalid)
        if not len(labels):
            raise InvalidRelevanceError("No judged document is in the store, so there is nothing to measure.")
        query_vectors = embed()
        if len(query_vectors) == len(given) > len(labels):  # they were embedded, or passed, before some were dropped
            query_vectors = query_vectors[np.isin(given.query_ids, labels.query_ids)]
        self._warn_of_known(adapter, model, query_vectors)
        sample = None
        if ids is not None and not isinstance(vectors, ShardedCorpus):
            sample = self._sample_store(query_vectors, labels, ids, vectors, parent_of)
            if filter is not None:
                sample = sample and replace(sample, filtered=True)
                ids, vectors = [ids[row] for row in kept], vectors[kept]
        words = self._usable_words(adapter)
        with workers_on(on) as workers:
            result = evaluate(
                *(query_vectors, labels, vectors, ids),
                adapter=adapter,
                top_k=top_k,
                words=words,
                corpus_parents=parent_of,
                workers=workers,
            )
        result.embedding_seconds, result.store_sample = seconds, sample
        if log is not None:
            with self.folder.lock():
                log.add(labels, query_vectors, result, model)
        return result, labels, query_vectors, parent_of

    async def ameasure(
        self,
        labels: Relevance,
        *,
        retriever: Any = None,
        plain: Any = None,
        id_key: IdKey | None = None,
        top_k: Sequence[int] = TOP_K,
        concurrency: int = CONCURRENCY,
        **options: Any,
    ) -> Evaluation:
        """Do the same as `measure`, without blocking the event loop. A retriever is asked by its async methods.

        Args:
            labels: See `measure`.
            retriever: See `evaluate`.
            plain: See `evaluate`.
            id_key: See `evaluate`.
            top_k: See `evaluate`.
            concurrency: How many queries the retriever is asked at a time, as tasks of the event loop.
            options: The other options of `measure`.
        """
        if retriever is None:
            return await asyncio.to_thread(self.measure, labels, plain=plain, id_key=id_key, top_k=top_k, **options)
        _check_labels(labels)
        sides = sides_of(retriever, plain, id_key or by_level(labels.level) or self.id_key)
        test = await asyncio.to_thread(self._retriever_test, labels, sides, cutoffs(top_k), concurrency, **options)
        return await asyncio.to_thread(test.score, await test.aask())

    def report(
        self,
        labels: Relevance,
        path: str | os.PathLike[str] | None = None,
        *,
        model: str | None = None,
        texts: bool = True,
        tokens: str | CountTokens | None = None,
        price: float | None = None,
        command: str | None = None,
        on_invalid: OnInvalid = "raise",
    ) -> EvaluationReport:
        """Measure a model as `measure` does, and describe what it gains and loses in a page for people.

        The page is one file that loads nothing. A notebook shows it where a cell ends with the report. Where labels name parents,
        the report is of parents: the length of a parent is that of its documents together.

        Args:
            labels: Labelled queries that took no part in the training.
            path: Where to write the report: JSON values where the name ends in ``.json``, otherwise the page.
            model: The name of a model; by default the model in use.
            texts: Whether the texts of queries and documents are in the report. Without them it has their ids.
            tokens: How to count the tokens of a context: the name of a tiktoken encoding, such as ``o200k_base``, or of a model
                that tiktoken knows, or a function of a text. tiktoken downloads an encoding when it first uses it. None counts
                characters.
            price: What a million tokens cost, in any currency. It needs ``tokens``.
            command: What made the report, for its last part.
            on_invalid: See `evaluate`.

        Raises:
            ValueError: ``price`` is negative or stands without ``tokens``, or tiktoken does not know ``tokens``.
            MissingExtraError: jinja2, or tiktoken where ``tokens`` names an encoding, is not installed.
            StorageError: The file cannot be written.
            ModelNotFoundError, InvalidRelevanceError, EmbeddingMismatchError: See `measure`.
        """
        require("jinja2", extra="train")
        count = ContextLength.of(tokens, price)
        labels = Relevance.of(labels)
        name = self.get_model() if model is None else model
        evaluation, labels, vectors, parent_of = self._measured(labels, top_k=CUTOFFS, model=name, on_invalid=on_invalid)
        report = EvaluationReport.of(
            *(evaluation, labels, vectors, self.folder.load_model(name), self.folder.info(name), self.corpus, count),
            parent_of=parent_of,
            texts=texts,
            command=command,
        )
        if path is not None:
            report.save(path)
        return report

    def _retriever_test(
        self,
        labels: Relevance,
        sides: Mapping[str, AskedRetriever],
        top_k: Sequence[int],
        concurrency: int,
        *,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        model: str | None = None,
        qvs_params: Mapping[str, Any] | None = None,
        filter: Where | None = None,
    ) -> RetrieverTest:
        """Prepare the test of a retriever: check the labels, and warn of queries that took part in a training."""
        _check_labels(labels)
        if filter is not None:
            raise TypeError("A retriever brings its own filter: leave filter= out, and give the filter to the retriever.")
        if model is not None:
            raise TypeError(f"A retriever serves the model of its own: leave model={model!r} out, or call set_model({model!r}).")
        if qvs_params is not None and qvs_params.get("log_queries", True):
            raise TypeError("The answers of a retriever are not logged: leave qvs_params out, or evaluate without retriever=.")
        test = RetrieverTest(labels, sides, top_k, concurrency)  # checks before the store is read and the queries are embedded
        ids: frozenset[str] | None = None
        if any(asked.id_key is not None for asked in sides.values()):
            ids = frozenset()  # the labels name something else than the corpus does
        elif self.corpus.listed:
            try:
                ids = frozenset(name for batch, _ in self.corpus.texts() for name in batch)
            except StoreError as error:  # the retriever is asked, and may read what cannot be read here
                _logger.warning("Whether the store has the labelled documents is not checked: %s", error)
        if embedding is None:
            vectors = self._embedder(embedding_function).embed_queries(labels.queries, progress="Embedding queries")
        else:
            vectors = unit_rows(embedding, "query vector")
        if self.folder.in_use_name() is not None:
            name, adapter = self.folder.in_use()
            self._warn_of_known(adapter, name, vectors)
        return replace(test, corpus_ids=ids, vectors=vectors)

    def _passing(self, filter: Where, ids: Sequence[str]) -> list[int]:
        """Return the rows of those ids whose documents pass a filter."""
        if not self.corpus.listed:
            raise StoreError(
                "filter= reads the metadata of all documents, and this store is searched and never read (scan=False). Ask a "
                "retriever that has the filter in place of that: evaluate(…, retriever=…)."
            )
        passing: set[str] = set()
        for batch in self.corpus.documents():
            named = [(document, id_and_text(document)) for document in batch]
            passing |= {str(name[0]) for document, name in named if name is not None and passes(document, filter)}
        kept = [row for row, name in enumerate(ids) if name in passing]
        if not kept:
            raise StoreError(f"Not one of the {len(ids)} documents of the store passes the filter {filter!r}.")
        return kept

    def _sample_store(
        self,
        queries: Vectors,
        labels: Relevance,
        ids: Sequence[str],
        vectors: Vectors,
        parent_of: Mapping[str, str] | None,
    ) -> StoreSample | None:
        """Compare the store's own search with the exact ranking, and warn where the two differ."""
        if self._store_search is None or not any(labels.labels):
            return None
        try:
            sample = sample_store(self._store_search, queries, labels, ids, vectors, parent_of)
        except Exception as error:  # the store's own errors, of any class
            _logger.warning(
                "The store could not be asked for a comparison, so its own answers may differ from this exact ranking "
                "(%s: %s). Measure what users get with evaluate(…, retriever=…).",
                type(error).__name__,
                error,
            )
            return None
        if sample.differs:
            _logger.warning(
                "The figures below are those of an exact ranking by cosine similarity, and %s. The store's index is approximate, "
                "ranks by another metric, or filters what it has found. Measure what users get with evaluate(…, retriever=…).",
                sample,
            )
        return sample

    def _warn_of_known(self, adapter: QueryAdapter, model: str, vectors: Vectors) -> None:
        """Warn of queries, (n, d) unit rows, that the model knows."""
        known = adapter.remembered(vectors)
        if known.any():
            _logger.warning(
                "%d of the %d queries took part in the training of %s or were added by remember, so this evaluation overrates "
                "the model: evaluate on other queries.",
                known.sum(),
                len(vectors),
                model,
            )

    def _usable_words(self, adapter: QueryAdapter) -> LexicalSearch | None:
        """Return the search by words that a model was trained with, or else the one at hand, unless it cannot be searched."""
        try:
            search = self._search_for(adapter)
            if search is not None:
                check_searchable(search)
        except (StorageError, MissingExtraError) as error:
            _logger.warning("The evaluation goes on without words, as retrievers do: %s", error)
            return None
        if search is None and adapter.ranking is not None and adapter.ranking.words:
            _logger.warning(
                "The model was trained with the words of a %s, which is not at hand, so it is measured without words. Set the "
                "same search as memory.lexical_search (--words in a shell), or build a word index with memory.refresh().",
                adapter.ranking.search,
            )
        return search

    def _evaluations_path(self) -> str:
        """Return a path beside a local Deep Lake data set, as in v3, or a path in the folder of the models for other stores."""
        if isinstance(self.corpus, DeepLakeCorpus) and "://" not in self.corpus.store.path:
            return self.corpus.store.path.rstrip("/\\") + "_eval_queries"
        return str(self.folder.path / "eval_queries")


def _labels_of(relevance: Labels | Relevance | None, queries: Sequence[str] | Relevance | None) -> Relevance:
    """Join what v3's ``evaluate`` takes."""
    if isinstance(relevance, Sequence) and relevance and isinstance(relevance[0], str):
        raise InvalidRelevanceError(
            "relevance comes first, as in v3: evaluate(relevance, queries). Swap the two, or pass them by name."
        )
    return Relevance.of(queries, relevance)


def _check_labels(labels: Any) -> None:
    if not isinstance(labels, Relevance):
        raise InvalidRelevanceError(
            f"measure takes one Relevance; got {type(labels).__name__}. Pass Relevance(queries, relevance), or call "
            "evaluate(relevance, queries)."
        )


def _print_blocks(result: Evaluation) -> None:
    """Print v3's block for each side."""
    if result.embedding_seconds is not None:
        print(f"Embedding queries took {result.embedding_seconds:.2f} seconds")  # noqa: T201 - as v3 did
    for title, side in (("without", WITHOUT), ("with", WITH)):
        if side in result:
            print(f"---- Evaluating {title} Deep Memory ----")  # noqa: T201 - as v3 did
            for k in result.top_k:
                print(f"Recall@{k}:\t  {100 * result[side][f'recall@{k}']:.1f}%")  # noqa: T201 - as v3 did
