import io
import os
import stat
import sys
import threading

import pytest

from deepmem_integrations import QueryAdapter, Relevance
from deepmem_integrations._files import (
    parse_json,
    printable,
    read_bytes,
    read_json,
    read_text,
    user_path,
    write_bytes,
    write_text,
)
from deepmem_integrations.errors import DeepMemoryError, StorageError
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.words import WordIndex


def test_what_is_written_is_read_and_replaced(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    write_text(path, "größer\r\n\u2028")
    assert path.read_bytes() == "größer\r\n\u2028".encode()
    write_bytes(path, "später".encode())
    assert read_text(path) == read_text(str(path)) == "später"
    assert os.listdir(path.parent) == ["file"]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, contents = tmp_path / "file", {letter * 100_000 for letter in "ab"}
    write_text(path, min(contents))
    done, seen = threading.Event(), set()

    def read():
        while not done.is_set():
            seen.add(read_text(path))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(100):
        for content in contents:
            write_text(path, content)
    done.set()
    reader.join()
    assert seen <= contents


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    write_text(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(
        StorageError, match=r"Cannot write .*file: No space left on device\. A file that was there before is unchanged"
    ):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(StorageError, match="Cannot read .*none: No such file"):
        read_text(tmp_path / "none")
    with pytest.raises(StorageError, match="Cannot read .*: Is a directory"):
        read_text(tmp_path)
    (tmp_path / "latin").write_bytes(b"gr\xf6\xdfer")
    with pytest.raises(StorageError, match="latin: the file is not UTF-8 text .* at byte 2"):
        read_text(tmp_path / "latin")


def test_windows_is_asked_again_while_another_process_has_the_file_open(tmp_path, monkeypatch):
    path, replace, refusals = tmp_path / "file", os.replace, []

    def refuse(source, target):
        if len(refusals) < 3:
            refusals.append(target)
            raise PermissionError(13, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match="Access is denied"):
        write_text(path, "elsewhere, once is enough")
    assert len(refusals) == 1
    monkeypatch.setattr("deepmem_integrations._files._WINDOWS", True)
    write_text(path, "new")
    assert read_text(path) == "new" and len(refusals) == 3
    monkeypatch.setattr("deepmem_integrations._files._PATIENCE", 0.1)

    def deny(source, target):
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(os, "replace", deny)
    with pytest.raises(StorageError, match="A file that was there before is unchanged"):
        write_text(path, "newer")
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_printed_fits_the_output(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    print(printable("größer τ"))  # noqa: T201 - what is tested
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue().split() == ["größer".encode("cp1252"), b"\\u03c4"]


# ---- the two doors ---------------------------------------------------------------------------------------------------


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(StorageError, match="no regular file"):
            read_bytes(path)
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(StorageError, match="large: it has 11 bytes, and 10 are the most"):
        read_bytes(tmp_path / "large", 10)
    assert read_bytes(tmp_path / "large", 11) == bytes(11)


def test_json_is_read_to_a_bounded_depth(tmp_path):
    assert parse_json("[" * 64 + "]" * 64) is not None
    for text in ("[" * 66 + "]" * 66, '{"a":' * 500 + "1" + "}" * 500, "[" * 100_000):
        with pytest.raises(ValueError, match="nested more than 64 deep|Expecting"):
            parse_json(text)
    (tmp_path / "a.json").write_text("[")
    with pytest.raises(StorageError, match="a.json is damaged"):
        read_json(tmp_path / "a.json")


def test_paths_that_no_file_can_have_are_errors(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, why in (("a\0b", "null"), ("~a\0b", "null"), ("x" * 300, "too long"), ("/a" * 5000, "too long"), (loop, "circle")):
        with pytest.raises(StorageError, match=why):
            user_path(path)
    with pytest.raises(StorageError, match="is no path"):
        user_path("half \ud800")
    for open_ in (QueryAdapter.load, Relevance.from_jsonl, ModelFolder, WordIndex.open):
        with pytest.raises(DeepMemoryError, match="no path"):
            open_("a\0b")
