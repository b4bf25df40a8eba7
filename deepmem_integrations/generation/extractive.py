"""Queries without a language model, extracted from the documents themselves. Written queries train a clearly better model."""

import random
import re
from collections.abc import Iterator

from deepmem_integrations._sentences import sentences_of
from deepmem_integrations.generation.model import Answer, Request
from deepmem_integrations.generation.sources import Source, size

_HEADING = re.compile(r"^(?:#{1,6}\s+(.+?)\s*#*|(.+)\n[=~^-]{4,})\s*$", re.MULTILINE)
_DOCSTRING = re.compile(r"(?:^|\n)\s*[rRuU]?(?:\"\"\"|''')\s*(.+?)(?:\n\s*\n|\"\"\"|''')", re.DOTALL)
KINDS = ("title", "heading", "summary", "first sentence", "sentence")
"""The kinds of queries, in the order in which they are extracted."""

_MARKUP = re.compile(
    r"^[#>*\-–•·‣▪◦\s]*(?:\(?\d{1,3}(?:\.\d+)*[.)]\s+)?"  # of headings and lists, with their numbers
    r"|[`*]{1,3}|(?<!\w)_{1,3}(?=\w)|(?<=\w)_{1,3}(?!\w)"
)
_SPACE = re.compile(r"\s+")


class Extractive:
    """Extract queries from the documents, in place of a language model.

    The queries of a document are its title, its headings, the summaries of its docstrings and its first sentence, in this
    order, then further sentences drawn at random. The random sentences are the inverse cloze task (Lee et al. 2019,
    arXiv:1906.00300): a sentence is the query, and its document is the answer.

    Args:
        seed: Fixes the draw of the sentences.

    Example:
        >>> from deepmem_integrations.generation import QueryGenerator
        >>> generator = QueryGenerator(Extractive(), queries_per_document=1, progress=False)
        >>> generator([("doc-1", "Run git revert to undo a commit. The history stays as it was.")]).queries
        ('Run git revert to undo a commit.',)
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    @property
    def name(self) -> str:
        """The name of this stand-in, with its seed."""
        return f"extractive {self._seed}"

    def ask(self, request: Request) -> Answer:
        """Extract as many queries as the request asks for, or fewer where the document has no more."""
        queries: dict[str, str] = {}
        for kind, text in self._candidates(request.sources[0]):
            text = _SPACE.sub(" ", _MARKUP.sub("", text)).strip()
            if len(queries) < len(request.kinds) and 3 <= len(text) <= 300:
                queries.setdefault(text, kind)
        return Answer({"queries": [{"kind": kind, "text": text} for text, kind in queries.items()]})

    async def aask(self, request: Request) -> Answer:
        """Do the same as `ask`, on the event loop, because the work takes microseconds."""
        return self.ask(request)

    def _candidates(self, source: Source) -> Iterator[tuple[str, str]]:
        if source.title:
            yield "title", source.title
        for found in _HEADING.finditer(source.text):
            yield "heading", found.group(1) or found.group(2)
        for found in _DOCSTRING.finditer(source.text):
            yield "summary", found.group(1)
        sentences = sentences_of(_HEADING.sub("\n\n", source.text))
        sentences = [sentence for sentence in sentences if size(sentence) >= 15]
        if sentences:
            yield "first sentence", sentences[0]
        rest = sentences[1:]
        random.Random(f"{self._seed} {source.id}").shuffle(rest)
        for sentence in rest:
            yield "sentence", sentence
