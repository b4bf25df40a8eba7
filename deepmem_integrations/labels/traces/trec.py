"""TREC: a file of qrels, and a file of topics in one of the forms that collections come in."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepmem_integrations._files import parse_json, read_lines, user_path
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.traces.entries import Found, Labelled, first_of, text_of
from deepmem_integrations.labels.traces.rows import Row

_FIELD = re.compile(r"<(num|title|desc|narr)>\s*(?:Number:|Topic:)?\s*(.*)", re.IGNORECASE)


def read(traces: Any) -> Iterator[Row | Labelled]:
    """Read [qrels, topics].

    Qrels are lines of query id, iteration, document id and judgement; those of one query stand together, as everywhere, or
    are joined. Topics are lines of id, tab and text, JSON lines with ``_id``, ``qid`` or ``query_id`` and ``text``, ``query`` or
    ``title``, or TREC's own ``<top>`` with ``<num>`` and ``<title>``.

    Raises:
        InvalidRelevanceError: There are not two files.
        StorageError: A file cannot be read.
    """
    paths = list(traces) if isinstance(traces, list | tuple) else []
    if len(paths) != 2:
        raise InvalidRelevanceError("format 'trec' takes two files, [qrels, topics]: qrels have no texts.")
    texts: dict[str, str] = {}
    for row in _topics(Path(user_path(paths[1]))):
        if isinstance(row, Row):
            yield row
        else:
            texts[row[0]] = row[1]
    judged: dict[str, list[tuple[Found, float]]] = {}
    for number, line in read_lines(user_path(paths[0])):
        fields = line.split()
        try:
            if len(fields) not in (0, 4):
                raise ValueError(f"{len(fields)} fields")
            if fields and fields[0] not in texts:
                raise ValueError(f"the query {fields[0]!r} is not among the topics")
            if fields:
                judged.setdefault(fields[0], []).append((Found(fields[2]), float(fields[3])))
        except ValueError as error:
            yield Row(f"{paths[0]}, line {number}", None, f"expected query id, iteration, document id and judgement ({error})")
    for query_id, documents in judged.items():
        yield Labelled(query_id, texts[query_id], tuple(documents))


def _topics(path: Path) -> Iterator[Row | tuple[str, str]]:
    topic = ""
    titles: dict[str, str] = {}
    field = ""
    for number, line in read_lines(path):
        plain = line.strip()
        if not plain or plain.lower() in ("<top>", "</top>"):
            field = ""
        elif topic or plain.startswith("<"):
            if (found := _FIELD.match(plain)) is not None:
                field, text = found[1].lower(), re.sub(r"</\w+>\s*\Z", "", found[2]).strip()
                if field == "num":
                    topic = text
                    continue
            else:
                text = plain
            if field == "title" and text and not text.startswith("<"):
                titles[topic] = f"{titles.get(topic, '')} {text}".strip()
        else:
            yield _line(plain, f"{path}, line {number}")
    yield from titles.items()


def _line(line: str, where: str) -> Row | tuple[str, str]:
    if line.startswith("{"):
        try:
            value = parse_json(line)
        except ValueError as error:
            return Row(where, None, f"not JSON ({error}); is the line cut off?")
        name, text = text_of(first_of(value, "_id", "qid", "query_id", "id")), first_of(value, "text", "query", "title")
    else:
        name, _, text = line.partition("\t")
    if not name or not isinstance(text, str) or not text.strip():
        return Row(where, None, "expected the id of a topic, a tab and its text")
    return name, text.strip()
