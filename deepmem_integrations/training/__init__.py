"""Train an adapter on labelled queries."""

from deepmem_integrations.training.report import TrainingReport
from deepmem_integrations.training.train import TrainingResult, train_adapter

__all__ = ["TrainingReport", "TrainingResult", "train_adapter"]
