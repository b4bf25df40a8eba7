"""Carry labels from documents to the documents that have their text now, as after a re-chunking.

A document is known by its runs of `RUN` letters and digits, without case, spaces and punctuation, so that another way to split
lines or to mark up changes nothing, and no script needs words (shingles of letters, after Broder 1997, as 64-bit hashes).
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._texts import id_and_text
from deepmem_integrations.errors import InvalidRelevanceError

RUN = 12
"""How many letters and digits in a row two texts must share: two or three words."""
OVERLAP = 0.5
"""From this share of the shorter of two texts on, a label goes from one document to the other. A text that is cut into parts that
are all smaller goes to those that have half of that, if they have as much as this of it together."""

_BASE = 0x9E3779B97F4A7C15 | 1
_MIX = 0xBF58476D1CE4E5B9

Documents = Mapping[str, str] | Iterable[Any]
"""Document id → text, or documents of LangChain, LlamaIndex or Deep Lake, or (id, text) pairs."""


@dataclass(frozen=True)
class CarriedOver:
    """What became of labels that went along with their documents' texts.

    Attributes:
        documents: Each judged document of before → the new documents that have its text → the share of the shorter of both texts
            that they have in common. A document that was lost has none.
        judgements: How many judgements there were.
        lost: How many of them name a document whose text is gone.
        queries: How many queries there were.
        lost_queries: How many of them have no judgement left.
    """

    documents: Mapping[str, Mapping[str, float]]
    judgements: int
    lost: int
    queries: int
    lost_queries: int

    def __str__(self) -> str:
        """Say it in two lines for people."""
        gone = sum(not found for found in self.documents.values())
        same = sum(found.keys() == {name} for name, found in self.documents.items())
        share = self.lost / self.judgements if self.judgements else 0.0
        return (
            f"{self.judgements - self.lost} of {self.judgements} judgements carried over, {self.lost} lost ({100 * share:.1f}%); "
            f"{self.lost_queries} of {self.queries} queries have none left\n"
            f"{len(self.documents)} judged documents: {same} stay as they are, {len(self.documents) - same - gone} have other "
            f"ids or chunks, {gone} are gone"
        )


def find_texts(names: Iterable[str], old: Documents, new: Documents) -> dict[str, dict[str, float]]:
    """Find the new documents that have the texts of old ones.

    Args:
        names: The ids of old documents.
        old: The documents as they were.
        new: The documents as they are now.

    Returns:
        For each name, new id → the share of the shorter of both texts in common, from `OVERLAP` on, largest first. A document
        whose old text is not given is itself, if its id is still there, and so is one without letters and digits, if its text is
        the same.

    Raises:
        InvalidRelevanceError: An object is no document, or has no id.

    Example:
        >>> old = {"page": "To undo a commit, run git revert. To undo a merge, run git revert with the option m."}
        >>> new = {"page-1": "To undo a commit, run git revert.", "page-2": "To undo a merge, run git revert with the option m."}
        >>> find_texts(["page"], old, new)
        {'page': {'page-1': 1.0, 'page-2': 1.0}}
    """
    asked = set(names)
    wanted = sorted(asked)
    texts = {name: text for name, text in _texts(old) if name in asked} if asked else {}
    runs = [_runs(texts.get(name, "")) for name in wanted]
    owners = np.repeat(np.arange(len(wanted)), [len(found) for found in runs])
    hashes = np.concatenate([*runs, np.empty(0, np.uint64)])
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    near: dict[str, dict[str, float]] = {name: {} for name in wanted}
    covered = np.zeros(len(hashes), dtype=bool)
    unknown = near.keys() - texts.keys()
    for name, text in _texts(new) if wanted else ():
        theirs = _runs(text)
        if name in unknown or (not len(theirs) and texts.get(name) == text):  # as of a picture, which has no text
            near[name][name] = 1.0
        starts, ends = np.searchsorted(hashes, theirs), np.searchsorted(hashes, theirs, side="right")
        shared = np.flatnonzero(ends > starts)
        if not len(shared):
            continue
        rows = np.concatenate([np.arange(starts[run], ends[run]) for run in shared.tolist()])
        covered[rows] = True
        sharing, counts = np.unique(owners[rows], return_counts=True)
        for row, count in zip(sharing.tolist(), counts.tolist(), strict=True):
            share = count / min(len(runs[row]), len(theirs))
            if share >= OVERLAP / 2:
                near[wanted[row]][name] = share
    of_all = np.bincount(owners, minlength=len(wanted))
    shares = np.bincount(owners, weights=covered, minlength=len(wanted)) / np.maximum(of_all, 1)
    found = {}
    for row, name in enumerate(wanted):
        whole = {new: share for new, share in near[name].items() if share >= OVERLAP}
        if not whole and shares[row] >= OVERLAP:
            whole = near[name]
        found[name] = dict(sorted(whole.items(), key=lambda item: -item[1]))
    return found


def _texts(documents: Documents) -> Iterator[tuple[str, str]]:
    pairs = documents.items() if isinstance(documents, Mapping) else documents
    for pair in pairs:
        found = id_and_text(pair)
        if found is None or found[0] is None:
            what = f"a {type(pair).__name__} is no document" if found is None else "a document has no id"
            raise InvalidRelevanceError(f"{what}: pass id → text, or documents as memory.documents() gives them.")
        yield str(found[0]), found[1]


def plain_text(text: str) -> str:
    """Return the letters and digits of a text, without case, spaces and punctuation.

    Example:
        >>> plain_text("Run `git revert`!") == plain_text("run git  REVERT")
        True
    """
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def _runs(text: str) -> NDArray[np.uint64]:
    """Return the distinct hashes of the runs of a text; of one run where the text is shorter, and none of an empty text."""
    plain = plain_text(text)
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    if not len(codes):
        return np.empty(0, np.uint64)
    length = min(RUN, len(codes))
    powers = np.power(np.uint64(_BASE), np.arange(length, dtype=np.uint64)) * np.uint64(_MIX)
    windows = np.lib.stride_tricks.sliding_window_view(codes, length)
    hashes = (windows * powers).sum(axis=1, dtype=np.uint64)
    hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes * np.uint64(_MIX))
