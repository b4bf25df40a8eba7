"""`Fingerprint`, by which an adapter recognises the embedding model that it was trained with."""

from dataclasses import dataclass

import numpy as np

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.errors import EmbeddingMismatchError

PROBES = (
    "How do I reset my password?",
    "quarterly revenue growth, adjusted for currency effects",
    "The mitochondrion is the powerhouse of the cell.",
)
"""The probe texts, whose vectors tell embedding models apart.

The texts are part of the file format: never edit them, only add another set.
"""

MIN_COSINE = 0.99
"""The least cosine between two vectors of one probe text that count as vectors of the same embedding model.

The threshold is below 1 because hosted models and half-precision hardware return slightly different vectors each time. The
vectors of two different models have a far lower cosine.
"""


@dataclass(frozen=True)
class Fingerprint:
    """The marks of an embedding model by which it is recognised: a dimension, a name and the vectors of a few probe texts.

    Attributes:
        dimension: d, the length of the model's vectors.
        model: The model's name; None if the name is not known.
        probes: (3, d) float32, the model's query vectors of the texts in `PROBES`. Each row has the length 1, or 0 if the model
            gives zeros for the text. None if the adapter was trained on bare vectors, without the embedding model.

    Example:
        >>> Fingerprint(384, "all-MiniLM-L6-v2").check(Fingerprint(1536, "text-embedding-3-small"))
        Traceback (most recent call last):
        deepmem_integrations.errors.EmbeddingMismatchError: The adapter was trained for all-MiniLM-L6-v2 (384 dimensions) but ...
    """

    dimension: int
    model: str | None = None
    probes: Vectors | None = None

    def check(self, other: "Fingerprint") -> None:
        """Refuse an embedding model other than this one.

        The vectors of the probe texts decide. Names only appear in the message, since one model may have many names. If either
        fingerprint has no probe vectors, only the dimensions are compared.

        Args:
            other: The fingerprint of the embedding model in question.

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
        # A model may give zeros for a probe text that it knows no word of. Then the other model must give zeros as well.
        both_zero = ~self.probes.any(axis=1) & ~other.probes.any(axis=1)
        cosine = float(np.where(both_zero, 1.0, np.sum(self.probes * other.probes, axis=1)).min())
        if not cosine >= MIN_COSINE:
            raise EmbeddingMismatchError(
                f"The adapter was trained for {self} but is used with {other}: the two models give the same text "
                f"different vectors (cosine {cosine:.3f}). Use the embedding model of the training, or train again with this one."
            )

    def __str__(self) -> str:
        """Return the model's name and dimension."""
        return f"{self.model or 'an unnamed embedding model'} ({self.dimension} dimensions)"
