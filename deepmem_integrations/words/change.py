"""A change of a word index: documents are compared with the state before, and a new state is written."""

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._strings import encode
from deepmem_integrations.errors import StoreError
from deepmem_integrations.words.analysis import SAMPLE, Analysis, recognise
from deepmem_integrations.words.arrays import Array, write_arrays
from deepmem_integrations.words.manifest import INDEX, Manifest
from deepmem_integrations.words.segment import LiveSegment, Segment, SegmentBuilder, merge, text_hashes
from deepmem_integrations.words.shards import SEGMENT_TERMS, TextShards, analyse, check_batch
from deepmem_integrations.words.state import State, open_segment

K1 = 1.2
B = 0.75
MAX_SEGMENTS = 8
"""With more segments, the small ones are merged."""

MERGE_SHARE = 0.25
"""All segments are merged where all but the first, or deleted documents, make up more than this share."""

Documents = Iterable[tuple[Sequence[str], Sequence[str]]]
"""Batches of (ids, texts)."""


@dataclass(frozen=True)
class Refreshed:
    """What a change did to an index.

    Attributes:
        added: How many documents are new.
        changed: How many documents have another text than before.
        deleted: How many documents were deleted.
        unchanged: How many documents stayed as they were.
    """

    added: int
    changed: int
    deleted: int
    unchanged: int

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.added or self.changed or self.deleted)


def _batches(documents: Documents) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    if isinstance(documents, Mapping | str):
        raise StoreError("Documents come in batches of (ids, texts): of a mapping id → text, pass [(list(ids), list(texts))].")
    for batch in documents:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise StoreError(f"Documents come in batches of (ids, texts), two lists of strings; got {batch!r:.60}.")
        yield batch[0], batch[1]


class Change:
    """A change of an index: documents are compared with a state, and what is new goes into segments that no manifest lists yet.

    Args:
        folder: The folder, whose lock the caller holds.
        state: The state before. None: the index is built from nothing.
        documents: Batches of (ids, texts), or the shards in which workers read them.
        language: ISO 639-1 code; None to recognise the language where there are no documents yet.
    """

    def __init__(self, folder: Path, state: State | None, documents: Documents | TextShards, language: str | None) -> None:
        self._folder, self._state = folder, state
        self._documents = documents if isinstance(documents, TextShards) else _batches(documents)
        self._before = state.segments if state else ()
        if language is None and not (state and state.documents):
            language = self._recognise()
        self._language = language
        self._analysis = Analysis(language)
        self.analysed_anew = state is not None and bool(state.documents) and state.manifest.analysis != self._analysis.signature
        self._builder = SegmentBuilder(self._analysis)
        self._written: list[dict[str, Any]] = []
        self._seen = [np.zeros(len(live.segment), np.bool_) for live in self._before]
        self._dead = [np.zeros(len(live.segment), np.bool_) for live in self._before]
        self._fresh: set[str] = set()
        self._fingerprint = int(state.manifest.fingerprint, 16) if state else 0

    @property
    def changes_files(self) -> bool:
        """Whether there is anything to write."""
        return bool(len(self._builder) or self._written or any(dead.any() for dead in self._dead))

    def _recognise(self) -> str | None:
        """Return the language of the first texts, and put them back."""
        documents = self._documents
        batches = iter(documents.texts() if isinstance(documents, TextShards) else documents)
        first: list[tuple[Sequence[str], Sequence[str]]] = []
        for batch in batches:
            first.append(batch)
            if sum(len(texts) for _, texts in first) >= SAMPLE:
                break
        if not isinstance(documents, TextShards):
            self._documents = chain(first, batches)
        return recognise(text for _, texts in first for text in texts if isinstance(text, str))

    def read_all(self) -> Refreshed:
        """Compare all documents with the state; those that do not come are deleted."""
        added, changed, unchanged = self._read()
        gone = [~seen if live.alive is None else live.alive & ~seen for live, seen in zip(self._before, self._seen, strict=True)]
        deleted = self._delete([np.flatnonzero(rows) for rows in gone])
        return Refreshed(added, changed, deleted, unchanged)

    def read_some(self, delete: Sequence[str]) -> Refreshed:
        """Compare some documents with the state, and delete others."""
        added, changed, _ = self._read()
        for name in delete:
            if not isinstance(name, str):
                raise StoreError(f"Document ids are strings; got {name!r}.")
        found = [live.find(delete) for live in self._before]
        for rows, seen in zip(found, self._seen, strict=True):
            for number in np.flatnonzero(rows >= 0).tolist():
                if seen[rows[number]]:
                    raise StoreError(
                        f"The document {delete[number]!r} is both among the documents to update and among those to delete."
                    )
        for name in self._fresh.intersection(delete):
            raise StoreError(f"The document {name!r} is both among the documents to update and among those to delete.")
        deleted = self._delete([np.unique(rows[rows >= 0]) for rows in found])
        total = self._state.documents if self._state else 0
        return Refreshed(added, changed, deleted, total - changed - deleted)

    def _delete(self, found: Sequence[NDArray[np.int64]]) -> int:
        for number, rows in enumerate(found):
            self._drop(number, rows)
        return sum(len(rows) for rows in found)

    def _drop(self, number: int, rows: NDArray[np.int64]) -> None:
        """Take rows of a segment out of the index."""
        self._dead[number][rows] = True
        segment = self._before[number].segment
        for row in rows.tolist():
            self._fingerprint -= _document_hash(segment.ids[row], segment.text_hashes[row])

    def _read(self) -> tuple[int, int, int]:
        """Read all documents; return how many are new, how many have another text, and how many have not."""
        counts = np.zeros(3, np.int64)
        if isinstance(self._documents, TextShards):
            for shard in analyse(self._documents, self._analysis, () if self.analysed_anew else self._before):
                counts += self._compare(list(shard.unchanged), shard.hashes)[1]
                for arrays in shard.segments:
                    segment = Segment(arrays)
                    counts += self._compare(segment.ids.all(), segment.text_hashes)[1]
                    self._written.append(self._write_arrays("segment", arrays) | {"deleted": None})
        else:
            for ids, texts in self._documents:
                ids, texts = check_batch(ids, texts)
                hashes = text_hashes(texts)
                write, kinds = self._compare(ids, hashes)
                counts += kinds
                rows = np.flatnonzero(write).tolist()
                self._builder.add([ids[row] for row in rows], [texts[row] for row in rows], hashes[write])
                if self._builder.size >= SEGMENT_TERMS:
                    self._flush()
        added, changed, unchanged = counts.tolist()
        return added, changed, unchanged

    def _compare(self, ids: list[str], hashes: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Compare documents with the state, and take note of them.

        Args:
            ids: n ids.
            hashes: (n, 2), the hashes of their texts.

        Returns:
            (n,) whether a document goes into a new segment; and how many are new, have another text, and have not.
        """
        changed = unchanged = 0
        new = np.ones(len(ids), np.bool_)
        write = np.ones(len(ids), np.bool_)
        for number, live in enumerate(self._before):
            rows = live.find(ids)
            which = np.flatnonzero(rows >= 0)
            rows = rows[which]
            again = self._seen[number][rows]
            distinct = np.unique(rows, return_index=True)[1]
            if again.any() or len(distinct) < len(rows):
                first = which[again] if again.any() else np.setdiff1d(which, which[distinct])
                raise _twice(ids[first[0]])
            self._seen[number][rows] = True
            new[which] = False
            same = (live.segment.text_hashes[rows] == hashes[which]).all(axis=1)
            unchanged += int(same.sum())
            changed += int((~same).sum())
            if not self.analysed_anew:
                write[which[same]] = False
                rows = rows[~same]
            self._drop(number, rows)
        for row in np.flatnonzero(new).tolist():
            if ids[row] in self._fresh:
                raise _twice(ids[row])
            self._fresh.add(ids[row])
        for row in np.flatnonzero(write).tolist():
            self._fingerprint += _document_hash(ids[row], hashes[row])
        return write, np.array([int(new.sum()), changed, unchanged])

    def _flush(self) -> None:
        """Write the documents that were read into a segment of their own."""
        if len(self._builder):
            self._written.append(self._write_arrays("segment", self._builder.arrays()) | {"deleted": None})
            self._builder = SegmentBuilder(self._analysis)

    def write(self, generation: int, *, merge_all: bool = False) -> None:
        """Write what is left, merge where that is due, and put the new state in place."""
        self._flush()
        entries, segments = self._after()
        first = 0 if merge_all else _to_merge(segments, len(self._written))
        if first is not None:
            arrays = merge(segments[first:], self._folder)
            entries[first:], segments[first:] = [], []
            if len(arrays["lengths"]):
                entries.append(self._write_arrays("segment", arrays) | {"deleted": None})
                segments.append(LiveSegment(Segment(arrays)))
        for entry, live in zip(entries, segments, strict=True):
            if len(live.deleted) and entry["deleted"] is None:
                entry["deleted"] = self._write_arrays("deleted", {"rows": live.deleted})
        manifest = Manifest(
            generation=generation,
            language=self._language,
            analysis=self._analysis.signature,
            k1=K1,
            b=B,
            documents=sum(len(live) for live in segments),
            length=sum(live.total_length for live in segments),
            fingerprint=f"{self._fingerprint % (1 << 256):064x}",
            segments=entries,
        )
        manifest.write(self._folder / INDEX)
        self._clean(manifest)

    def _after(self) -> tuple[list[dict[str, Any]], list[LiveSegment]]:
        """Return the segments as they are after the change, with their entries in the manifest."""
        entries, segments = [], []
        for number, live in enumerate(self._before):
            assert self._state is not None
            entry = dict(self._state.manifest.segments[number])
            if self._dead[number].any():
                dead = self._dead[number]
                dead[live.deleted] = True
                live, entry["deleted"] = LiveSegment(live.segment, np.flatnonzero(dead).astype(np.uint32)), None
            if len(live):
                entries.append(entry)
                segments.append(live)
        for entry in self._written:
            entries.append(entry)
            segments.append(open_segment(self._folder, entry))
        return entries, segments

    def _write_arrays(self, kind: str, arrays: dict[str, Array]) -> dict[str, Any]:
        name = f"{kind}-{secrets.token_hex(8)}.safetensors"
        return {"name": name, **write_arrays(self._folder / name, arrays)}

    def _clean(self, manifest: Manifest) -> None:
        """Delete files that the state does not need: of earlier states, and of processes that were killed."""
        needed = {file["name"] for entry in manifest.segments for file in (entry, entry["deleted"]) if file}
        for pattern in ("segment-*.safetensors", "deleted-*.safetensors", f".{INDEX}.*.tmp"):
            for path in self._folder.glob(pattern):
                if path.name not in needed:
                    with contextlib.suppress(OSError):  # Windows keeps files that a reader has open: the next writer deletes them
                        path.unlink()


def _to_merge(segments: Sequence[LiveSegment], written: int) -> int | None:
    """Return the first of the segments to merge now; None where none are.

    The documents of a change go into one segment, however many parts were written: an index does not tell who read its documents.

    Args:
        segments: The segments after the change.
        written: How many of them, the last, the change has written.
    """
    if not segments:
        return None
    before = len(segments) - written
    small = sum(len(live) for live in segments[1:])
    deleted, rows = sum(len(live.deleted) for live in segments), sum(len(live.segment) for live in segments)
    if (before and small > MERGE_SHARE * len(segments[0])) or deleted > MERGE_SHARE * rows:
        return 0
    if before + bool(written) > MAX_SEGMENTS:
        return 1
    return before if written > 1 else None


def _twice(name: str) -> StoreError:
    return StoreError(f"The document id {name!r} comes twice: every id names one document.")


def _document_hash(name: str, text_hash: NDArray[np.uint64]) -> int:
    """Hash a document's id and the hash of its text, which has always 16 bytes, to 256 bits."""
    return int.from_bytes(blake2b(text_hash.tobytes() + encode(name), digest_size=32).digest(), "little")
