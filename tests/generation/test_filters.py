import json
import os
from pathlib import Path

import pytest

from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation import Filters
from deepmem_integrations.generation.filters import bare, text_fault
from deepmem_integrations.generation.sources import Source

TEXT = (
    "The warranty of the heat pump covers the compressor for ten years and all other parts for two years. "
    "To claim it, the owner sends the invoice and the serial number to the service desk within thirty days."
)
SOURCE = Source("d", TEXT)
ALL = Filters(copy=True, near_duplicate=False, round_trip=False)

FAULTY = [
    ("malformed", "x" * 301),
    ("malformed", "???"),
    ("malformed", "A, B, 123"),
    ("malformed", "How long is the\nwarranty?"),
    ("malformed", '{"text": "warranty"}'),
    ("malformed", "see https://evil.example/warranty"),
    ("malformed", "warranty\x00 length"),
    ("malformed", "Here are 4 queries about it"),
    ("refusal", "I'm sorry, but I can't help with that."),
    ("refusal", "I cannot generate queries for this request"),
    ("refusal", "As an AI language model, I have no opinion"),
    ("mention", "What does the passage say about the warranty?"),
    ("mention", "According to this document, who pays?"),
    ("mention", "How long is the warranty mentioned above?"),
    ("mention", "Was steht im Text über die Garantie?"),
    ("mention", "Que dit le texte selon ce document sur la garantie ?"),
    ("copy", "covers the compressor for ten years and all other parts"),
    ("copy", "the owner sends the invoice and the serial number?"),
    ("language", "Wie lange ist die Garantie für den Kompressor und was ist mit dem Rest?"),
    ("language", "¿Cómo puedo reclamar la garantía de una bomba de calor y cuál es el plazo?"),
]


@pytest.mark.parametrize(("name", "query"), FAULTY)
def test_a_filter_finds_its_fault_and_can_be_switched_off(name, query):
    fault = text_fault(query, "question", (SOURCE,), ALL)
    assert fault is not None
    assert fault[0] == name
    assert fault[1]
    off = Filters(**dict.fromkeys(["malformed", "refusal", "copy", "mention", "language", "duplicate"], False) | {name: False})
    assert text_fault(query, "question", (SOURCE,), off) is None
    only = {one: one == name for one in ["malformed", "refusal", "copy", "mention", "language"]}
    assert text_fault(query, "question", (SOURCE,), Filters(**only))[0] == name


def test_nothing_is_no_query_whatever_the_filters():
    off = Filters(malformed=False, refusal=False, copy=False, mention=False, language=False)
    assert text_fault(" \n", "question", (SOURCE,), off) == ("empty", "no text")


@pytest.mark.parametrize(
    "query",
    [
        "how long is a heat pump's compressor under guarantee",
        "heat pump warranty",
        "compressor for ten years",  # short and copied: terms
        "I cannot find my serial number, does the guarantee still hold?",
        "Sorry state of my compressor: who pays for a new one?",
        "EBITDA 2019",
        "can't help hearing a noise from the pump",
        "which documents do I need to send in for a guarantee claim?",
        "GARANTIE",
        "à la carte menu",
        "de facto standard for heat pumps",
    ],
)
def test_what_users_ask_passes(query):
    assert text_fault(query, "question", (SOURCE,), ALL) is None


def test_another_language_passes_where_it_was_asked_for():
    german = "Wie lange ist die Garantie für den Kompressor und was ist mit dem Rest?"
    assert text_fault(german, "language:de", (SOURCE,), ALL) is None
    assert text_fault(german, "language:fr", (SOURCE,), ALL) == ("language", "de, not fr")
    assert text_fault("how long is the warranty of the pump?", "language:de", (SOURCE,), ALL) == ("language", "en, not de")
    assert text_fault("how long is the warranty of the pump?", "language:xx", (SOURCE,), ALL) is None, "one that is not known"


@pytest.mark.slow
def test_real_queries_of_users_pass_the_filters(collections):
    """Thousands of English queries that people wrote: next to none is taken for a fault."""
    folder = Path(os.environ["DEEPMEM_DATA"], "data")
    english = Source("d", TEXT)
    for name in ("tatqa", "scifact", "nfcorpus", "stackfaq"):
        queries = [json.loads(line)["text"] for line in (folder / name / "queries.jsonl").read_text("utf-8").splitlines()]
        faults = [(fault, query) for query in queries if (fault := text_fault(query.strip(), "question", (english,), ALL))]
        assert len(faults) <= 0.01 * len(queries), faults[:20]


def test_options_are_checked():
    for wrong in ({"longest": 0}, {"cosine": 0}, {"cosine": 1.5}, {"window": 0}):
        with pytest.raises(GenerationError, match="Filters need"):
            Filters(**wrong)


def test_the_window_is_wide():
    windows = [Filters().window_of(size) for size in (5, 100, 400, 5_000, 1_000_000)]
    assert windows == [10, 40, 160, 200, 1000]
    assert Filters(window=7).window_of(1_000_000) == 7


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [
        ("2. how do I undo a commit?", 2, "how do I undo a commit?"),
        ("(2) how do I undo a commit?", 2, "how do I undo a commit?"),
        ("- 2) how do I undo a commit?", 2, "how do I undo a commit?"),
        ("• “how do I undo a commit?”", 1, "how do I undo a commit?"),
        ("Query 3: how do I undo a commit?", 1, "how do I undo a commit?"),
        ('**1. "how do I undo a commit?"**', 1, "how do I undo a commit?"),
        ("「コミットを取り消すには」", 1, "コミットを取り消すには"),
        ("7. how do I undo a commit?", None, "how do I undo a commit?"),
        ("1. Mai offen?", 2, "1. Mai offen?"),
        ("3.11 or 3.12 for asyncio", 3, "3.11 or 3.12 for asyncio"),
        ("2024 budget by quarter", 2, "2024 budget by quarter"),
        ('"revert" or "reset"', 1, '"revert" or "reset"'),
        ("-v and --verbose at once", 1, "-v and --verbose at once"),
        ("question marks in URLs", 1, "question marks in URLs"),
    ],
)
def test_what_models_put_around_a_query_is_stripped(text, number, expected):
    assert bare(text, number) == expected


def test_no_query_holds_half_a_surrogate_pair():
    off = Filters(malformed=False, refusal=False, copy=False, mention=False, language=False)
    assert text_fault("pump \ud83d broken", "question", (SOURCE,), off)[0] == "malformed"
