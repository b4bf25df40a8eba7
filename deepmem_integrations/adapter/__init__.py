"""The trained query transform: a small file, applied with numpy alone."""

from deepmem_integrations.adapter.attention import Attention, KernelSpace
from deepmem_integrations.adapter.explanation import Explanation, Influence, RankedDocument, Vote
from deepmem_integrations.adapter.fingerprint import PROBES, Fingerprint
from deepmem_integrations.adapter.query_adapter import QueryAdapter, degrees, sorted_into_lists
from deepmem_integrations.adapter.ranking import Ranking
from deepmem_integrations.adapter.remembered import Growth, RememberedQueries, ValueSpace

__all__ = [
    "PROBES",
    "Attention",
    "Explanation",
    "Fingerprint",
    "Growth",
    "Influence",
    "KernelSpace",
    "QueryAdapter",
    "RankedDocument",
    "Ranking",
    "RememberedQueries",
    "ValueSpace",
    "Vote",
    "degrees",
    "sorted_into_lists",
]
