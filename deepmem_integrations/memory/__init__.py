"""`DeepMemory`: train, evaluate and use models for one vector store, with the methods of Deep Lake v3."""

from deepmem_integrations.memory.deep_memory import DeepMemory, HasDeepMemory

__all__ = ["DeepMemory", "HasDeepMemory"]
