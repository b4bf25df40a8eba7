"""What a run will use, what it has used, and where it stops."""

from dataclasses import dataclass
from typing import Any

from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.model import Answer, Request

_BYTES_PER_TOKEN = 4  # about right for English and, by way of UTF-8, for other scripts too
_SCHEMA_TOKENS = 150  # what the structure of the answer adds to a request
_TOKENS_PER_QUERY = 35  # one query with its kind, as JSON


@dataclass(frozen=True)
class Budget:
    """A cap on a run. Requests that might go beyond it are not sent; those in flight are counted at their estimate.

    Args:
        max_tokens: Of input and output together.
        max_cost: In the currency of the prices.
        input_price: Of a million input tokens.
        output_price: Of a million output tokens.
    """

    max_tokens: int | None = None
    max_cost: float | None = None
    input_price: float = 0.0
    output_price: float = 0.0

    def __post_init__(self) -> None:
        """Check that a cap on the cost can be kept."""
        if self.max_cost is not None and not (self.input_price or self.output_price):
            raise GenerationError("Budget(max_cost=…) needs input_price and output_price, each of a million tokens.")

    def allows(self, usage: "Usage") -> bool:
        """Whether so much may be used."""
        return (self.max_tokens is None or usage.tokens <= self.max_tokens) and (
            self.max_cost is None or self.cost(usage) <= self.max_cost
        )

    def cost(self, usage: "Usage") -> float:
        """In the currency of the prices."""
        return (usage.input_tokens * self.input_price + usage.output_tokens * self.output_price) / 1e6


@dataclass(frozen=True)
class Usage:
    """Requests and their tokens.

    Attributes:
        requests: How many.
        input_tokens: As the model counts them, or estimated from the texts' bytes where it does not tell.
        output_tokens: Likewise.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """The sum."""
        return Usage(
            self.requests + other.requests, self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens
        )

    def __sub__(self, other: "Usage") -> "Usage":
        """The difference."""
        return self + Usage(-other.requests, -other.input_tokens, -other.output_tokens)

    @classmethod
    def expected(cls, request: Request) -> "Usage":
        """An estimate, before the request is sent."""
        output = _TOKENS_PER_QUERY * max(1, len(request.kinds))
        return cls(1, _SCHEMA_TOKENS + sum(_tokens(message["content"]) for message in request.messages), output)

    @classmethod
    def of(cls, request: Request, answer: Answer) -> "Usage":
        """What an answer used."""
        if answer.input_tokens or answer.output_tokens:
            return cls(1, answer.input_tokens, answer.output_tokens)
        return cls(1, cls.expected(request).input_tokens, _tokens(str(answer.value or answer.detail)))


@dataclass(frozen=True)
class Estimate:
    """What a run would use, known before anything is sent.

    Attributes:
        documents: That would be asked about.
        recorded: Requests whose answers are in the checkpoint already; they cost nothing.
        usage: Of the requests that would be sent, without judgements: how many of those there are, only the answers tell.
        cost: In the currency of the budget's prices; None where no price is given.
    """

    documents: int
    recorded: int
    usage: Usage
    cost: float | None

    def __str__(self) -> str:
        """One line."""
        cost = "" if self.cost is None else f", cost about {self.cost:.2f}"
        return (
            f"{self.documents} documents: {self.usage.requests} requests to send ({self.recorded} answered before), about "
            f"{self.usage.input_tokens:,} input and {self.usage.output_tokens:,} output tokens{cost}"
        )


def _tokens(text: Any) -> int:
    return len(str(text).encode()) // _BYTES_PER_TOKEN + 1
