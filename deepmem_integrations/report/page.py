"""The page of a report: one HTML file with its style, script and charts inside.

Jinja escapes whatever a template prints (``autoescape``), and charts and the two files of our own are the only markup that passes
as it is. The page forbids itself to load anything, and to run any script but its own (a Content-Security-Policy with the script's
hash), so that text of a document could not run even if it were not escaped.
"""

import base64
import functools
import hashlib
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from deepmem_integrations._extras import require
from deepmem_integrations.evaluation import HYBRID, TRANSFORM, WITH, WITHOUT, WORDS
from deepmem_integrations.report.material import ANSWERS, CUTOFFS
from deepmem_integrations.report.summary import points, signed, with_interval

LIMIT = 1_900_000
"""How many bytes the page has at most, as long as its queries alone do not take more."""
QUERIES = 1_000
"""How many queries the page shows at most: the worst losses and the best wins. The JSON values have all of them."""
LENGTHS = (160, 100, 60, 30, 0)
"""How many characters of a document the page shows, the first that keeps it under the limit."""
QUERY = 400
"""How many characters of a query or an id the page shows at most."""
NOWHERE = "base-uri 'none'; form-action 'none'"
STYLES = {WITHOUT: "without", HYBRID: "hybrid", TRANSFORM: "transform", WITH: "with"}
"""The sides that curves show, and their classes in the style sheet."""
TITLES = {
    WITHOUT: "Plain vectors",
    WORDS: "Words alone",
    HYBRID: "Common hybrid (RRF)",
    ANSWERS: "Remembered answers alone",
    TRANSFORM: "Transform alone",
    WITH: "Deep Memory retriever",
}
VIEWS = {"all": "All queries", "seen": "Seen answers", "unseen": "Unseen answers"}


def draw(values: Mapping[str, Any]) -> str:
    """Draw the page of a report.

    Args:
        values: What `EvaluationReport.to_json` returns.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    require("jinja2", extra="train")
    shown, left_out = worst_and_best(values["queries"])
    for length in LENGTHS:
        page = _render(values, shown, left_out, length)
        if len(page.encode()) <= LIMIT:
            break
    return page


def worst_and_best(queries: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Return the queries that the page shows, and how many it leaves out from the middle."""
    left_out = len(queries) - QUERIES
    if left_out <= 0:
        return queries, 0
    return queries[: QUERIES // 2] + queries[-(QUERIES // 2) :], left_out


def _render(values: Mapping[str, Any], queries: list[dict[str, Any]], left_out: int, length: int) -> str:
    from markupsafe import Markup

    from deepmem_integrations.report import charts

    style, script = (own_file(name) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    curves = {view: measured for view, measured in values["curves"].items() if measured}
    overall = curves["all"]
    titles = TITLES if len(overall["scores"]) > 2 else {**TITLES, WITH: "With the model"}

    def curve(view: str, metric: str) -> Markup:
        sides = [measured["scores"][side] for measured in curves.values() for side in STYLES if side in measured["scores"]]
        lines, name = charts.lines_of(curves[view]["scores"], STYLES), {"recall": "Recall", "ndcg": "nDCG"}[metric]
        means = curves[view]["scores"]
        ends = "; ".join(
            f"{titles[side]}: " + ", ".join(f"{points(means[side][f'{metric}@{k}']['mean'])} at {k}" for k in (1, 10))
            for side in STYLES
            if side in means
        )
        title = f"{name} over the number of results, {VIEWS[view].lower()}. {ends}. The tables below give all values."
        return charts.curve(lines, metric, CUTOFFS, charts.floor_of(sides, metric), title=title)

    def channels() -> Markup:
        rows = [
            (titles[side], [charts.Mark("with" if side == WITH else "without", overall["scores"][side]["ndcg@10"])])
            for side in overall["scores"]
        ]
        return charts.whiskers(rows, title="nDCG@10 of each channel with its interval. The table gives the values.", zero=False)

    def promises() -> Markup:
        rows = [
            (
                f"{VIEWS[row['view']]}, {row['metric'].replace('ndcg', 'nDCG')}",
                [
                    charts.Mark("promised", row["promised"]),
                    *([charts.Mark("with", row["measured"])] if row["measured"] else []),
                ],
            )
            for row in values["promise"]
        ]
        return charts.whiskers(rows, title="Promised and measured gains with intervals. The table gives the values.", zero=True)

    return str(
        _environment()
        .get_template("page.html")
        .render(
            **values,
            shown=queries,
            left_out=left_out,
            measured=curves,
            titles=titles,
            views=VIEWS,
            styles=STYLES,
            cutoffs=CUTOFFS,
            limit=length,
            curve=curve,
            channel_chart=channels,
            promise_chart=promises,
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; {NOWHERE}",
            WITH=WITH,
            WITHOUT=WITHOUT,
            HYBRID=HYBRID,
        )
    )


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deepmem_integrations.report", "template"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= FILTERS
    return environment


def _short(text: str, length: int = QUERY) -> str:
    """Shorten a text; a length of 0 leaves nothing."""
    return text if len(text) <= length else text[:length].rstrip() + "…" if length else ""


FILTERS: Mapping[str, Callable[..., str]] = {
    "points": points,
    "signed": signed,
    "interval": with_interval,
    "day": lambda seconds: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)),
    "count": lambda number: f"{number:,.0f}",
    "money": lambda number: f"{number:,.2f}",
    "metric": lambda name: name.replace("ndcg", "nDCG").replace("recall", "Recall"),
    "rank": lambda number: "–" if number is None else str(number),
    "short": _short,
}
"""How templates write values; the web application writes them alike."""


@functools.cache
def own_file(name: str) -> str:
    """Read a file of the page's own."""
    return (files("deepmem_integrations.report") / "template" / name).read_text(encoding="utf-8")
