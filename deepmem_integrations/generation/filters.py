"""Which written queries are not worth training on, and why: what their texts alone tell."""

import re
from dataclasses import dataclass

from deepmem_integrations._language import NAMES, language_of
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.sources import Source

_WORD = re.compile(r"\w+")
_TWO_LETTERS = re.compile(r"[^\W\d_]{2}")
_REFUSAL = re.compile(
    r"^\W*(i['’ ]?a?m sorry|sorry,|i (can ?not|can['’]t|am (unable|not able)|won['’]t|['’]m (unable|not able)) .*"
    r"(assist|help|provide|generate|create|write|comply|fulfil)|as an ai\b|as a (large )?language model\b)",
    re.IGNORECASE,
)
# People do speak of "the text" in their mail, so that "text", "document" and "article" need a sign that this one is meant.
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
    """Which filters run; each may be switched off.

    The last two compare vectors and need an embedding model: by default they run where there is one.

    Args:
        malformed: Leave out what is no query: markup, addresses, control characters, no word, more than ``longest``
            characters.
        refusal: Leave out what the model says in place of a query.
        copy: Leave out long stretches of the document's own words (None: unless the queries are extracted on purpose).
        mention: Leave out queries that speak of "the passage": no user does.
        language: Leave out queries that are in another language than the document, or than was asked for.
        duplicate: Leave out a query that was written before, letter case and punctuation aside.
        near_duplicate: Leave out a query whose vector is almost that of one written before, for the same document or a near one.
        round_trip: Leave out a query whose document is not among the ``window`` nearest to it.
        longest: In characters.
        cosine: From which cosine two queries are near-duplicates.
        window: Of the round trip. None: 200, though at most two fifths of a small corpus (and at least 10), and at least a
            thousandth of a large one. It is wide on purpose: what the search finds at once, it need not learn.
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
        """Check the numbers."""
        if self.longest < 1 or not 0 < self.cosine <= 1 or (self.window is not None and self.window < 1):
            raise GenerationError(
                f"Filters need longest ≥ 1, 0 < cosine ≤ 1 and window ≥ 1; got {self.longest}, {self.cosine} and {self.window}."
            )

    def window_of(self, documents: int) -> int:
        """The round trip's window in a corpus of this size."""
        if self.window is not None:
            return self.window
        return max(10, min(200, 2 * documents // 5), documents // 1000)


def text_fault(text: str, kind: str, sources: tuple[Source, ...], filters: Filters) -> tuple[str, str] | None:
    """What is wrong with a query by its text alone, as (filter, particulars); None where nothing is.

    Args:
        text: The query.
        kind: Its kind; ``language:xx`` asks for a language.
        sources: The documents it was written for.
        filters: Which filters run. An empty query is never let through.
    """
    if not text.strip():
        return "empty", "no text"
    if filters.malformed:
        if len(text) > filters.longest:
            return "malformed", f"{len(text)} characters"
        if not _TWO_LETTERS.search(text):
            return "malformed", "no word"
        if (markup := _MARKUP.search(text)) or not text.isprintable():
            return "malformed", f"holds {markup.group()!r}" if markup else "holds what does not print"
    if filters.refusal and (found := _REFUSAL.search(text)):
        return "refusal", found.group()[:80]
    if filters.mention and (found := _MENTION.search(text)):
        return "mention", found.group()
    if filters.copy and (copied := _copied(text, sources)):
        return "copy", copied
    if filters.language and (foreign := _foreign(text, kind, sources)):
        return "language", foreign
    return None


def plain(text: str) -> str:
    """The words alone: two queries with the same are duplicates."""
    return " ".join(_WORD.findall(text.casefold()))


def _copied(text: str, sources: tuple[Source, ...]) -> str:
    """Four fifths of a query of six words or more that stand in the document as they are; shorter ones are names and terms."""
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
