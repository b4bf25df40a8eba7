"""Texts as lists of terms, which the word index counts.

A text is normalised first (Unicode NFKC), and every term is casefolded. Three kinds of text are cut in three ways:

- A word of letters alone is stemmed by the rules of its language (Snowball, through PyStemmer).
- A word with digits or punctuation inside, or with capitals inside, is an identifier, a number, a version, a file name or a part
  number. The whole word and each of its parts are terms that are never stemmed. Parts of letters alone are also stemmed, so that
  a question in plain words finds ``parse_requests``. ``10,000`` is also ``10000``, ``v1.2.3`` is also ``1.2.3``, and ``U.S.A.``
  is also ``usa``. Of words with hyphens, as ``state-of-the-art``, the whole is a term, and the parts are stemmed. ``getUserName``
  as a whole is written in too many ways, and is stemmed as other words are.
- Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese give every pair of adjacent characters, and Chinese characters one by
  one as well. Pairs need no dictionary and retrieve about as well as words that a dictionary finds, a little better with single
  characters beside them: Nie, Gao, Zhang and Zhou, "On the use of words and n-grams for Chinese information retrieval", IRAL
  2000. Pairs also serve Korean, whose particles stick to nouns: Lee and Ahn, "Using n-grams for Korean text retrieval", SIGIR
  1996. Lucene's ``CJKAnalyzer`` takes pairs for the same reason. In Thai a character counts with the marks above and below.

Stop words stay in the index. A query leaves them out where other words remain, so that ``to be or not to be`` is found.
A stop word in capitals inside a text in small letters (``IT``, ``US``, ``WHO``) is a name, and stays.
"""

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import islice, pairwise
from typing import Any

from deepmem_integrations._extras import require
from deepmem_integrations._language import language_of
from deepmem_integrations.errors import StoreError
from deepmem_integrations.words.stop_words import STOP_WORDS

VERSION = 1
"""The version of the rules in this module. An index that was made by other rules is made anew by the next refresh."""

MAX_TERM = 128
"""A longer word is cut to its first characters, in the index as in queries."""

SAMPLE = 200
"""How many texts tell the language of a corpus."""

_SAMPLE_CHARACTERS = 1_000
_CACHED_WORDS = 200_000

STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish", "fr": "french",
    "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian",
    "lt": "lithuanian", "nb": "norwegian", "ne": "nepali", "nl": "dutch", "nn": "norwegian", "no": "norwegian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho",
    "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
"""ISO 639-1 code → the name of the Snowball stemmer. Before PyStemmer 3.1, Czech, Persian, Polish and Sesotho are not stemmed."""

UNSTEMMED = frozenset("he ja ko lo km my th uk vi zh".split())
"""Languages without a stemmer: Snowball has no rules for them, or they are cut into pairs of characters."""

# Chinese characters; then every script that is written without spaces, or, as Korean, with words that particles stick to.
_HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PAIRED = (
    f"{_HAN}\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # kana, bopomofo
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7a3\ua000-\ua48f"  # Hangul, Yi
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecf\u0edc-\u0edf"  # Thai, Lao
    "\u1780-\u17d3\u17dd\u1000-\u103f\u1050-\u108f\uaa60-\uaa7f"  # Khmer, Burmese
)
# Soft hyphens, joiners, byte order marks and variation selectors are no letters; NFKC would make letters of the trade mark signs.
_BEFORE = {
    ord(character): replacement
    for characters, replacement in (
        ("\u00ad\u200c\u200d\u2060\ufeff", None),
        ("\u200b\u2122\u2120", " "),
        ("\u2010\u2011\u2212", "-"),
    )
    for character in characters
} | dict.fromkeys(range(0xFE00, 0xFE10))
# Vowel signs that Arabic and Hebrew leave out as a rule, and the Arabic letter that only stretches a word.
_OPTIONAL_SIGNS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u0655\u0670]")
_TURKISH = {ord("İ"): "i", ord("I"): "ı"}

_GROUPED = re.compile(r"\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])+")
_VERSIONED = re.compile(r"v(\d[\d.]*)")
_RUNS = re.compile(r"\d+|[^\W\d_]+")


class Analysis:
    """The way from a text to its terms, for one language.

    An object serves any number of threads.

    Args:
        language: ISO 639-1 code, which chooses the stemmer and the stop words. None: no word is stemmed.

    Raises:
        StoreError: The code is not known.
        MissingExtraError: The language has a stemmer, and PyStemmer is not installed.

    Example:
        >>> Analysis("en").terms("Parsing failed: ORA-00942")
        ['pars', 'fail', 'ora-00942', 'ora', '00942']
        >>> Analysis("en").query_terms("What is the parser for?")
        ['parser']
    """

    def __init__(self, language: str | None = None) -> None:
        if language is not None and language not in STEMMERS and language not in UNSTEMMED:
            known = ", ".join(sorted(STEMMERS.keys() | UNSTEMMED))
            raise StoreError(
                f"The word index does not know the language {language!r}. "
                f"Give an ISO 639-1 code ({known}), or None for no stemming."
            )
        self.language = language
        self._threads = threading.local()  # a stemmer must not be used by two threads at a time
        self._cache: dict[str, tuple[str, ...]] = {}
        self._stop_words = frozenset(self._fold(word) for word in STOP_WORDS.get(_same(language), "").split())
        package = require("Stemmer", "words") if language in STEMMERS else None
        self._stemmer_name = STEMMERS[language] if language and package and STEMMERS[language] in package.algorithms() else None
        self.signature = f"{VERSION} {language or '-'} {package.version() if package and self._stemmer_name else '-'}"
        """Equal signatures give equal terms: the version of the rules, the language, and the version of PyStemmer."""

    def terms(self, text: str) -> list[str]:
        """Return the terms of a document in the order of the text."""
        return self._terms_of_all(_words(text))

    def query_terms(self, text: str) -> list[str]:
        """Return the terms of a query. Stop words are left out if other words remain."""
        words = _words(text)
        if self._stop_words:
            shouted = not any(map(str.islower, text)) and sum(map(str.isupper, words)) > 1
            telling = self._terms_of_all([word for word in words if not self._is_stop_word(word, shouted)])
            if telling:
                return telling
        return self._terms_of_all(words)

    def _is_stop_word(self, word: str, shouted: bool) -> bool:
        is_name = len(word) > 1 and word.isupper() and not shouted
        return not is_name and self._fold(word) in self._stop_words

    def _terms_of_all(self, words: list[str]) -> list[str]:
        cache = self._cache
        terms: list[str] = []
        for word in words:
            found = cache.get(word)
            if found is None:
                found = tuple(self._split(word))
                if len(word) <= MAX_TERM:
                    if len(cache) >= _CACHED_WORDS:
                        cache.clear()
                    cache[word] = found
            terms += found
        return terms

    def _split(self, word: str) -> Iterable[str]:
        patterns = _patterns()
        if patterns.paired.match(word):
            return _pairs(patterns.units.findall(word))
        terms: dict[str, None] = {}  # a word counts each of its parts once
        plain = not patterns.punctuation_or_digit.search(word)
        prose = plain or patterns.hyphenated.fullmatch(word) is not None
        if plain:
            terms[self._stem(self._fold(word))] = None
        else:
            self._add_whole(word, terms)
            for separators in patterns.nested_separators:
                for part in separators.split(word):
                    self._add_part(part.strip("-.+#"), terms, prose)
        for part in patterns.separators.split(word):
            for run in _inner_words(part):
                self._add_part(run, terms, False)
        return [term for term in terms if any(map(str.isalnum, term))]

    def _add_whole(self, word: str, terms: dict[str, None]) -> None:
        whole = self._fold(word)
        terms[whole[:MAX_TERM]] = None
        if _GROUPED.fullmatch(whole) or _INITIALS.fullmatch(whole):
            terms[re.sub("[.,]", "", whole)[:MAX_TERM]] = None
        if version := _VERSIONED.fullmatch(whole):
            terms[version[1][:MAX_TERM]] = None

    def _add_part(self, part: str, terms: dict[str, None], prose: bool) -> None:
        """Add a part of a word. A part of letters alone is also an ordinary word, which a question in plain words must find."""
        folded = self._fold(part)
        plain = not _patterns().punctuation_or_digit.search(part)
        if not (plain and prose):
            terms[folded[:MAX_TERM]] = None
        if plain:
            terms[self._stem(folded)] = None

    def _fold(self, word: str) -> str:
        if word.isascii() and self.language != "tr":
            return word.lower()
        if self.language == "tr":
            word = word.translate(_TURKISH)
        # A casefolded İ is an i with a dot above, which nobody types. Casefolding can undo the normal form.
        folded = unicodedata.normalize("NFKC", word.casefold()).replace("i\u0307", "i")
        return _OPTIONAL_SIGNS.sub("", folded)

    def _stem(self, word: str) -> str:
        if self._stemmer_name is None or len(word) > MAX_TERM:
            return word[:MAX_TERM]
        stemmer: Any = getattr(self._threads, "stemmer", None)
        if stemmer is None:
            stemmer = self._threads.stemmer = require("Stemmer", "words").Stemmer(self._stemmer_name)
            stemmer.maxCacheSize = 0  # words are cached here
        return str(stemmer.stemWord(word)) or word


def recognise(texts: Iterable[str]) -> str | None:
    """Return the language of most of the first `SAMPLE` texts; None where half of them do not agree, or nothing tells.

    Example:
        >>> recognise(["Der Bericht ist nicht für die Kunden.", "Wie wird das Gerät von den Nutzern gestartet?"])
        'de'
    """
    found = Counter(language_of(text[:_SAMPLE_CHARACTERS]) for text in islice(texts, SAMPLE))
    del found[None]
    best = found.most_common(1)
    return best[0][0] if best and 2 * best[0][1] > found.total() else None


class _Patterns:
    """The regular expressions. To list the combining marks of Unicode takes milliseconds, which an import need not cost."""

    def __init__(self) -> None:
        marks = _ranges(code for code in range(0x300, 0x1E000) if unicodedata.category(chr(code))[0] == "M")
        ascii_word, word = "[A-Za-z0-9_]", rf"[\w{marks}]"
        self.odd = re.compile(f"[{''.join(map(chr, _BEFORE))}]")
        self.paired = re.compile(f"([{_PAIRED}]+)")
        self.units = re.compile(f"[^{marks}][{marks}]*|[{marks}]+")
        self.ascii_words = re.compile(_word_pattern(ascii_word))
        self.words = re.compile(_word_pattern(word))
        self.punctuation_or_digit = re.compile(rf"[\d_]|[^\w{marks}]")
        self.hyphenated = re.compile(rf"(?:[^\W\d_]|[{marks}])+(?:-(?:[^\W\d_]|[{marks}])+)+")
        self.separators = re.compile(rf"[^\w{marks}]+|_+")
        self.nested_separators = (re.compile(rf"[^\w{marks}.,+#\-]+"), re.compile(rf"[^\w{marks}\-]+"), self.separators)


@cache
def _patterns() -> _Patterns:
    return _Patterns()


def _word_pattern(word: str) -> str:
    """Return the pattern of a word: ``word`` and punctuation that joins, as in ``.NET``, ``C++``, ``a.b/c-d``, ``1,000``."""
    joint = r"(?:::|->|://|[.\-/\\:@&+~]|(?<=\d),(?=\d))"
    dot = r"(?:(?<![\w.])\.(?=[^\W\d_]))?"
    return rf"{dot}{word}+(?:{joint}{word}+)*(?:(?<=[A-Za-z])(?:\+\+|\#)(?![\w+\#]))?"


def _words(text: str) -> list[str]:
    """Return the words of a text, in any script; a run of characters without spaces is one word."""
    patterns = _patterns()
    if text.isascii():
        return patterns.ascii_words.findall(text)
    text = _without_odd(unicodedata.normalize("NFKC", _without_odd(text)))
    words: list[str] = []
    for number, piece in enumerate(patterns.paired.split(text)):
        if number % 2:
            words.append(piece)
        else:
            words += patterns.words.findall(piece)
    return words


def _without_odd(text: str) -> str:
    """Translate by `_BEFORE`. To look for such characters takes a tenth of the time, and few texts have any."""
    return text.translate(_BEFORE) if _patterns().odd.search(text) else text


def _pairs(units: list[str]) -> list[str]:
    """Return each pair of neighbours, and Chinese characters alone as well; a single character stands for itself."""
    if len(units) == 1:
        return units
    pairs = [one + two for one, two in pairwise(units)]
    return pairs + [unit for unit in units if _is_han(unit)]


def _is_han(unit: str) -> bool:
    return "\u2e80" <= unit[0] and _han().match(unit) is not None


@cache
def _han() -> re.Pattern[str]:
    return re.compile(f"[{_HAN}]")


def _inner_words(part: str) -> list[str]:
    """Cut ``covid19`` between letters and digits, and ``getUserName`` and ``HTTPServer`` before capitals.

    A cut that leaves a single letter is none: ``p53``, ``H1N1``, ``iPhone`` and ``mRNA`` stay whole.
    """
    if part.islower() and part.isalpha():
        return []
    runs = _RUNS.findall(part)
    found = runs if len(runs) > 1 and all(len(run) > 1 or run.isdecimal() for run in runs) else []
    for run in runs:
        inner = _before_capitals(run)
        if len(inner) > 1 and all(len(word) > 1 for word in inner):
            found += inner
    return found


def _before_capitals(run: str) -> list[str]:
    """Cut letters where a capital follows a small letter, and before the last of several capitals."""
    words, start = [], 0
    for place in range(1, len(run)):
        if run[place].isupper() and (run[place - 1].islower() or run[place + 1 : place + 2].islower()):
            words.append(run[start:place])
            start = place
    return [*words, run[start:]]


def _ranges(codes: Iterable[int]) -> str:
    """Return code points as the inside of a character class."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


def _same(language: str | None) -> str:
    """Return the code under which a language's stop words are kept."""
    return {"nb": "no", "nn": "no"}.get(language or "", language or "")
