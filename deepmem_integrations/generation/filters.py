"""`Filters`: the rules that leave out queries which are not worth training on, and the rules that need a query's text alone."""

import re
from dataclasses import dataclass

from deepmem_integrations._language import NAMES, language_of
from deepmem_integrations._unicode import well_formed
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.sources import Source

_WORD = re.compile(r"\w+")
_BULLET = re.compile(r"^[-–—*•·‣▪◦]\s+")
_NUMBER = re.compile(r"\(?(?P<number>[0-9]{1,3})[.):]\s+")
_NAME = re.compile(r"^(?:query|question|q)\s*(?:[0-9]+\s*)?[:.)]\s+", re.IGNORECASE)
_AROUND = [pair.split() for pair in """** **|__ __|" "|' '|` `|“ ”|„ “|„ ”|‘ ’|« »|» «|「 」|『 』""".split("|")]
_TWO_LETTERS = re.compile(r"[^\W\d_]{2}")
_REFUSAL = re.compile(
    r"^\W*(i['’ ]?a?m sorry|sorry,|i (can ?not|can['’]t|am (unable|not able)|won['’]t|['’]m (unable|not able)) .*"
    r"(assist|help|provide|generate|create|write|comply|fulfil)|as an ai\b|as a (large )?language model\b)",
    re.IGNORECASE,
)
# Users also write "the text" when they mean a text of their own, so "text", "document" and "article" count only together with a
# sign that the given document is meant.
_MENTION = re.compile(
    r"\b(the|this|given|above|following|provided) (passage|excerpt|snippet|paragraph|context|extract)\b"
    r"|\b(given|above|provided) (text|document|article)\b"
    r"|\b(according to|as per|based on|(mentioned|described|stated|given|discussed|listed|reported|provided) (in|by)|does) "
    r"(the|this) (text|document|article)\b"
    r"|\b(mentioned|described|stated|discussed|listed) (above|below|here)\b"
    r"|\b(im|laut) (text|dokument|abschnitt|absatz)\b|\b(dans|selon) (le|ce) (texte|document|passage|article|extrait)\b"
    r"|\b(en|según) (el|este) (texto|documento|pasaje|artículo)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"[\n\r\t]|^\W*[{\[]|```|</?(document|query|queries)\b|https?://|^[\"']?(queries|query|text|kind)[\"']?\s*:|^here (are|is) ",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Filters:
    """The filters that written queries have to pass. Each filter can be switched off.

    ``near_duplicate`` and ``round_trip`` compare vectors and need an embedding model. By default (None) they run where the
    generator has one.

    Args:
        malformed: Leave out texts that are no query: texts with markup, addresses or control characters, without a word, or
            with more than ``longest`` characters.
        refusal: Leave out sentences in which the language model refuses to write a query.
        copy: Leave out queries that copy a long stretch of the document. By default (None) the filter runs, except with
            `Extractive`, which copies on purpose.
        mention: Leave out queries that mention "the passage" or "the given text", as no user does.
        language: Leave out queries in another language than the document, or than the language that was asked for.
        duplicate: Leave out a query that was written before or is one of the examples. Letter case and punctuation make no
            difference.
        near_duplicate: Leave out a query whose vector is almost equal to the vector of an earlier query, for the same document
            or one near to it.
        round_trip: Leave out a query whose document is not among the ``window`` documents nearest to the query.
        longest: The largest length of a query, in characters.
        cosine: The cosine from which two queries are near-duplicates.
        window: How many nearest documents may contain the query's own. By default 200, limited to 40% of a small corpus (never
            below 10) and raised to 0.1% of a large one. The window is wide on purpose: a query whose document is found at rank 1
            teaches nothing.

    Raises:
        GenerationError: ``longest``, ``cosine`` or ``window`` is out of range.

    Example:
        >>> Filters(language=False).window_of(documents=100)
        40
    """

    malformed: bool = True
    refusal: bool = True
    copy: bool | None = None
    mention: bool = True
    language: bool = True
    duplicate: bool = True
    near_duplicate: bool | None = None
    round_trip: bool | None = None
    longest: int = 300
    cosine: float = 0.95
    window: int | None = None

    def __post_init__(self) -> None:
        if self.longest < 1 or not 0 < self.cosine <= 1 or (self.window is not None and self.window < 1):
            raise GenerationError(
                f"Filters need longest ≥ 1, 0 < cosine ≤ 1 and window ≥ 1; got {self.longest}, {self.cosine} and {self.window}."
            )

    def window_of(self, documents: int) -> int:
        """Return the window of the round trip in a corpus of this size."""
        if self.window is not None:
            return self.window
        return max(10, min(200, 2 * documents // 5), documents // 1000)


def text_fault(text: str, kind: str, sources: tuple[Source, ...], filters: Filters) -> tuple[str, str] | None:
    """Find the fault that the text of a query shows by itself.

    Args:
        text: The query.
        kind: The kind of the query; ``language:xx`` asks for a language.
        sources: The documents that the query was written for.
        filters: The filters to run. An empty query always has a fault.

    Returns:
        (filter, detail), or None where the text has no fault.
    """
    if not text.strip():
        return "empty", "no text"
    if well_formed(text) != text:
        return "malformed", "holds half of a surrogate pair, which no file can hold"
    if filters.malformed:
        if len(text) > filters.longest:
            return "malformed", f"{len(text)} characters"
        if not _TWO_LETTERS.search(text):
            return "malformed", "no word"
        if (markup := _MARKUP.search(text)) or not text.isprintable():
            return "malformed", f"holds {markup.group()!r}" if markup else "holds characters that cannot be printed"
    if filters.refusal and (found := _REFUSAL.search(text)):
        return "refusal", found.group()[:80]
    if filters.mention and (found := _MENTION.search(text)):
        return "mention", found.group()
    if filters.copy and (copied := _copied(text, sources)):
        return "copy", copied
    if filters.language and (foreign := _foreign(text, kind, sources)):
        return "language", foreign
    return None


def bare(text: str, number: int | None) -> str:
    """Strip what language models put around a query: its number, a bullet, a name such as "Query 1:", quotes and bold type.

    Args:
        text: The query as the model wrote it.
        number: The number of the query in the answer, which is stripped; None strips any number.

    Example:
        >>> bare('2. "how do I undo a commit?"', 2)
        'how do I undo a commit?'
    """
    before = None
    while text != before:
        before, text = text, _BULLET.sub("", text.strip())
        found = _NUMBER.match(text)
        if found and (number is None or int(found["number"]) == number):
            text = text[found.end() :]
        text = _NAME.sub("", text)
        for opening, closing in _AROUND:
            inner = text[len(opening) : -len(closing)]
            if text == f"{opening}{inner}{closing}" and inner and opening not in inner and closing not in inner:
                text = inner
    return text


def numbered(text: str) -> bool:
    """Tell whether a text begins with a number as items of a list do."""
    return _NUMBER.match(_BULLET.sub("", text.strip())) is not None


def plain(text: str) -> str:
    """Return the words of a text without letter case and punctuation. Two queries with the same words are duplicates."""
    return " ".join(_WORD.findall(text.casefold()))


def _copied(text: str, sources: tuple[Source, ...]) -> str:
    """Return a copied stretch: four fifths of the words of a query, as they stand in a document.

    Queries of fewer than six words are never copies, because they often consist of names and terms.
    """
    words = plain(text).split()
    if len(words) < 6:
        return ""
    length = -(-4 * len(words) // 5)
    for source in sources:
        whole = f" {plain(source.text)} "
        for start in range(len(words) - length + 1):
            if f" {(run := ' '.join(words[start : start + length]))} " in whole:
                return run
    return ""


def _foreign(text: str, kind: str, sources: tuple[Source, ...]) -> str:
    asked, _, code = kind.partition(":")
    wanted = code if asked == "language" else language_of(sources[0].text)
    found = language_of(text)
    if wanted not in NAMES or found is None or found == wanted:
        return ""
    return f"{found}, not {wanted}"
