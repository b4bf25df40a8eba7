"""What the forms of the pages do."""

import contextlib
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from deepmem_integrations.errors import DeepMemoryError, GenerationError, InvalidRelevanceError
from deepmem_integrations.retraining import IN_USE
from deepmem_integrations.ui.pages import COUNTS, LONGEST_QUERY, Pages, number

THUMBS = {"up": True, "down": False, "none": None}
MOST = 10**9
"""The largest number of tokens or documents in a form."""
MOST_QUERIES = 20
"""How many queries a document gets at most."""


class Actions:
    """Does what forms ask for.

    Args:
        pages: The pages of the workspace.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages, self._work = pages, pages.work

    def read_folder(self, request: Request) -> Response:
        """Read a folder of text files."""
        self._work.read_folder(_form(request).get("folder", ""))
        return _to("/documents")

    def read_demo(self, request: Request) -> Response:
        """Read the demo's documents and labels."""
        self._work.read_demo(_by(request))
        return _to("/documents")

    def thumb(self, request: Request) -> Response:
        """Take a thumb."""
        form = _form(request)
        query, document = form.get("q", "").strip()[:LONGEST_QUERY], form.get("document", "")
        if not query or not document or form.get("thumb") not in THUMBS:
            raise InvalidRelevanceError("A thumb names a query and a document.")
        k = number(form.get("k"), 5, COUNTS)
        self._work.judge(query, document, THUMBS[form["thumb"]], lambda: list(self._pages.found(query, k).shown()), _by(request))
        if form.get("back") == "labels":
            return _to("/labels", find=form.get("find", ""), **{"from": form.get("from", "")})
        return _to("/", q=query, k=str(k))

    def forget(self, request: Request) -> Response:
        """Delete a query with its labels."""
        form = _form(request)
        self._work.forget(form.get("query_id", ""))
        return _to("/labels", find=form.get("find", ""), **{"from": form.get("from", "")})

    def generate(self, request: Request) -> Response:
        """Estimate what queries would cost, or let them be written."""
        form = _form(request)
        shown = {name: form.get(name, "") for name in ("kind", "model", "per_document", "documents", "tokens")}
        llm = "extractive" if shown["kind"] == "extractive" else f"openai:{shown['model'].strip()}"
        try:
            per_document = whole(shown["per_document"], "Queries for each document", MOST_QUERIES)
            documents = whole(shown["documents"], "Documents at most", MOST) if shown["documents"].strip() else None
            tokens = whole(shown["tokens"], "Tokens at most", MOST) if shown["tokens"].strip() else None
            generator = self._work.generator(llm, per_document, documents, tokens)
            if form.get("do") == "estimate":
                return self._pages.generate(request, form=shown, estimate=self._work.estimate(generator))
            self._work.generate(generator, llm, _by(request))
        except DeepMemoryError as error:
            return self._pages.generate(request, form=shown, told=str(error))
        return _to("/generate")

    def stop(self, request: Request) -> Response:
        """Stop the writing of queries, or the reading of documents."""
        kind: Any = _form(request).get("kind")
        work = self._work.works.get(kind)
        if work is not None:
            work.stop()
        return _to("/generate" if kind == "generate" else "/documents")

    def train(self, request: Request) -> Response:
        """Start a training."""
        self._work.train(IN_USE.get(_form(request).get("in_use", ""), "if better"), _by(request))
        return _to("/train")

    def cancel(self, request: Request) -> Response:
        """Cancel a training, or give up one that was lost."""
        self._work.opened.memory.cancel(_form(request).get("job", ""))
        return _to("/train")

    def resume(self, request: Request) -> Response:
        """Go on with a training that was lost, in a process of its own."""
        self._work.opened.memory.resume(_form(request).get("job", ""), wait=False)
        return _to("/train")

    def use(self, request: Request) -> Response:
        """Put a model in use."""
        self._work.opened.memory.set_model(_form(request).get("name", ""), by=_by(request))
        return _to("/models")

    def roll_back(self, request: Request) -> Response:
        """Go back to the model that was in use before."""
        self._work.opened.memory.rollback(by=_by(request))
        return _to("/models")

    def measure(self, request: Request) -> Response:
        """Measure a model."""
        name = _form(request).get("name", "")
        self._work.measure(name)
        return _to(f"/models/{name}")


def whole(text: str, what: str, most: int) -> int:
    """Read a whole number from 1 on, however it is written; what costs money is never guessed.

    Raises:
        GenerationError: It is no such number.

    Example:
        >>> whole("1e5", "Tokens at most", 10**9), whole("100000.0", "Tokens at most", 10**9)
        (100000, 100000)
    """
    with contextlib.suppress(InvalidOperation):
        found = Decimal(text.strip())
        if 1 <= found <= most and found == int(found):
            return int(found)
    raise GenerationError(f"{what}: {text[:40]!r} is no whole number from 1 to {most:,}. Write one such as {min(most, 100_000)}.")


def _form(request: Request) -> dict[str, str]:
    found: dict[str, str] = request.scope["form"]
    return found


def _by(request: Request) -> str:
    name: str = request.scope["session"].name
    return name


def _to(path: str, **values: str) -> Response:
    query = urlencode({name: value for name, value in values.items() if value})
    return RedirectResponse(f"{path}?{query}" if query else path, 303)
