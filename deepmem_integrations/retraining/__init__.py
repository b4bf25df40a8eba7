"""Retraining that cannot hurt: when it is due, which queries stay out of it, and whether the new model is put in use."""

from deepmem_integrations.retraining.contest import IN_USE, Decision, HeldOutQueries, InUse, check_in_use, decide
from deepmem_integrations.retraining.outcome import Retraining
from deepmem_integrations.retraining.policy import LABELS, Due, RetrainPolicy, labels_sketch
from deepmem_integrations.retraining.questions import HELD_OUT, Questions

__all__ = [
    "HELD_OUT",
    "IN_USE",
    "LABELS",
    "Decision",
    "Due",
    "HeldOutQueries",
    "InUse",
    "Questions",
    "RetrainPolicy",
    "Retraining",
    "check_in_use",
    "decide",
    "labels_sketch",
]
