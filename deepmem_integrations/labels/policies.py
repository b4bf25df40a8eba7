"""Policies: which documents a thumb on an answer, a citation or a click speaks of."""

from collections.abc import Mapping
from typing import Literal, get_args

from deepmem_integrations.errors import FeedbackError
from deepmem_integrations.labels.records import LoggedQuery

Policy = Literal["cited", "first", "shared", "judged", "clicks"]
"""What labels are made of: see `FeedbackLog.labels`."""
POLICIES: tuple[Policy, ...] = get_args(Policy)
UNLIKELY = "a click that is likelier wrong than right"


def check_policy(policy: str) -> None:
    """Refuse a policy that there is not.

    Raises:
        FeedbackError: There is no such policy.
    """
    if policy not in POLICIES:
        raise FeedbackError(f"policy is one of {', '.join(map(repr, POLICIES))}; got {policy!r}.")


def judgements(policy: Policy, query: LoggedQuery, click_weights: Mapping[str, float]) -> tuple[dict[str, float], str | None]:
    """Return the judgements that a policy reads out of the events of a query.

    Thumbs on documents and grades speak for themselves: they count under every policy, and the latest about a document counts.

    Args:
        policy: The policy.
        query: The query.
        click_weights: Document id → the weight of a click on it; 0 leaves the click out, and 1 stands where nothing is said.

    Returns:
        Document id → weight, and, where a thumb on the answer or a click had to be left out, the reason.
    """
    said: dict[str, dict[str, float]] = {}
    cited: dict[str, None] = {}
    answer: float | None = None
    for event in query.events:
        if event.document_id is None:
            answer = event.value if event.kind == "thumb" else answer
        elif event.kind in ("thumb", "grade"):
            values = said.setdefault(event.document_id, {})
            values.pop(event.kind, None)
            if event.value is not None:  # a thumb that is taken back takes no grade with it
                values[event.kind] = event.value
        elif event.kind == "cite":
            cited[event.document_id] = None
    found: dict[str, float] = {}
    reason = None
    if policy == "cited":
        found = {document: 1.0 if answer is None else answer for document in cited}
        reason = "a thumb on an answer that cites no document" if answer is not None and not cited else None
    elif policy in ("first", "shared") and answer is not None:
        about = query.shown[: 1 if policy == "first" else None]  # one without an id keeps its place, and its share
        for one in about:
            if one is not None:  # a parent may be shown at several ranks
                found[one.document_id] = found.get(one.document_id, 0.0) + answer / len(about)
        reason = None if found else "a thumb on an answer without documents"
    elif policy == "clicks":
        weights = {document: click_weights.get(document, 1.0) for document in query.clicked}
        found = {document: weight for document, weight in weights.items() if weight > 0}
        reason = UNLIKELY if len(found) < len(weights) else None
    return {**found, **{document: [*values.values()][-1] for document, values in said.items() if values}}, reason
