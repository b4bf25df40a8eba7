"""The ranking of a retriever: vectors, words and remembered answers in, one learned score out."""

from deepmem_integrations.ranking.metadata import EVIDENCE, Metadata
from deepmem_integrations.ranking.ranker import NAMELESS, Choice, Evidence, RankedQuery, Ranker, Shortlist

__all__ = ["EVIDENCE", "NAMELESS", "Choice", "Evidence", "Metadata", "RankedQuery", "Ranker", "Shortlist"]
