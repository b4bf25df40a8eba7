"""What was shown for each query, where labels say so (`Relevance.shown`), as those of clicks do.

`deepmem_integrations.training.exposure`, by which trainings do the same, has the reason.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.evaluation import score_rankings
from deepmem_integrations.labels import LabelRows, Relevance
from deepmem_integrations.training.exposure import weights_of_queries


@dataclass(frozen=True)
class ShownDocuments:
    """What was shown for each of n queries, by whose order models are compared.

    Attributes:
        labels: The labels of the queries.
        lists: For each query the documents that were shown and are still there, and those that were labelled; None where any
            document could be labelled.
        weights: (n,) how much each query counts: each rank at which a labelled document was shown counts as much as any other,
            and the questions of which is known what was shown count 1 on average.
    """

    labels: Relevance
    lists: Sequence[Sequence[str] | None]
    weights: NDArray[np.float64]

    @classmethod
    def of(
        cls, labels: Relevance, questions: NDArray[np.int64], corpus_ids: Container[str], parent_of: Mapping[str, str]
    ) -> "ShownDocuments":
        """Read what was shown from labels.

        Args:
            labels: The labels of n queries.
            questions: (n,) int64, the question that each query asks.
            corpus_ids: The ids of the documents that there are.
            parent_of: Document id → parent, where the labels name parents. These then stand in the lists, whether the labels say
                that documents were shown or, as those of `Relevance.at_level`, parents.
        """
        parents = set(parent_of.values())
        lists: list[Sequence[str] | None] = []
        owners, ranks = [], []
        for query, (shown, judged) in enumerate(zip(labels.shown, labels.labels, strict=True)):
            if shown is None:
                lists.append(None)
                continue
            names = list(dict.fromkeys(parent_of.get(name, name) for name in shown if name in corpus_ids or name in parents))
            labelled = [name for name, _ in judged]
            ranked = [names.index(name) + 1 for name in labelled if name in names]
            owners += [query] * len(ranked)
            ranks += ranked
            lists.append(list(dict.fromkeys([*names, *labelled])))
        known = np.array([shown is not None for shown in lists])
        return cls(labels, lists, weights_of_queries(owners, ranks, np.where(known, questions, -1)))

    @property
    def known(self) -> NDArray[np.bool_]:
        """For which queries it is known what was shown, (n,)."""
        return np.array([shown is not None for shown in self.lists])

    def ndcg(self, found: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Score how a model orders what was shown: nDCG@10 of its ranking without all other documents (Sakai 2007).

        Args:
            found: What the model finds for each query, best first. What was shown and is not found comes last, in the order in
                which it was shown.

        Returns:
            (n,) between 0 and 1; NaN where it is not known what was shown.
        """
        rankings = np.full((len(self.lists), max(map(len, filter(None, self.lists)), default=1)), -1, dtype=np.int64)
        gains: list[dict[int, float]] = []
        for query, (shown, ranked, judged) in enumerate(zip(self.lists, found, self.labels.labels, strict=True)):
            row_of = {name: row for row, name in enumerate(shown or ())}
            ordered = list(dict.fromkeys([*(name for name in ranked if name in row_of), *row_of]))
            rankings[query, : len(ordered)] = [row_of[name] for name in ordered]
            gains.append({} if shown is None else {row_of[name]: weight for name, weight in judged})
        return score_rankings(rankings, LabelRows.of_rows(gains), [10])["ndcg@10"]
