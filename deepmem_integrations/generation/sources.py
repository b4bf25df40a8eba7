"""The documents to write queries for: documents of any framework, read as ids and texts, and the junk among them."""

import hashlib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from deepmem_integrations._unicode import well_formed
from deepmem_integrations.corpora import Corpus, id_and_text
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import GenerationError

_logger = logging.getLogger(__name__)

_WORD = re.compile(r"\w+")
_BOILERPLATE = re.compile(
    r"all rights reserved|cookie (policy|settings|preferences)|accept (all )?cookies|privacy policy|terms of (use|service)"
    r"|subscribe to our|sign up for our|page (intentionally )?left blank|skip to (main )?content|enable javascript",
    re.IGNORECASE,
)
_TITLE_KEYS = ("title", "Title", "heading", "Header 1")


@runtime_checkable
class HasDocuments(Protocol):
    """A store's documents together with the embedding model of their vectors, as a `DeepMemory` has them."""

    @property
    def corpus(self) -> Corpus:
        """The documents with their vectors."""
        ...

    @property
    def embedder(self) -> Embedder:
        """The embedding model."""
        ...

    def documents(self) -> list[Any]:
        """Return all documents with their ids."""
        ...


@dataclass(frozen=True)
class Source:
    """A document to write queries for.

    Attributes:
        id: The id of the document in the store, which the labels name.
        text: The text of the document.
        title: The title of the document; empty where its metadata have none.
    """

    id: str
    text: str
    title: str = ""


def sources_of(documents: Iterable[Any], id_of_text: Callable[[str], str | None] = lambda text: None) -> list[Source]:
    """Read documents of LangChain, LlamaIndex or Deep Lake, or (id, text) pairs.

    Args:
        documents: LangChain documents, LlamaIndex nodes, `deeplake.StoredDocument`, `Source`, or (id, text) pairs.
        id_of_text: A function that finds the id of a text in the store, for documents without an id, such as freshly split
            ones. It returns None where it finds no id.

    Raises:
        GenerationError: A document is of another type, it has no id and none is found, or two documents have the same id.
    """
    sources: list[Source] = []
    seen: set[str] = set()
    broken: list[int] = []
    for row, document in enumerate(documents):
        source = _source(document, row)
        whole = Source(source.id, well_formed(source.text), well_formed(source.title))
        if whole != source:
            broken.append(row)
            source = whole
        if well_formed(source.id) != source.id:
            raise GenerationError(
                f"The id {source.id!r} of document {row} holds half of a surrogate pair, so no file of labels can name it: give "
                "the document another id."
            )
        if not source.id:
            source = Source(id_of_text(source.text) or "", source.text, source.title)
        if not source.id:
            raise GenerationError(
                f"Document {row} ({source.text[:40]!r}…) has no id in the store, so no label can name it. Pass the store's own "
                "documents (memory.documents()), give each document the id that it has in the store, or pass memory= to find the "
                "ids by the texts."
            )
        if source.id in seen:
            raise GenerationError(f"The document id {source.id!r} appears twice (again in row {row}).")
        seen.add(source.id)
        sources.append(source)
    if broken:
        _logger.warning(
            "%d documents hold broken characters (half of a surrogate pair), which the language model sees as U+FFFD. The first "
            "is document %d, %r.",
            len(broken),
            broken[0],
            sources[broken[0]].id,
        )
    return sources


def _source(document: Any, row: int) -> Source:
    if isinstance(document, Source):
        return document
    found = id_and_text(document)
    if found is None:
        raise GenerationError(
            f"Document {row} is a {type(document).__name__}: pass LangChain documents, LlamaIndex nodes, or (id, text) pairs."
        )
    metadata = getattr(document, "metadata", None) or {}
    title = next((str(metadata[key]) for key in _TITLE_KEYS if metadata.get(key)), "")
    return Source(found[0] or "", found[1], title)


def corpus_fingerprint(sources: Sequence[Source]) -> str:
    """Return a digest of all ids and texts. The order of the documents makes no difference."""
    each = sorted(hashlib.sha256(f"{len(source.id)}:{source.id}{source.text}".encode()).digest() for source in sources)
    return hashlib.sha256(b"".join(each)).hexdigest()[:32]


def junk(sources: Sequence[Source]) -> dict[str, str]:
    """Return the documents that nobody would search for: id → reason."""
    counts = Counter(" ".join(_WORD.findall(source.text)) for source in sources)
    first: set[str] = set()
    found = {}
    for source in sources:
        words = " ".join(_WORD.findall(source.text))
        reason = _junk(source.text) or ("repeats another document" if counts[words] > 1 and words in first else None)
        first.add(words)
        if reason:
            found[source.id] = reason
    return found


def size(text: str) -> int:
    """Count the letters, the digits and the marks, which are half of what a text of India has."""
    return sum(one.isalnum() or unicodedata.category(one).startswith("M") for one in text)


def _junk(text: str) -> str | None:
    words = _WORD.findall(text)
    if size(text) < 40:  # characters are counted, because not every language has spaces between words
        return "too short"
    if len(words) < 60 and len(_BOILERPLATE.findall(text)) >= 2:
        return "boilerplate"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    links = text.count("](") + text.count("http://") + text.count("https://")
    if links >= 4 and len(words) / links < 6:
        return "navigation"
    # A menu has many lines of one to three words, none of which is a sentence or a row of a table with numbers.
    short = [line for line in lines if len(_WORD.findall(line)) <= 3 and not re.search(r"[.!?:;|=(){}]|\d", line)]
    if len(lines) >= 8 and len(short) >= 0.8 * len(lines):
        return "navigation"
    return None
