"""Training: a query transform is learned from labelled queries, chosen by cross-validation, and reported."""

from deepmem_integrations.training.checkpoint import TrainingCheckpoint
from deepmem_integrations.training.pace import Pace
from deepmem_integrations.training.report import TrainingReport
from deepmem_integrations.training.train import TrainingResult, train_adapter
from deepmem_integrations.training.words import FOUND

__all__ = ["FOUND", "Pace", "TrainingCheckpoint", "TrainingReport", "TrainingResult", "train_adapter"]
