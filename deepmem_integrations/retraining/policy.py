"""When a retraining is due: labels that the last training did not have, documents that have changed, or the time since then."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from deepmem_integrations.adapter import Growth
from deepmem_integrations.adapter.remembered import RETRAINING
from deepmem_integrations.corpora import Corpus
from deepmem_integrations.drift import Sketch, trained_on
from deepmem_integrations.errors import AdapterFileError, ModelNotFoundError, StorageError
from deepmem_integrations.labels import Relevance
from deepmem_integrations.models import ModelFolder, ModelInfo

LABELS = "labels"
"""The entry of a model's metadata that holds the sketch of the labels at the time of its training."""
_LARGEST_DRIFT = 4.0
"""Beyond it, a number is meant as a percentage: a corpus that was replaced by another of its size has drifted by 2."""
_AHEAD = timedelta(minutes=1)
"""By how much the clocks of two machines may differ."""


@dataclass(frozen=True)
class Due:
    """Whether a retraining is due. It is true in a condition if so.

    Attributes:
        reasons: Why, one sentence for each cause; empty where nothing is due.
        known: What was looked at, in one sentence.
    """

    reasons: tuple[str, ...]
    known: str = ""

    def __bool__(self) -> bool:
        """Tell whether there is a reason."""
        return bool(self.reasons)

    def __str__(self) -> str:
        """Say in one line what is due and why, or that nothing is."""
        return f"A retraining is due: {'; '.join(self.reasons)}." if self else f"No retraining is due: {self.known}."


@dataclass(frozen=True)
class RetrainPolicy:
    """When to train again. Any cause is enough; None turns a cause off.

    All causes count since the last training, whether its model was put in use or refused: a refused model makes no cron job train
    every night on the same labels.

    Attributes:
        new_labels: From so many labelled queries on that are new or were judged anew.
        drift: From this share of the documents on that were added, changed or deleted.
        age: Once the last training is so old.

    Raises:
        ValueError: A value is not above 0.

    Example:
        >>> RetrainPolicy(new_labels=200, drift=None, age=timedelta(days=30))
        RetrainPolicy(new_labels=200, drift=None, age=datetime.timedelta(days=30))
    """

    new_labels: int | None = 50
    drift: float | None = RETRAINING
    age: timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse values that would make a retraining due at any time."""
        for name, value in (("new_labels", self.new_labels), ("drift", self.drift)):
            if value is not None and not (isinstance(value, int | float) and not isinstance(value, bool) and value > 0):
                raise ValueError(f"{name} is a number above 0, or None to turn it off; got {value!r}.")
        if self.drift is not None and self.drift > _LARGEST_DRIFT:
            raise ValueError(f"drift is a share of the documents, such as 0.2 for a fifth; got {self.drift!r}, a percentage.")
        if self.age is not None and (not isinstance(self.age, timedelta) or self.age <= timedelta(0)):
            raise ValueError(f"age is a timedelta above 0, such as timedelta(days=30), or None; got {self.age!r}.")

    def due(self, models: ModelFolder, corpus: Corpus, labels: Relevance | None = None) -> Due:
        """Tell whether a retraining is due.

        Args:
            models: The folder of models.
            corpus: The documents of the store, whose ids and texts are read where drift counts and they can be listed.
            labels: All labelled queries there are now. Without them, those that `remember` added to the model in use count.

        Returns:
            The reasons, if any.

        Raises:
            StoreError: The store cannot be read.
        """
        last = last_training(models)
        if last is None:
            return Due(("no model was trained yet",))
        try:
            metadata = models.load_model(last.name).metadata
        except (AdapterFileError, StorageError, ModelNotFoundError) as error:
            return Due((f"the last model cannot be read ({error})",))
        reasons, known = [], []
        if self.new_labels is not None:
            count = _new_labels(models, metadata, labels)
            known.append(f"{count} of {self.new_labels} new labels")
            if count >= self.new_labels:
                reasons.append(f"{count} labelled queries are new or were judged anew ({self.new_labels} are enough)")
        before = trained_on(metadata)
        if self.drift is not None and before is not None and corpus.listed:
            drift = before.drift(Sketch.of_texts(corpus.texts()))
            share = (drift.added + drift.changed + drift.gone) / max(drift.trained, 1)
            known.append(f"{100 * share:.0f}% of the documents changed")
            if share >= self.drift:
                reasons.append(
                    f"{drift.added} documents were added, {drift.changed} changed, {drift.gone} are gone, {100 * share:.0f}% of "
                    f"{drift.trained} ({100 * self.drift:g}% are enough)"
                )
        age = timedelta(seconds=time.time() - last.created)
        ahead = age < -_AHEAD
        known.append(f"the last training is dated {_days(-age)} ahead" if ahead else f"the last training is {_days(age)} old")
        if self.age is not None and ahead:
            reasons.append(f"the last training is dated {_days(-age)} ahead, so its age is unknown")
        elif self.age is not None and age >= self.age:
            reasons.append(f"the last training is {_days(age)} old ({_days(self.age)} are enough)")
        return Due(tuple(reasons), ", ".join(known))


def last_training(models: ModelFolder) -> ModelInfo | None:
    """Return the newest model that a training made, in use or not; None where there is none.

    A model from the future, of a machine whose clock was ahead, counts as older than all others.
    """
    trained = [info for info in models.list_models() if info.made_by == "train" and info.error is None]
    now = time.time() + _AHEAD.total_seconds()
    return max(trained, key=lambda info: (info.created <= now, info.created), default=None)


def labels_sketch(labels: Relevance) -> dict[str, Any]:
    """Return a sketch of labelled queries as JSON values: see `Sketch`. Rows with the same text are one.

    Weights count to the nearest half: those of clicks, which are probabilities, all move a little with every new click.
    """
    return _sketch(labels).to_json()


def _sketch(labels: Relevance) -> Sketch:
    judged: dict[str, set[tuple[str, float]]] = {}
    for query, answers, irrelevant in zip(labels.queries, labels.labels, labels.irrelevant, strict=True):
        judged.setdefault(query, set()).update((name, round(2 * weight) / 2) for name, weight in (*answers, *irrelevant))
    return Sketch.of_texts(_batches(judged))


def _batches(judged: dict[str, set[tuple[str, float]]]) -> Iterable[tuple[list[str], list[str]]]:
    if judged:
        yield list(judged), [json.dumps(sorted(pairs)) for pairs in judged.values()]


def _new_labels(models: ModelFolder, metadata: dict[str, Any], labels: Relevance | None) -> int:
    if labels is None:
        growth = _growth(models)
        return growth.added + growth.forgotten if growth is not None else 0
    if LABELS in metadata:
        drift = Sketch.from_json(metadata[LABELS]).drift(_sketch(labels))
        return drift.added + drift.changed
    report = metadata.get("report") or {}  # an earlier version trained it, and only counts are known
    return max(0, len(labels) - int(report.get("queries", 0)) - int(report.get("merged_queries", 0)))


def _growth(models: ModelFolder) -> Growth | None:
    try:
        return models.in_use()[1].growth
    except (AdapterFileError, StorageError, ModelNotFoundError):
        return None


def _days(age: timedelta) -> str:
    age = max(age, timedelta(0))
    days = age / timedelta(days=1)
    return f"{days:.0f} day{'s' * (round(days) != 1)}" if days >= 1 else f"{age / timedelta(hours=1):.1f} hours"
