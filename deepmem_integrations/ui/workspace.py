"""What the web application works on: a store, its memory, a feedback log, and the work that goes on."""

import contextlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepmem_integrations._files import MOST_TEXT, make_private_folder, read_json, write_text
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.embedding import Embedder, load_embedding
from deepmem_integrations.errors import (
    AdapterFileError,
    DeepMemoryError,
    FeedbackError,
    InvalidRelevanceError,
    ModelNotFoundError,
    StorageError,
    StoreError,
)
from deepmem_integrations.feedback import FeedbackLog
from deepmem_integrations.generation import Budget, QueryGenerator
from deepmem_integrations.generation.named import language_model
from deepmem_integrations.generation.sources import sources_of
from deepmem_integrations.jobs import JobStatus
from deepmem_integrations.labels import Relevance
from deepmem_integrations.labels.policies import judgements
from deepmem_integrations.labels.records import LoggedQuery
from deepmem_integrations.models import ModelInfo
from deepmem_integrations.opened import Opened
from deepmem_integrations.report import EvaluationReport
from deepmem_integrations.retraining import InUse
from deepmem_integrations.ui.carried import carry, digest, gone
from deepmem_integrations.ui.texts import inside, passages, text_files
from deepmem_integrations.ui.work import Work, Works

Opener = Callable[[str, str, Path], Opened]
"""Opens a store: (URI, name of the embedding model, folder of the models) → the open store."""

BATCH = 64
"""How many passages are embedded at a time, after which the progress is told."""
SHOWN = 200
"""How many generated queries stay to be watched."""
PAUSE = 0.3
"""For how many seconds a thread waits before it looks at a training again."""
LEFT = "labels-to-carry.json"
"""The file that keeps labels while documents are read again, in case that the server is killed meanwhile."""


@dataclass(frozen=True)
class Source:
    """Where the documents are.

    Attributes:
        store: The URI of the store.
        embedding: The name of its embedding model.
        title: What people call it.
        folder: The folder of text files that it was made of; None where it was made elsewhere.
        documents: How many documents were read; None where others filled the store.
    """

    store: str
    embedding: str
    title: str
    folder: str | None = None
    documents: int | None = None


@dataclass(frozen=True)
class Labelled:
    """A query with its judgements, as the list of labels shows it.

    Attributes:
        query: The query with all that the log holds of it.
        values: Document id → weight: above 0 a label, else judged irrelevant.
        source: Who judged.
    """

    query: LoggedQuery
    values: dict[str, float]
    source: str

    @property
    def teaches(self) -> bool:
        """Whether the text of a judged document is still there."""
        return not all(map(gone, self.values))


class Workspace:
    """A store with its memory, its labels and its work.

    Args:
        folder: The folder of the models. What the application adds lies in its subfolder ``ui``.
        root: The folder that folders of text files are chosen from.
        open_store: Opens a store that a URI names.
        store: The store to work on; None where it is made of text files, or chosen later.
        texts: The folder of text files to offer, or None.
        embedding: The name of the embedding model of the store, or of a store that is made.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        open_store: Opener,
        *,
        store: str | None = None,
        texts: Path | None = None,
        embedding: str = "minilm",
    ) -> None:
        self.folder, self.root, self.texts, self.embedding = folder, root, texts, embedding
        self.works = Works()
        self._open_store, self._lock = open_store, threading.RLock()
        self._opened: tuple[Source, Opened] | None = None
        self.given = Source(store, embedding, store) if store else None
        self._asked: dict[str, str] = {}
        self._log: FeedbackLog | None = None
        self._labelled: tuple[tuple[tuple[int, int] | None, ...], list[Labelled]] | None = None

    # ---- the store ---------------------------------------------------------------------------------------------

    @property
    def own(self) -> Path:
        """The folder of what the application itself keeps, which its owner alone may read."""
        place = self.folder / "ui"
        if not place.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            make_private_folder(place)
        return place

    @property
    def source(self) -> Source | None:
        """Where the documents are; None where nothing was read yet. Another process may have read them."""
        if self.given is not None:
            return self.given
        path = self.folder / "ui" / "store.json"
        if not path.is_file():
            return None
        try:
            return Source(**read_json(path))
        except TypeError as error:
            raise StorageError(f"{path} is damaged ({error}): delete it, and read the documents again.") from error

    @property
    def opened(self) -> Opened:
        """The open store.

        Raises:
            StoreError: There is none yet, or it cannot be opened.
        """
        with self._lock:
            source = self.source
            if source is None:
                raise StoreError("There are no documents yet: read some in first.")
            if self._opened is None or self._opened[0] != source:
                self._opened = (source, self._open_store(source.store, source.embedding, self.folder))
            return self._opened[1]

    @property
    def log(self) -> FeedbackLog:
        """The feedback log, which is made when it is first needed."""
        with self._lock:
            if self._log is None:
                self._log = FeedbackLog(self.own / "feedback.db")
            return self._log

    def close(self) -> None:
        """Write what waits to be written."""
        if self._log is not None:
            self._log.close()

    def read_folder(self, name: str) -> Work:
        """Read a folder of text files into a store of its own.

        Args:
            name: The folder that the command named, or one inside of `root`.

        Raises:
            StoreError: The folder is not inside of `root`, or holds no text files.
        """
        folder = self.texts if self.texts is not None and name == str(self.texts) else inside(self.root, name)
        files = text_files(folder)
        if not files:
            raise StoreError(f"{folder} holds no text files (.txt, .md, .rst).")

        def run(work: Work) -> None:
            found = list(passages(folder, files))
            if not found:
                raise StoreError(f"The text files in {folder} are empty.")
            self._fill(work, folder.name or str(folder), str(folder), *zip(*found, strict=True))

        return self.works.start("read", f"Reading {len(files):,} files", run)

    def read_demo(self, by: str) -> Work:
        """Read the demo's documents into a store of its own, and its training questions into the labels."""

        def run(work: Work) -> None:
            from deepmem_integrations.demo.documents import api_documents
            from deepmem_integrations.demo.run import load_questions

            documents = api_documents()
            ids = [document.id for document in documents]
            self._fill(work, "Deep Lake's API documentation", None, ids, [document.text for document in documents], ids)
            work.title = "Writing the labels"
            self.add_labels(load_questions("train", documents), "demo", "demo", by)

        return self.works.start("read", "Reading the demo's documents", run)

    def _fill(
        self,
        work: Work,
        title: str,
        folder: str | None,
        ids: Iterable[str],
        texts: Iterable[str],
        files: Iterable[str],
    ) -> None:
        """Embed documents into a new store, and work on it from then on. A killed server leaves the store of before."""
        ids, texts, files = list(ids), list(texts), list(files)
        work.total, work.title = len(ids), "Loading the embedding model"
        embedder = Embedder(load_embedding(self.embedding))
        place = self.own / f"documents-{secrets.token_hex(4)}"
        try:
            store = DeepLakeStore(place)
            for start in range(0, len(ids), BATCH):
                work.step(start, "Reading passages")
                rows = slice(start, start + BATCH)
                vectors = embedder.embed_documents(texts[rows])
                store.add(ids[rows], vectors, texts[rows], [{"file": name} for name in files[rows]])
            work.step(len(ids), f"{len(ids):,} passages are read")
            before = self.source
            self._remember_labels()
            source = Source(f"deeplake:{place}", self.embedding, title, folder, len(ids))
            write_text(self.own / "store.json", json.dumps(asdict(source)), private=True)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        if before is not None and self.own in (old := Path(before.store.removeprefix("deeplake:"))).parents:
            shutil.rmtree(old, ignore_errors=True)
        self._follow(work)

    def _remember_labels(self) -> None:
        """Keep the labels with the texts of their documents, for as long as they have not gone along with these."""
        if labelled := {one.query.query_id: one.values for one in self.labelled()}:
            judged, texts = {name for values in labelled.values() for name in values}, self._texts()
            kept = {"labels": labelled, "texts": {name: texts[name] for name in judged & texts.keys()}}
            write_text(self.own / LEFT, json.dumps(kept), private=True)

    def go_on(self) -> None:
        """Take labels along that a server which was killed while it read documents has left behind."""
        if self.source is not None and (self.folder / "ui" / LEFT).is_file():
            self.works.start("read", "Taking labels along", self._follow)

    def _texts(self) -> dict[str, str]:
        """Return the texts of the documents, by id; none where there are none, or they cannot be read."""
        try:
            return {source.id: source.text for source in sources_of(self.opened.memory.documents())}
        except DeepMemoryError:
            return {}

    def _follow(self, work: Work) -> None:
        """Let labels and the word index follow the new documents, and tell how far these are from those of the model in use."""
        memory, done = self.opened.memory, work.title
        left = self.own / LEFT
        if left.is_file():
            work.title, before = "Taking labels along", read_json(left, MOST_TEXT)
            queries = {one.query.query_id: one.query for one in self.labelled()}
            judged = [(queries[name], values) for name, values in before["labels"].items() if name in queries]
            work.notes = carry(self.log, judged, before["texts"], self._texts())
            left.unlink(missing_ok=True)
        if memory.folder.words_path.exists():
            work.title = "Indexing words"
            memory.refresh()
        work.title = done
        with contextlib.suppress(ModelNotFoundError, AdapterFileError):  # the pages tell of a damaged model
            if (drift := memory.drift()) is not None:
                work.notes = (*work.notes, *f"The model in use was {drift}".splitlines())

    def folders(self) -> list[tuple[str, int]]:
        """List the folders with text files to choose from, as (name, number of files): `root` and those in it."""
        found = [] if self.texts is None else [(str(self.texts), len(text_files(self.texts)))]
        if self.texts is None:
            with contextlib.suppress(OSError):
                names = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False))
                for name in [".", *(name for name in names if not name.startswith(".") and not name.endswith(".deepmemory"))]:
                    if count := len(text_files(self.root / name)):
                        found.append((name, count))
        return found

    # ---- labels ------------------------------------------------------------------------------------------------

    def labelled(self) -> list[Labelled]:
        """Return all queries with judgements, the newest first. They are read again where the log has changed."""
        path = self.folder / "ui" / "feedback.db"
        files = [path, path.with_name("feedback.db-wal")]
        if not path.is_file():
            return []
        state = tuple((file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else None for file in files)
        known = self._labelled
        if known is not None and known[0] == state:
            return known[1]
        found = []
        for query in self.log.queries(judged=True):
            values, _ = judgements("judged", query, {})
            if values and (query.text or "").strip():
                found.append(Labelled(query, values, query.events[-1].source or query.events[-1].user or "–"))
        self._labelled = (state, found[::-1])
        return self._labelled[1]

    def labels(self) -> Relevance:
        """Return the labels for a training."""
        if not (self.folder / "ui" / "feedback.db").is_file():
            return Relevance([], [])
        found = [one for one in self.labelled()[::-1] if one.teaches]
        return Relevance(
            [one.query.text or "" for one in found],
            [[(name, weight) for name, weight in one.values.items() if not gone(name)] for one in found],
            [one.query.query_id for one in found],
            times=[one.query.time for one in found],
            generated=[bool(one.query.run_id) for one in found],
        )

    def judge(self, text: str, document: str, up: bool | None, shown: Callable[[], list[Any]], by: str) -> None:
        """Give a document a thumb for a query; all thumbs about a text belong to one query of the log.

        Args:
            text: The query.
            document: The id of the document.
            up: True for a thumb up, False for a thumb down, None where it is taken back.
            shown: A function that returns what the query was shown, as `FeedbackLog.record` takes it.
            by: Who judges.
        """
        with self._lock:
            name = self.query_id(text)
            if name is None:
                name = self._asked[text] = self.log.record(text, shown(), user=by)
            self.log.thumb(name, document, up=up, user=by)
            if up is None:
                self.log.grade(name, {document: None}, user=by)
            self.log.flush()

    def query_id(self, text: str) -> str | None:
        """Return the id under which the log has a text; None where it has it not."""
        with self._lock:
            if text not in self._asked:
                for one in reversed(self.labelled()):
                    self._asked[one.query.text or ""] = one.query.query_id
            if (name := self._asked.get(text)) is not None:
                try:
                    self.log.get(name)
                except FeedbackError:  # another process has forgotten it
                    del self._asked[text]
                    return None
            return name

    def judged(self, text: str) -> dict[str, float]:
        """Return what is known of the documents for a query: document id → weight."""
        name = self.query_id(text) if text else None
        return {} if name is None else judgements("judged", self.log.get(name), {})[0]

    def forget(self, query_id: str) -> None:
        """Delete a query with its labels, for good: digests remain, so that it is not added again."""
        with self._lock:
            self.log.flush()
            with contextlib.suppress(FeedbackError):  # another process has forgotten it
                traces = "".join(f"{trace}\n" for trace in sorted(_traces(self.log.get(query_id))))
                with open(self.own / "forgotten", "a") as file:
                    file.write(traces)
            self.log.forget([query_id])
            self._asked = {text: name for text, name in self._asked.items() if name != query_id}

    def add_labels(
        self,
        labels: Relevance,
        run: str,
        source: str,
        by: str,
        *,
        texts: Mapping[str, str] | None = None,
        known: set[str] | None = None,
    ) -> int:
        """Add labelled queries to the log, unless it has or had them from the same run, or with the same judged documents.

        Args:
            labels: The labelled queries.
            run: What made them, with its settings.
            source: What made them, for people.
            by: Who asked for them.
            texts: Document id → digest of the text that they were made of, where they were.
            known: What `known` returned, which is kept up; None looks for it.

        Returns:
            How many were added.
        """
        known, added = self.known() if known is None else known, 0
        for name, text, judged in zip(labels.query_ids, labels.queries, labels.labels, strict=True):
            made_of = [texts[document] for document, _ in judged] if texts is not None else []
            run_id = "/".join([run, name, *made_of])[-400:]
            pairs = _pairs(text, [document for document, _ in judged])
            if digest(run_id) in known or pairs <= known:
                continue
            known |= {digest(run_id), *pairs}
            self.log.grade(self.log.record(text, [], run_id=run_id, user=by), dict(judged), source=source, user=by)
            added += 1
            if added % 1_000 == 0:
                self.log.flush()
        self.log.flush()
        return added

    def known(self) -> set[str]:
        """Return digests of what is not added again: what the log has, or had until somebody took it out."""
        path = self.own / "forgotten"
        known = set(path.read_text().split()) if path.is_file() else set()
        for query in self.log.queries(judged=True):
            known |= _traces(query)
        return known

    # ---- generation --------------------------------------------------------------------------------------------

    def generator(self, llm: str, per_document: int, max_documents: int | None, max_tokens: int | None) -> QueryGenerator:
        """Return the generator.

        Raises:
            GenerationError: The name names no language model, or the model cannot be used.
        """
        return QueryGenerator(
            language_model(llm),
            per_document,
            memory=self.opened.memory,
            max_documents=max_documents,
            budget=Budget(max_tokens=max_tokens),
            progress=False,
        )

    def estimate(self, generator: QueryGenerator) -> str:
        """Say what queries for the documents would cost."""
        return str(generator.estimate(self._documents(generator)))

    def _documents(self, generator: QueryGenerator) -> list[Any]:
        """Return the documents, and give the generator the checkpoint of its model and prompt."""
        make_private_folder(self.own / "checkpoints")
        belongs_to = [generator.model.name, generator.prompt.fingerprint]
        generator.checkpoint = self.own / "checkpoints" / f"{digest(json.dumps(belongs_to))}.jsonl"
        return self.opened.memory.documents()

    def generate(self, generator: QueryGenerator, llm: str, by: str) -> Work:
        """Write queries for the documents, which become labels as they come."""

        def run(work: Work) -> None:
            documents = self._documents(generator)
            work.total = generator.estimate(documents).documents
            texts = {source.id: digest(source.text) for source in sources_of(documents)}
            pieces, added, known = 0, 0, self.known()

            def take(piece: Relevance) -> None:
                nonlocal pieces, added
                pieces += 1
                added += self.add_labels(piece, f"{llm}/{generator.prompt.count}", llm, by, texts=texts, known=known)
                work.shown = [*zip(piece.queries, piece.labels, strict=True), *work.shown][:SHOWN]
                work.step(min(pieces, work.total), "Writing queries")

            work.title = "Writing queries"
            result = generator.generate(documents, take)
            kept, *notes = str(result).split("\n")
            work.title, _, used = kept.partition("; ")
            new = f"{added:,} of them were not among the labels before"
            work.done, work.notes = work.total, (new, used if llm != "extractive" else "", *notes)

        return self.works.start("generate", "Looking at the documents", run)

    # ---- trainings and models ----------------------------------------------------------------------------------

    def train(self, in_use: InUse, by: str) -> Work:
        """Train a model in a process of its own, and measure it on the questions that all trainings leave out."""
        memory, labels = self.opened.memory, self.labels()
        if not len(labels):
            raise InvalidRelevanceError("There are no labels to learn from: give thumbs, or let queries be written.")

        def run(work: Work) -> None:
            learned = labels if in_use == "if better" else memory.hold_out(labels)[0]
            if not len(learned):
                raise InvalidRelevanceError("All of the labels are held out to measure with: label more queries.")

            def name(job_id: str) -> None:
                work.job = job_id

            options: dict[str, Any] = {"in_use": in_use, "keep_texts": True, "on_invalid": "drop", "by": by}
            job_id = memory.train(learned, wait=False, on_start=name, **options)
            work.title = "Training"
            while (job := memory.jobs.job(job_id)).running:
                time.sleep(PAUSE)
            if job.state == "completed":
                work.title = "Measuring on held-out questions"
                self._measure(job.id)

        return self.works.start("train", "Gathering the vectors", run)

    def measure(self, name: str) -> Work:
        """Measure a model on the held-out questions."""
        self.opened.memory.folder.info(name)

        def run(work: Work) -> None:
            work.job = name
            self._measure(name)

        return self.works.start("measure", "Measuring on held-out questions", run)

    def _measure(self, name: str) -> None:
        memory = self.opened.memory
        held_out = memory.hold_out(self.labels())[1]
        if not any(held_out.labels):
            raise InvalidRelevanceError("No labelled question is held out to measure with: label more queries.")
        place = self.own / "reports"
        make_private_folder(place)
        memory.report(held_out, place / f"{name}.json", model=name, on_invalid="drop")

    def report(self, name: str) -> EvaluationReport | None:
        """Return the report of a model; None where it was not measured.

        Raises:
            ModelNotFoundError: No model has this name.
        """
        self.opened.memory.folder.info(name)
        path = self.folder / "ui" / "reports" / f"{name}.json"
        if not path.is_file():
            return None
        return EvaluationReport(read_json(path, MOST_TEXT))

    def models(self) -> list[ModelInfo]:
        """Return all models, the newest first."""
        return self.opened.memory.list_models()[::-1]

    def jobs(self) -> list[JobStatus]:
        """Return all trainings, the newest first."""
        return list(self.opened.memory.jobs.all())[::-1]


def _traces(query: LoggedQuery) -> set[str]:
    """Return digests of a query's run, and of its pairs with judged documents."""
    judged = {event.document_id for event in query.events if event.document_id is not None}
    return _pairs(query.text or "", judged) | ({digest(query.run_id)} if query.run_id else set())


def _pairs(text: str, documents: Iterable[str]) -> set[str]:
    return {digest(json.dumps([text, document])) for document in documents}
