"""Labelled queries: which documents answer which query, and how well."""

import json
import math
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deepmem_integrations._files import read_text, write_text
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.grouping import document_groups, drop_shared

OnInvalid = Literal["raise", "drop"]
Labels = Sequence[Sequence[tuple[str, float]]]
"""Deep Lake v3's shape: for each query a list of (document id, weight > 0)."""


class InvalidLabelsWarning(UserWarning):
    """Rows were left out of a `Relevance` because the caller asked for ``on_invalid="drop"``."""


class Relevance:
    """Labelled queries: texts, ids and, for each query, document ids with weights.

    Immutable. Wherever ``queries, relevance`` are taken, one `Relevance` is taken as well.

    Args:
        queries: The texts.
        relevance: For each query its documents as (id, weight), weight > 0. The same document twice is merged
            (the larger weight stays).
        query_ids: A distinct id for each query; by default its row number.
        on_invalid: ``"raise"`` names the first bad row; ``"drop"`` leaves bad rows out with one counted warning.
        generated: Whether a language model wrote the query, rather than a user: one answer for all, or one for each.

    Attributes:
        queries: tuple of n texts.
        query_ids: tuple of n ids.
        documents: tuple of n tuples of (document id, weight).
        generated: tuple of n bools.
        left_out: What was merged or left out on the way in: reason → count.

    Raises:
        InvalidRelevanceError: The two lists differ in length, or (unless dropped) a row is invalid: an empty or
            non-string query, no document, an id that is not a non-empty string, a weight that is not a finite number above 0.
    """

    def __init__(
        self,
        queries: Sequence[str],
        relevance: Labels,
        query_ids: Sequence[str] | None = None,
        *,
        on_invalid: OnInvalid = "raise",
        generated: bool | Sequence[bool] = False,
    ) -> None:
        """Check and keep the labels."""
        if isinstance(queries, str) or len(queries) != len(relevance):
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
        ids = [str(row) for row in range(len(queries))] if query_ids is None else list(query_ids)
        for row, query_id in enumerate(ids):
            if not isinstance(query_id, str):
                raise InvalidRelevanceError(f"query_ids are strings; row {row} has {query_id!r} ({type(query_id).__name__}).")
        repeated = [name for name, count in Counter(ids).items() if count > 1]
        if repeated:
            raise InvalidRelevanceError(f"query_ids must differ from one another; {repeated[0]!r} appears twice.")

        counts: Counter[str] = Counter()
        kept: list[tuple[str, str, tuple[tuple[str, float], ...], bool]] = []
        for row, (query_id, query, documents, flag) in enumerate(zip(ids, queries, relevance, flags, strict=True)):
            fault = _fault(query, documents)
            if fault is None:
                merged: dict[str, float] = {}
                for document, weight in documents:
                    merged[str(document)] = max(float(weight), merged.get(document, 0.0))
                if len(merged) < len(documents):
                    counts["repeated documents merged"] += len(documents) - len(merged)
                kept.append((query_id, str(query), tuple(merged.items()), bool(flag)))
            elif on_invalid == "drop":
                counts[fault[0]] += 1
            else:
                raise InvalidRelevanceError(f"Row {row} (query id {query_id!r}): {': '.join(filter(None, fault))}.")
        _warn_dropped(len(queries) - len(kept), len(queries), counts)

        self.query_ids: tuple[str, ...] = tuple(query_id for query_id, _, _, _ in kept)
        self.queries: tuple[str, ...] = tuple(query for _, query, _, _ in kept)
        self.documents: tuple[tuple[tuple[str, float], ...], ...] = tuple(documents for _, _, documents, _ in kept)
        self.generated: tuple[bool, ...] = tuple(flag for _, _, _, flag in kept)
        self.left_out: Mapping[str, int] = dict(counts)

    @classmethod
    def of(cls, queries: "Relevance | Sequence[str] | None", relevance: "Relevance | Labels | None" = None) -> "Relevance":
        """Accept what users pass: a `Relevance` in either place, or v3's two lists.

        Raises:
            InvalidRelevanceError: Neither one `Relevance` nor two lists.
        """
        if isinstance(queries, Relevance) and relevance is None:
            return queries
        if isinstance(relevance, Relevance) and queries is None:
            return relevance
        if queries is None or relevance is None or isinstance(queries, Relevance) or isinstance(relevance, Relevance):
            raise InvalidRelevanceError(
                "Pass one Relevance and nothing beside it, or queries together with relevance: [[(document id, weight)]]."
            )
        return cls(queries, relevance)

    def __len__(self) -> int:
        """The number of labelled queries."""
        return len(self.queries)

    def __iter__(self) -> Iterator[tuple[str, str, tuple[tuple[str, float], ...]]]:
        """Yield (query id, text, ((document id, weight), …))."""
        return zip(self.query_ids, self.queries, self.documents, strict=True)

    def __eq__(self, other: object) -> bool:
        """Equal rows in the same order."""
        return isinstance(other, Relevance) and (list(self), self.generated) == (list(other), other.generated)

    def __hash__(self) -> int:
        """Hash of the rows."""
        return hash((self.query_ids, self.queries, self.documents))

    def __add__(self, other: object) -> "Relevance":
        """The rows of both, so that labels which come piece by piece add up, as in a LangChain ``stream``.

        A query id that is taken already gives way to a row number.
        """
        if not isinstance(other, Relevance):
            return NotImplemented
        ids = list(self.query_ids)
        taken = set(ids)
        for query_id in other.query_ids:
            row = len(ids)
            while query_id in taken:
                query_id, row = str(row), row + 1
            taken.add(query_id)
            ids.append(query_id)
        total = object.__new__(Relevance)  # its rows are checked already, and there may be thousands of pieces
        total.query_ids, total.queries = tuple(ids), self.queries + other.queries
        total.documents, total.generated = self.documents + other.documents, self.generated + other.generated
        total.left_out = dict(Counter(self.left_out) + Counter(other.left_out))
        return total

    def __repr__(self) -> str:
        """A line with the counts."""
        return f"Relevance({len(self)} queries, {sum(map(len, self.documents))} labels)"

    @property
    def relevance(self) -> list[list[tuple[str, float]]]:
        """The labels in v3's shape."""
        return [list(documents) for documents in self.documents]

    @property
    def document_ids(self) -> frozenset[str]:
        """The ids of all labelled documents."""
        return frozenset(document for row in self.documents for document, _ in row)

    def take(self, rows: Iterable[int]) -> "Relevance":
        """A `Relevance` of these rows, in this order."""
        rows = list(rows)
        return Relevance(
            [self.queries[row] for row in rows],
            [self.documents[row] for row in rows],
            [self.query_ids[row] for row in rows],
            generated=[self.generated[row] for row in rows],
        )

    def check(self, corpus_ids: Collection[str], *, on_invalid: OnInvalid = "raise") -> "Relevance":
        """Check that every labelled document is in the corpus.

        Args:
            corpus_ids: The ids of the corpus.
            on_invalid: ``"drop"`` leaves unknown documents out, and queries that lose all of theirs, with a counted warning.

        Returns:
            This very object where nothing had to be left out.

        Raises:
            InvalidRelevanceError: A document is not in the corpus; the message names the row and the id.
        """
        known = corpus_ids if isinstance(corpus_ids, set | frozenset | dict) else set(corpus_ids)
        unknown = [
            (row, document) for row, labels in enumerate(self.documents) for document, _ in labels if document not in known
        ]
        if not unknown:
            return self
        if on_invalid == "raise":
            row, document = unknown[0]
            raise InvalidRelevanceError(
                f"Row {row} (query id {self.query_ids[row]!r}): document {document!r} is not in the corpus "
                f"of {len(known)} documents ({len(unknown)} such labels in all). "
                "Use the ids of the store, as memory.documents() gives them, or drop such labels with "
                'Relevance.check(ids, on_invalid="drop").'
            )
        labels = [[(document, weight) for document, weight in row if document in known] for row in self.documents]
        rows = [row for row, left in enumerate(labels) if left]
        counts = Counter({"document not in the corpus": len(unknown)})
        if len(rows) < len(self):
            counts["no document left"] = len(self) - len(rows)
        _warn_dropped(len(self) - len(rows), len(self), counts)
        result = Relevance(
            [self.queries[row] for row in rows],
            [labels[row] for row in rows],
            [self.query_ids[row] for row in rows],
            generated=[self.generated[row] for row in rows],
        )
        result.left_out = dict(Counter(self.left_out) + counts)
        return result

    def split(
        self, test_size: float = 0.2, *, by: Literal["query", "document"] = "query", seed: int = 0
    ) -> "tuple[Relevance, Relevance]":
        """Split into (train, test).

        Args:
            test_size: The share of the queries to hold out, between 0 and 1.
            by: ``"query"`` draws at random. ``"document"`` lets no document be labelled on both sides: queries that share
                documents stay together, and where such a group is larger than the held-out part, it is drawn from at random
                and the training queries that share a document with the held-out part are left out, counted in the
                training side's ``left_out``.
            seed: Fixes the draw.

        Raises:
            InvalidRelevanceError: ``test_size`` leaves one side empty.
        """
        size = round(len(self) * test_size)
        if not 0 < size < len(self):
            raise InvalidRelevanceError(f"test_size={test_size} of {len(self)} queries leaves one side empty.")
        if by not in ("query", "document"):
            raise InvalidRelevanceError(f"by is 'query' or 'document'; got {by!r}.")
        rng = np.random.default_rng(seed)
        if by == "query":
            order = rng.permutation(len(self))
            return self.take(np.sort(order[size:])), self.take(np.sort(order[:size]))

        documents = [[document for document, _ in row] for row in self.documents]
        groups = document_groups(documents, largest=size, rng=rng)
        held: list[int] = []
        for group in groups:
            if len(held) + len(group) <= size:
                held += group
        rows, dropped = drop_shared(documents, held)
        if not held or not rows:
            raise InvalidRelevanceError(
                f"No split of these {len(self)} queries keeps their documents apart: too many queries share a document."
            )
        train = self.take(rows)
        if dropped:
            train.left_out = {"shares a document with the held-out part": dropped}
        return train, self.take(sorted(held))

    # ---- files -------------------------------------------------------------------------------------------------

    @classmethod
    def from_jsonl(cls, path: str | Path, *, on_invalid: OnInvalid = "raise") -> "Relevance":
        """Read JSON lines: ``{"query": …, "relevance": [[id, weight], …], "query_id": …}``.

        A document may be written as its bare id (weight 1); ``query_id`` may be left out, and so may ``"generated": true``,
        which says that a language model wrote the query.

        Raises:
            InvalidRelevanceError: A line that is not such an object; the message names the line.
        """
        rows = [_jsonl_row(value, number, path) for number, value in _json_lines(path)]
        queries, labels, generated = [r[1] for r in rows], [r[2] for r in rows], [r[3] for r in rows]
        return cls(queries, labels, _ids([r[0] for r in rows]), on_invalid=on_invalid, generated=generated)

    def to_jsonl(self, path: str | Path) -> None:
        """Write what `from_jsonl` reads."""
        lines = (
            {"query_id": query_id, "query": query, "relevance": [list(pair) for pair in documents]}
            | ({"generated": True} if generated else {})
            for (query_id, query, documents), generated in zip(self, self.generated, strict=True)
        )
        write_text(Path(path), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    @classmethod
    def from_beir(cls, folder: str | Path, split: str = "train", *, on_invalid: OnInvalid = "raise") -> "Relevance":
        """Read a BEIR folder: ``queries.jsonl`` and ``qrels/{split}.tsv``.

        A score of 0 or below means *judged irrelevant*: such lines are left out and counted in ``left_out``.

        Raises:
            InvalidRelevanceError: A malformed line, or a query that is not in ``queries.jsonl``.
        """
        folder = Path(folder)
        texts = {}
        for number, value in _json_lines(folder / "queries.jsonl"):
            if not isinstance(value, dict) or not {"_id", "text"} <= value.keys():
                raise InvalidRelevanceError(f"{folder / 'queries.jsonl'}, line {number}: needs the keys _id and text.")
            texts[str(value["_id"])] = value["text"]
        path = folder / "qrels" / f"{split}.tsv"
        judged: dict[str, list[tuple[str, float]]] = {}
        irrelevant = 0
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            fields = line.rstrip("\r").split("\t")
            if fields == [""] or (number == 1 and fields[0] == "query-id"):
                continue
            try:
                query_id, document, score = fields[0], fields[1], float(fields[2])
                if len(fields) != 3:
                    raise ValueError(f"{len(fields)} fields")
            except (IndexError, ValueError) as error:
                raise InvalidRelevanceError(
                    f"{path}, line {number}: expected query-id, corpus-id and score between tabs ({error})."
                ) from error
            if query_id not in texts and on_invalid == "raise":
                raise InvalidRelevanceError(f"{path}, line {number}: query {query_id!r} is not in queries.jsonl.")
            labels = judged.setdefault(query_id, [])
            if score <= 0:
                irrelevant += 1
            else:
                labels.append((document, score))
        unlabelled = [query_id for query_id, labels in judged.items() if not labels]
        for query_id in unlabelled:
            del judged[query_id]
        result = cls([texts.get(q, "") for q in judged], list(judged.values()), list(judged), on_invalid=on_invalid)
        counts = {"judged irrelevant": irrelevant, "no relevant document": len(unlabelled)}
        result.left_out = {**result.left_out, **{reason: count for reason, count in counts.items() if count}}
        return result

    def to_beir(self, folder: str | Path, split: str = "train") -> None:
        """Write ``queries.jsonl`` and ``qrels/{split}.tsv``; queries of other splits already in the file are kept.

        Raises:
            InvalidRelevanceError: A query id stands in ``queries.jsonl`` with another text, or an id holds a tab, a newline or
                anything else that does not print.
        """
        for name in (*self.query_ids, *(document for labels in self.documents for document, _ in labels)):
            if not name.isprintable():
                raise InvalidRelevanceError(f"The id {name!r} cannot stand in a tab-separated file.")
        folder = Path(folder)
        path = folder / "queries.jsonl"
        texts = {str(value["_id"]): value["text"] for _, value in _json_lines(path)} if path.exists() else {}
        for query_id, query, _ in self:
            if texts.setdefault(query_id, query) != query:
                raise InvalidRelevanceError(f"{path} already holds another text for the query id {query_id!r}.")
        lines = [json.dumps({"_id": query_id, "text": text}, ensure_ascii=False) for query_id, text in texts.items()]
        qrels = [f"{query_id}\t{document}\t{weight!r}" for query_id, _, labels in self for document, weight in labels]
        write_text(path, "\n".join(lines) + "\n")
        write_text(folder / "qrels" / f"{split}.tsv", "\n".join(["query-id\tcorpus-id\tscore", *qrels]) + "\n")

    @classmethod
    def from_llama_index(cls, path: Any, *, on_invalid: OnInvalid = "raise") -> "Relevance":
        """Read LlamaIndex's ``EmbeddingQAFinetuneDataset`` (``queries``, ``relevant_docs``); every weight is 1.

        Args:
            path: Its JSON file, or the object itself.
            on_invalid: As of the constructor.

        Raises:
            InvalidRelevanceError: Not such a file or object.
        """
        try:
            value = json.loads(read_text(path)) if isinstance(path, str | Path) else vars(path)
            queries, documents = dict(value["queries"]), dict(value["relevant_docs"])
            if not documents.keys() <= queries.keys() or not all(isinstance(names, list) for names in documents.values()):
                raise ValueError("relevant_docs must map ids of queries to lists of document ids")
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidRelevanceError(
                f"{path} is not an EmbeddingQAFinetuneDataset ({error!r}). Labels of your own are JSON lines: {_JSON_LINE}"
            ) from error
        labels = [[(document, 1.0) for document in documents.get(query_id, [])] for query_id in queries]
        return cls(list(queries.values()), labels, list(queries), on_invalid=on_invalid)

    def to_llama_index(self, path: str | Path, corpus: Mapping[str, str]) -> None:
        """Write the JSON of LlamaIndex's ``EmbeddingQAFinetuneDataset``. Weights have no place in it and are lost.

        Args:
            path: The file to write.
            corpus: Document id → text, as the format wants it.

        Raises:
            InvalidRelevanceError: A labelled document is not in ``corpus``.
        """
        self.check(corpus.keys())
        value = {
            "queries": dict(zip(self.query_ids, self.queries, strict=True)),
            "corpus": dict(corpus),
            "relevant_docs": {query_id: [document for document, _ in labels] for query_id, _, labels in self},
            "mode": "text",
        }
        write_text(Path(path), json.dumps(value, ensure_ascii=False, indent=4))


_EXAMPLE = '[("an id", 1.0)]'


def _fault(query: Any, documents: Any) -> tuple[str, str] | None:
    """What is wrong with a row, as (kind, particulars), or None."""
    if not isinstance(query, str):
        return "the query is not a string", f"got {type(query).__name__}"
    if not query.strip():
        return "the query is empty", ""
    if isinstance(documents, str) or not isinstance(documents, Sequence):
        return "the relevance is not a list of (document id, weight)", f"got {documents!s:.60}, write {_EXAMPLE}"
    if not documents:
        return "no relevant document", ""
    for pair in documents:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            return "a label is not a (document id, weight)", f"got {pair!s:.60}, write {_EXAMPLE}"
        document, weight = pair
        if document is None or document == "":
            return "a document has no id", "take documents that have the store's ids, as memory.documents() gives them"
        if not isinstance(document, str):
            return "a document id is not a string", f"got {document!r}"
        if isinstance(weight, bool | str) or not isinstance(weight, int | float | np.integer | np.floating):
            return "a weight is not a number", f"got {weight!r} for document {document!r}"
        if not _is_finite(weight):
            return "a weight is NaN or infinite", f"document {document!r}"
        if float(weight) <= 0:
            return "a weight is not above 0", f"{weight} for document {document!r}"
    return None


def _is_finite(weight: Any) -> bool:
    try:
        return math.isfinite(weight)
    except OverflowError:  # an integer beyond every float
        return False


def _warn_dropped(dropped: int, total: int, counts: Mapping[str, int]) -> None:
    reasons = {reason: count for reason, count in counts.items() if reason != "repeated documents merged"}
    if reasons:
        listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.items())
        warnings.warn(f"Left out {dropped} of {total} labelled queries: {listed}.", InvalidLabelsWarning, stacklevel=4)


_JSON_LINE = '{"query": "…", "relevance": [["document id", 1.0]]}'


def _json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):  # not splitlines(): texts may hold U+2028
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise InvalidRelevanceError(f"{path}, line {number}: not JSON ({error}). A line is {_JSON_LINE}") from error


def _jsonl_row(value: Any, number: int, path: str | Path) -> tuple[str | None, Any, Any, bool]:
    if not isinstance(value, dict) or not {"query", "relevance"} <= value.keys():
        raise InvalidRelevanceError(f"{path}, line {number}: needs the keys query and relevance: {_JSON_LINE}")
    if not isinstance(generated := value.get("generated", False), bool):
        raise InvalidRelevanceError(f"{path}, line {number}: generated is true or false; got {generated!r}.")
    labels = value["relevance"]
    if isinstance(labels, list):
        labels = [(pair, 1.0) if isinstance(pair, str) else pair for pair in labels]
    return value.get("query_id"), value["query"], labels, generated


def _ids(ids: Sequence[str | None]) -> list[str] | None:
    """Ids as given, the row number where one is left out; None where all are."""
    if all(query_id is None for query_id in ids):
        return None
    return [str(row) if query_id is None else str(query_id) for row, query_id in enumerate(ids)]
