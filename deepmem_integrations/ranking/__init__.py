"""The ranking of a retriever: vectors, words and remembered answers in, one learnt score out."""

from deepmem_integrations.ranking.ranker import Choice, Evidence, RankedQuery, Ranker, Shortlist

__all__ = ["Choice", "Evidence", "RankedQuery", "Ranker", "Shortlist"]
