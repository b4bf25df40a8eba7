"""The trained query transform: a small file, applied with numpy alone."""

from deepmem_integrations.adapter.fingerprint import Fingerprint
from deepmem_integrations.adapter.query_adapter import QueryAdapter
from deepmem_integrations.adapter.remembered import Explanation, Growth, Influence

__all__ = ["Explanation", "Fingerprint", "Growth", "Influence", "QueryAdapter"]
