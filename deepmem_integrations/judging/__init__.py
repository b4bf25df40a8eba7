"""Judged documents: a language model grades, or a reranker scores, what several rankings find for queries that users asked.

`RelevanceJudge` turns logged queries into labels. The LangChain and the LlamaIndex package each have a `RelevanceJudge`, which
takes the language models, the rerankers and the retrievers of that framework.
"""

from deepmem_integrations.judging.agreement import Agreement
from deepmem_integrations.judging.judge import RelevanceJudge
from deepmem_integrations.judging.result import Judged

__all__ = ["Agreement", "Judged", "RelevanceJudge"]
