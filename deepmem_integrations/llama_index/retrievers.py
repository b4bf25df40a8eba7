"""The retriever for LlamaIndex: any vector index or vector store, ranked by all that a model has learned."""

import asyncio
import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from numbers import Integral
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding, mean_agg
from llama_index.core.callbacks.base import global_stack_trace
from llama_index.core.callbacks.schema import BASE_TRACE_EVENT
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryMode

from deepmem_integrations.embedding import untransformed
from deepmem_integrations.errors import StoreError
from deepmem_integrations.feedback import FeedbackLog, Shown, ids_in_metadata
from deepmem_integrations.llama_index.queries import check_vectors, given, is_transformed, with_embedding
from deepmem_integrations.llama_index.stores import search_of
from deepmem_integrations.ranking import EVIDENCE, Choice, Metadata, RankedQuery, Ranker, Shortlist
from deepmem_integrations.serving import HasModels, MemoryLike, OnBroken, Untrained
from deepmem_integrations.tracing import describe, recording_span
from deepmem_integrations.words import Found, LexicalSearch


class DeepMemoryRetriever(BaseRetriever):
    """Retrieve with Deep Memory from any vector index or vector store that searches by vector. The index is never changed.

    The retriever embeds the query with the index's own embedding model, transforms the query vector, and searches the index by
    vector. A model may have learned to rank by words and by remembered answers as well (`Ranking`): then the retriever ranks what
    the index found together with what the words and the answers bring, by the learned score. A model that is put in use later
    serves the next query. If a query has several embedding strings, the vector of each is transformed, and the mean of
    the vectors is taken.

    Nothing comes back that ``filters``, ``node_ids`` or ``doc_ids`` forbid, whichever evidence found it, and nothing that was
    deleted from the store. A store may ignore ``node_ids`` or ``doc_ids``: what they forbid is then left out after its search.
    The ``score`` of a node is the score of the ranking, so a ``SimilarityPostprocessor`` compares that score with its cutoff.

    The store ranks by its own rule, and is asked for exactly ``similarity_top_k`` nodes, where vectors alone count: with
    ``words=False, answers=False``, with a model that has learned no other ranking, for a query that comes with a transformed
    embedding, and in every query mode but the default one (hybrid, mmr, …).

    Args:
        source: A ``VectorStoreIndex``, a ``VectorIndexRetriever`` (its settings are kept), or a vector store that stores texts.
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        deep_memory: False returns plain results, as the index's own retriever would. This attribute and the next four may be
            changed at any time.
        fetch_k: How many nodes the search by vector, and the search by words, propose; at least ``similarity_top_k``.
        words: Whether words count. True takes the word index beside the model; a `LexicalSearch` searches in its place.
        answers: Whether remembered answers count.
        evidence: True puts the evidence for each node into ``node.metadata["deepmem"]`` of a copy of the node, where neither the
            embedding model nor the language model sees it: the score, and the score and rank by vector, words and answers.
            ``node.hash`` leaves the evidence out, so that nodes of several queries can be fused.
            Where the store ranks by its own rule, there is no evidence.
        id_key: The metadata key whose values name nodes, where their ids do not. By default, as the model was trained. The nodes
            keep their ids.
        untrained: What to do where there is no model yet. By default, a `DeepMemory` and a folder, also one that is not there
            yet, return plain results (``"plain"``), and a missing adapter file is an error (``"error"``).
        on_broken: What to do where the model is damaged or belongs to another embedding model: ``"error"``, or ``"plain"``, which
            returns plain results and logs an error once for each state of the model's file.
        record: A `FeedbackLog`, which keeps each query and the nodes that it returned. Each node then says in
            ``node.metadata["deepmem"]`` by which ``query_id`` and ``run_id`` (the id of the callback manager's event) the log
            knows the query; neither the embedding model nor the language model sees it. ``log.context(…)`` says whose query it
            is. None records nothing. The attribute may be changed at any time.
        **options: Options of ``index.as_retriever``, for an index or a store: ``similarity_top_k``, ``filters``,
            ``vector_store_query_mode``, ``node_ids``, ``embed_model``, … A bare store has no embedding model; by default the
            retriever uses the one of the `DeepMemory`, or else LlamaIndex's ``Settings.embed_model``.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
        StoreError: ``source`` is something else (a BM25 retriever searches without vectors), an option is unknown, or options
            are given for a retriever.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> from deepmem_integrations import QueryAdapter
        >>> index = VectorStoreIndex([TextNode(id_="doc-1", text="Run git revert.")], embed_model=MockEmbedding(embed_dim=8))
        >>> retriever = DeepMemoryRetriever(index, memory=QueryAdapter(8), similarity_top_k=1)
        >>> [node.node_id for node in retriever.retrieve("undo a commit")]
        ['doc-1']
    """

    def __init__(
        self,
        source: VectorStoreIndex | VectorIndexRetriever | BasePydanticVectorStore,
        memory: MemoryLike,
        *,
        deep_memory: bool = True,
        fetch_k: int = 100,
        words: bool | LexicalSearch = True,
        answers: bool = True,
        evidence: bool = False,
        id_key: str | None = None,
        untrained: Untrained | None = None,
        on_broken: OnBroken = "error",
        record: FeedbackLog | None = None,
        **options: Any,
    ) -> None:
        if record is not None and not isinstance(record, FeedbackLog):
            raise TypeError(f"record is a FeedbackLog, such as FeedbackLog('feedback.db'); got {type(record).__name__}.")
        self._ranker = Ranker(memory, words=words, answers=answers, untrained=untrained, on_broken=on_broken)
        if not isinstance(words, bool | LexicalSearch):
            raise StoreError(f"words is True, False or a search by words; got {words!r:.60}.")
        for name, number in (("fetch_k", fetch_k), ("similarity_top_k", options.get("similarity_top_k", 1))):
            if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
                raise StoreError(f"{name} is a number of nodes, 1 or more; got {number!r}.")
        ids_given = options.get("node_ids") is not None
        self._retriever = _vector_retriever(source, memory, options)
        self._store = search_of(self._retriever, ids_given=ids_given)
        self.deep_memory = deep_memory
        self.fetch_k = fetch_k
        self.evidence = evidence
        self.id_key = id_key or getattr(memory, "id_key", None)
        self._metric = getattr(memory, "metric", None)
        self._filtered = getattr(memory, "filtered", False)
        self.record = record
        super().__init__(
            callback_manager=self._retriever.callback_manager,
            object_map=self._retriever.object_map,
            verbose=self._retriever._verbose,
        )

    @property
    def similarity_top_k(self) -> int:
        """How many nodes to return. The number can be set, as on LlamaIndex's own retriever."""
        return self._retriever.similarity_top_k

    @similarity_top_k.setter
    def similarity_top_k(self, similarity_top_k: int) -> None:
        # The retriever may be the caller's own, and may serve copies of this one as well.
        retriever, store = copy.copy(self._retriever), copy.copy(self._store)
        retriever.similarity_top_k = similarity_top_k
        store.retriever = retriever
        self._retriever, self._store = retriever, store

    @property
    def words(self) -> bool | LexicalSearch:
        """Whether words count, or the search by words."""
        return self._ranker.words

    @words.setter
    def words(self, words: bool | LexicalSearch) -> None:
        self._ranker = self._ranker.using(words=words, answers=self._ranker.answers)

    @property
    def answers(self) -> bool:
        """Whether remembered answers count."""
        return self._ranker.answers

    @answers.setter
    def answers(self, answers: bool) -> None:
        self._ranker = self._ranker.using(words=self._ranker.words, answers=answers)

    def without_model(self) -> "DeepMemoryRetriever":
        """Return the same retriever without the model: the same index, filters, query mode and number of nodes, plain results.

        `DeepMemory.evaluate` compares the retriever with this one.
        """
        plain = copy.copy(self)
        plain.deep_memory = False
        return plain

    # ---- retrieving --------------------------------------------------------------------------------------------

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        vectors: Sequence[Sequence[float]] | None = None
        if self._embeds(query_bundle):
            vectors = given(query_bundle)
            if vectors is None:
                embed = self._embed_model.get_query_embedding
                vectors = [embed(text) for text in query_bundle.embedding_strs]
        if not self.deep_memory:
            return self._recorded(query_bundle, self._retriever._retrieve(_plain(query_bundle, vectors)), None)
        query_bundle, query, model = self._transformed(query_bundle, vectors)
        if query is None:
            return self._recorded(query_bundle, list(self._store.search(query_bundle, self.similarity_top_k).values()), model)
        k, fetch_k, evidence = self._numbers()
        id_key = self.id_key or query.id_key
        shortlist = self._ranked(query, self._store.search(query_bundle, fetch_k, id_key), query.words(fetch_k))
        for wanted in _missing(shortlist, k):
            shortlist.add(wanted, self._store.look_up(wanted, query_bundle, id_key))
        return self._ordered(query_bundle, shortlist.best(k), evidence, model)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        vectors: Sequence[Sequence[float]] | None = None
        if self._embeds(query_bundle):
            vectors = given(query_bundle)
            if vectors is None:
                embed = self._embed_model.aget_query_embedding
                vectors = await asyncio.gather(*(embed(text) for text in query_bundle.embedding_strs))
        if not self.deep_memory:
            return self._recorded(query_bundle, await self._retriever._aretrieve(_plain(query_bundle, vectors)), None)
        # The first query embeds a few texts to check the embedding model, and a model that was put in use is read from disk.
        query_bundle, query, model = await asyncio.to_thread(self._transformed, query_bundle, vectors)
        if query is None:
            found = await self._store.asearch(query_bundle, self.similarity_top_k)
            return self._recorded(query_bundle, list(found.values()), model)
        k, fetch_k, evidence = self._numbers()
        id_key = self.id_key or query.id_key
        search = self._store.asearch(query_bundle, fetch_k, id_key)
        found, words = await asyncio.gather(search, asyncio.to_thread(query.words, fetch_k))
        shortlist = await asyncio.to_thread(self._ranked, query, found, words)
        for wanted in _missing(shortlist, k):
            shortlist.add(wanted, await self._store.alook_up(wanted, query_bundle, id_key))
        return self._ordered(query_bundle, shortlist.best(k), evidence, model)

    def _ordered(
        self, query_bundle: QueryBundle, best: Sequence[tuple[BaseNode, Choice]], evidence: bool, model: str | None
    ) -> list[NodeWithScore]:
        nodes = [_scored(node, choice, evidence) for node, choice in best]
        return self._recorded(query_bundle, nodes, model, [choice for _, choice in best])

    def _recorded(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        model: str | None,
        choices: Sequence[Choice] | None = None,
    ) -> list[NodeWithScore]:
        """Record a query where a log is given, and return copies of the nodes that say by which ids the log knows it.

        A span of OpenTelemetry that is being recorded is told as well.

        Args:
            query_bundle: The query.
            nodes: The nodes, best first.
            model: The name of the model that serves.
            choices: The places of the nodes; None where the store ranked by its own rule.
        """
        log, span = self.record, recording_span()
        if log is None and span is None:
            return nodes
        mode = "vector" if self._mode == VectorStoreQueryMode.DEFAULT else self._mode.value
        channels = [{mode: rank + 1} for rank in range(len(nodes))] if choices is None else [one.channels for one in choices]
        shown = [Shown(one.node.node_id, one.score, found) for one, found in zip(nodes, channels, strict=True)]
        if span is not None:
            describe(span, query_bundle.query_str, shown, store=self._retriever._vector_store, model=model)
        if log is None:
            return nodes
        run_id = next(iter(global_stack_trace.get()[-1:]), BASE_TRACE_EVENT)
        known_run = None if run_id == BASE_TRACE_EVENT else run_id
        ids = ids_in_metadata(log.record(query_bundle.query_str, shown, model=model, run_id=known_run), known_run)
        return [NodeWithScore(node=_with_evidence(one.node, ids), score=one.score) for one in nodes]

    @property
    def _embed_model(self) -> BaseEmbedding:
        model: BaseEmbedding = untransformed(self._retriever._embed_model)
        return model

    @property
    def _mode(self) -> VectorStoreQueryMode:
        return self._retriever._vector_store_query_mode

    def _embeds(self, query_bundle: QueryBundle) -> bool:
        """Tell whether this retriever has to embed the query in place of the wrapped retriever."""
        if is_transformed(query_bundle):
            return False
        store = self._retriever._vector_store
        by_vector = store.is_embedding_query and self._mode not in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
        if not self.deep_memory:
            # Results are plain only if the query is embedded without the Deep Memory wrapper of the embedding model.
            return by_vector and query_bundle.embedding is None and self._embed_model is not self._retriever._embed_model
        if not by_vector:
            raise StoreError(
                f"The query mode {self._mode.value!r} of {type(store).__name__} searches without a query vector: there is "
                "nothing to transform. Use the default or the hybrid mode, or DeepMemoryRetriever(…, deep_memory=False)."
            )
        return True

    def _transformed(
        self, query_bundle: QueryBundle, vectors: Sequence[Sequence[float]] | None
    ) -> tuple[QueryBundle, RankedQuery | None, str | None]:
        """Return the query with its transformed embedding, how to rank, and the name of the model for the feedback log.

        Where there is no way to rank, the ranking is left to the store.

        Args:
            query_bundle: The query.
            vectors: The vectors of its embedding strings; None where its embedding has been transformed before.
        """
        if vectors is None:
            return query_bundle, None, None
        self._store.check_lengths(self._metric)
        check_vectors(vectors)
        ranker = self._ranker
        if self._filtered and self._retriever._filters is None and self._retriever._node_ids is None:
            ranker.say_unfiltered("filters=MetadataFilters(…)")
        by_store = not (ranker.wants_words or ranker.answers) or self._mode != VectorStoreQueryMode.DEFAULT
        query = ranker.query(query_bundle.query_str, vectors, self._embed_model, vectors_alone=by_store)
        by_store |= query.vectors_alone
        model = None if self.record is None and recording_span() is None else query.model
        return with_embedding(query_bundle, query.vector), None if by_store else query, model

    def _numbers(self) -> tuple[int, int, bool]:
        """Read the attributes that hold for one query, because they may be changed at any time."""
        k = self.similarity_top_k
        return k, max(k, self.fetch_k), self.evidence

    def _ranked(self, query: RankedQuery, found: Mapping[str, NodeWithScore], words: Found | None) -> Shortlist[BaseNode]:
        """Rank what the store found and what words found.

        Args:
            query: How to rank.
            found: Node id → node with the store's score, best first.
            words: What words found.
        """
        cosines = self._store.cosines([one.score for one in found.values()])
        nodes = {name: one.node for name, one in found.items()}
        return query.rank(list(found), cosines, words, nodes, others=self._store.looks_up)


def _plain(query_bundle: QueryBundle, vectors: Sequence[Sequence[float]] | None) -> QueryBundle:
    """Return a copy of the query, because LlamaIndex's own retriever writes the embedding into the query that it gets."""
    if vectors is None:
        return replace(query_bundle)
    return replace(query_bundle, embedding=mean_agg([list(vector) for vector in vectors]))


def _missing(shortlist: Shortlist[BaseNode], k: int) -> Iterator[list[str]]:
    """Yield the ids to look up, until the best k are at hand.

    If many are gone or forbidden, each step looks further down the list, so that there are few steps.
    """
    reach = k
    while shortlist.missing(k):
        yield shortlist.missing(reach)
        reach *= 4


def _scored(node: BaseNode, choice: Choice, evidence: bool) -> NodeWithScore:
    """Return a node with its score, and on request a copy of the node with the evidence for it."""
    return NodeWithScore(node=_with_evidence(node, choice.to_json()) if evidence else node, score=choice.score)


def _with_evidence(node: BaseNode, evidence: Mapping[str, Any]) -> BaseNode:
    """Return a copy of a node with evidence that no model sees. The store may have returned its own object."""
    hidden = {
        name: [*(key for key in getattr(node, name) if key != EVIDENCE), EVIDENCE]
        for name in ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
    }
    return node.model_copy(update={"metadata": Metadata.with_evidence(node.metadata, evidence), **hidden})


def _vector_retriever(source: Any, memory: MemoryLike, options: dict[str, Any]) -> VectorIndexRetriever:
    if isinstance(source, VectorIndexRetriever) and not _retrieves_its_own_way(source):
        if options:
            raise StoreError(
                f"A retriever brings its own settings: set {', '.join(options)} on the retriever, or pass its index instead."
            )
        return source
    if isinstance(source, BasePydanticVectorStore):
        if not source.stores_text:
            raise StoreError(
                f"A {type(source).__name__} keeps vectors without texts: pass the VectorStoreIndex over it, which has the texts."
            )
        model = options.pop("embed_model", None)
        if model is None and isinstance(memory, HasModels) and isinstance(memory.embedder.model, BaseEmbedding):
            model = memory.embedder.model
        source = VectorStoreIndex.from_vector_store(source, embed_model=model)
    if isinstance(source, VectorStoreIndex):
        # The index passes the last two arguments itself, and also its own node_ids, which are replaced below.
        given_by_index = {"self", "index", "kwargs", "callback_manager", "object_map"}
        known = {*inspect.signature(VectorIndexRetriever.__init__).parameters, "vector_store_kwargs"} - given_by_index
        if unknown := options.keys() - known:
            raise StoreError(f"Unknown options: {', '.join(sorted(unknown))}. The options are: {', '.join(sorted(known))}.")
        node_ids = options.pop("node_ids", None)
        retriever = source.as_retriever(**options)
        if isinstance(retriever, VectorIndexRetriever):
            if node_ids is not None:
                retriever._node_ids = node_ids
            return retriever
    raise StoreError(
        f"{type(source).__name__} does not search by query vector. Pass a VectorStoreIndex, its retriever, or a vector store."
    )


def _retrieves_its_own_way(retriever: VectorIndexRetriever) -> bool:
    """Tell whether the retriever's class overrides one of the methods that retrieve, sync or async.

    The methods themselves cannot be compared, because LlamaIndex's instrumentation wraps them.
    """
    below = takewhile(lambda base: base is not VectorIndexRetriever, type(retriever).__mro__)
    return any(name in vars(base) for base in below for name in ("_retrieve", "_aretrieve", "retrieve", "aretrieve"))
