"""Queries without a language model: taken out of the documents themselves. Clearly second best."""

import random
import re
from collections.abc import Iterator

from deepmem_integrations.generation.model import Answer, Request
from deepmem_integrations.generation.sources import Source

_HEADING = re.compile(r"^(?:#{1,6}\s+(.+?)\s*#*|(.+)\n[=~^-]{4,})\s*$", re.MULTILINE)
_DOCSTRING = re.compile(r"(?:^|\n)\s*[rRuU]?(?:\"\"\"|''')\s*(.+?)(?:\n\s*\n|\"\"\"|''')", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\W\d_a-z])|(?<=[。！？])|\n{2,}")
KINDS = ("title", "heading", "summary", "first sentence", "sentence")
"""In the order in which they are taken."""

_MARKUP = re.compile(r"^[#>*\-\s]+|[`*]{1,3}|(?<!\w)_{1,3}(?=\w)|(?<=\w)_{1,3}(?!\w)")
_SPACE = re.compile(r"\s+")


class Extractive:
    """Stands in for a language model: title, headings, docstring summary, first sentence, then sentences drawn at random.

    The last are the inverse cloze task (Lee et al. 2019, arXiv:1906.00300): a sentence is the query, its document the answer.

    Args:
        seed: Fixes the draw.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    @property
    def name(self) -> str:
        """Itself, and the seed."""
        return f"extractive {self._seed}"

    def ask(self, request: Request) -> Answer:
        """Take as many queries out of the document as are asked for, if it has so many."""
        queries: dict[str, str] = {}
        for kind, text in self._candidates(request.sources[0]):
            text = _SPACE.sub(" ", _MARKUP.sub("", text)).strip()
            if len(queries) < len(request.kinds) and 3 <= len(text) <= 300:
                queries.setdefault(text, kind)
        return Answer({"queries": [{"kind": kind, "text": text} for text, kind in queries.items()]})

    async def aask(self, request: Request) -> Answer:
        """The same; it is a matter of microseconds."""
        return self.ask(request)

    def _candidates(self, source: Source) -> Iterator[tuple[str, str]]:
        if source.title:
            yield "title", source.title
        for found in _HEADING.finditer(source.text):
            yield "heading", found.group(1) or found.group(2)
        for found in _DOCSTRING.finditer(source.text):
            yield "summary", found.group(1)
        sentences = [
            sentence for sentence in _SENTENCE_END.split(_HEADING.sub("\n\n", source.text)) if sentence and sentence.strip()
        ]
        sentences = [sentence for sentence in sentences if sum(map(str.isalpha, sentence)) >= 15]
        if sentences:
            yield "first sentence", sentences[0]
        rest = sentences[1:]
        random.Random(f"{self._seed} {source.id}").shuffle(rest)
        for sentence in rest:
            yield "sentence", sentence
