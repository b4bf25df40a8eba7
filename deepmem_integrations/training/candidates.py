"""The candidates that a training chooses from: settings of the two parts of an adapter.

To try another setting, add it to `EPOCHS`, `TEMPERATURES` or `STRENGTHS`. Cross-validation and the guard cover every candidate.
"""

from dataclasses import dataclass

from deepmem_integrations.training.linear import Negatives

EPOCHS = (8, 16)
"""The numbers of epochs that the linear part is tried with."""
TEMPERATURES = (0.1, 0.13, 0.16)
"""The kernel widths (τ) that the attention part is tried with."""
STRENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""The factors (β) that the attention part is tried with."""


@dataclass(frozen=True)
class LinearSettings:
    """Settings of the linear part.

    Attributes:
        negatives: Which documents the softmax runs over: see `Negatives`.
        epochs: How many epochs the linear part is trained for.
    """

    negatives: Negatives
    epochs: int


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of the attention part.

    Attributes:
        temperature: τ, the width of the kernel. With a smaller τ, fewer and more similar training queries count.
        strength: β, the factor by which the attention part moves a query.
    """

    temperature: float
    strength: float


@dataclass(frozen=True)
class Candidate:
    """Settings of both parts of an adapter.

    Attributes:
        linear: The settings of the linear part; None leaves the part out.
        attention: The settings of the attention part; None leaves the part out. Without both parts the candidate is the
            identity, which leaves queries as they are.
    """

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
"""All candidates, that is, every combination of settings. The identity comes first."""
