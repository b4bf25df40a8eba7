"""The pages: what each of them shows."""

import functools
import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from deepmem_integrations._extras import require
from deepmem_integrations.audit import AuditEntry
from deepmem_integrations.errors import DeepMemoryError
from deepmem_integrations.models import ModelInfo
from deepmem_integrations.opened import Opened
from deepmem_integrations.ranking import Ranker
from deepmem_integrations.report.page import FILTERS, worst_and_best
from deepmem_integrations.ui.carried import gone
from deepmem_integrations.ui.security import Session
from deepmem_integrations.ui.side_by_side import SideBySide, search
from deepmem_integrations.ui.workspace import Workspace

COUNTS = (5, 10, 20)
"""How many documents a search may show on each side."""
LONGEST_QUERY = 2_000
"""How many characters a query has at most."""
PAGE = 100
"""How many labelled queries a page lists."""
ENOUGH = 50
"""From how many labelled queries on a training is worth its while; fewer are allowed."""
EXTRACT = 320
"""How many characters of a document are shown before somebody asks for more."""
MOST_TEXT = 8_000
"""How many characters of a document are shown at most."""


class Pages:
    """Draws the pages of a workspace.

    Args:
        work: The workspace.
        shared: Whether several people use the application, each with a name.
    """

    def __init__(self, work: Workspace, *, shared: bool) -> None:
        self.work, self.shared = work, shared
        self._ranker: tuple[Opened, Ranker] | None = None

    # ---- what all pages share ----------------------------------------------------------------------------------

    def draw(self, request: Request, name: str, *, status: int = 200, **values: Any) -> Response:
        """Draw a page."""
        session: Session = request.scope["session"]
        facts: dict[str, Any] = {"source": None, "steps": [], "labels": 0, "model": None}
        if session.name:
            try:
                facts = self._facts()
            except DeepMemoryError as error:
                values.setdefault("told", str(error))
        text = (
            _environment()
            .get_template(name)
            .render(
                {"told": "", **facts, **values},
                csrf=session.csrf,
                person=session.name if self.shared else "",
                path=request.url.path,
                version=version("deepmem-integrations"),
                extract=EXTRACT,
                most_text=MOST_TEXT,
            )
        )
        return HTMLResponse(text, status)

    def _facts(self) -> dict[str, Any]:
        """Tell how far the workspace is: documents, labels, a model."""
        work = self.work
        source = work.source
        labels = sum(one.teaches for one in work.labelled()) if source else 0
        model = work.opened.memory.folder.in_use_name() if source else None
        models = len(work.models()) if source else 0
        steps = [
            ("Documents", "none yet" if source is None else source.title, source is not None, "/documents"),
            ("Labels", f"{labels:,}" if labels else "none yet", labels > 0, "/labels"),
            ("Model", f"{models:,} trained" if models else "none yet", models > 0, "/train"),
            ("In use", "yes" if model else "none yet", model is not None, "/models"),
        ]
        return {"source": source, "labels": labels, "model": model, "steps": steps}

    def fault(self, request: Request, status: int, message: str) -> Response:
        """Draw a refusal or an error."""
        return self.draw(request, "fault.html", status=status, told=message)

    def login(self, request: Request, message: str) -> Response:
        """Draw the page that asks for the password."""
        return self.draw(request, "login.html", status=403 if message else 200, told=message)

    @functools.cached_property
    def _no_source(self) -> Response:
        return RedirectResponse("/documents", 303)

    # ---- search ------------------------------------------------------------------------------------------------

    def found(self, query: str, k: int) -> SideBySide:
        """Search side by side."""
        opened = self.work.opened
        if self._ranker is None or self._ranker[0] is not opened:
            self._ranker = (opened, Ranker(opened.memory, untrained="error"))
        return search(opened, self._ranker[1], query[:LONGEST_QUERY], k)

    def search(self, request: Request) -> Response:
        """Show what a query finds, side by side."""
        if self.work.source is None:
            return self._no_source
        query, k = request.query_params.get("q", "").strip()[:LONGEST_QUERY], number(request.query_params.get("k"), 5, COUNTS)
        found = self.found(query, k) if query else None
        examples = [one.query.text for one in self.work.labelled()[:4]] if not query else []
        return self.draw(
            request, "search.html", q=query, k=k, counts=COUNTS, found=found, judged=self.work.judged(query), examples=examples
        )

    def why(self, request: Request) -> Response:
        """Show what the model did to a query."""
        if self.work.source is None:
            return self._no_source
        query = request.query_params.get("q", "").strip()[:LONGEST_QUERY]
        return self.draw(request, "why.html", q=query, why=self.work.opened.memory.explain(query))

    # ---- documents, labels, queries ----------------------------------------------------------------------------

    def documents(self, request: Request) -> Response:
        """Show where the documents come from, and let somebody choose."""
        work = self.work
        return self.draw(
            request, "documents.html", folders=work.folders(), reading=work.works.get("read"), root=work.root, given=work.given
        )

    def labels(self, request: Request) -> Response:
        """List the labels, to be corrected."""
        if self.work.source is None:
            return self._no_source
        words = request.query_params.get("find", "").lower().split()
        found = [
            one
            for one in self.work.labelled()
            if all(word in f"{one.query.text} {' '.join(one.values)} {one.source}".lower() for word in words)
        ]
        start = number(request.query_params.get("from"), 0, range(len(found) + 1))
        return self.draw(
            request,
            "labels.html",
            found=found[start : start + PAGE],
            count=len(found),
            known=len(self.work.labelled()),
            start=start,
            size=PAGE,
            find=request.query_params.get("find", ""),
        )

    def generate(self, request: Request, **values: Any) -> Response:
        """Let a language model write queries, and show them as they come."""
        if self.work.source is None:
            return self._no_source
        shown: Mapping[str, str] = {"kind": "extractive", "model": "", "per_document": "2", "documents": "200", "tokens": ""}
        return self.draw(
            request,
            "generate.html",
            **{"form": shown, "estimate": None, **values},
            writing=self.work.works.get("generate"),
            key="OPENAI_API_KEY" in os.environ,
            server=os.environ.get("OPENAI_BASE_URL", ""),
        )

    # ---- trainings, models, history ----------------------------------------------------------------------------

    def train(self, request: Request) -> Response:
        """Start a training, and show how far the trainings are."""
        if self.work.source is None:
            return self._no_source
        jobs = self.work.jobs()
        training = self.work.works.get("train")
        live = (training is not None and training.running) or any(job.running for job in jobs)
        return self.draw(request, "train.html", jobs=jobs, training=training, live=live, enough=ENOUGH)

    def models(self, request: Request) -> Response:
        """List the models."""
        if self.work.source is None:
            return self._no_source
        found = [(info, summary_of(self.work, info)) for info in self.work.models()]
        return self.draw(request, "models.html", found=found, measuring=self.work.works.get("measure"))

    def model(self, request: Request) -> Response:
        """Show a model with its wins and losses."""
        name = request.path_params["name"]
        info, report = self.work.opened.memory.folder.info(name), self.work.report(name)
        values: dict[str, Any] = {}
        if report is not None:
            told = report.to_json()
            shown, left_out = worst_and_best(told["queries"])
            values = {
                "summary": told["summary"],
                "texts": told["texts"],
                "shown": shown,
                "left_out": left_out,
                "measured": told["curves"],
                "limit": EXTRACT,
            }
        return self.draw(request, "model.html", info=info, reported=report is not None, measuring=self._measuring(name), **values)

    def _measuring(self, name: str) -> Any:
        for kind in ("measure", "train"):
            work = self.work.works.get(kind)
            if work is not None and work.job == name and (work.running or work.error):
                return work
        return None

    def report(self, request: Request) -> Response:
        """Show the report of a model, a page with a policy of its own."""
        report = self.work.report(request.path_params["name"])
        if report is None:
            return self.fault(request, 404, "This model was not measured yet.")
        return HTMLResponse(report.html(), headers={"content-security-policy": "frame-ancestors 'none'"})

    def history(self, request: Request) -> Response:
        """List who put which model in use."""
        if self.work.source is None:
            return self._no_source
        entries: list[AuditEntry] = self.work.opened.memory.audit()[::-1]
        return self.draw(request, "history.html", entries=entries)


def summary_of(work: Workspace, info: ModelInfo) -> str:
    """Say in a sentence what a model is worth: what its report says, or else what its training promised."""
    if info.error:
        return info.error
    report = work.report(info.name)
    if report is not None:
        return str(report)
    seen = (info.report or {}).get("seen")
    return f"The training promises recall@10 {100 * seen['gains']['recall@10']['mean']:+.1f} points." if seen else ""


def number(text: str | None, otherwise: int, allowed: Any) -> int:
    """Read a number of a form."""
    try:
        found = int(text or "")
    except ValueError:
        return otherwise
    return found if found in allowed else otherwise


@functools.cache
def _environment() -> Any:
    jinja2 = require("jinja2", extra="ui")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("deepmem_integrations.ui", "templates"),
                jinja2.PackageLoader("deepmem_integrations.report", "template"),
            ]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {**FILTERS, "gone": gone, "oneline": lambda text: " ".join(text.split())}
    return environment
