"""Labels of documents that are read again: they go where their texts are now, and wait where the texts are gone.

An id of a passage is its file and its number, so after an edit it may name another text. A label whose text is gone names
``gone:DIGEST:ID`` in the log, which no document is called, so that no training learns it; it is back when the text is.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from deepmem_integrations.feedback import FeedbackLog
from deepmem_integrations.labels import find_texts
from deepmem_integrations.labels.records import LONGEST_ID, LoggedQuery

BATCH = 500
"""After how many queries the log is flushed, so that its queue never fills."""

_GONE = re.compile(r"gone:([0-9a-f]{12}):(.*)", re.DOTALL)


def digest(text: str) -> str:
    """Return a short digest of a text."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()


def gone(document: str) -> str:
    """Return the id that a document had whose text is gone; empty for other documents.

    Example:
        >>> gone("gone:0123456789ab:notes.md#1"), gone("notes.md#1")
        ('notes.md#1', '')
    """
    found = _GONE.fullmatch(document)
    return found[2] if found else ""


def carry(
    log: FeedbackLog, judged: Iterable[tuple[LoggedQuery, Mapping[str, float]]], old: Mapping[str, str], new: Mapping[str, str]
) -> tuple[str, ...]:
    """Let the labels of a log follow the texts of their documents, and say what became of them.

    Args:
        log: The log, which gets new events; what it holds stays.
        judged: Queries with document id → weight.
        old: Id → text of the documents as they were.
        new: Id → text of the documents as they are now.
    """
    queries = list(judged)
    names = {name for _, values in queries for name in values}
    moved: dict[str, Mapping[str, float]] = {}
    changed = {name: old[name] for name in names if name in old and new.get(name) != old[name]}
    for name, found in find_texts(changed, changed, new).items():
        if found.keys() != {name}:
            moved[name] = found or {f"gone:{digest(old[name])}:{name}"[:LONGEST_ID]: 1.0}
    digests = {digest(text): name for name, text in new.items()}
    for name in names:
        if (waiting := _GONE.fullmatch(name)) and waiting[1] in digests:
            same = new.get(waiting[2])
            moved[name] = {waiting[2] if same and digest(same) == waiting[1] else digests[waiting[1]]: 1.0}
    counts: Counter[str] = Counter()
    for number, (query, values) in enumerate(queries, start=1):
        if moved.keys().isdisjoint(values):
            continue
        grades: dict[str, float] = {}
        for name, value in values.items():
            for to, share in moved.get(name, {name: 1.0}).items():
                grades[to] = max(value * share, grades.get(to, -math.inf))
            if name in moved:
                counts["back" if gone(name) else "gone" if any(map(gone, moved[name])) else "moved"] += 1
        last = query.events[-1]
        changes = {name: grades.get(name) for name in {**values, **grades} if grades.get(name) != values.get(name)}
        for event in query.events:
            if event.kind == "thumb" and event.document_id in changes:
                log.thumb(query.query_id, event.document_id, up=None, user=last.user)
        log.grade(query.query_id, changes, source=last.source, user=last.user)
        if number % BATCH == 0:
            log.flush()
    log.flush()
    said = {
        "moved": "Labels that went along with their texts to other passages: {:,}.",
        "gone": "Labels that teach nothing now, since their texts are gone: {:,}. They come back if the texts do.",
        "back": "Labels that came back with their texts: {:,}.",
    }
    return tuple(text.format(counts[kind]) for kind, text in said.items() if counts[kind])
