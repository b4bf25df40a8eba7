"""The outcome of `DeepMemory.retrain`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepmem_integrations.retraining.policy import Due


@dataclass(frozen=True)
class Retraining:
    """What a retraining came to.

    Attributes:
        due: Whether it was due, and why.
        model: The new model; None where nothing was trained.
        in_use: The model that is in use afterwards; None where there is none.
        reason: Why the new model was put in use or not; empty where nothing was trained.
        figures: The figures of the decision, as JSON values: see `Decision`.
    """

    due: Due
    model: str | None = None
    in_use: str | None = None
    reason: str = ""
    figures: Mapping[str, Any] | None = None

    @property
    def replaced(self) -> bool:
        """Whether the new model is in use."""
        return self.model is not None and self.model == self.in_use

    @property
    def refused(self) -> bool:
        """Whether there is a new model that was not put in use."""
        return self.model is not None and self.model != self.in_use

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "due": bool(self.due),
            "reasons": list(self.due.reasons),
            "model": self.model,
            "in_use": self.in_use,
            "replaced": self.replaced,
            "reason": self.reason,
            "figures": self.figures,
        }

    def __str__(self) -> str:
        """Say it in a few lines for people."""
        if self.model is None:
            return str(self.due)
        outcome = f"{self.model} is in use" if self.replaced else f"{self.model} is not put in use, {self.in_use} stays"
        return f"{self.due}\n{outcome}: {self.reason}"
