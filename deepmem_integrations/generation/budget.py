"""The tokens and the cost of a run: the estimate before it, the usage during it, and the budget that stops it."""

from dataclasses import dataclass
from typing import Any

from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.model import Answer, Request

_BYTES_PER_TOKEN = 4  # this is about right for English and, because of UTF-8, for other scripts, too
_SCHEMA_TOKENS = 150  # the schema of the answer adds about this many tokens to a request
_TOKENS_PER_QUERY = 35  # one query with its kind, as JSON, takes about this many tokens


@dataclass(frozen=True)
class Budget:
    """A cap on the tokens or the cost of a run.

    A request that might exceed the cap is not sent. Requests in flight count with their estimated usage.

    Args:
        max_tokens: The largest number of input and output tokens together; None sets no limit.
        max_cost: The highest cost, in the currency of the prices; None sets no limit.
        input_price: The price of a million input tokens.
        output_price: The price of a million output tokens.

    Raises:
        GenerationError: ``max_cost`` is given without a price.

    Example:
        >>> budget = Budget(max_cost=2.0, input_price=0.15, output_price=0.6)
        >>> budget.cost(Usage(requests=1, input_tokens=2_000_000, output_tokens=1_000_000))
        0.9
    """

    max_tokens: int | None = None
    max_cost: float | None = None
    input_price: float = 0.0
    output_price: float = 0.0

    def __post_init__(self) -> None:
        if self.max_cost is not None and not (self.input_price or self.output_price):
            raise GenerationError("Budget(max_cost=…) needs input_price and output_price, each per million tokens.")

    @staticmethod
    def check(budget: Any) -> None:
        """Check that what was given as a budget is one.

        Raises:
            GenerationError: It is something else, such as a number of tokens.
        """
        if not isinstance(budget, Budget):
            raise GenerationError(f"budget is a Budget, such as Budget(max_tokens=100_000); got {budget!r:.60}.")

    def allows(self, usage: "Usage") -> bool:
        """Tell whether this usage stays within the cap."""
        return (self.max_tokens is None or usage.tokens <= self.max_tokens) and (
            self.max_cost is None or self.cost(usage) <= self.max_cost
        )

    def cost(self, usage: "Usage") -> float:
        """Return the cost of this usage, in the currency of the prices."""
        return (usage.input_tokens * self.input_price + usage.output_tokens * self.output_price) / 1e6


@dataclass(frozen=True)
class Usage:
    """A number of requests and the tokens that they used.

    Attributes:
        requests: The number of requests.
        input_tokens: The input tokens that the model counted, or an estimate from the size of the texts in bytes where the
            model reports no count.
        output_tokens: The output tokens, counted or estimated in the same way.

    Example:
        >>> Usage(1, 200, 40) + Usage(1, 300, 60)
        Usage(requests=2, input_tokens=500, output_tokens=100)
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """The number of input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def told(self, recorded: int, cost: float | None) -> str:
        """Tell what a run used.

        Args:
            recorded: The number of answers that came from the checkpoint.
            cost: The cost of the requests; None where nobody knows the prices.
        """
        money = "" if cost is None else f", cost {cost:.2f}"
        return (
            f"{self.requests} requests sent, {recorded} answers from the checkpoint, {self.input_tokens:,} input and "
            f"{self.output_tokens:,} output tokens{money}"
        )

    def __add__(self, other: "Usage") -> "Usage":
        """Add the counts."""
        return Usage(
            self.requests + other.requests, self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens
        )

    def __sub__(self, other: "Usage") -> "Usage":
        """Subtract the counts."""
        return self + Usage(-other.requests, -other.input_tokens, -other.output_tokens)

    @classmethod
    def expected(cls, request: Request) -> "Usage":
        """Estimate the usage of a request before it is sent. A reranker, which gets no messages, uses no tokens."""
        if request.task == "score":
            return cls(1)
        output = _TOKENS_PER_QUERY * max(1, len(request.kinds))
        return cls(1, _SCHEMA_TOKENS + sum(_tokens(message["content"]) for message in request.messages), output)

    @classmethod
    def of(cls, request: Request, answer: Answer) -> "Usage":
        """Return the usage of an answered request: the counts of the model, or an estimate where it reports none."""
        if request.task == "score":
            return cls(1)
        if answer.input_tokens or answer.output_tokens:
            return cls(1, answer.input_tokens, answer.output_tokens)
        return cls(1, cls.expected(request).input_tokens, _tokens(str(answer.value or answer.detail)))


@dataclass(frozen=True)
class Estimate:
    """The usage of a run, estimated before anything is sent.

    Attributes:
        documents: The number of documents that the run would ask about.
        recorded: The number of requests whose answers are in the checkpoint already. They cost nothing.
        usage: The usage of the requests that would be sent. Judgements are not included, because their number depends on the
            answers.
        cost: The cost of ``usage`` in the currency of the budget's prices; None where the budget has no prices.

    Example:
        >>> print(Estimate(documents=100, recorded=0, usage=Usage(100, 60_000, 14_000), cost=0.02))
        100 documents: 100 requests to send (0 answered before), about 60,000 input and 14,000 output tokens, cost about 0.02
    """

    documents: int
    recorded: int
    usage: Usage
    cost: float | None

    def __str__(self) -> str:
        """Show the estimate in one line."""
        cost = "" if self.cost is None else f", cost about {self.cost:.2f}"
        return (
            f"{self.documents} documents: {self.usage.requests} requests to send ({self.recorded} answered before), about "
            f"{self.usage.input_tokens:,} input and {self.usage.output_tokens:,} output tokens{cost}"
        )


def _tokens(text: Any) -> int:
    return len(str(text).encode()) // _BYTES_PER_TOKEN + 1
