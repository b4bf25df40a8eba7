"""`EvaluationReport`: what a model is worth on test queries, as a page for people and as JSON for programs."""

import html
import json
import logging
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deepmem_integrations import __version__
from deepmem_integrations._files import user_path, write_text
from deepmem_integrations._unicode import well_formed
from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.corpora import Corpus
from deepmem_integrations.errors import StoreError
from deepmem_integrations.evaluation import WITH, WITHOUT, Evaluation
from deepmem_integrations.jobs.inputs import fingerprint_of
from deepmem_integrations.labels import Relevance
from deepmem_integrations.models import ModelInfo
from deepmem_integrations.report.health import labels_health
from deepmem_integrations.report.material import Material
from deepmem_integrations.report.measures import advice, choice, curves, promise
from deepmem_integrations.report.page import draw
from deepmem_integrations.report.queries import SHOWN, wins_and_losses
from deepmem_integrations.report.sizes import ContextLength, CountTokens
from deepmem_integrations.report.summary import summarise

_logger = logging.getLogger(__name__)

VERSION = 1
"""The version of the JSON values."""
OPENING = 160
"""How many characters of a document are shown at most."""
PACKAGES = ("numpy", "torch", "langchain-core", "llama-index-core", "deeplake")
"""The packages whose versions a report names, where they are installed."""


class EvaluationReport:
    """What a model is worth on test queries: `DeepMemory.report` makes one.

    The report is a page without anything to load, for any browser, and the same as JSON values. A notebook shows the page where
    a cell ends with the report. ``str`` of it is the answer in one sentence.

    Args:
        values: What `to_json` returned.

    Example:
        >>> report = EvaluationReport({"summary": {"sentence": "No gain can be shown."}})
        >>> print(report)
        No gain can be shown.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    @classmethod
    def of(
        cls,
        evaluation: Evaluation,
        labels: Relevance,
        vectors: Vectors,
        adapter: QueryAdapter,
        model: ModelInfo,
        corpus: Corpus,
        length: ContextLength,
        *,
        parent_of: Mapping[str, str] | None = None,
        texts: bool = True,
        command: str | None = None,
    ) -> "EvaluationReport":
        """Describe an evaluation.

        Args:
            evaluation: The evaluation of n queries, with the cut-offs `CUTOFFS`.
            labels: The n labelled queries.
            vectors: (n, d) float32, their untransformed vectors.
            adapter: The model that was evaluated.
            model: What is known of the model's file.
            corpus: The documents, whose texts are read once if they can be listed.
            length: How the lengths of documents are measured.
            parent_of: Document id → parent, where the labels name parents. The report is of parents then.
            texts: Whether the texts of queries and documents are in the report.
            command: What the user ran to make the report.
        """
        parents = {**(adapter.metadata.get("parents") or {}), **(parent_of or {})} if labels.level is not None else {}
        ids, lengths, openings = _documents(corpus, evaluation, length.count, parents)
        known = (length, lengths, openings if texts else {}, parents)
        material = Material(evaluation, labels, vectors, adapter, model, ids, *known)
        measured, health = curves(material), labels_health(material, texts=texts)
        queries = wins_and_losses(material, texts=texts)
        ranking = adapter.ranking
        unchanged = adapter.for_ranking().is_identity and (ranking is None or ranking.vectors_alone)
        chosen = choice(material)
        return cls(
            {
                "version": VERSION,
                "texts": texts,
                "summary": summarise(measured, queries, health, unchanged=unchanged, reason=chosen["reason"]),
                "curves": measured,
                "promise": promise(material, measured),
                "choice": chosen,
                "advice": advice(material),
                "queries": queries,
                "labels": health,
                "provenance": _provenance(material, command),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything that the page shows, and more, as plain JSON values."""
        return self._values

    def html(self) -> str:
        """Return the page, which loads nothing.

        Raises:
            MissingExtraError: jinja2 is not installed.
        """
        return draw(self._values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report to a file: JSON values where its name ends in ``.json``, otherwise the page.

        Raises:
            MissingExtraError: jinja2 is not installed.
            StorageError: The file cannot be written.
        """
        place = Path(user_path(path))
        text = json.dumps(self._values, ensure_ascii=False, indent=1) if place.suffix == ".json" else self.html()
        write_text(place, text)

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame of its own that keeps its style and the notebook's apart."""
        page = html.escape(self.html(), quote=True)
        return (
            f'<iframe title="Evaluation report" sandbox="allow-scripts" srcdoc="{page}" '
            'style="width: 100%; height: 45rem; border: 0"></iframe>'
        )

    def __str__(self) -> str:
        """Return the answer in one sentence."""
        return str(self._values["summary"]["sentence"])

    def __repr__(self) -> str:
        """Show the answer in one line."""
        return f"EvaluationReport({str(self)!r})"


def _documents(
    corpus: Corpus, evaluation: Evaluation, count: CountTokens, parent_of: Mapping[str, str]
) -> tuple[frozenset[str] | None, dict[str, int], dict[str, str]]:
    """Read the names of all documents, the lengths of those that were found, and the beginnings of those that are shown.

    Where documents have parents, these take their place: with the length of all their documents, and the beginning of the first.
    """
    if not corpus.listed:
        return None, {}, {}
    both = (WITHOUT, WITH)
    found = {name for side in both for names in evaluation.found[side] for name in names}
    shown = {name for side in both for names in evaluation.found[side] for name in names[:SHOWN]}
    all_ids: set[str] = set()
    lengths: dict[str, int] = {}
    openings: dict[str, str] = {}
    try:
        for ids, texts in corpus.texts():
            names = [parent_of.get(name, name) for name in ids]
            all_ids.update(names)
            for name, text in zip(names, texts, strict=True):
                if name in found:
                    lengths[name] = lengths.get(name, 0) + count(text)
                if name in shown:
                    openings.setdefault(name, _opening(text))
    except StoreError as error:
        _logger.warning("The report comes without the texts of documents and their lengths: %s", error)
        return None, {}, {}
    return frozenset(all_ids), lengths, openings


def _opening(text: str) -> str:
    """Return the beginning of a text in one line."""
    line = " ".join(well_formed(text[: 4 * OPENING]).split())
    return line if len(line) <= OPENING else line[:OPENING].rstrip() + "…"


def _provenance(material: Material, command: str | None) -> dict[str, Any]:
    """Tell of which model, data and versions the report is."""
    model = material.model
    versions = {"deepmem-integrations": __version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "made": time.time(),
        "command": command,
        "model": {
            "name": model.name,
            "created": model.created,
            "made by": model.made_by,
            "parent": model.parent,
            "embedding": model.embedding,
            "dimension": model.dimension,
            "seed": (model.report or {}).get("seed"),
        },
        "level": material.labels.level,
        "fingerprints": {**(model.data or {}), "test": fingerprint_of(material.labels)},
        "versions": versions,
    }
