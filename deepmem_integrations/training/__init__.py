"""Training: a query transform is learned from labelled queries, chosen by cross-validation, and reported."""

from deepmem_integrations.training.report import TrainingReport
from deepmem_integrations.training.train import TrainingResult, train_adapter

__all__ = ["TrainingReport", "TrainingResult", "train_adapter"]
