"""Answer questions without a language model, with sentences of the context that share words with the question."""

import math
import re
from collections import Counter

_WORD = re.compile(r"[a-z0-9_]{2,}")
_BREAK = re.compile(r"(?<=[.!?])\s+|\n{2,}")
_SENTENCE = re.compile(r"(\S+\s+){4,}\S*[.!?]['\"”)\]]*", re.DOTALL)
_SHOWN = 600


def extract_answer(question: str, context: str, count: int = 2) -> str:
    """Extract an answer from a context, in place of a language model.

    A sentence shares words with the question. Its score is the sum of the rarities of these words within the context, divided
    by the square root of the number of words in the sentence.

    Args:
        question: The question.
        context: The texts that were retrieved, best first.
        count: How many sentences to take at most.

    Returns:
        The best sentences, in their order in the context; or a message that no sentence shares a word with the question. The
        answer begins with a note that it is an extract.

    Example:
        >>> extract_answer("How do I save a query?", "Locks are held until commit. A view saves a query under a name.", 1)
        '[an extract, no language model] A view saves a query under a name.'
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
