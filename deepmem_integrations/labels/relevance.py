"""`Relevance`: labelled queries, checked on the way in."""

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._immutable import Immutable
from deepmem_integrations._ordered import ordered
from deepmem_integrations._texts import id_and_text, parents_by_id
from deepmem_integrations._unicode import well_formed
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels import files
from deepmem_integrations.labels.carrying import CarriedOver, Documents, find_texts
from deepmem_integrations.labels.checking import Time, as_lists, by_query, fault_of, id_set, time_of
from deepmem_integrations.labels.files import Labels
from deepmem_integrations.labels.grouping import document_groups, drop_shared, question_groups
from deepmem_integrations.labels.policies import Policy
from deepmem_integrations.labels.traces import (
    LONGEST_QUERY,
    LOST,
    Feedback,
    Format,
    TraceReport,
    Traces,
    Weights,
    read_traces,
)

Judgements = tuple[tuple[str, float], ...]
"""Documents of one query, as (document id, weight)."""
OnInvalid = Literal["raise", "drop"]
"""What happens to an invalid row: an error names it, or it is left out and counted."""


class InvalidLabelsWarning(UserWarning):
    """Rows were left out of a `Relevance` because the caller asked for ``on_invalid="drop"``."""


class RowNumber(str):
    """The id of a query that was given none: its row number. Since nobody chose it, it may give way to another id."""

    __slots__ = ()


class Relevance(Immutable):
    """Labelled queries: texts, ids and, for each query, the ids of the documents that answer it, with weights.

    In TREC's terms a `Relevance` is a set of topics with their qrels. Every function that takes ``queries, relevance`` takes
    one `Relevance` as well. A `Relevance` never changes.

    Args:
        queries: The n texts, or query id → text.
        relevance: For each query its documents as (id, weight), or as id → weight; or query id → its documents, where the queries
            have ids. A weight above 0 says how well the document answers the query. A weight of 0 or below says that the
            document was *judged irrelevant*, as a thumb down or TREC's 0. Of a document that a query names twice, the larger
            weight stays.
        query_ids: A distinct id for each query; by default its row number.
        on_invalid: ``"raise"`` names the first invalid row in an error; ``"drop"`` leaves invalid rows out with one warning
            that counts them.
        generated: Whether a language model wrote the query, rather than a user: one answer for all queries, or one for each.
        times: When each query was asked: a datetime, an ISO 8601 string, POSIX seconds, or None where the time is not known. A
            time without a time zone is in UTC.
        judges: Who judged the documents, such as the name of a language model, where that was no user: one answer for all
            queries, or one, or None, for each.
        shown: For each query the ids of the documents that were shown to whoever judged, best first; None, or an empty list,
            where any document could be judged. A training then compares candidates by how they order what was shown, and
            judgements at ranks where few are made count more: see `deepmem_integrations.training.exposure`.
        level: What the labels name: None says documents, by the store's ids. A metadata key, such as ``"doc_uri"``, says parents
            or sources: the values of that key, each of which several documents of the store may share. A parent answers if any
            of its documents does. ``"ref_doc_id"`` also names the sources of LlamaIndex's nodes.
        left_out: What was left out before, to be added to the counts of ``left_out``.

    Attributes:
        queries: A tuple of n texts.
        query_ids: A tuple of n ids.
        labels: A tuple of n tuples of (document id, weight > 0), the documents that answer each query. Such a tuple is empty
            where all documents of a query were judged irrelevant.
        irrelevant: A tuple of n tuples of (document id, weight ≤ 0), the documents that were judged irrelevant.
        generated: A tuple of n bools.
        times: A tuple of n datetimes in UTC, or None where a time is not known.
        judges: A tuple of n strings that say who judged, or None where users did or nobody said.
        shown: A tuple of n tuples of document ids, or None where any document could be judged or nobody said.
        level: The metadata key whose values the labels name; None where they name documents.

    Raises:
        InvalidRelevanceError: The two lists differ in length or have no order, or (with ``on_invalid="raise"``) a row is invalid:
            the query is empty or no string, it has no document, a document id is no string or is empty, a weight is no finite
            number, or a time is none.

    Example:
        >>> labelled = Relevance(["how do I undo a commit?"], [[("doc-12", 1.0), ("doc-40", 0.5)]])
        >>> labelled.labels
        ((('doc-12', 1.0), ('doc-40', 0.5)),)
        >>> Relevance(["how do I undo a commit?"], [[("doc-12", 1.0), ("doc-7", -1.0)]]).irrelevant
        ((('doc-7', -1.0),),)
    """

    queries: tuple[str, ...]
    query_ids: tuple[str, ...]
    labels: tuple[Judgements, ...]
    irrelevant: tuple[Judgements, ...]
    generated: tuple[bool, ...]
    times: tuple[datetime | None, ...]
    judges: tuple[str | None, ...]
    shown: tuple[tuple[str, ...] | None, ...]
    level: str | None
    _left_out: dict[str, int]

    def __init__(
        self,
        queries: Iterable[str] | Mapping[str, str],
        relevance: Labels | Mapping[str, Any],
        query_ids: Iterable[str] | None = None,
        *,
        on_invalid: OnInvalid = "raise",
        generated: bool | Sequence[bool] = False,
        times: Sequence[Time | None] | None = None,
        judges: str | Sequence[str | None] | None = None,
        shown: Sequence[Sequence[str] | None] | None = None,
        level: str | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        if level is not None and (not isinstance(level, str) or not level):
            raise InvalidRelevanceError(
                f'level is the metadata key whose values the labels name, such as "doc_uri"; got {level!r}.'
            )
        if isinstance(queries, Mapping):
            if query_ids is not None:
                raise InvalidRelevanceError("queries map ids to texts, so leave query_ids out.")
            query_ids, queries = list(queries), list(queries.values())
        queries = ordered(queries, "queries", InvalidRelevanceError)
        query_ids = None if query_ids is None else ordered(query_ids, "query_ids", InvalidRelevanceError)
        if isinstance(relevance, Mapping):
            relevance = by_query(relevance, query_ids)
        relevance = ordered(relevance, "relevance", InvalidRelevanceError)
        if len(queries) != len(relevance):
            raise InvalidRelevanceError(
                f"queries and relevance need the same length, a list of documents for each query; "
                f"got {len(queries)} queries and {len(relevance)} lists."
            )
        if on_invalid not in ("raise", "drop"):
            raise InvalidRelevanceError(f"on_invalid is 'raise' or 'drop'; got {on_invalid!r}.")
        if query_ids is not None and len(query_ids) != len(queries):
            raise InvalidRelevanceError(f"Got {len(query_ids)} query_ids for {len(queries)} queries.")
        flags = [generated] * len(queries) if isinstance(generated, bool | np.bool_) else list(generated)
        if len(flags) != len(queries) or not all(isinstance(flag, bool | np.bool_) for flag in flags):
            raise InvalidRelevanceError(
                f"generated is True or False, for all {len(queries)} queries or for each; got {generated!r:.60}."
            )
        if isinstance(times, str) or (times is not None and len(times) != len(queries)):
            raise InvalidRelevanceError(f"times has a time, or None, for each of the {len(queries)} queries; got {times!r:.60}.")
        asked = [None] * len(queries) if times is None else list(times)
        judged_by = [judges] * len(queries) if judges is None or isinstance(judges, str) else list(judges)
        if len(judged_by) != len(queries) or not all(judge is None or isinstance(judge, str) for judge in judged_by):
            raise InvalidRelevanceError(
                f"judges is a string, or a string or None for each of the {len(queries)} queries; got {judges!r:.60}."
            )
        lists = _lists_of_shown(shown, len(queries))
        ids = [RowNumber(row) for row in range(len(queries))] if query_ids is None else list(query_ids)
        for row, query_id in enumerate(ids):
            if not isinstance(query_id, str):
                raise InvalidRelevanceError(f"query_ids are strings; row {row} has {query_id!r} ({type(query_id).__name__}).")
            if well_formed(query_id) != query_id:
                raise InvalidRelevanceError(f"Row {row}: the query id {query_id!r} holds half of a surrogate pair.")
        repeated = [name for name, count in Counter(ids).items() if count > 1]
        if repeated:
            raise InvalidRelevanceError(f"query_ids must differ from one another; {repeated[0]!r} appears twice.")

        counts: Counter[str] = Counter()
        kept: list[tuple[str, str, Judgements, Judgements, bool, datetime | None, str | None, tuple[str, ...] | None]] = []
        for row, (query_id, query, given, flag, time, judge, seen) in enumerate(
            zip(ids, queries, relevance, flags, asked, judged_by, lists, strict=True)
        ):
            judged = as_lists(given)
            fault = fault_of(query, judged, time)
            if fault is None:
                merged: dict[str, float] = {}
                for document, weight in judged:
                    merged[str(document)] = max(float(weight) or 0.0, merged.get(document, -np.inf))  # no -0.0
                if len(merged) < len(judged):
                    counts["repeated documents merged"] += len(judged) - len(merged)
                labels = tuple((document, weight) for document, weight in merged.items() if weight > 0)
                irrelevant = tuple((document, weight) for document, weight in merged.items() if weight <= 0)
                kept.append((query_id, str(query), labels, irrelevant, bool(flag), time_of(time), judge or None, seen))
            elif on_invalid == "drop":
                counts[fault[0]] += 1
            else:
                raise InvalidRelevanceError(f"Row {row} (query id {query_id!r}): {': '.join(filter(None, fault))}.")
        _warn_dropped(len(queries) - len(kept), len(queries), counts)
        names = ("query_ids", "queries", "labels", "irrelevant", "generated", "times", "judges", "shown")
        columns = zip(*kept, strict=True) if kept else [()] * len(names)
        known = Counter(left_out or {}) + counts
        vars(self).update(zip(names, map(tuple, columns), strict=True), level=level, _left_out=dict(known))

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore a pickle, which lacks what version 0.1.0 did not know."""
        count = len(state["queries"])
        unknown = {"irrelevant": ((),) * count, "times": (None,) * count, "judges": (None,) * count, "level": None}
        unknown["shown"] = (None,) * count
        super().__setstate__({**unknown, **state})

    @classmethod
    def of(
        cls, queries: "Relevance | Iterable[str] | Mapping[str, str] | None", relevance: "Relevance | Labels | None" = None
    ) -> "Relevance":
        """Accept what users pass: a `Relevance` in either place, or v3's two lists.

        The two lists of one `Relevance`, its ``queries`` and its ``relevance``, are that `Relevance` again, with its ids and its
        ``generated`` marks.

        Raises:
            InvalidRelevanceError: The arguments are neither one `Relevance` nor two lists.

        Example:
            >>> labelled = Relevance(["how do I undo a commit?"], [[("doc-12", 1.0)]], generated=True)
            >>> Relevance.of(labelled.queries, labelled.relevance) is labelled
            True
        """
        if isinstance(queries, Relevance) and relevance is None:
            return queries
        if isinstance(relevance, Relevance) and queries is None:
            return relevance
        if isinstance(relevance, _Lists):
            whole = relevance.whole
            if isinstance(queries, Sequence) and (list(queries), relevance) == (list(whole.queries), whole.relevance):
                return whole  # nobody has changed the lists
        if queries is None or relevance is None or isinstance(queries, Relevance) or isinstance(relevance, Relevance):
            raise InvalidRelevanceError(
                "Pass one Relevance and nothing beside it, or queries together with relevance: [[(document id, weight)]]."
            )
        return cls(queries, relevance)

    @classmethod
    def unnamed(cls, relevance: Labels, query_ids: Iterable[str] | None = None) -> "Relevance":
        """Return labels of queries whose vectors alone are known."""
        rows = ordered(relevance, "relevance", InvalidRelevanceError)
        return cls([f"query {row}" for row in range(len(rows))], rows, query_ids)

    def __len__(self) -> int:
        """Count the labelled queries."""
        return len(self.queries)

    def __iter__(self) -> Iterator[tuple[str, str, Judgements]]:
        """Yield (query id, text, ((document id, weight > 0), …)), without what was judged irrelevant."""
        return zip(self.query_ids, self.queries, self.labels, strict=True)

    def __eq__(self, other: object) -> bool:
        """Compare the rows, in their order."""
        return isinstance(other, Relevance) and self._rows == other._rows

    def __hash__(self) -> int:
        """Hash the rows."""
        return hash(self._rows)

    @property
    def _rows(self) -> tuple[Any, ...]:
        return (
            self.query_ids,
            self.queries,
            self.labels,
            self.irrelevant,
            self.generated,
            self.times,
            self.judges,
            self.shown,
            self.level,
        )

    def __add__(self, other: object) -> "Relevance":
        """Join the rows of both, so that labels which come piece by piece add up, as in a LangChain ``stream``.

        A query id that is taken already gives way to a row number.

        Raises:
            InvalidRelevanceError: The labels of one name parents, and those of the other documents, or parents by another key.
        """
        if not isinstance(other, Relevance):
            return NotImplemented
        if len(self) and len(other):
            self.check_level(other)
        ids = list(self.query_ids)
        taken = set(ids)
        for query_id in other.query_ids:
            row = len(ids)
            while query_id in taken:
                query_id, row = RowNumber(row), row + 1
            taken.add(query_id)
            ids.append(query_id)
        total = object.__new__(Relevance)  # its rows are checked already, and there may be thousands of pieces
        vars(total).update(
            query_ids=tuple(ids),
            queries=self.queries + other.queries,
            labels=self.labels + other.labels,
            irrelevant=self.irrelevant + other.irrelevant,
            generated=self.generated + other.generated,
            times=self.times + other.times,
            judges=self.judges + other.judges,
            shown=self.shown + other.shown,
            level=self.level if len(self) else other.level,
            _left_out=dict(Counter(self._left_out) + Counter(other._left_out)),
        )
        return total

    def __repr__(self) -> str:
        """Show the counts in one line."""
        irrelevant = sum(map(len, self.irrelevant))
        judged = f", {irrelevant} judged irrelevant" if irrelevant else ""
        level = f", level={self.level!r}" if self.level else ""
        return f"Relevance({len(self)} queries, {sum(map(len, self.labels))} labels{judged}{level})"

    def check_level(self, other: "Relevance") -> None:
        """Check that the labels of another `Relevance` name the same kind of thing.

        Raises:
            InvalidRelevanceError: They do not: the levels differ.
        """
        if self.level != other.level:
            mine, theirs = ("documents" if one.level is None else f"parents by {one.level!r}" for one in (self, other))
            raise InvalidRelevanceError(
                f"These labels name {mine} and those {theirs}: use labels of one level together, Relevance(…, level=…)."
            )

    @property
    def left_out(self) -> dict[str, int]:
        """What was merged or left out on the way in: reason → count. A copy."""
        return dict(self._left_out)

    @property
    def relevance(self) -> list[list[tuple[str, float]]]:
        """All judgements in v3's shape: of each query first its labels, then what was judged irrelevant.

        The lists know the `Relevance` that they come from: see `of`.
        """
        return _Lists(self)

    @property
    def documents(self) -> tuple[tuple[tuple[str, float], ...], ...]:
        """The former name of ``labels``, which warns."""
        warnings.warn("Relevance.documents is called Relevance.labels now.", DeprecationWarning, stacklevel=2)
        return self.labels

    @property
    def document_ids(self) -> frozenset[str]:
        """The ids of all judged documents, the irrelevant ones included."""
        return frozenset(document for judged in (*self.labels, *self.irrelevant) for document, _ in judged)

    def take(self, rows: Iterable[int]) -> "Relevance":
        """Return these rows, in this order.

        Example:
            >>> Relevance(["a", "b", "c"], [[("doc", 1.0)]] * 3).take([2, 0]).queries
            ('c', 'a')
        """
        return self._take(list(rows))

    def check(self, corpus_ids: Collection[str], *, on_invalid: OnInvalid = "raise") -> "Relevance":
        """Check that every judged document is in the corpus.

        Args:
            corpus_ids: The ids of the corpus.
            on_invalid: ``"drop"`` leaves out labels of unknown documents, and queries that lose all of their labels, with one
                warning that counts them.

        Returns:
            This very object where nothing had to be left out.

        Raises:
            InvalidRelevanceError: A document is not in the corpus; the message names the row and the id. Or ``corpus_ids`` are no
                ids.
        """
        known = id_set(corpus_ids, "corpus_ids")
        relevance = self.relevance
        unknown = [(row, document) for row, judged in enumerate(relevance) for document, _ in judged if document not in known]
        if not unknown:
            return self
        if on_invalid == "raise":
            row, document = unknown[0]
            named = "Use the ids of the store, as memory.documents() gives them"
            if self.level is not None:
                named = f"The labels name values of {self.level!r} in the documents' metadata: use those (level)"
            raise InvalidRelevanceError(
                f"Row {row} (query id {self.query_ids[row]!r}): {'document' if self.level is None else 'parent'} {document!r} is "
                f"not in the corpus ({len(unknown)} such label{'s' * (len(unknown) > 1)} in all). "
                f'{named}, or drop such labels with Relevance.check(ids, on_invalid="drop").'
            )
        left = [[(document, weight) for document, weight in judged if document in known] for judged in relevance]
        rows = [row for row, judged in enumerate(left) if judged]
        counts = Counter({"document not in the corpus": len(unknown)})
        if len(rows) < len(self):
            counts["no document left"] = len(self) - len(rows)
        _warn_dropped(len(self) - len(rows), len(self), counts)
        return self._take(rows, [left[row] for row in rows], Counter(self._left_out) + counts)

    def prune(self, corpus_ids: Collection[str]) -> "Relevance":
        """Leave out judgements of documents that are gone, and queries that lose all of theirs, which ``left_out`` counts.

        Args:
            corpus_ids: The ids of the documents that are there.

        Example:
            >>> labelled = Relevance(["a", "b"], [[("doc-1", 1.0), ("doc-2", 1.0)], [("doc-2", 1.0)]])
            >>> pruned = labelled.prune({"doc-1"})
            >>> pruned.labels, pruned.left_out
            (((('doc-1', 1.0),),), {'document not in the corpus': 2, 'no document left': 1})
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InvalidLabelsWarning)  # the caller asks for nothing else
            return self.check(corpus_ids, on_invalid="drop")

    def relabel(self, old: Documents, new: Documents) -> "Relevance":
        """Carry the labels over to the documents that have the labelled documents' texts now, as after a re-chunking.

        ``left_out`` counts what is lost, with a warning. `carry_over` also tells what became of each document.

        Args:
            old: The documents as they were: id → text, or documents of a framework with their ids. Those without a label may be
                left out.
            new: The documents as they are now, which are gone through once.

        Raises:
            InvalidRelevanceError: An object is no document, or has no id.

        Example:
            >>> old, new = {"page": "To undo a commit, run git revert."}, {"page-1": "To undo a commit, RUN git revert"}
            >>> Relevance(["undo a commit"], [[("page", 1.0)]]).relabel(old, new).labels
            ((('page-1', 1.0),),)
        """
        labels, carried = self.carry_over(old, new)
        _warn_dropped(carried.lost_queries, carried.queries, Counter(labels.left_out) - Counter(self._left_out))
        return labels

    def carry_over(self, old: Documents, new: Documents) -> "tuple[Relevance, CarriedOver]":
        """Carry the labels over as `relabel` does, without a warning, and tell what became of them.

        A judgement goes to every new document that shares at least half of the shorter of both texts. Its weight is multiplied
        by that share, so that a chunk with the whole text counts more than one that was cut through. Where several documents
        become one, the largest weight stays, as wherever a query names a document twice. A document whose old text is not given
        keeps its judgements if its id is still there.

        Args:
            old: See `relabel`.
            new: See `relabel`.

        Returns:
            The labels, and the counts.

        Raises:
            InvalidRelevanceError: See `relabel`.
        """
        documents, relevance = find_texts(self.document_ids, old, new), self.relevance
        rows = [[(to, weight * share) for name, weight in row for to, share in documents[name].items()] for row in relevance]
        lost = sum(not documents[name] for row in relevance for name, _ in row)
        kept = [row for row, judged in enumerate(rows) if judged]
        counts = Counter({"document's text is gone": lost, "no document left": len(self) - len(kept)})
        labels = self._take(kept, [rows[row] for row in kept], Counter(self._left_out) + counts, shown=False)
        return labels, CarriedOver(documents, sum(map(len, relevance)), lost, len(self), len(self) - len(kept))

    def at_level(self, level: str, documents: Iterable[Any]) -> "Relevance":
        """Return labels that name the parents of the documents that these labels name.

        The largest weight of the documents of a parent stays: a parent is judged irrelevant where one of its documents was, and
        none was found to answer. Judgements of documents that are not among the given ones are left out, which ``left_out``
        counts, with a warning; what is a parent already stays.

        Args:
            level: The metadata key that holds the parents: see the constructor.
            documents: The documents with their metadata, as ``memory.documents()`` returns them.

        Raises:
            InvalidRelevanceError: The labels name parents already.
            StoreError: None of the documents has the key.

        Example:
            >>> from langchain_core.documents import Document
            >>> chunks = [Document("Run git revert.", id="chunk-1", metadata={"doc_uri": "git.md"})]
            >>> Relevance(["undo a commit"], [[("chunk-1", 1.0)]]).at_level("doc_uri", chunks)
            Relevance(1 queries, 1 labels, level='doc_uri')
        """
        if self.level is not None:
            raise InvalidRelevanceError(
                f"These labels name parents already, by {self.level!r}: at_level takes labels of documents."
            )
        given = list(documents)
        parents = parents_by_id(given, level)
        names = {name: name for name in parents.values()}
        names |= {str(found[0]): str(found[0]) for document in given if (found := id_and_text(document)) is not None} | parents
        known = self.check(names, on_invalid="drop")
        return Relevance(
            known.queries,
            [[(names[name], weight) for name, weight in row] for row in known.relevance],
            known.query_ids,
            generated=known.generated,
            times=known.times,
            judges=known.judges,
            shown=[one and list(dict.fromkeys(names.get(name, name) for name in one)) for one in known.shown],
            level=level,
            left_out=known.left_out,
        )

    def split(
        self, test_size: float = 0.2, *, by: Literal["query", "document", "time"] = "query", seed: int = 0
    ) -> "tuple[Relevance, Relevance]":
        """Split into (train, test).

        Args:
            test_size: The share of the queries to hold out, between 0 and 1.
            by: ``"query"`` draws questions at random: spellings of one question (see
                `deepmem_integrations.labels.grouping`) stay together, so that no test query is a training query in other words.
                ``"document"`` also puts no labelled document on both sides: queries that share documents stay together. A group
                of such queries that is larger than the test side is drawn from at random, and the training queries that share a
                document or a question with the test side are left out, which the training side's ``left_out`` counts. Documents
                judged irrelevant may be on both sides. ``"time"`` holds out the latest queries, as they would come after a
                training. Among them are questions that were asked before: production has these, too.
            seed: Fixes the draw.

        Raises:
            InvalidRelevanceError: ``test_size`` leaves one side empty, no split keeps the documents or the questions apart, or
                the time of a query is not known.

        Example:
            >>> labelled = Relevance([f"question {i}" for i in range(10)], [[(f"doc-{i}", 1.0)] for i in range(10)])
            >>> labelled.split(0.2)
            (Relevance(8 queries, 8 labels), Relevance(2 queries, 2 labels))
        """
        size = round(len(self) * test_size)
        if not 0 < size < len(self):
            raise InvalidRelevanceError(
                f"test_size={test_size} of {len(self)} queries leaves one side empty. It is a share between 0 and 1, such as 0.2."
            )
        if by == "time":
            order = self._by_time()
            return self.take(np.sort(order[:-size])), self.take(np.sort(order[-size:]))
        if by not in ("query", "document"):
            raise InvalidRelevanceError(f"by is 'query', 'document' or 'time'; got {by!r}.")
        rng = np.random.default_rng(seed)
        documents = [[document for document, _ in labels] for labels in self.labels]
        questions = question_groups(self.queries, None, documents)
        if by == "query":
            order = np.argsort(questions, kind="stable")
            groups = np.split(order, np.flatnonzero(np.diff(questions[order])) + 1)
            held = _drawn([groups[group].tolist() for group in rng.permutation(len(groups))], size)
            rows = np.setdiff1d(np.arange(len(self)), held).tolist()
            if not held:
                raise InvalidRelevanceError(
                    f"These {len(self)} queries are spellings of {len(groups)} questions, none of which fits into a test side of "
                    f"{size} queries. Take a larger test_size, or label other questions."
                )
            return self.take(rows), self.take(sorted(held))

        kept_apart = [[*named, question] for named, question in zip(documents, questions.tolist(), strict=True)]
        held = _drawn(document_groups(kept_apart, largest=size, rng=rng), size)
        rows, dropped = drop_shared(kept_apart, held)
        if not held or not rows:
            raise InvalidRelevanceError(
                f"No split of these {len(self)} queries keeps their documents apart: too many queries share a document."
            )
        counts = {"shares a document with the held-out part": dropped} if dropped else {}
        return self._take(rows, left_out=counts), self.take(sorted(held))

    def _by_time(self) -> NDArray[np.int64]:
        """Return the rows in the order of their times. Of two queries of the same time, the first comes first."""
        unknown = [row for row, time in enumerate(self.times) if time is None]
        if unknown:
            raise InvalidRelevanceError(
                f"Row {unknown[0]} (query id {self.query_ids[unknown[0]]!r}): the time is not known ({len(unknown)} of "
                f'{len(self)} in all). Give times, Relevance(…, times=…), or split by="query".'
            )
        return np.argsort([time.timestamp() for time in self.times if time is not None], kind="stable")

    def relabelled(self, relevance: Labels) -> "Relevance":
        """Return the same queries, of which the same was shown, with other judgements, which name documents."""
        return self._take(range(len(self)), relevance, self._left_out, parents=False)

    def _take(
        self,
        rows: Sequence[int],
        relevance: Labels | None = None,
        left_out: Mapping[str, int] | None = None,
        *,
        parents: bool = True,
        shown: bool = True,
    ) -> "Relevance":
        """Return these rows, with these judgements in place of their own, and these counts.

        Args:
            rows: The rows.
            relevance: The judgements.
            left_out: The counts.
            parents: Whether the judgements name what those of this object name; otherwise they name documents.
            shown: Whether the documents that were shown are still those.
        """
        return Relevance(
            [self.queries[row] for row in rows],
            [(*self.labels[row], *self.irrelevant[row]) for row in rows] if relevance is None else relevance,
            [self.query_ids[row] for row in rows],
            generated=[self.generated[row] for row in rows],
            times=[self.times[row] for row in rows],
            judges=[self.judges[row] for row in rows],
            shown=[self.shown[row] for row in rows] if shown else None,
            level=self.level if parents else None,
            left_out=left_out,
        )

    # ---- files -------------------------------------------------------------------------------------------------

    @classmethod
    def from_jsonl(cls, path: str | Path, *, on_invalid: OnInvalid = "raise", level: str | None = None) -> "Relevance":
        """Read JSON lines: ``{"query": …, "relevance": [[id, weight], …], "query_id": …}``.

        A document may be written as its bare id, which has the weight 1. ``query_id`` may be left out, and so may
        ``"generated": true``, which says that a language model wrote the query, and ``"time"``, which says when the query was
        asked, and ``"judge"``, which says who judged. ``"shown"``
        has the ids of what was shown, and ``"level": "doc_uri"`` says that all labels of the file name parents.

        Args:
            path: The file.
            on_invalid: See the constructor.
            level: See the constructor; by default what the lines say.

        Raises:
            InvalidRelevanceError: A line is no such object; the message names the line.
            StorageError: The file cannot be read.
        """
        return cls._of_columns(files.read_jsonl(path), on_invalid, level)

    def to_jsonl(self, path: str | Path) -> None:
        """Write JSON lines, which `from_jsonl` reads.

        Raises:
            StorageError: The file cannot be written.
        """
        rows = zip(self.query_ids, self.queries, self.relevance, self.generated, self.times, self.judges, self.shown, strict=True)
        files.write_jsonl(path, rows, self.level)

    @classmethod
    def from_beir(
        cls, folder: str | Path, split: str = "train", *, on_invalid: OnInvalid = "raise", level: str | None = None
    ) -> "Relevance":
        """Read a BEIR folder: ``queries.jsonl`` and ``qrels/{split}.tsv``.

        A score of 0 or below means *judged irrelevant*: see `irrelevant`. Where the store holds parts of the folder's documents,
        ``level`` is the metadata key under which the parts keep the document's id.

        Raises:
            InvalidRelevanceError: A line is malformed, or names a query that is not in ``queries.jsonl``.
            StorageError: A file cannot be read.
        """
        return cls._of_columns(files.read_beir(folder, split, drop_unknown=on_invalid == "drop"), on_invalid, level)

    def to_beir(self, folder: str | Path, split: str = "train") -> None:
        """Write ``queries.jsonl`` and ``qrels/{split}.tsv``. Queries of other splits in ``queries.jsonl`` are kept.

        The times, what was shown and the level are lost: a BEIR folder has no place for them.

        Raises:
            InvalidRelevanceError: ``queries.jsonl`` holds another text for a query id, or an id holds a tab, a newline or
                another character that does not print.
            StorageError: A file cannot be written.
        """
        files.write_beir(folder, split, list(zip(self.query_ids, self.queries, self.relevance, strict=True)))

    @classmethod
    def from_llama_index(cls, path: Any, *, on_invalid: OnInvalid = "raise", level: str | None = None) -> "Relevance":
        """Read LlamaIndex's ``EmbeddingQAFinetuneDataset`` (``queries``, ``relevant_docs``); every weight is 1.

        Args:
            path: Its JSON file, or the object itself.
            on_invalid: See the constructor.
            level: See the constructor: ``"ref_doc_id"`` where the data set names whole documents, and the index holds nodes.

        Raises:
            InvalidRelevanceError: The file or object is no such data set.
            StorageError: The file cannot be read.
        """
        return cls._of_columns(files.read_llama_index(path), on_invalid, level)

    def to_llama_index(self, path: str | Path, corpus: Mapping[str, str]) -> None:
        """Write the JSON file of LlamaIndex's ``EmbeddingQAFinetuneDataset``.

        The format has no place for weights, for times and for documents that were judged irrelevant: these are lost, and so are
        queries without another document.

        Args:
            path: The file to write.
            corpus: Document id → text, which the format includes.

        Raises:
            InvalidRelevanceError: A labelled document is not in ``corpus``.
            StorageError: The file cannot be written.
        """
        rows = [row for row, labels in enumerate(self.labels) if labels]
        answered = self._take(rows, [self.labels[row] for row in rows])
        answered.check(corpus.keys())
        files.write_llama_index(path, list(answered), corpus)

    @classmethod
    def from_traces(
        cls,
        traces: Traces,
        format: Format,
        *,
        policy: Policy = "judged",
        documents: Documents | None = None,
        id_key: str | None = None,
        level: str | None = None,
        feedback: Feedback | None = None,
        weights: Weights | None = None,
        longest_query: int = LONGEST_QUERY,
        on_invalid: OnInvalid = "raise",
        project: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
    ) -> "Relevance":
        """Read labels out of traces: what retrievers were asked and returned, and what people thought of it.

        Judgements of documents are labels by themselves. Which documents a thumb on an answer speaks of, the policy says, as for
        a feedback log: see `FeedbackLog.labels`. Nothing is guessed; ``left_out`` counts what gave no label. `read_traces` also
        tells how documents were found, which is logged as well.

        Args:
            traces: A file (JSON, JSON lines, CSV, Parquet), a folder of files, or a list of them; rows, a data frame, or objects
                of the tool's own package; for ``"trec"`` the two files [qrels, topics]. A ``langsmith.Client``, a
                ``langfuse.Langfuse``, a ``phoenix.client.Client`` and an ``mlflow.MlflowClient`` read from their servers.
            format: The tool that wrote the traces.
            policy: What counts beside judgements of documents: ``"cited"``, ``"first"``, ``"shared"``, ``"clicks"``, or, by
                default, nothing.
            documents: The documents of the store, as ``memory.documents()`` returns them, or id → text. Documents of traces are
                looked up among them by id, then by ``id_key``, then by their text without case, spaces and punctuation.
                Without them, ids are believed, and texts name nothing.
            id_key: The metadata key that names documents in the traces, such as ``"doc_uri"``.
            level: The metadata key whose values the labels are to name, such as ``"doc_uri"``: the parents of the documents. The
                documents of the traces tell the value, or else those of ``documents`` that they are found to be.
            feedback: The name or names of the feedback that counts, or name → what it is: ``"thumb"``, ``"click"``, ``"cite"`` or
                ``"grade"``. By default all, if there is one name alone; for ``"ubi"``, clicks.
            weights: Value or label → weight, or None where a value says nothing; or a function from a value to a weight. By
                default, truth values, scores from −1 to 1, and labels such as "thumbs-down" are known; 0 is a thumb down.
            longest_query: Longer queries, in characters, are left out: they are prompts.
            on_invalid: ``"drop"`` leaves out rows that cannot be read, such as lines that were cut off, and counts them.
            project: The project of LangSmith or Phoenix, or the experiment of MLflow, that a client reads.
            since: Only queries asked at this time or later: a datetime, ISO 8601 or POSIX seconds, in UTC without a time zone.
            until: Only queries asked before this time.

        Raises:
            InvalidRelevanceError: A row is malformed or a value has no known weight, and the message names the line; feedback of
                several names would count; or there is no search among the traces.
            FeedbackError: There is no such policy.
            StorageError: A file cannot be read, or a server does not answer.
            StoreError: None of the documents has the key of the level.
            MissingExtraError: A file is Parquet, and pyarrow is not installed.

        Example:
            >>> run = {"id": "r", "trace_id": "t", "run_type": "retriever", "inputs": {"query": "undo a commit"},
            ...        "outputs": {"documents": [{"page_content": "Run git revert.", "metadata": {}}]}}
            >>> thumb = {"run_id": "t", "key": "user_score", "score": 1}
            >>> Relevance.from_traces([run, thumb], "langsmith", policy="first", documents={"doc-1": "Run git revert."}).labels
            ((('doc-1', 1.0),),)
        """
        return cls.read_traces(
            traces,
            format,
            policy=policy,
            documents=documents,
            id_key=id_key,
            level=level,
            feedback=feedback,
            weights=weights,
            longest_query=longest_query,
            on_invalid=on_invalid,
            project=project,
            since=since,
            until=until,
        )[0]

    @classmethod
    def read_traces(cls, traces: Traces, format: Format, **options: Any) -> "tuple[Relevance, TraceReport]":
        """Read labels out of traces as `from_traces` does, and report what was read and how documents were found.

        Args:
            traces: See `from_traces`.
            format: See `from_traces`.
            **options: The options of `from_traces`.

        Returns:
            The labels, and the report.

        Raises:
            InvalidRelevanceError, FeedbackError, StorageError, MissingExtraError: See `from_traces`.
        """
        rows, report = read_traces(traces, format, **options)
        lost = {f"a document that is {how}": report.documents[how] for how in LOST if report.documents[how]}
        named = any(row.query_id is not None for row in rows)
        labels = cls(
            [row.query for row in rows],
            [row.judged for row in rows],
            [str(row.query_id) for row in rows] if named else None,
            generated=[row.generated for row in rows],
            times=[row.time for row in rows],
            judges=[row.judge for row in rows],
            shown=[row.shown for row in rows],
            level=options.get("level"),
            left_out={**report.left_out, **lost},
        )
        return labels, report

    @classmethod
    def _of_columns(cls, columns: files.Columns, on_invalid: OnInvalid, level: str | None) -> "Relevance":
        queries, relevance, query_ids, generated, times, judges, shown, own = columns
        told = {"generated": generated, "times": times, "judges": judges, "shown": shown, "level": level or own}
        return cls(queries, relevance, query_ids, on_invalid=on_invalid, **told)  # type: ignore[arg-type]


class _Lists(list[list[tuple[str, float]]]):
    """The judgements of a `Relevance` in v3's shape, and the `Relevance` itself."""

    def __init__(self, whole: Relevance) -> None:
        super().__init__([*labels, *irrelevant] for labels, irrelevant in zip(whole.labels, whole.irrelevant, strict=True))
        self.whole = whole


def _drawn(groups: Iterable[Sequence[int]], size: int) -> list[int]:
    """Take whole groups, in their order, up to a number of rows."""
    held: list[int] = []
    for group in groups:
        if len(held) + len(group) <= size:
            held += group
    return held


def _lists_of_shown(shown: Any, count: int) -> list[tuple[str, ...] | None]:
    """Check what was shown for each of so many queries. An empty list says nothing, like None.

    Raises:
        InvalidRelevanceError: It is no list for each query, or a list holds anything but strings, or has no order.
    """
    if shown is None:
        return [None] * count
    rows = ordered(shown, "shown", InvalidRelevanceError)
    lists = [None if one is None else ordered(one, f"shown of row {row}", InvalidRelevanceError) for row, one in enumerate(rows)]
    if len(lists) != count or not all(isinstance(name, str) for one in lists if one is not None for name in one):
        raise InvalidRelevanceError(
            f"shown has a list of document ids, or None, for each of the {count} queries; got {shown!r:.60}."
        )
    return [tuple(map(str, one)) if one else None for one in lists]


def _warn_dropped(dropped: int, total: int, counts: Mapping[str, int]) -> None:
    reasons = {reason: count for reason, count in counts.items() if reason != "repeated documents merged"}
    if reasons:
        listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.items())
        warnings.warn(f"Left out {dropped} of {total} labelled queries: {listed}.", InvalidLabelsWarning, stacklevel=4)
