"""Synthetic queries: a language model writes queries for documents, which gives labels without users.

`QueryGenerator` writes the queries, filters them, and keeps every answer in a checkpoint. The LangChain and the LlamaIndex
package each have a `SyntheticQueryGenerator`, which takes the language models and the documents of that framework.
"""

from deepmem_integrations.generation.budget import Budget, Estimate, Usage
from deepmem_integrations.generation.extractive import Extractive
from deepmem_integrations.generation.filters import Filters
from deepmem_integrations.generation.generator import QueryGenerator
from deepmem_integrations.generation.model import Answer, FunctionModel, Model, Request
from deepmem_integrations.generation.openai import OpenAIModel
from deepmem_integrations.generation.rates import RateLimit
from deepmem_integrations.generation.result import GeneratedQuery, Generation, RejectedQuery

__all__ = [
    "Answer",
    "Budget",
    "Estimate",
    "Extractive",
    "Filters",
    "FunctionModel",
    "GeneratedQuery",
    "Generation",
    "Model",
    "OpenAIModel",
    "QueryGenerator",
    "RateLimit",
    "RejectedQuery",
    "Request",
    "Usage",
]
