"""Labelled queries, which say what documents answer a query and how well."""

from deepmem_integrations.labels.carrying import CarriedOver, Documents, find_texts
from deepmem_integrations.labels.files import Labels
from deepmem_integrations.labels.grouping import question_groups, same_words, sum_by_group
from deepmem_integrations.labels.parents import Parents
from deepmem_integrations.labels.relevance import InvalidLabelsWarning, OnInvalid, Relevance, RowNumber
from deepmem_integrations.labels.rows import LabelRows, labelled_vectors

__all__ = [
    "CarriedOver",
    "Documents",
    "InvalidLabelsWarning",
    "LabelRows",
    "Labels",
    "OnInvalid",
    "Parents",
    "Relevance",
    "RowNumber",
    "find_texts",
    "labelled_vectors",
    "question_groups",
    "same_words",
    "sum_by_group",
]
