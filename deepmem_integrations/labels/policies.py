"""Policies: which documents a thumb on an answer, a citation or a click speaks of."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from deepmem_integrations.errors import FeedbackError
from deepmem_integrations.labels.records import LoggedQuery

Policy = Literal["cited", "first", "shared", "judged", "clicks"]
"""What labels are made of: see `FeedbackLog.labels`."""
POLICIES: tuple[Policy, ...] = get_args(Policy)

MAX_WEIGHT = 10.0
"""How many times as much as a click at the rank that is clicked most a click counts at most."""


def check_policy(policy: str) -> None:
    """Refuse a policy that there is not.

    Raises:
        FeedbackError: There is no such policy.
    """
    if policy not in POLICIES:
        raise FeedbackError(f"policy is one of {', '.join(map(repr, POLICIES))}; got {policy!r}.")


def judgements(policy: Policy, query: LoggedQuery, click_weights: Mapping[int, float]) -> tuple[dict[str, float], str | None]:
    """Return the judgements that a policy reads out of the events of a query.

    Thumbs on documents and grades speak for themselves: they count under every policy, and the latest about a document counts.

    Args:
        policy: The policy.
        query: The query.
        click_weights: Rank → the weight of a click there.

    Returns:
        Document id → weight, and, where the answer's thumb had to be left out, the reason.
    """
    explicit: dict[str, float | None] = {}
    cited: dict[str, None] = {}
    clicked: dict[str, int | None] = {}
    answer: float | None = None
    for event in query.events:
        if event.document_id is None:
            answer = event.value if event.kind == "thumb" else answer
        elif event.kind in ("thumb", "grade"):
            explicit[event.document_id] = event.value
        elif event.kind == "cite":
            cited[event.document_id] = None
        else:
            clicked.setdefault(event.document_id, event.position)
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
        ranks = rank_of(query)
        for document, position in clicked.items():
            found[document] = click_weights.get(position or ranks.get(document, 0), 1.0)
    return {**found, **{document: value for document, value in explicit.items() if value is not None}}, reason


def rank_of(query: LoggedQuery) -> dict[str, int]:
    """Return document id → the rank at which the document was shown, from 1."""
    ranks: dict[str, int] = {}
    for rank, one in enumerate(query.shown, start=1):
        if one is not None:
            ranks.setdefault(one.document_id, rank)
    return ranks


def click_weights(queries: Iterable[LoggedQuery], impressions: Mapping[int, int]) -> dict[int, float]:
    """Return rank → the weight of a click there: inverse propensity weights (Joachims, Swaminathan and Schnabel 2017).

    How often users look at a rank is not known. It is taken to be as the share of its documents that are clicked, so that every
    rank counts as much as any other in all, as in a training: clicks that depend on the rank alone favour no document. A weight
    is 1 where the share is the largest, and at most 10.

    Args:
        queries: The queries with clicks.
        impressions: Rank → how many times a document was shown there.

    Example:
        >>> from deepmem_integrations.labels.records import Event, Shown
        >>> def clicked(document):
        ...     shown = tuple(map(Shown, ("a", "b")))
        ...     return LoggedQuery("q", "a question", None, 0.0, shown, events=(Event("q", "click", document, 1.0),))
        >>> click_weights([clicked("a"), clicked("a"), clicked("b")], {1: 3, 2: 3})
        {1: 1.0, 2: 2.0}
    """
    clicks: dict[int, int] = {}
    for query in queries:
        ranks = rank_of(query)
        documents = {
            event.document_id: event.position or ranks.get(event.document_id or "", 0)
            for event in reversed(query.events)
            if event.kind == "click"
        }
        for rank in documents.values():
            clicks[rank] = clicks.get(rank, 0) + 1
    shares = {rank: count / max(count, impressions.get(rank, 0)) for rank, count in clicks.items() if rank}
    most = max(shares.values(), default=1.0)
    return {rank: min(most / share, MAX_WEIGHT) for rank, share in sorted(shares.items())}
