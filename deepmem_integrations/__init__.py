"""Deep Memory, open and local: learn how your users ask, and retrieve better from any vector store.

The names in ``__all__`` are imported when they are first used, so ``import deepmem_integrations`` loads neither torch nor a
framework.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepmem_integrations.adapter import QueryAdapter
    from deepmem_integrations.cluster import RayWorkers
    from deepmem_integrations.corpora import LanceCorpus, ParquetCorpus
    from deepmem_integrations.evaluation import Evaluation, evaluate
    from deepmem_integrations.feedback import FeedbackLog
    from deepmem_integrations.labels import Relevance
    from deepmem_integrations.memory import DeepMemory
    from deepmem_integrations.retraining import RetrainPolicy
    from deepmem_integrations.tenants import Tenants
    from deepmem_integrations.training import TrainingReport, TrainingResult, train_adapter

__version__ = "0.1.0"

__all__ = [
    "DeepMemory",
    "Evaluation",
    "FeedbackLog",
    "LanceCorpus",
    "ParquetCorpus",
    "QueryAdapter",
    "RayWorkers",
    "Relevance",
    "RetrainPolicy",
    "Tenants",
    "TrainingReport",
    "TrainingResult",
    "__version__",
    "evaluate",
    "train_adapter",
]

_MODULES = {
    "DeepMemory": "memory",
    "Evaluation": "evaluation",
    "FeedbackLog": "feedback",
    "LanceCorpus": "corpora",
    "ParquetCorpus": "corpora",
    "QueryAdapter": "adapter",
    "RayWorkers": "cluster",
    "Relevance": "labels",
    "RetrainPolicy": "retraining",
    "Tenants": "tenants",
    "TrainingReport": "training",
    "TrainingResult": "training",
    "evaluate": "evaluation",
    "train_adapter": "training",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
