"""A feedback log as JSON lines: a query with all that belongs to it a line, and then the events whose query is not known."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepmem_integrations._files import parse_json, patiently, read_lines, user_path
from deepmem_integrations.errors import FeedbackError, StorageError
from deepmem_integrations.labels.records import Event, LoggedQuery, event_of_json


def write_file(path: str | os.PathLike[str], queries: Iterable[LoggedQuery], strays: Iterable[Event]) -> int:
    """Write a file that only its owner may read, whole or not at all. Returns the number of queries.

    Raises:
        StorageError: The log cannot be read, or the file cannot be written. A file that was there before is unchanged.
    """
    target = Path(user_path(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    count = 0
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            for query in queries:
                file.write(f"{json.dumps(query.to_json(), ensure_ascii=False)}\n")
                count += 1
            for event in strays:
                file.write(f"{json.dumps({'events': [vars(event)]}, ensure_ascii=False)}\n")
            file.flush()
            os.fsync(file.fileno())
        patiently(lambda: os.replace(temporary, target))
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"Cannot write {target}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return count


def read_file(path: str | os.PathLike[str]) -> Iterator[LoggedQuery | Event]:
    """Yield the queries, each with its events, and the events without a query.

    Raises:
        FeedbackError: A line is nothing that `write_file` writes; the message names the line.
        StorageError: The file cannot be read, or is no regular file.
    """
    for number, line in read_lines(os.fspath(path)):
        if line.strip():
            try:
                entries = _entries(parse_json(line))
            except ValueError as error:
                raise FeedbackError(f"{path}, line {number}: this is no line of a feedback log. {error}") from error
            yield from entries


def _entries(values: object) -> list[LoggedQuery | Event]:
    if not isinstance(values, dict):
        raise FeedbackError("A line is an object.")
    if "query_id" in values:
        return [LoggedQuery.of_json(values)]
    if not isinstance(events := values.get("events"), list):
        raise FeedbackError("A line has a query_id, or events.")
    return [event_of_json(event) for event in events]
