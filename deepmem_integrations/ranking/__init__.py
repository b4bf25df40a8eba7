"""The ranking of a retriever: vectors, words and remembered answers in, one learned score out."""

from deepmem_integrations.ranking.ranker import NAMELESS, Choice, Evidence, RankedQuery, Ranker, Shortlist

__all__ = ["NAMELESS", "Choice", "Evidence", "RankedQuery", "Ranker", "Shortlist"]
