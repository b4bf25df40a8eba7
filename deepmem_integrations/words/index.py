"""The word index: BM25 over documents in a folder, which follows the documents as they change.

**Ranking.** The score of a document d for a query is the sum, over the query's terms t (a repeated term counts again), of::

    idf(t) · tf / (tf + k1 · (1 − b + b · |d| / avgdl))        idf(t) = ln(1 + (N − df + 0.5) / (df + 0.5))

where tf counts t in d, df counts the documents with t, N all documents, |d| is the number of terms of d and avgdl the mean of
|d|. The formula is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009) with Lucene's
idf, which is never negative, and without the constant factor k1 + 1 (Kamphuis, de Vries, Boytsov and Lin, "Which BM25 Do You
Mean?", ECIR 2020). k1 is 1.2 and b is 0.75. N, df and avgdl count the documents that are there now, so an index that followed
changes gives the same scores as an index that was built anew. Documents with equal scores come in the order of their ids.

**Files.** A folder holds:

- ``index.json``, the state: format version, generation, language, settings, fingerprint, and the segments with their sizes and
  checksums.
- ``segment-*.safetensors``: postings of some of the documents (`segment` lists the arrays). Segments never change.
- ``deleted-*.safetensors``: the rows of a segment that are deleted or replaced.
- ``lock``: held by the one process that writes.

A change writes new files first and replaces ``index.json`` last, atomically: a reader, or a killed process, sees the old state or
the new one. The next writer deletes what a killed process left behind. Changed and added documents go into a small segment of
their own; segments are merged when there are more than 8, or when small segments or deleted documents make up more than a
quarter. Until then, a deleted document's terms and its id stay in the files; `WordIndex.merge` removes them at once. The texts
themselves are never kept.

**Processes and threads.** Any number of threads and processes read one folder, and share the memory of its files. A search
notices a newer state by itself (one look at the file's time stamp). Readers take no lock and need no right to write. Writers wait
for one another. Windows deletes no file that a process has mapped: files that no state needs stay until a later change, and the
folder cannot be deleted while an index over it is open.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._files import lasting_path, user_path
from deepmem_integrations._locks import WriteLock
from deepmem_integrations.errors import StorageError, StoreError
from deepmem_integrations.words.arrays import check_sum, damaged
from deepmem_integrations.words.change import Change, Documents, Refreshed
from deepmem_integrations.words.lexical_search import Filter, Found, LexicalSearch, allows, check_search
from deepmem_integrations.words.manifest import INDEX, Manifest, identity_of
from deepmem_integrations.words.segment import text_hashes
from deepmem_integrations.words.shards import TextShards, check_batch
from deepmem_integrations.words.state import State, best, read_state

_FEW_IDS = 10_000
"""The ids of a filter are looked up if there are no more than 10,000; of a larger filter, only the best documents are tested."""


@dataclass(frozen=True)
class Statistics:
    """The size of an index.

    Attributes:
        documents: The number of documents.
        average_length: The mean number of terms of a document.
        segments: The number of segments.
        deleted: How many deleted or replaced documents the segments still hold.
        bytes: The size on disk.
        generation: A number that grows with every change.
    """

    documents: int
    average_length: float
    segments: int
    deleted: int
    bytes: int
    generation: int


class WordIndex:
    """A BM25 index in a folder, memory-mapped. `build` makes it, `open` opens it.

    Args:
        folder: The folder of an index.

    Raises:
        StorageError: The folder holds no index, or the index is damaged.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> batch = (["a", "b"], ["Restart the router.", "The error ORA-00942 means that a table is missing."])
        >>> index = WordIndex.build(folder.name, [batch], language="en")
        >>> index.search("missing tables", k=10).ids
        ['b']
        >>> index.refresh([(["b", "c"], ["The error ORA-00942 means that a table is missing.", "Routers restart at night."])])
        Refreshed(added=1, changed=0, deleted=1, unchanged=1)
        >>> WordIndex.open(folder.name).search("how do I restart a router", k=10).ids
        ['c']
        >>> folder.cleanup()
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(lasting_path(folder))
        self._state = read_state(self.folder, None)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "WordIndex":
        """Open an index.

        Raises:
            StorageError: The folder holds no index, or the index is damaged.
        """
        return cls(folder)

    @staticmethod
    def exists(folder: str | os.PathLike[str]) -> bool:
        """Tell whether a folder holds an index, whole or damaged."""
        return os.path.exists(os.path.join(user_path(folder), INDEX))

    @classmethod
    def build(cls, folder: str | os.PathLike[str], documents: Documents | TextShards, language: str | None = None) -> "WordIndex":
        """Index documents. An index that the folder holds already is replaced at the end, in one step.

        Args:
            folder: The folder, which is made where it is missing.
            documents: Batches of (ids, texts), which are read once; or `TextShards`, which workers read and analyse. The index is
                the same, to the last bit.
            language: ISO 639-1 code. By default, the first texts tell the language; where they do not, no word is stemmed.

        Raises:
            StoreError: An id comes twice or is no string, a text is no string, or the language is not known.
            StorageError: The folder cannot be written.
            MissingExtraError: The language has a stemmer, and PyStemmer is not installed.
            JobFailedError: Workers have another version of PyStemmer, or see `RayWorkers`.
        """
        path = Path(lasting_path(folder))
        with WriteLock(path / "lock"):
            change = Change(path, None, documents, language)
            change.read_all()
            generation = 0
            with contextlib.suppress(StorageError):  # a missing or damaged index is replaced as well
                generation = Manifest.read(path / INDEX)[0].generation
            change.write(generation + 1)
            return cls(path)

    # ---- reading -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """The number of documents."""
        return self._current().documents

    def __contains__(self, id: object) -> bool:
        """Tell whether a document is in the index."""
        state = self._current()
        with state.checked():
            return isinstance(id, str) and any(live.find([id])[0] >= 0 for live in state.segments)

    @property
    def language(self) -> str | None:
        """The ISO 639-1 code of the language that stems the words; None where no word is stemmed."""
        return self._current().manifest.language

    @property
    def fingerprint(self) -> str:
        """A fingerprint of all ids and texts, 64 hexadecimal digits. Equal documents have equal fingerprints, in any order.

        The fingerprint is the sum, modulo 2²⁵⁶, of a hash of each document (Bellare and Micciancio, "A New Paradigm for
        Collision-Free
        Hashing: Incrementality at Reduced Cost", EUROCRYPT 1997), so a change costs as much as the documents that it changes.
        """
        return self._current().manifest.fingerprint

    @property
    def statistics(self) -> Statistics:
        """The size of the index."""
        state = self._current()
        entries = state.manifest.segments
        return Statistics(
            documents=state.documents,
            average_length=state.average_length,
            segments=len(entries),
            deleted=sum(len(live.deleted) for live in state.segments),
            bytes=sum(e["bytes"] + (e["deleted"] or {"bytes": 0})["bytes"] for e in entries),
            generation=state.manifest.generation,
        )

    def search(self, text: str, k: int, filter: Filter | None = None) -> Found:
        """Return the k documents with the highest BM25 scores, best first.

        Args:
            text: The query.
            k: At least 1. Fewer documents are returned where fewer have a word of the query.
            filter: A function that tells by an id whether the document may be found, or a set of the ids that may be found.

        Raises:
            StoreError: ``k`` is less than 1, or the filter is neither a function nor a collection of ids.
            StorageError: A file of the index is damaged.
        """
        check_search(text, k)
        allowed = allows(filter)
        if filter is not None and not callable(filter) and not isinstance(filter, Set):
            filter = frozenset(filter)
        state = self._current()
        with state.checked():
            scores = state.all_scores(state.analysis.query_terms(text))
            if isinstance(filter, Set) and len(filter) <= _FEW_IDS:
                keep = np.zeros(len(scores), np.bool_)
                rows = state.row_of(list(filter))
                keep[rows[rows >= 0]] = True
                scores[~keep] = 0
                filter = None
        wanted = k
        while True:
            with state.checked():
                rows = best(scores, wanted)
                ids = state.ids(rows)
            if filter is None:
                break
            passing = [number for number, name in enumerate(ids) if allowed(name)]
            if len(passing) >= k or len(rows) < wanted:
                rows, ids = rows[passing], [ids[number] for number in passing]
                break
            wanted *= 8  # the best did not suffice
        # Exactly equal scores are common: short documents, and copies.
        ranked = sorted(zip((-scores[rows]).tolist(), ids, strict=True))[:k]
        return Found([name for _, name in ranked], -np.array([score for score, _ in ranked], dtype=np.float32))

    def scores(self, text: str, ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the BM25 scores of given documents.

        Args:
            text: The query.
            ids: n ids.

        Returns:
            (n,) float32; 0 for documents that have no word of the query, and for ids that the index does not have.

        Raises:
            StorageError: A file of the index is damaged.
        """
        check_search(text, 1)
        state = self._current()
        with state.checked():
            return state.scores_of(state.analysis.query_terms(text), ids)

    def scorer(self, ids: Sequence[str]) -> Callable[[str], NDArray[np.float32]]:
        """Return a function that scores the same documents for one query after another, as `scores` does.

        The documents are looked up once. The function keeps to the index as it is now.

        Args:
            ids: n ids.

        Returns:
            A function from a text to (n,) float32.

        Raises:
            StorageError: A file of the index is damaged.

        Example:
            >>> folder = getfixture("tmp_path")
            >>> index = WordIndex.build(folder, [(["a", "b"], ["a router", "a switch"])], language="en")
            >>> score = index.scorer(["b", "a"])
            >>> (score("routers") > 0).tolist(), (score("switches") > 0).tolist()
            ([False, True], [True, False])
        """
        state = self._current()
        with state.checked():
            rows = state.row_of(ids)
        there = rows >= 0

        def score(text: str) -> NDArray[np.float32]:
            check_search(text, 1)
            with state.checked():
                scores = state.all_scores(state.analysis.query_terms(text))
            return np.where(there, scores[rows] if len(scores) else np.float32(0), np.float32(0))

        return score

    def reopen(self) -> bool:
        """See the newest state of the folder. Searches do so by themselves.

        Returns:
            Whether there was a newer state.

        Raises:
            StorageError: The folder holds no index any more, or the index is damaged.
        """
        before = self._state
        self._state = read_state(self.folder, before)
        return self._state.manifest.generation != before.manifest.generation

    def documents(self) -> Iterator[tuple[list[str], NDArray[np.uint64]]]:
        """Yield the documents of the index, as batches of ids and (n, 2) hashes of texts: see `text_hashes`.

        Raises:
            StorageError: The index is damaged.
        """
        state = self._current()
        with state.checked():
            for live in state.segments:
                names, hashes = live.segment.ids.all(), live.segment.text_hashes
                if live.alive is not None:
                    names, hashes = [names[row] for row in np.flatnonzero(live.alive).tolist()], hashes[live.alive]
                yield names, hashes

    def compare(self, documents: Documents) -> Refreshed:
        """Tell what `refresh` would change. Nothing is written, and no word is analysed.

        Args:
            documents: All documents, as batches of (ids, texts), which are read once.

        Raises:
            StoreError: An id or a text is no string.
            StorageError: The index is damaged.
        """
        state, added, changed, unchanged = self._current(), 0, 0, 0
        for batch in documents:
            ids, texts = check_batch(*batch)
            hashes = text_hashes(texts)
            known = 0
            with state.checked():
                for live in state.segments:
                    rows = live.find(ids)
                    which = np.flatnonzero(rows >= 0)
                    same = int((live.segment.text_hashes[rows[which]] == hashes[which]).all(axis=1).sum())
                    known, unchanged, changed = known + len(which), unchanged + same, changed + len(which) - same
            added += len(ids) - known
        return Refreshed(added, changed, max(state.documents - changed - unchanged, 0), unchanged)

    def verify(self) -> None:
        """Read all files and compare their checksums, which takes as long as reading them. `open` checks sizes alone.

        Raises:
            StorageError: A file is damaged.
        """
        self.reopen()
        for entry in self._state.manifest.segments:
            for file in filter(None, (entry, entry["deleted"])):
                with _missing_is_damaged():
                    check_sum(self.folder / file["name"], file["sha256"])

    def _current(self) -> State:
        """Return the newest state. An index whose folder is gone serves on from memory."""
        state = self._state
        try:
            identity = identity_of(os.stat(self.folder / INDEX))
        except OSError:
            return state
        if identity != state.stamp.identity:
            self._state = state = read_state(self.folder, state)
        return state

    # ---- writing -----------------------------------------------------------------------------------------------

    def refresh(self, documents: Documents | TextShards) -> Refreshed:
        """Make the index follow its documents: add new ones, replace those with another text, delete those that are gone.

        Documents are compared by id and by a hash of the text, so unchanged ones cost next to nothing. Where nothing changed,
        nothing is written. Where PyStemmer or the rules of the analysis have changed since, all documents are indexed anew.

        Args:
            documents: All documents, as batches of (ids, texts), which are read once, or as `TextShards`, of which workers
                analyse what has changed. A document that does not come is deleted.

        Raises:
            StoreError: An id comes twice or is no string, or a text is no string; then nothing has changed.
            StorageError: The folder cannot be written, or the index is damaged.
            JobFailedError: See `build`.
        """
        with WriteLock(self.folder / "lock"):
            self.reopen()
            change = Change(self.folder, self._state, documents, self._state.manifest.language)
            result = change.read_all()
            self._write(change)
        return result

    def update(self, documents: Documents = (), delete: Iterable[str] = ()) -> Refreshed:
        """Add or replace some documents, delete others, and leave all others alone.

        Args:
            documents: Batches of (ids, texts) of new and changed documents.
            delete: Ids of documents to delete; ids that the index does not have are passed over.

        Raises:
            StoreError: An id comes twice or is no string, a text is no string, or the index must be refreshed as a whole, since
                PyStemmer has changed.
            StorageError: The folder cannot be written, or the index is damaged.
        """
        with WriteLock(self.folder / "lock"):
            self.reopen()
            change = self._change_of_some(documents)
            result = change.read_some(list(delete))
            self._write(change)
        return result

    def merge(self) -> None:
        """Merge all segments into one. Nothing of deleted documents stays on disk.

        Raises:
            StoreError: The index must be refreshed as a whole, since PyStemmer has changed.
            StorageError: The folder cannot be written, or the index is damaged.
        """
        with WriteLock(self.folder / "lock"):
            self.reopen()
            if len(self._state.segments) > 1 or any(len(live.deleted) for live in self._state.segments):
                change = self._change_of_some(())
                change.read_some([])
                change.write(self._state.manifest.generation + 1, merge_all=True)
                self.reopen()

    def _change_of_some(self, documents: Documents) -> Change:
        """Return a change that keeps the words of all other documents, which were made by the same rules."""
        change = Change(self.folder, self._state, documents, self._state.manifest.language)
        if change.analysed_anew:
            raise StoreError(
                f"The word index in {self.folder} was made with other rules for words: refresh(documents) with all of them."
            )
        return change

    def _write(self, change: Change) -> None:
        """Write a change, if there is one. The caller holds the lock."""
        if change.changes_files:
            change.write(self._state.manifest.generation + 1)
            self.reopen()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the folder alone: another process opens the index anew."""
        return type(self), (str(self.folder),)

    def __repr__(self) -> str:
        """Name the folder."""
        return f"{type(self).__name__}({str(self.folder)!r})"


@contextlib.contextmanager
def _missing_is_damaged() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise damaged(Path(str(error.filename)), "the file is missing") from error


def check_searchable(search: LexicalSearch) -> None:
    """Find out whether a word index can be searched. A search of another kind is not asked.

    Raises:
        StorageError: The index is damaged.
        MissingExtraError: PyStemmer is not installed.
    """
    if isinstance(search, WordIndex):
        search.search("words", 1)
