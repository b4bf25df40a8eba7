"""Join what traces tell: judgements with the searches that they are about, and their documents with those of the store."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from deepmem_integrations._unicode import well_formed
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.checking import Time, time_of
from deepmem_integrations.labels.clicks import Looks, as_on_page, click_probabilities, question_of
from deepmem_integrations.labels.policies import Policy, judgements
from deepmem_integrations.labels.records import Event, Kind, LoggedQuery, Shown
from deepmem_integrations.labels.traces.entries import Found, Judgement, Labelled, Span
from deepmem_integrations.labels.traces.resolving import How, Resolver
from deepmem_integrations.labels.traces.ubi import IMPRESSION
from deepmem_integrations.labels.traces.weighing import Weights, weight_of

Feedback = str | Iterable[str] | Mapping[str, Kind]
"""The names of the feedback that counts; a mapping also says what each of them is."""


@dataclass(frozen=True)
class Search:
    """What a retriever was asked and returned.

    Attributes:
        trace: The id of the trace.
        query: The text; None where it cannot be read.
        shown: The documents by rank, as the store knows them, and how they were found there.
        time: When it was asked.
        scores: The scores of the documents.
    """

    trace: str | None
    query: str | None
    shown: tuple[tuple[str | None, How], ...]
    time: Time | None
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class Row:
    """A query with its labels.

    Attributes:
        query_id: The id; None where the format has none.
        query: The text.
        judged: (document id, weight) pairs.
        time: When it was asked.
        judge: Who judged; None for people.
        generated: Whether a language model wrote the query.
        shown: The documents that users saw, by rank, where the labels are clicks; None where any document could be labelled.
    """

    query_id: str | None
    query: str
    judged: tuple[tuple[str, float], ...]
    time: Time | None = None
    judge: str | None = None
    generated: bool = False
    shown: tuple[str, ...] | None = None


class Joined:
    """Gathers what readers yield, in any order, and makes labels of it.

    Args:
        resolver: Finds the documents of the store.
        longest_query: Queries of more characters are left out.

    Attributes:
        spans: How many steps of traces there were.
        searches: Span → what its retriever was asked and returned.
        judgements: The judgements, each with its place for messages.
        documents: How many of the judged documents were found in which way, or not.
        left_out: What gave no label: reason → count.
    """

    def __init__(self, resolver: Resolver, longest_query: int) -> None:
        self.spans = 0
        self.searches: dict[str, Search] = {}
        self.judgements: list[tuple[str, Judgement]] = []
        self.documents: Counter[How] = Counter()
        self.left_out: Counter[str] = Counter()
        self._labelled: list[Labelled] = []
        self._resolver, self._longest = resolver, longest_query
        self._parents: dict[str, str | None] = {}
        self._traces: dict[str, str | None] = {}

    def add(self, entry: Span | Judgement | Labelled, where: str) -> None:
        """Take what a reader found at a place."""
        if isinstance(entry, Span):
            self._add_span(entry)
        elif isinstance(entry, Judgement):
            self.judgements.append((where, entry))
        else:
            self._labelled.append(entry)

    def _add_span(self, span: Span) -> None:
        self.spans += 1
        key = span.span or f"{span.trace}#{self.spans}"
        if self._traces.get(key, span.trace) != span.trace:
            key = f"{span.trace}/{key}"
        if key in self.searches and (self.searches[key].shown or not span.documents):
            self.left_out["a span that came before"] += 1
            return
        self._traces[key], self._parents[key] = span.trace, span.parent
        if span.documents is not None:
            shown = tuple(self._resolver.resolve(found) for found in span.documents)
            self.searches[key] = Search(span.trace, span.query, shown, span.time, tuple(found.score for found in span.documents))

    # ---- which searches a judgement is about -----------------------------------------------------------------------

    def _key(self, judgement: Judgement) -> str | None:
        """Return the span of a judgement; None where there is none, or the traces do not hold it."""
        names = (f"{judgement.trace}/{judgement.span}", judgement.span)
        return next((name for name in names if name is not None and name in self._traces), None)

    def _around(self, key: str | None) -> Iterator[str]:
        """Yield a span and those around it, outwards."""
        seen: set[str] = set()
        while key is not None and key not in seen:
            seen.add(key)
            yield key
            key = self._parents.get(key)

    def about(self) -> Iterator[tuple[str, Judgement, list[str]]]:
        """Yield each judgement with its place and the searches that it is about.

        - A judgement of a retriever's own span is about that search.
        - One of another span is about the searches inside it, or else inside the closest span around it that holds any: the
          answer of a language model is made of what was found beside it. One of a trace is about its searches.
        - Of retrievers that lie in one another, the outer one counts. Of searches that ask the same within a trace, as a retry
          or a reranker after a retriever, the last one counts: in time, where all times are known, else in the order of the rows.
        """
        outer: dict[str | None, dict[str, str]] = defaultdict(dict)
        for key in self._in_time():
            search = self.searches[key]
            if search.shown and not any(self._shows(name) for name in [*self._around(key)][1:]):
                outer[search.trace][search.query or f"#{key}"] = key
        inside: dict[str, list[str]] = defaultdict(list)
        for keys in outer.values():
            for key in keys.values():
                for name in self._around(key):
                    inside[name].append(key)
        for where, judgement in self.judgements:
            here = self._key(judgement)
            if here in self.searches and here is not None:
                yield where, judgement, [here]
                continue
            closest = next((name for name in self._around(here) if name in inside), None)
            if closest is not None:
                yield where, judgement, inside[closest]
                continue
            trace = judgement.trace if here is None else self._traces[here]
            yield where, judgement, [] if trace is None else list(outer.get(trace, {}).values())

    def _in_time(self) -> list[str]:
        """Return the searches, those of a trace in the order of time where it is known. Servers list the newest first."""
        traces: dict[str | None, list[tuple[datetime | None, str]]] = defaultdict(list)
        for key, search in self.searches.items():
            traces[search.trace].append((time_of(search.time), key))
        found: list[str] = []
        for searches in traces.values():
            times = {key: time for time, key in searches if time is not None}
            keys = [key for _, key in searches]
            found += sorted(keys, key=times.__getitem__) if len(times) == len(keys) else keys
        return found

    def _shows(self, key: str) -> bool:
        return key in self.searches and bool(self.searches[key].shown)

    # ---- labels ----------------------------------------------------------------------------------------------------

    def rows(self, policy: Policy, feedback: Feedback | None, weights: Weights | None, faults: list[str]) -> list[Row]:
        """Make labels.

        Args:
            policy: Which documents feedback on answers, clicks and citations speak of.
            feedback: What counts. None takes all, if it has one name.
            weights: What values weigh.
            faults: Takes what is wrong with judgements, each with its place.

        Raises:
            InvalidRelevanceError: Feedback of several names would count, and none was chosen.
        """
        chosen = self._chosen(policy, feedback)
        events: dict[str, list[Event]] = defaultdict(list)
        for where, judgement, keys in chosen:
            try:
                self._hear(judgement, keys, policy, weights, events)
            except InvalidRelevanceError as error:
                faults.append(f"{where}: {error}")
        queries = {key: self._logged(key, found) for key, found in events.items()}
        clicks = click_probabilities(self._looks(queries)) if policy == "clicks" else {}
        rows = [
            row
            for key, query in queries.items()
            if (row := self._row(key, query, policy, clicks.get(question_of(self.searches[key].query), {}))) is not None
        ]
        return [*rows, *(row for labelled in self._labelled if (row := self._own(labelled)) is not None)]

    def _chosen(self, policy: Policy, feedback: Feedback | None) -> list[tuple[str, Judgement, list[str]]]:
        """Return the judgements that count, each with its kind."""
        kinds: Mapping[str, Kind | None] | None = None
        if feedback is not None:
            names = [feedback] if isinstance(feedback, str) else feedback
            kinds = names if isinstance(names, Mapping) else dict.fromkeys(names)
        chosen, unnamed = [], Counter[str]()
        for where, judgement, keys in self.about():
            if judgement.name == IMPRESSION and judgement.kind is None:
                continue
            if kinds is not None and judgement.name not in kinds:
                self.left_out[f"feedback called {judgement.name!r}, which was not chosen"] += 1
                continue
            kind: Kind = (
                (kinds or {}).get(judgement.name) or judgement.kind or ("thumb" if judgement.document is None else "grade")
            )
            if kind in ("click", "cite", "grade") and judgement.document is None:
                self.left_out[f"a {kind} that names no document"] += 1
            elif not judgement.values:
                self.left_out["feedback without a value"] += 1
            elif not _counts(kind, judgement.document is None, policy):
                what = "a thumb on an answer" if kind == "thumb" else f"a {kind}"
                self.left_out[f"{what}, which the policy {policy!r} does not use"] += 1
            elif not keys:
                self.left_out["feedback on a trace without a search"] += 1
            else:
                if judgement.kind is None:
                    unnamed[judgement.name] += 1
                chosen.append((where, replace(judgement, kind=kind), keys))
        if kinds is None and len(unnamed) > 1:
            counted = ", ".join(f"{name!r} ({count})" for name, count in unnamed.most_common())
            raise InvalidRelevanceError(
                f"These traces hold feedback of several names: {counted}. Say which counts with feedback=."
            )
        return chosen

    def _hear(
        self,
        judgement: Judgement,
        keys: list[str],
        policy: Policy,
        weights: Weights | None,
        events: dict[str, list[Event]],
    ) -> None:
        """Turn a judgement into events of the queries that it is about.

        Raises:
            InvalidRelevanceError: The value has no known weight, or the document's place is none.
        """
        kind, document = judgement.kind, None
        assert kind is not None
        value: float | None = 1.0
        if kind in ("thumb", "grade"):
            value = weight_of(judgement.name, judgement.values, weights, answer=judgement.document is None)
            if value is None:
                self.left_out["feedback whose value says nothing"] += 1
                return
        if isinstance(judgement.document, int):
            shown = self.searches[keys[0]].shown
            if len(keys) > 1 or judgement.document >= len(shown):
                raise InvalidRelevanceError(
                    f"it judges the document at place {judgement.document}, of {len(shown)} that were found"
                )
            document, how = shown[judgement.document]
        elif isinstance(judgement.document, Found):
            document, how = self._resolver.resolve(judgement.document)
            showing = [key for key in keys if document in (name for name, _ in self.searches[key].shown)]
            if len(keys) > 1 and document is not None and not showing:
                self.left_out["a judgement of a document that none of several searches found"] += 1
                return
            keys = showing or keys
        if judgement.document is not None:
            self.documents[how] += 1
            if document is None:
                return
        elif len(keys) > 1 and policy == "first":
            self.left_out["a thumb on an answer that is made of several searches"] += 1
            return
        elif policy == "shared" and value is not None:
            value /= len(keys)
        when = time_of(judgement.time)
        seconds = 0.0 if when is None else when.timestamp()
        source = judgement.name if judgement.machine else None
        for key in keys:
            events[key].append(Event(key, kind, document, value, judgement.position, source, None, seconds))

    def _logged(self, key: str, events: list[Event]) -> LoggedQuery:
        """Return a search as the feedback log would. What people said comes after what programs said, and stands."""
        search = self.searches[key]
        pairs = zip(search.shown, search.scores, strict=True)
        shown = tuple(None if name is None else Shown(name, score) for (name, _), score in pairs)
        return LoggedQuery(
            *(key, search.query, None, 0.0, shown),
            events=tuple(sorted(events, key=lambda event: (event.source is None, event.time))),
        )

    def _row(self, key: str, query: LoggedQuery, policy: Policy, clicks: Mapping[str, float]) -> Row | None:
        search = self.searches[key]
        found, reason = judgements(policy, query, clicks)
        if policy in ("first", "shared") and any(event.document_id is None for event in query.events):
            self.documents.update(how for _, how in search.shown[: 1 if policy == "first" else None])
        if reason is not None:
            self.left_out[reason] += 1
        text = self._text(search.query) if found else None
        if text is None:
            return None
        last = {event.document_id: event.source for event in query.events}
        programs = sorted({source for source in last.values() if source is not None})
        judge = f"{', '.join(programs)}, by a program" if programs else None
        shown = tuple(name for name in self._seen(key, query.clicked) if name is not None) if policy == "clicks" else ()
        return Row(key, text, tuple(found.items()), search.time, judge, shown=shown or None)

    def _own(self, labelled: Labelled) -> Row | None:
        resolved = [(self._resolver.resolve(found), weight) for found, weight in labelled.judged]
        self.documents.update(how for (_, how), _ in resolved)
        judged = tuple((name, weight) for (name, _), weight in resolved if name is not None)
        text = self._text(labelled.query)
        if text is not None and not judged:
            self.left_out["a query without a document of the store"] += 1
        return Row(labelled.query_id, text, judged, generated=labelled.generated) if text is not None and judged else None

    def _text(self, query: str | None) -> str | None:
        if query is None or not query.strip():
            self.left_out["a query that cannot be read"] += 1
        elif len(query) > self._longest:
            self.left_out[f"a query of more than {self._longest:,} characters, such as a prompt"] += 1
        else:
            return well_formed(query)
        return None

    def _looks(self, queries: Mapping[str, LoggedQuery]) -> Iterator[Looks]:
        """Yield what was shown and clicked for each search that asks what a search with a click asks."""
        clicked = {key: query.clicked for key, query in queries.items()}
        questions = {question_of(self.searches[key].query) for key, documents in clicked.items() if documents}
        for key, search in self.searches.items():
            question = question_of(search.query)
            if question in questions and search.shown:
                opened = clicked.get(key, {})
                yield Looks(question, self._seen(key, opened), opened.keys())

    def _seen(self, key: str, clicked: Mapping[str, int | None]) -> list[str | None]:
        """Return the documents by their rank on the page, down to the last one on the screen, or clicked, where traces tell."""
        shown = as_on_page([name for name, _ in self.searches[key].shown], clicked)
        last = self._on_screen.get(key) or len(shown)
        return shown[: max([last, *(rank for rank, name in enumerate(shown, start=1) if name in clicked)])]

    @cached_property
    def _on_screen(self) -> dict[str, int]:
        """For each search whose traces tell it, the lowest rank that was on the screen."""
        lowest: dict[str, int] = {}
        for _, judgement, keys in self.about():
            if judgement.name == IMPRESSION and judgement.position:
                lowest.update({key: max(judgement.position, lowest.get(key, 0)) for key in keys})
        return lowest


def _counts(kind: Kind, answer: bool, policy: Policy) -> bool:
    """Tell whether a policy uses feedback of a kind."""
    if kind == "thumb" and answer:
        return policy in ("cited", "first", "shared")
    return {"click": policy == "clicks", "cite": policy == "cited"}.get(kind, True)
