"""Measures what embedding costs: ``bash benchmarks/run embedding``. Two models of the comparison embed texts on one core."""

import os
import time
from collections.abc import Sequence

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.data import _embed, load

FEW, TEXTS = 20, 220


def main() -> None:
    """Embed abstracts of cranfield with both models in turns, and print the time a text takes, at the median of three rounds."""
    import torch

    torch.set_num_threads(1)
    texts = load("cranfield", "minilm").corpus.texts[:TEXTS]
    taken: dict[str, list[float]] = {"minilm": [], "wordllama": []}
    for _ in range(3):
        for model, times in taken.items():
            few, many = (_seconds(texts[:count], model) for count in (FEW, TEXTS))  # the difference leaves the loading out
            times.append(1e3 * (many - few) / (TEXTS - FEW))
    middle = {model: float(np.median(times)) for model, times in taken.items()}
    for model, milliseconds in middle.items():
        print(f"{model:<10} {milliseconds:8.2f} ms of CPU a text")
    print(f"minilm takes {middle['minilm'] / middle['wordllama']:.0f} times as long")


def _seconds(texts: Sequence[str], model: str) -> float:
    started = time.process_time()
    _embed(texts, model)
    return time.process_time() - started


if __name__ == "__main__":
    main()
