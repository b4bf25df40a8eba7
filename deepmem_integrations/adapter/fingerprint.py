"""Fingerprints of embedding models, which tell whether an adapter and an embedding model belong together."""

from dataclasses import dataclass

import numpy as np

from deepmem_integrations._immutable import ReadOnlyArrays
from deepmem_integrations._vectors import Vectors
from deepmem_integrations.errors import EmbeddingMismatchError

PROBES = (
    "How do I reset my password?",
    "quarterly revenue growth, adjusted for currency effects",
    "The mitochondrion is the powerhouse of the cell.",
)
"""Texts whose vectors tell embedding models apart. They are part of the file format: never edit them, only add another set."""

MIN_COSINE = 0.99
"""Below this cosine, two vectors of a text come from different models.

Hosted models and half-precision hardware return slightly different vectors each time, and other models come nowhere near.
"""


@dataclass(frozen=True)
class Fingerprint(ReadOnlyArrays):
    """The fingerprint of an embedding model.

    Attributes:
        dimension: The length of the model's vectors.
        model: The model's name, where it has one.
        probes: (3, d) float32, the model's query vectors of `PROBES`, of length 1 (or 0); None where only vectors were at hand.

    Example:
        >>> Fingerprint(384).check(Fingerprint(384, "all-MiniLM-L6-v2"))  # nothing contradicts
        >>> str(Fingerprint(384, "all-MiniLM-L6-v2"))
        'all-MiniLM-L6-v2 (384 dimensions)'
    """

    dimension: int
    model: str | None = None
    probes: Vectors | None = None

    def check(self, other: "Fingerprint") -> None:
        """Refuse an embedding model other than this one.

        The vectors decide. Names are only quoted in the error, since one model goes by many names. Where either side has no
        vectors of the probe texts, only the dimensions are compared.

        Raises:
            EmbeddingMismatchError: The dimensions differ, or the two vectors of a probe text have a cosine below 0.99.
        """
        if self.dimension != other.dimension:
            raise EmbeddingMismatchError(
                f"The adapter was trained for {self} but is used with {other}. "
                "Use the embedding model of the training, or train again with this one."
            )
        if self.probes is None or other.probes is None:
            return
        # A model may have nothing to say about a probe text, and give zeros. Then the other model must give zeros, too.
        both_zero = ~self.probes.any(axis=1) & ~other.probes.any(axis=1)
        cosine = float(np.where(both_zero, 1.0, np.sum(self.probes * other.probes, axis=1)).min())
        if not cosine >= MIN_COSINE:
            raise EmbeddingMismatchError(
                f"The adapter was trained for {self} but is used with {other}: the two models give the same text "
                f"different vectors (cosine {cosine:.3f}). Use the embedding model of the training, or train again with this one."
            )

    def __str__(self) -> str:
        """Name the model and its dimension."""
        return f"{self.model or 'an unnamed embedding model'} ({self.dimension} dimensions)"
