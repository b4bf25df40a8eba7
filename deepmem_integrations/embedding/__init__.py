"""Embedding models: one interface to every kind of model that users bring, and a few models that are loaded by name."""

from deepmem_integrations.embedding.embedder import Embedder, untransformed
from deepmem_integrations.embedding.models import MiniLM, OpenAIEmbedding, SentenceTransformer, load_embedding

__all__ = ["Embedder", "MiniLM", "OpenAIEmbedding", "SentenceTransformer", "load_embedding", "untransformed"]
