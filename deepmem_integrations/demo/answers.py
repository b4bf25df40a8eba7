"""Answers without a language model: the sentences of the context that share most words with the question."""

import math
import re
from collections import Counter

_WORD = re.compile(r"[a-z0-9_]{2,}")
_BREAK = re.compile(r"(?<=[.!?])\s+|\n{2,}")
_SENTENCE = re.compile(r"(\S+\s+){4,}\S*[.!?]['\"”)\]]*", re.DOTALL)
_SHOWN = 600


def extract_answer(question: str, context: str, count: int = 2) -> str:
    """Take an answer out of a context, where no language model is at hand. The answer says that it is an extract.

    A sentence scores the rarity, within the context, of each word that it shares with the question, divided by the square
    root of its length.

    Args:
        question: The question.
        context: The texts that were retrieved, best first.
        count: How many sentences to take.

    Returns:
        The best sentences in the order of the context, or a sentence which says that none shares a word with the question.
    """
    sentences = [" ".join(text.split()) for text in _BREAK.split(context) if _SENTENCE.fullmatch(text.strip())]
    words = [set(_WORD.findall(sentence.lower())) for sentence in sentences]
    counts = Counter(word for found in words for word in found)
    asked = set(_WORD.findall(question.lower()))
    rarity = {word: math.log(1 + len(sentences) / counts[word]) for word in asked if counts[word]}
    scores = [sum(rarity[word] for word in asked & found) / math.sqrt(1 + len(found)) for found in words]
    best = sorted(range(len(sentences)), key=lambda row: -scores[row])[:count]
    picked = " … ".join(sentences[row] for row in sorted(best) if scores[row] > 0)
    if not picked:
        return "[an extract, no language model] Nothing in the context shares a word with the question."
    return f"[an extract, no language model] {picked[:_SHOWN]}"
