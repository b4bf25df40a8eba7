"""How far the documents of a store have moved away from those that a model was trained on."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.adapter.remembered import RETRAINING
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.words import string_hashes, text_hashes

SAMPLE = 512
"""How many documents a sketch holds at most: up to so many, its answers are exact; beyond, shares are off by some two points."""
METADATA = "documents"
"""The entry of a model's metadata that holds the sketch of the documents that it was trained on."""

_Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Drift:
    """What has become of the documents since a training.

    Attributes:
        trained: How many documents the training saw.
        added: How many documents are new.
        changed: How many have another text.
        gone: How many are no longer there.
        exact: Whether these are counts; False where a sample estimates them.

    Example:
        >>> print(Drift(trained=100, added=30, changed=0, gone=2))
        trained on 100 documents; since then 30 added, 0 changed, 2 gone
        A full training is due.
    """

    trained: int
    added: int
    changed: int
    gone: int
    exact: bool = True

    @property
    def retraining_due(self) -> bool:
        """Whether a full training is due, because a fifth of the documents or more is not what the training saw."""
        return self.added + self.changed + self.gone >= RETRAINING * max(self.trained, 1)

    def __str__(self) -> str:
        """Describe the drift in two lines for people."""
        about = "" if self.exact else "about "
        due = "A full training is due." if self.retraining_due else "The documents call for no full training yet."
        counts = f"{about}{self.added} added, {about}{self.changed} changed, {about}{self.gone} gone"
        return f"trained on {self.trained} documents; since then {counts}\n{due}"


@dataclass(frozen=True)
class Sketch:
    """The documents of a store, in a few kilobytes: those whose ids have the smallest hashes, and the hashes of their texts.

    Two sketches compare the same documents, since a hash of an id is small in both or in neither (Broder, "On the Resemblance and
    Containment of Documents", SEQUENCES 1997).

    Attributes:
        count: How many documents there are in all.
        ids: (m,) uint64, the smallest hashes of ids, ascending; m is at most 512.
        texts: (m,) uint64, the hashes of their texts.
    """

    count: int
    ids: _Hashes
    texts: _Hashes

    @classmethod
    def of(cls, batches: Iterable[tuple[Sequence[str], _Hashes]]) -> "Sketch":
        """Make the sketch of documents, given as batches of ids and (n, 2) hashes of texts: see `text_hashes`."""
        count, ids, texts = 0, np.empty(0, np.uint64), np.empty(0, np.uint64)
        for names, hashes in batches:
            count += len(names)
            ids = np.concatenate([ids, string_hashes(names)])
            texts = np.concatenate([texts, np.asarray(hashes, np.uint64)[:, 0]])
            order = np.argsort(ids, kind="stable")[:SAMPLE]
            ids, texts = ids[order], texts[order]
        return cls(count, ids, texts)

    @classmethod
    def of_texts(cls, batches: Iterable[tuple[Sequence[str], Sequence[str]]]) -> "Sketch":
        """Make the sketch of documents, given as batches of ids and texts."""
        return cls.of((ids, text_hashes(texts)) for ids, texts in batches)

    @property
    def whole(self) -> bool:
        """Whether the sketch holds all documents."""
        return self.count <= len(self.ids)

    def drift(self, now: "Sketch") -> Drift:
        """Compare the documents of a training with those of now."""
        ends = [int(sketch.ids[-1]) for sketch in (self, now) if not sketch.whole]
        end = np.uint64(min(ends, default=2**64 - 1))
        before, after = self._up_to(end), now._up_to(end)
        both = before.keys() & after.keys()

        # Both sketches hold all documents up to the end, the same share of the hashes.
        scale = (self.count + now.count) / max(len(before) + len(after), 1) if ends else 1.0
        changed = sum(before[name] != after[name] for name in both)
        counts = {"added": len(after) - len(both), "changed": changed, "gone": len(before) - len(both)}
        return Drift(self.count, exact=not ends, **{name: round(scale * count) for name, count in counts.items()})

    def _up_to(self, end: np.uint64) -> dict[int, int]:
        kept = self.ids <= end
        return dict(zip(self.ids[kept].tolist(), self.texts[kept].tolist(), strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"count": self.count, "ids": encoded(self.ids), "texts": encoded(self.texts)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Sketch":
        """Read what `to_json` returned."""
        return cls(int(values["count"]), decoded(values["ids"]), decoded(values["texts"]))


def trained_on(metadata: Mapping[str, Any]) -> Sketch | None:
    """Return the sketch of the documents that a model was trained on; None where the model does not know."""
    values = metadata.get(METADATA)
    return Sketch.from_json(values) if values else None


def drift_of_index(models: ModelFolder) -> Drift | None:
    """Compare the documents that the model in use was trained on with the word index, which follows the store.

    Returns:
        The drift up to the last refresh of the index; None where there is no index, or the model does not know its documents.

    Raises:
        NotTrainedError, AdapterFileError, StorageError: There is no model, or model or index cannot be read.
    """
    before, index = trained_on(models.in_use()[1].metadata), models.lexical_search
    return None if before is None or index is None else before.drift(Sketch.of(index.documents()))


def encoded(hashes: _Hashes) -> str:
    """Return hashes, (n,) uint64, as text for JSON."""
    return base64.b64encode(hashes.astype("<u8").tobytes()).decode()


def decoded(text: str) -> _Hashes:
    """Return the hashes that `encoded` wrote, (n,) uint64.

    Raises:
        ValueError: The text is something else.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), "<u8")
