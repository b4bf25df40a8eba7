import pytest

from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation import Answer, Budget
from deepmem_integrations.generation.budget import Estimate, Usage
from deepmem_integrations.generation.prompt import Prompt
from deepmem_integrations.generation.sources import Source


def test_usage_adds_up():
    one, two = Usage(1, 100, 20), Usage(2, 30, 4)
    assert one + two == Usage(3, 130, 24)
    assert one + two - two == one
    assert one.tokens == 120


def test_prices_are_of_a_million_tokens():
    budget = Budget(input_price=0.15, output_price=0.6)
    assert budget.cost(Usage(1, 1_000_000, 500_000)) == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("budget", "allowed", "refused"),
    [
        (Budget(max_tokens=100), Usage(1, 60, 40), Usage(1, 60, 41)),
        (Budget(max_cost=1.0, input_price=1.0), Usage(1, 1_000_000, 10**9), Usage(1, 1_000_001, 0)),
        (Budget(max_cost=1.0, output_price=2.0), Usage(1, 10**9, 500_000), Usage(1, 0, 500_001)),
        (Budget(max_tokens=10, max_cost=1.0, input_price=1e6), Usage(1, 1, 9), Usage(1, 2, 0)),
    ],
)
def test_a_cap_is_reached_but_not_passed(budget, allowed, refused):
    assert budget.allows(allowed)
    assert not budget.allows(refused)


def test_without_a_cap_everything_is_allowed():
    assert Budget().allows(Usage(1, 10**12, 10**12))
    with pytest.raises(GenerationError, match="needs input_price and output_price"):
        Budget(max_cost=1.0)


def test_what_the_model_counted_counts_and_else_an_estimate():
    request = Prompt(4).request((Source("d", "word " * 400),))
    expected = Usage.expected(request)
    assert expected.requests == 1
    assert 500 < expected.input_tokens < 1_500, "2,000 bytes of text, the task, and the structure of the answer"
    assert expected.output_tokens == 4 * Usage.expected(Prompt(1).request((Source("d", "x"),))).output_tokens
    assert Usage.of(request, Answer({}, input_tokens=7, output_tokens=3)) == Usage(1, 7, 3)
    told = Usage.of(request, Answer({"queries": ["x" * 400]}))
    assert told.input_tokens == expected.input_tokens
    assert 100 <= told.output_tokens < 120


def test_an_estimate_says_all_in_one_line():
    estimate = Estimate(12, 3, Usage(9, 12_345, 678), 1.234)
    text = "12 documents: 9 requests to send (3 answered before), about 12,345 input and 678 output tokens"
    assert str(estimate) == f"{text}, cost about 1.23"
    assert str(Estimate(12, 3, Usage(9, 12_345, 678), None)) == text
