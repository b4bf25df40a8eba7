"""The rows of traces, wherever they are: files of JSON, JSON lines, CSV and Parquet, data frames, and objects of the tools."""

import csv
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmem_integrations._extras import require
from deepmem_integrations._files import open_regular, parse_json, read_lines, read_text, user_path
from deepmem_integrations.errors import InvalidRelevanceError, StorageError
from deepmem_integrations.labels.traces.entries import tidy

Traces = str | os.PathLike[str] | Mapping[str, Any] | Iterable[Any]
"""A file, a folder of files, or several of them; or rows: mappings, a data frame, or objects of the tool's own package."""

LINES = (".jsonl", ".ndjson")
ENDINGS = (*LINES, ".json", ".csv", ".tsv", ".parquet")
"""The files that are read in a folder."""
_PAGES = ("data", "runs", "traces", "spans", "observations", "scores", "hits")
"""The keys under which an object holds the rows of a page, as an API answers."""
_ROWS = {"id", "trace_id", "info"}
"""The keys of which a row has one, and a page none."""
_LONGEST_FIELD = 2**27
"""The most characters of a field of CSV."""
_BATCH = 256
"""How many rows of Parquet are read at a time; they hold whole prompts."""


@dataclass(frozen=True)
class Row:
    """A row, or what is wrong with it.

    Attributes:
        where: The place for messages, such as ``"runs.jsonl, line 3"``.
        value: The row; None where it cannot be read.
        fault: What is wrong with the row.
    """

    where: str
    value: Mapping[str, Any] | None
    fault: str = ""


def rows_of(traces: Traces) -> Iterator[Row]:
    """Yield the rows of traces, one at a time.

    Raises:
        StorageError: A file cannot be read.
        InvalidRelevanceError: A file has no known form, or there are no rows in what was passed.
        MissingExtraError: A file is Parquet, and pyarrow is not installed.
    """
    if isinstance(traces, str | os.PathLike):
        for path in _files(Path(user_path(traces))):
            yield from _rows_of_file(path)
        return
    if hasattr(traces, "to_dict") and hasattr(traces, "columns"):  # a data frame, whose index may hold the ids
        frame: Any = traces
        named = [name for name in frame.index.names if name is not None and name not in frame.columns]
        traces = (frame.reset_index(level=named) if named else frame).to_dict("records")
    if isinstance(traces, Mapping):
        traces = [traces]
    if not isinstance(traces, Iterable):
        raise InvalidRelevanceError(f"Traces are a file, rows, or the client of a server; got {type(traces).__name__}.")
    for number, item in enumerate(traces):
        if isinstance(item, str | os.PathLike):
            yield from rows_of(item)
        else:
            yield from _unfolded(f"row {number}", _plain(item))


def _row(where: str, value: Mapping[str, Any]) -> Row:
    """Return a row without what it does not tell: tables have the columns of all kinds of rows."""
    return Row(where, {name: told for name, told in tidy(value).items() if told is not None})


def _plain(item: Any) -> Any:
    """Return an object of a tool's package as it writes itself into JSON."""
    for name in ("model_dump", "to_dict", "dict"):
        if not isinstance(item, Mapping) and callable(write := getattr(item, name, None)):
            return write()
    return item


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.rglob("*") if one.suffix.lower() in ENDINGS and one.is_file())
    if not found:
        raise InvalidRelevanceError(f"The folder {path} holds no file of traces: {', '.join(ENDINGS)}.")
    return found


def _rows_of_file(path: Path) -> Iterator[Row]:
    ending = path.suffix.lower()
    if ending in (".gz", ".zip", ".zst"):
        raise InvalidRelevanceError(f"{path} is compressed: unpack the file first.")
    if ending == ".parquet":
        return _parquet(path)
    return _csv(path) if ending in (".csv", ".tsv") else _json(path)


def _unfolded(where: str, value: Any) -> Iterator[Row]:
    """Yield a row, or the rows of a page or list."""
    if isinstance(value, Mapping):
        pages = [value[name] for name in _PAGES if isinstance(value.get(name), list)]
        if not pages or _ROWS & value.keys():
            yield _row(where, value)
            return
        value = itertools.chain(*pages)
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        yield Row(where, None, f"a row is an object with the fields of the format; got {value!r:.60}")
        return
    for number, item in enumerate(value):
        yield from _unfolded(f"{where}, item {number}", item)


def _json(path: Path) -> Iterator[Row]:
    """Read JSON lines as they come, whatever the name of the file, or else one JSON document."""
    lines = ((number, line) for number, line in read_lines(path) if line.strip())
    for number, line in lines:
        try:
            value = parse_json(line)
        except ValueError as error:
            if number == 1 and path.suffix.lower() not in LINES and not _is_row(next(lines, (0, ""))[1]):
                yield from _document(path)
                return
            yield Row(f"{path}, line {number}", None, f"not JSON ({error}); is the line cut off?")
        else:
            yield from _unfolded(f"{path}, line {number}", value)


def _is_row(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _document(path: Path) -> Iterator[Row]:
    try:
        value = parse_json(read_text(path))
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise InvalidRelevanceError(
            f"{path}, line {line}: neither JSON nor JSON lines ({error}); is the file cut off?"
        ) from error
    yield from _unfolded(str(path), value)


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    lines = (f"{line}\n" for _, line in read_lines(path))
    header = next(lines, "")
    # Between commas elsewhere, Excel writes semicolons in most of Europe.
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(itertools.chain([header], lines), delimiter=delimiter, strict=True)
    number = 0
    while True:
        begun = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(f"{path}, line {begun}", None, f"not CSV ({error}); is the line cut off?")
            return
        number += 1
        where = f"{path}, line {max(begun, 2)}"
        if None in row or None in row.values():
            yield Row(where, None, f"the row has not as many fields as the header, {len(reader.fieldnames or ())}")
        else:
            yield _row(where, {name: value or None for name, value in row.items()})


def _parquet(path: Path) -> Iterator[Row]:
    require("pyarrow", extra="traces")
    import pyarrow
    import pyarrow.parquet

    try:
        with open_regular(path) as file:
            number = 0
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(_BATCH):
                for value in batch.to_pylist():
                    yield _row(f"{path}, row {number}", value)
                    number += 1
    except (pyarrow.ArrowException, io.UnsupportedOperation) as error:
        raise InvalidRelevanceError(f"{path} is no whole Parquet file ({error}).") from error
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
