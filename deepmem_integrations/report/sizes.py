"""The lengths of documents, in tokens or characters, and the price of a context."""

from collections.abc import Callable
from dataclasses import dataclass

from deepmem_integrations._extras import require
from deepmem_integrations.errors import StorageError

CountTokens = Callable[[str], int]
"""A function from a text to its number of tokens."""


@dataclass(frozen=True)
class ContextLength:
    """How long a text is for a language model, and what that costs.

    Attributes:
        unit: ``tokens`` or ``characters``.
        count: The function that counts them.
        price: The price of a million tokens; None where it is not given.

    Example:
        >>> length = ContextLength.of(lambda text: len(text.split()), price=3.0)
        >>> length.unit, length.count("four words of text"), length.cost(500_000)
        ('tokens', 4, 1.5)
    """

    unit: str
    count: CountTokens
    price: float | None = None

    @classmethod
    def of(cls, tokens: str | CountTokens | None, price: float | None) -> "ContextLength":
        """Read what a user asks for: see `DeepMemory.report`.

        Raises:
            ValueError: ``price`` is no number of 0 or more or stands without ``tokens``, or tiktoken does not know ``tokens``.
            MissingExtraError: tiktoken is not installed.
            StorageError: tiktoken cannot download its encoding.
        """
        if price is not None and not 0 <= price < float("inf"):
            raise ValueError(f"price is what a million tokens cost, 0 or more; got {price!r}.")
        if price is not None and tokens is None:
            raise ValueError(
                'price is for a million tokens, and characters are counted. Say how to count tokens, as in tokens="o200k_base".'
            )
        if tokens is None:
            return cls("characters", len)
        return cls("tokens", _tiktoken(tokens) if isinstance(tokens, str) else tokens, price)

    def cost(self, length: float | None) -> float | None:
        """Return the price of a number of tokens; None where the price or the number is not known."""
        return None if length is None or self.price is None else length * self.price / 1_000_000


def _tiktoken(name: str) -> CountTokens:
    tiktoken = require("tiktoken", extra="openai")
    try:
        encoding = tiktoken.get_encoding(name) if name in tiktoken.list_encoding_names() else tiktoken.encoding_for_model(name)
    except KeyError:
        known = ", ".join(tiktoken.list_encoding_names())
        raise ValueError(f"tiktoken knows no encoding or model {name!r}. Its encodings are {known}.") from None
    except OSError as error:
        raise StorageError(
            f"tiktoken cannot download its encoding {name!r}: {error}. Count tokens with a function of your own, or characters."
        ) from error
    return lambda text: len(encoding.encode(text, disallowed_special=()))  # a document may write <|endoftext|>
