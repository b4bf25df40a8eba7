"""The candidates that a training chooses from: settings of the two parts of an adapter.

To try another setting, add it to `EPOCHS`, `TEMPERATURES` or `STRENGTHS`; cross-validation and the guard take every candidate.
"""

from dataclasses import dataclass

from deepmem_integrations.training.linear import Negatives

EPOCHS = (8, 16)
TEMPERATURES = (0.1, 0.13, 0.16)
STRENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class LinearSettings:
    """Settings of the linear part: which documents the softmax runs over, and for how many epochs it is trained."""

    negatives: Negatives
    epochs: int


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of the attention part: the width of its kernel and the factor of its movement."""

    temperature: float
    strength: float


@dataclass(frozen=True)
class Candidate:
    """Settings of both parts, each of which may be absent; without either the candidate is the identity."""

    linear: LinearSettings | None = None
    attention: AttentionSettings | None = None

    def __str__(self) -> str:
        """Name the parts, as in ``linear(labelled, 8 epochs) + attention(τ=0.1, β=2)``."""
        parts = []
        if self.linear:
            parts.append(f"linear({self.linear.negatives}, {self.linear.epochs} epochs)")
        if self.attention:
            parts.append(f"attention(τ={self.attention.temperature:g}, β={self.attention.strength:g})")
        return " + ".join(parts) or "identity"


_LINEAR: tuple[LinearSettings | None, ...] = (
    None,
    *(LinearSettings(negatives, epochs) for negatives in ("labelled", "corpus") for epochs in EPOCHS),
)
_ATTENTION: tuple[AttentionSettings | None, ...] = (
    None,
    *(AttentionSettings(temperature, strength) for temperature in TEMPERATURES for strength in STRENGTHS),
)
CANDIDATES = tuple(Candidate(linear, attention) for linear in _LINEAR for attention in _ATTENTION)
"""Every pair of settings. The identity comes first."""
