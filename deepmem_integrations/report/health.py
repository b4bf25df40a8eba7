"""The health of labels: how many there are, who wrote them, what they cover, and what to label next."""

from collections import Counter
from typing import Any

from deepmem_integrations.evaluation import WITH
from deepmem_integrations.report.material import Material
from deepmem_integrations.report.queries import TO_LABEL, TOP, disagreements

NAMED = 20
"""How many ids of documents are named at most."""


def labels_health(material: Material, *, texts: bool) -> dict[str, Any]:
    """Describe the labels of the training and of the test, and what to label next.

    Counts of the training are None where the model's file does not hold them.
    """
    report, labels, evaluation = material.model.report or {}, material.labels, material.evaluation
    asked, corpus = material.labelled, material.corpus
    training = {
        "queries": report.get("queries"),
        "by a language model": report.get("generated"),
        "near-duplicates": report.get("near_duplicates"),
        "same vector": report.get("merged_queries"),
        "judged irrelevant": report.get("irrelevant"),
        "documents labelled": report.get("labelled_documents"),
        "documents": report.get("documents"),
        "only from the first": report.get("shown") or None,
        "agreement": report.get("agreement"),
    }
    test = {
        "queries": len(labels),
        "by a language model": sum(labels.generated),
        "near-duplicates": len(labels) - evaluation.questions,
        "judged irrelevant": sum(map(len, labels.irrelevant)),
        "unscored": evaluation.unscored,
        "in the training too": int(material.adapter.remembered(material.vectors).sum()),
    }
    unlabelled = corpus - asked if corpus is not None and asked is not None else None
    gone = asked - corpus if corpus is not None and asked is not None else None
    return {
        "training": training,
        "test": test,
        "documents without labels": _named(unlabelled),
        "labels without documents": _named(gone),
        "label next": {
            "queries": disagreements(material, texts=texts),
            "documents": [] if asked is None else _found_without_labels(material, asked),
        },
    }


def _named(names: frozenset[str] | None) -> dict[str, Any] | None:
    return None if names is None else {"count": len(names), "ids": sorted(names)[:NAMED]}


def _found_without_labels(material: Material, asked: frozenset[str]) -> list[dict[str, Any]]:
    """Return the documents without a label that are found most often among the first 10."""
    found = Counter(name for names in material.evaluation.found[WITH] for name in names[:TOP] if name not in asked)
    return [{"id": name, "found": count} for name, count in found.most_common(TO_LABEL)]
