"""Files of labelled queries: JSON lines, BEIR folders, and LlamaIndex's ``EmbeddingQAFinetuneDataset``."""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from deepmem_integrations._files import parse_json, read_text, user_path, write_text
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.checking import fault_of_time

Labels = Sequence[Sequence[tuple[str, float]]]
"""Labels in Deep Lake v3's shape: for each query a list of (document id, weight). Not above 0 is judged irrelevant."""

JSON_LINE = '{"query": "…", "relevance": [["document id", 1.0]]}'
"""A line of labels, as error messages show it."""


class Columns(NamedTuple):
    """The content of a file of labels, as the constructor of `Relevance` takes it.

    Attributes:
        queries: The n texts.
        relevance: The labels of each query.
        query_ids: The n ids, or None for row numbers.
        generated: For each query, whether a language model wrote it.
        times: For each query, when it was asked, as ISO 8601; or None.
        judges: For each query, who judged; or None.
        shown: For each query the ids of the documents that were shown; or None.
        level: What the labels name: see `Relevance`.
    """

    queries: Sequence[str]
    relevance: Labels
    query_ids: Sequence[str] | None
    generated: Sequence[bool]
    times: Sequence[str | None] | None = None
    judges: Sequence[str | None] | None = None
    shown: Sequence[Sequence[str] | None] | None = None
    level: str | None = None


def read_jsonl(path: str | Path) -> Columns:
    """Read what `write_jsonl` writes; see `Relevance.from_jsonl`."""
    rows = [_jsonl_row(value, number, path) for number, value in _json_lines(path)]
    query_ids = None
    if any(query_id is not None for query_id, *_ in rows):
        given = {str(query_id) for query_id, *_ in rows}
        numbers = (str(number) for number in itertools.count() if str(number) not in given)
        query_ids = [next(numbers) if query_id is None else str(query_id) for query_id, *_ in rows]
    _, queries, relevance, generated, times, judges, shown, levels = zip(*rows, strict=True) if rows else [()] * 8
    if len(set(levels)) > 1:
        told = " and ".join(repr(level) for level in sorted(set(levels), key=str))
        raise InvalidRelevanceError(f"{path}: its lines have the levels {told}. The labels of a file name one kind of thing.")
    return Columns(queries, relevance, query_ids, generated, times, judges, shown, levels[0] if levels else None)


def write_jsonl(
    path: str | Path,
    rows: Iterable[tuple[str, str, Sequence[tuple[str, float]], bool, datetime | None, str | None, Sequence[str] | None]],
    level: str | None = None,
) -> None:
    """Write (query id, text, judgements, generated, time, judge, shown) rows as JSON lines, each with the level."""
    lines = (
        {"query_id": query_id, "query": query, "relevance": [list(label) for label in labels]}
        | ({"generated": True} if generated else {})
        | ({"time": time.isoformat()} if time else {})
        | ({"judge": judge} if judge else {})
        | ({"shown": list(shown)} if shown is not None else {})
        | ({"level": level} if level else {})
        for query_id, query, labels, generated, time, judge, shown in rows
    )
    write_text(Path(path), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_beir(folder: str | Path, split: str, *, drop_unknown: bool) -> Columns:
    """Read ``queries.jsonl`` and ``qrels/{split}.tsv``; see `Relevance.from_beir`.

    Args:
        folder: The folder.
        split: The name of the split.
        drop_unknown: Whether a query that is not in ``queries.jsonl`` becomes an empty text, which `Relevance` may drop,
            instead of an error.
    """
    folder = Path(folder)
    texts = _beir_queries(folder / "queries.jsonl")
    path = folder / "qrels" / f"{split}.tsv"
    judged: dict[str, list[tuple[str, float]]] = {}
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
        if query_id not in texts and not drop_unknown:
            raise InvalidRelevanceError(f"{path}, line {number}: query {query_id!r} is not in queries.jsonl.")
        judged.setdefault(query_id, []).append((document, score))
    return Columns([texts.get(query_id, "") for query_id in judged], list(judged.values()), list(judged), [False] * len(judged))


def write_beir(folder: str | Path, split: str, rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]]) -> None:
    """Write (query id, text, judgements) rows as ``queries.jsonl`` and ``qrels/{split}.tsv``; see `Relevance.to_beir`."""
    for name in (name for query_id, _, labels in rows for name in (query_id, *(document for document, _ in labels))):
        if not name.isprintable():
            raise InvalidRelevanceError(f"The id {name!r} cannot stand in a tab-separated file.")
    folder = Path(user_path(folder))
    path = folder / "queries.jsonl"
    texts = _beir_queries(path) if path.exists() else {}
    for query_id, query, _ in rows:
        if texts.setdefault(query_id, query) != query:
            raise InvalidRelevanceError(f"{path} already holds another text for the query id {query_id!r}.")
    lines = [json.dumps({"_id": query_id, "text": text}, ensure_ascii=False) for query_id, text in texts.items()]
    qrels = [f"{query_id}\t{document}\t{weight!r}" for query_id, _, labels in rows for document, weight in labels]
    write_text(path, "\n".join(lines) + "\n")
    write_text(folder / "qrels" / f"{split}.tsv", "\n".join(["query-id\tcorpus-id\tscore", *qrels]) + "\n")


def read_llama_index(source: Any) -> Columns:
    """Read the JSON file of an ``EmbeddingQAFinetuneDataset``, or the object itself; see `Relevance.from_llama_index`."""
    try:
        value = parse_json(read_text(source)) if isinstance(source, str | Path) else vars(source)
        queries, documents = dict(value["queries"]), dict(value["relevant_docs"])
        if not documents.keys() <= queries.keys() or not all(isinstance(names, list) for names in documents.values()):
            raise ValueError("relevant_docs must map ids of queries to lists of document ids")
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRelevanceError(
            f"{source} is not an EmbeddingQAFinetuneDataset ({error!r}). Labels of your own are JSON lines: {JSON_LINE}"
        ) from error
    labels = [[(document, 1.0) for document in documents.get(query_id, [])] for query_id in queries]
    return Columns(list(queries.values()), labels, list(queries), [False] * len(queries))


def write_llama_index(
    path: str | Path, rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]], corpus: Mapping[str, str]
) -> None:
    """Write (query id, text, labels) rows as the JSON file of an ``EmbeddingQAFinetuneDataset``."""
    value = {
        "queries": {query_id: query for query_id, query, _ in rows},
        "corpus": dict(corpus),
        "relevant_docs": {query_id: [document for document, _ in labels] for query_id, _, labels in rows},
        "mode": "text",
    }
    write_text(Path(path), json.dumps(value, ensure_ascii=False, indent=4))


def _beir_queries(path: Path) -> dict[str, str]:
    """Read query id → text."""
    texts = {}
    for number, value in _json_lines(path):
        if not isinstance(value, dict) or not {"_id", "text"} <= value.keys():
            raise InvalidRelevanceError(f"{path}, line {number}: needs the keys _id and text.")
        texts[str(value["_id"])] = value["text"]
    return texts


def _json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):  # not splitlines(): texts may hold U+2028
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                raise InvalidRelevanceError(f"{path}, line {number}: not JSON ({error}). A line is {JSON_LINE}") from error


def _jsonl_row(value: Any, number: int, path: str | Path) -> tuple[Any, Any, Any, bool, Any, Any, Any, Any]:
    """Take the query id, text, judgements, generated, time, judge, shown and level out of one line."""
    if not isinstance(value, dict) or not {"query", "relevance"} <= value.keys():
        raise InvalidRelevanceError(f"{path}, line {number}: needs the keys query and relevance: {JSON_LINE}")
    value = {name: None if isinstance(item, float) and math.isnan(item) else item for name, item in value.items()}  # of pandas
    generated = value.get("generated")
    if not isinstance(generated := False if generated is None else generated, bool):
        raise InvalidRelevanceError(f"{path}, line {number}: generated is true or false; got {generated!r}.")
    labels = value["relevance"]
    if isinstance(labels, dict):
        labels = list(labels.items())
    if isinstance(labels, list):
        labels = [(label, 1.0) if isinstance(label, str) else label for label in labels]
    if (time := value.get("time")) is not None and (not isinstance(time, str) or fault_of_time(time)):
        raise InvalidRelevanceError(f"{path}, line {number}: time is ISO 8601, such as 2026-11-28T09:30:00Z; got {time!r}.")
    if (judge := value.get("judge")) is not None and not isinstance(judge, str):
        raise InvalidRelevanceError(f"{path}, line {number}: judge is a string that says who judged; got {judge!r}.")
    if (level := value.get("level")) is not None and not isinstance(level, str):
        raise InvalidRelevanceError(f"{path}, line {number}: level is a metadata key, such as doc_uri; got {level!r}.")
    shown = value.get("shown")
    if shown is not None and not (isinstance(shown, list) and all(isinstance(name, str) for name in shown)):
        raise InvalidRelevanceError(f"{path}, line {number}: shown is a list of document ids; got {shown!r:.60}.")
    return value.get("query_id"), value["query"], labels, generated, time, judge, shown, level
