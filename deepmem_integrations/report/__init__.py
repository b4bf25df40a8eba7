"""The evaluation report: one page that shows what a model is worth on test queries, and the same as JSON."""

from deepmem_integrations.report.material import CUTOFFS
from deepmem_integrations.report.report import EvaluationReport
from deepmem_integrations.report.sizes import ContextLength, CountTokens

__all__ = ["CUTOFFS", "ContextLength", "CountTokens", "EvaluationReport"]
