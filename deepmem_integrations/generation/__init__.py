"""Synthetic queries: labels without users, written by a language model, filtered, and kept as they come.

The LangChain and LlamaIndex packages have a `SyntheticQueryGenerator` each, which brings their models and documents here.
"""

from deepmem_integrations.generation.budget import Budget, Estimate, Usage
from deepmem_integrations.generation.extractive import Extractive
from deepmem_integrations.generation.filters import Filters
from deepmem_integrations.generation.generator import QueryGenerator
from deepmem_integrations.generation.model import Answer, FunctionModel, Model, Request
from deepmem_integrations.generation.openai import OpenAIModel
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
    "RejectedQuery",
    "Request",
    "Usage",
]
