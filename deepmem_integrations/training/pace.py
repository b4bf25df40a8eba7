"""`Pace`: how long a training takes on this machine, and `Steps`, how far it is.

The costs are counted in multiplications, and one multiplication's time is measured on this machine. Where a training comes to do
more or less, one of the constants changes.
"""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deepmem_integrations.training.corpus_sample import MAX_DOCUMENTS, MINED_QUERIES
from deepmem_integrations.training.folds import FOLDS
from deepmem_integrations.training.hardware import single_threaded_operations

READING = 900
"""How many multiplications it takes to read, check and copy one number of a document's vector."""
CHOOSING = 35
"""How many multiplications the choice takes for each query, dimension and ranked document."""
QUERY = 16_000
"""The choice takes as long for each query, without its comparison with documents, as its comparison with so many documents."""
FITTING = 0.05
"""The time of the fit on all queries, as a share of the choice's."""

STEPS = 1_000
"""In how many steps a training counts its progress."""
Progress = Callable[[int, int], None]
"""A function that is called with (steps done, steps in all) as a training goes on. Steps take about the same time each."""


@dataclass(frozen=True)
class Pace:
    """The time that a training is likely to take, in seconds. Other work on the machine makes it longer.

    Attributes:
        reading: The time to read the corpus.
        choosing: The time to choose among candidates on held-out queries.
        fitting: The time to fit the choice on all queries.
        waves: In how many waves the folds run, as many side by side as there are threads.

    Example:
        >>> pace = Pace(reading=10.0, choosing=80.0, fitting=10.0, waves=4)
        >>> print(pace)
        about 2 minutes
        >>> pace.share(0.1, 10), pace.share(0.1, 1000)
        (0.2, 0.3)
    """

    reading: float
    choosing: float
    fitting: float
    waves: int

    @classmethod
    def of(cls, queries: int, documents: int, dimension: int, folds: int = 2 * FOLDS, workers: int | None = None) -> "Pace":
        """Estimate the pace of a training.

        Args:
            queries: The number of labelled queries.
            documents: The number of documents in the corpus.
            dimension: The dimension of the vectors.
            folds: The number of folds of both views together.
            workers: How many workers read the corpus and choose, each as fast as this machine; None for this machine itself.
        """
        ranked = min(documents, MAX_DOCUMENTS)
        mined = min(queries, MINED_QUERIES) if documents > ranked else 0
        speed, threads = _machine()
        threads = workers or threads
        number = dimension * speed
        choosing = CHOOSING * queries * (ranked + QUERY) * number
        waves = math.ceil(folds / threads)
        reading = documents * (READING + dimension / 2 + mined) * number
        return cls(reading / (workers or 1), choosing * waves / folds, FITTING * choosing, waves)

    @property
    def seconds(self) -> float:
        """The time of the whole training."""
        return self.reading + self.choosing + self.fitting

    def share(self, done: float, since: float) -> float:
        """Tell how much of a training is likely to be done some time after a step.

        Args:
            done: The share that was done at the step, from 0 to 1.
            since: The seconds since then.

        Returns:
            A share from 0 to 1, at most that of the next step: who waits for a step that is late is not told that it is done.
        """
        ends = [self.reading + self.choosing * wave / self.waves for wave in range(self.waves + 1)]
        following = next((end for end in ends if end > (done + 1 / STEPS) * self.seconds), self.seconds)
        return max(done, min(done + since / self.seconds, following / self.seconds))

    def __str__(self) -> str:
        """Name the time in round numbers, as in ``about 20 seconds``."""
        if self.seconds < 1.5:
            return "about a second"
        if self.seconds < 95:
            return f"about {round(self.seconds, -1 if self.seconds >= 10 else 0):.0f} seconds"
        return f"about {self.seconds / 60:.0f} minutes"


class Steps:
    """Tells a function how far a training is, in `STEPS` steps of about the same time.

    Args:
        progress: The function; None tells nobody.
        queries: The number of labelled queries.
        dimension: The dimension of the vectors.
        documents: The number of documents, or None as long as it is not known.
        folds: The number of folds of both views together.
        workers: See `Pace.of`.
    """

    def __init__(
        self,
        progress: Progress | None,
        queries: int,
        dimension: int,
        documents: int | None,
        folds: int,
        workers: int | None = None,
    ) -> None:
        self._progress, self._documents, self._folds = progress, documents, folds
        self._folds_done, self._said = 0, -1
        self._pace = functools.partial(Pace.of, queries, dimension=dimension, folds=folds, workers=workers)
        self.read(0)

    def read(self, documents: int) -> None:
        """Say how many documents have been read. If nobody knows how many there are, these could be all."""
        self._known = pace = self._pace(self._documents or documents)
        self._say(pace.reading * documents / (self._documents or documents or 1) / pace.seconds)

    def fold(self) -> None:
        """Say that one more fold is done."""
        self._folds_done += 1
        pace = self._known
        self._say((pace.reading + pace.choosing * self._folds_done / self._folds) / pace.seconds)

    def end(self) -> None:
        """Say that the training has ended."""
        self._say(1.0)

    def _say(self, share: float) -> None:
        step = round(STEPS * share)
        if self._progress is not None and step > self._said:
            self._said = step
            self._progress(step, STEPS)


@functools.cache
def _machine() -> tuple[float, int]:
    """Measure the seconds of one multiplication in a product of float32 matrices, in one thread; and return how many threads run.

    The measurement takes some milliseconds.
    """
    size = 256
    matrix = np.ones((size, size), dtype=np.float32)
    times = []
    with single_threaded_operations() as threads:
        for _ in range(10):
            started = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - started)
    return min(times) / size**3, threads
