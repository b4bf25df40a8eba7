"""What users asked, what they were shown, and what they thought of it: `FeedbackLog`, and the labels that come of it."""

from deepmem_integrations.feedback.interleaving import interleave
from deepmem_integrations.feedback.log import FeedbackLog, ids_in_metadata, unrecorded
from deepmem_integrations.labels.policies import POLICIES, Policy
from deepmem_integrations.labels.records import Event, LoggedQuery, Shown

__all__ = ["POLICIES", "Event", "FeedbackLog", "LoggedQuery", "Policy", "Shown", "ids_in_metadata", "interleave", "unrecorded"]
