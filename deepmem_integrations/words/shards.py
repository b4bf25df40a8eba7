"""Documents in shards, whose words are analysed by workers: what comes back are segments, which are merged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._strings import Strings, encode
from deepmem_integrations._workers import Workers
from deepmem_integrations.errors import JobFailedError, StoreError
from deepmem_integrations.words.analysis import Analysis
from deepmem_integrations.words.arrays import Array
from deepmem_integrations.words.segment import LiveSegment, SegmentBuilder, text_hashes

SEGMENT_TERMS = 8_000_000
"""A larger segment is built in parts, so that memory stays small, and merged from the files."""

_KEY = np.dtype([("high", "<u8"), ("low", "<u8")])


@runtime_checkable
class TextShard(Protocol):
    """Consecutive documents of a corpus. A shard is small itself, and travels to other processes, which read the documents."""

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield (ids, texts) batches.

        Raises:
            StoreError: The documents cannot be read, or one has no id or no text.
        """
        ...


@dataclass(frozen=True)
class TextShards:
    """Documents for a `WordIndex`, in shards that workers read: see `WordIndex.build`.

    Attributes:
        shards: The shards, in the order of the documents.
        workers: Who reads them, such as `deepmem_integrations.cluster.RayWorkers`.
        progress: Called with the number of documents of each shard that is done.
    """

    shards: Sequence[TextShard]
    workers: Workers
    progress: Callable[[int], object] = lambda count: None

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Read all documents in this process: yield (ids, texts) batches."""
        for shard in self.shards:
            yield from shard.texts()


@dataclass(frozen=True)
class AnalysedShard:
    """What a worker returns for a shard.

    Attributes:
        segments: The arrays of segments that hold the new documents of the shard, and those with another text, in their order.
        unchanged: The ids of the other documents.
        hashes: (n, 2), the hashes of their texts: see `text_hashes`.
    """

    segments: list[dict[str, Array]]
    unchanged: Strings
    hashes: NDArray[np.uint64]

    def __len__(self) -> int:
        """The number of documents."""
        return len(self.unchanged) + sum(len(arrays["lengths"]) for arrays in self.segments)


def analyse(documents: TextShards, analysis: Analysis, before: Sequence[LiveSegment]) -> Iterator[AnalysedShard]:
    """Let workers read and analyse shards, and yield what they return, in the order of the shards.

    Args:
        documents: The shards.
        analysis: The way from texts to terms.
        before: The documents that need no analysis unless their texts have changed.

    Raises:
        StoreError: See `TextShard`; or a document has no id or text that is a string.
        JobFailedError: The workers have another version of PyStemmer, or see `Workers`.
    """
    known = [np.empty(0, _KEY)]
    for live in before:
        names, hashes = live.segment.ids.all(), live.segment.text_hashes
        known.append(_keys(names, hashes) if live.alive is None else _keys(names, hashes)[live.alive])
    shared = (analysis.language, analysis.signature, np.sort(np.concatenate(known)))
    for result in documents.workers.map(_analysed, ((shard,) for shard in documents.shards), shared):
        yield result
        documents.progress(len(result))


def _analysed(language: str | None, signature: str, known: NDArray[np.void], shard: TextShard) -> AnalysedShard:
    """Analyse one shard, in any process."""
    analysis = Analysis(language)
    if analysis.signature != signature:
        raise JobFailedError(
            f"A worker analyses words by other rules ({analysis.signature}) than this process ({signature}): install the same "
            "version of PyStemmer on all machines."
        )
    builder, segments = SegmentBuilder(analysis), []
    unchanged, unchanged_hashes = [Strings.of([])], [np.empty((0, 2), np.uint64)]
    for ids, texts in shard.texts():
        ids, texts = check_batch(ids, texts)
        hashes = text_hashes(texts)
        same = _among(_keys(ids, hashes), known)
        unchanged.append(Strings.of([ids[row] for row in np.flatnonzero(same).tolist()]))
        unchanged_hashes.append(hashes[same])
        new = np.flatnonzero(~same).tolist()
        builder.add([ids[row] for row in new], [texts[row] for row in new], hashes[~same])
        if builder.size >= SEGMENT_TERMS:
            segments.append(builder.arrays())
            builder = SegmentBuilder(analysis)
    if len(builder):
        segments.append(builder.arrays())
    return AnalysedShard(segments, Strings.join(unchanged), np.concatenate(unchanged_hashes))


def _keys(ids: Sequence[str], hashes: NDArray[np.uint64]) -> NDArray[np.void]:
    """Hash documents, of n ids and (n, 2) hashes of texts, to (n,) keys of 128 bits."""
    parts = zip(ids, np.ascontiguousarray(hashes), strict=True)
    digests = b"".join(blake2b(hashed.tobytes() + encode(name), digest_size=16).digest() for name, hashed in parts)
    return np.frombuffer(digests, _KEY)


def _among(keys: NDArray[np.void], known: NDArray[np.void]) -> NDArray[np.bool_]:
    """Tell which keys are among those that are known, which ascend."""
    places = np.searchsorted(known, keys)
    found = np.zeros(len(keys), np.bool_)
    inside = places < len(known)
    found[inside] = known[places[inside]] == keys[inside]
    return found


def check_batch(ids: Sequence[str], texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a batch as lists.

    Raises:
        StoreError: The batch is no pair of lists of strings of the same length.
    """
    if isinstance(ids, str | bytes) or isinstance(texts, str | bytes):
        raise StoreError("Documents come in batches of (ids, texts), two lists of strings; got a single string.")
    ids, texts = list(ids), list(texts)
    if len(ids) != len(texts):
        raise StoreError(f"A batch has {len(ids)} ids and {len(texts)} texts: every document has one of each.")
    for name, text in zip(ids, texts, strict=True):
        if not isinstance(name, str):
            raise StoreError(f"Document ids are strings; got {name!r}.")
        if not isinstance(text, str):
            raise StoreError(f"The text of the document {name!r} is no string, but {type(text).__name__}.")
    return ids, texts
