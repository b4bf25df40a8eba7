"""Feeds the doors of the library with what an intruder would: ``python -m tests.fuzz [SECONDS]``, ten minutes by default.

Each file that the library reads is changed at random, with and without a valid checksum, or holds anything at all, each path is
any text, and filters, calls of tools and requests of pages hold what they should not. Whatever comes, it is read, or it is a
`DeepMemoryError`; nothing hangs, nothing else is raised, and nothing is written outside the folder. `tests/test_fuzz.py` does so
for a minute, and `tests/fuzz_coverage.py` follows the branches that an input takes.
"""

import atexit
import contextlib
import functools
import json
import shutil
import sys
import tempfile
import time
import unittest.mock
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from safetensors.numpy import load, save

from deepmem_integrations import QueryAdapter, Relevance
from deepmem_integrations._files import user_path
from deepmem_integrations._pickles import DOCUMENTS, POINTS, read_records
from deepmem_integrations._redaction import redacted
from deepmem_integrations.adapter import file
from deepmem_integrations.corpora.where import passes
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import DeepMemoryError
from deepmem_integrations.feedback import FeedbackLog
from deepmem_integrations.feedback.exchange import read_file
from deepmem_integrations.generation import Answer
from deepmem_integrations.generation.checkpoint import Checkpoint
from deepmem_integrations.generation.rates import RateLimit, TurnsInFile
from deepmem_integrations.jobs import JobFolder
from deepmem_integrations.labels.records import Event, LoggedQuery, Shown
from deepmem_integrations.labels.traces import read_traces
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.remote import word_files
from deepmem_integrations.training.checkpoint import TrainingCheckpoint
from deepmem_integrations.ui.workspace import Workspace
from deepmem_integrations.words import WordIndex
from tests.labels.traces.samples import TRACES
from tests.ui.conftest import open_texts
from tests.ui.test_requests import client_of, csrf

JOB = "0123456789abcdef01234567"
MINE = {"corpus": "c", "prompt": "p", "model": "m"}
FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*.safetensors"))

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def changed(draw, data):
    """Bytes with a few flips, cuts and insertions, or other bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=400))
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(found) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
        if kind == "flip" and found:
            found[place] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del found[place:]
        elif kind == "insert":
            found[place:place] = draw(st.binary(max_size=20))
        else:
            del found[place : place + draw(st.integers(1, 20))]
    return bytes(found)


@st.composite
def changed_json(draw, value):
    """JSON with one value replaced, removed or added anywhere in it."""
    value = json.loads(json.dumps(value))
    place = value
    while True:
        inner = [
            child for child in (place.values() if isinstance(place, dict) else place) if isinstance(child, dict | list) and child
        ]
        if not inner or draw(st.booleans()):
            break
        place = draw(st.sampled_from(inner))
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    key = draw(st.sampled_from(keys))
    if draw(st.integers(0, 4)) == 0:
        del place[key]
    else:
        place[key] = draw(anything)
    return value


@st.composite
def forged_models(draw):
    """A model with other content and a valid checksum."""
    data = draw(st.sampled_from(FIXTURES)).read_bytes()
    header = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][file.FORMAT])["header"]
    if draw(st.booleans()):
        header = draw(changed_json(header))
    tensors = draw(changed_tensors(load(data)))
    envelope = json.dumps({"checksum": file._checksum(header, tensors), "header": header})
    return save(tensors, metadata={file.FORMAT: envelope})


@st.composite
def changed_tensors(draw, tensors):
    """Arrays by their names, of which one has another value, shape or type, or is gone."""
    tensors = dict(tensors)
    name = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors[name].copy()
    kind = draw(st.sampled_from(["value", "shape", "type", "gone", "as it is"]))
    if kind == "value" and tensor.size:
        place = draw(st.integers(0, tensor.size - 1))
        value = draw(st.floats(width=32)) if tensor.dtype.kind == "f" else draw(st.integers(-(2**40), 2**40))
        with np.errstate(all="ignore"):
            tensor.flat[place] = np.array(value).astype(tensor.dtype)
    elif kind == "shape":
        tensor = tensor[: draw(st.integers(0, len(tensor)))]
    elif kind == "type":
        tensor = tensor.astype(draw(st.sampled_from([np.float64, np.int32, np.uint8, np.float16])))
    if kind == "gone":
        del tensors[name]
    else:
        tensors[name] = np.ascontiguousarray(tensor)
    return tensors


models = st.sampled_from(FIXTURES).flatmap(lambda path: changed(path.read_bytes())) | forged_models()


def check_model(folder, data):
    ranks = ModelFolder(folder / "m")
    path = ranks.model_path("x")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    assert [str(info) for info in ranks.list_models()]
    adapter = QueryAdapter.load(path)
    vectors = np.random.default_rng(0).normal(size=(3, adapter.dimension)).astype(np.float32)
    assert np.isfinite(adapter.transform(vectors)).all()
    for vector in vectors:
        adapter.answers(vector)
    assert QueryAdapter.from_bytes(adapter.to_bytes()).dimension == adapter.dimension


STATE = {
    "id": JOB,
    "state": "training",
    "progress": 0.5,
    "created": 1.0,
    "started": 1.0,
    "pid": 1,
    "detached": True,
    "error": None,
}
CHECKPOINT = [
    json.dumps({"deepmem checkpoint": 1, **MINE}),
    json.dumps({"key": "k", "answer": Answer({"queries": []}, "x").to_json()}),
]
LABELS = {"query_id": "1", "query": "a", "relevance": [["d", 1.0]], "generated": True, "time": "2026-11-28T09:30:00Z"}

FEEDBACK = LoggedQuery("q", "a", None, 1.0, (Shown("d", 0.5, {"vector": 1}),), events=(Event("q", "thumb", "d", 1.0),)).to_json()


def check_job(folder, state):
    jobs = JobFolder(ModelFolder(folder / "m"))
    jobs.path.mkdir(parents=True, exist_ok=True)
    text = state if isinstance(state, bytes) else json.dumps(state).encode()
    (jobs.path / f"{JOB}.json").write_bytes(text)
    for job in jobs.all():
        assert str(job)
        assert job.id == JOB
        jobs.cancel(job.id)
        jobs.delete(job.id)


def check_checkpoint(folder, data):
    path = folder / "run.jsonl"
    path.write_bytes(data)
    try:
        with Checkpoint(path, MINE) as checkpoint:
            checkpoint.get("k")
            checkpoint.add("new", Answer())
    except DeepMemoryError:
        assert path.read_bytes() == data, "a file that is refused is left alone"
        raise


def check_labels(folder, data):
    path = folder / "labels.jsonl"
    path.write_bytes(data)
    assert len(Relevance.from_jsonl(path)) >= 0


def check_llama_index(folder, data):
    path = folder / "labels.json"
    path.write_bytes(data)
    assert len(Relevance.from_llama_index(path)) >= 0


def check_feedback(folder, data):
    path = folder / "feedback.jsonl"
    path.write_bytes(data)
    assert all(one is not None for one in read_file(path))


def check_traces(folder, written):
    format, data = written
    path = folder / "traces.jsonl"
    path.write_bytes(data)
    for row in read_traces(path, format, policy="clicks" if format == "ubi" else "judged")[0]:
        assert row


def limit_file():
    with tempfile.TemporaryDirectory() as folder:
        turns = TurnsInFile(Path(folder, "limit.db"))
        for _ in range(2):
            turns.take(RateLimit(requests=2), 10)
        return Path(folder, "limit.db").read_bytes()


def check_limit(folder, data):
    path = folder / "limit.db"
    path.write_bytes(data)
    waiting, number = TurnsInFile(path).take(RateLimit(requests=2, tokens=100), 10)
    assert waiting >= 0 and number > 0


DONE = {
    "total": np.arange(3),
    "basis": np.frombuffer(TrainingCheckpoint(Path(), "a corpus")._of(""), dtype=np.uint8),
}


def check_training(folder, data):
    """What a training has done counts as missing where it is damaged, and nothing else happens."""
    (folder / "sums.safetensors").write_bytes(data)
    found = TrainingCheckpoint(folder, "a corpus").read("sums")
    assert found is None or "basis" not in found


def check_words(folder, data):
    words = folder / "words"
    words.mkdir(exist_ok=True)
    (words / "index.json").write_bytes(data)
    with contextlib.suppress(DeepMemoryError):
        word_files(data)
    WordIndex.open(words).search("a word", 3)


def check_path(folder, text):
    user_path(text)
    for name in (text, f"../{text}"):
        with contextlib.suppress(DeepMemoryError):
            JobFolder(ModelFolder(folder / "m")).job(name)
        with contextlib.suppress(DeepMemoryError):
            ModelFolder(folder / "m").load_model(name)
    with contextlib.suppress(DeepMemoryError):
        QueryAdapter.load(str(folder / "none") + text)


def check_pickle(folder, data):
    for known in (DOCUMENTS, POINTS):
        read_records(data, known, "x")


def check_uri(folder, text):
    shown = redacted(f"pgvector:postgresql+psycopg://me:{text}@host/db#docs")
    assert shown.startswith("pgvector:postgresql+psycopg://***")


@st.composite
def traces(draw):
    """A format, and lines of JSON in it of which one was changed."""
    format = draw(st.sampled_from(sorted(TRACES)))
    rows = [dict(row) for row in TRACES[format]]
    place = draw(st.integers(0, len(rows) - 1))
    rows[place] = draw(changed_json(rows[place]) | anything)
    data = "\n".join(map(json.dumps, rows)).encode()
    return format, draw(changed(data)) if draw(st.integers(0, 4)) == 0 else data


def as_bytes(value):
    return changed_json(value).map(lambda found: json.dumps(found).encode())


lines = "\n".join(CHECKPOINT).encode() + b"\n"


def kept_folder():
    """A folder that is there until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="deepmem-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def mcp_tools():
    """The MCP server's tools over a small store, with a feedback log in which a search is recorded."""
    from deepmem_integrations.cli.mcp_tools import Tools
    from deepmem_integrations.cli.stores import open_store

    folder = kept_folder()
    embedder = Embedder(lambda texts: np.stack([np.random.default_rng(len(text)).normal(size=4) for text in texts]))
    metadata = [{"lang": "en", "year": 2024}, {"lang": "de", "draft": True}]
    DeepLakeStore(folder / "ds").add(["a", "b"], np.eye(2, 4), ["one", "two"], metadata)
    with unittest.mock.patch("deepmem_integrations.embedding.load_embedding", lambda name: embedder.model):
        return Tools(open_store(f"deeplake:{folder / 'ds'}", "any", None), FeedbackLog(folder / "feedback.db"))


FILTER_TEXTS = ["", "en", "' OR 1 = 1 --", "\\", '"', "{x}", "%"]
"""Keys and values of metadata, and of filters."""


@functools.cache
def filtered_store():
    """A Deep Lake store whose metadata has what filters are made of."""
    folder = kept_folder()
    documents = {
        f"{number}": Document(text, metadata={"lang": text, text or "none": "en"}) for number, text in enumerate(FILTER_TEXTS)
    }
    store = DeepLakeStore(folder / "ds")
    store.add(list(documents), np.eye(len(FILTER_TEXTS)), FILTER_TEXTS, [document.metadata for document in documents.values()])
    return store, documents


def check_filter(folder, where):
    """Whatever it holds, a filter lets through the documents that it describes."""
    store, documents = filtered_store()
    found = {document.id for document in store.search(np.ones(len(documents)), len(documents), filter=where)}
    assert found == {name for name, document in documents.items() if passes(document, where)}


def filters():
    texts = st.sampled_from(FILTER_TEXTS) | st.text(max_size=8)
    return st.dictionaries(
        st.just("lang") | texts, texts | st.none() | st.lists(texts, max_size=3), max_size=3
    ) | st.dictionaries(texts, anything, max_size=2)


@functools.cache
def web_client():
    """The web application, for somebody who was let in, and the secret of the forms."""
    folder = kept_folder()
    (folder / "root").mkdir()
    client, access = client_of(Workspace(folder / "memory", folder / "root", open_texts, store="texts:here"))
    client.get(access.url)
    return client, csrf(client, "/?q=undo")


def check_web(folder, request):
    """A request is answered, and none of them is a fault of the application."""
    method, path, fields = request
    client, secret = web_client()
    options = {"params": fields} if method == "GET" else {"data": {"csrf": secret, **fields}}
    answer = client.request(method, path, **options)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        raise DeepMemoryError(answer.text)


def requests():
    """Requests of all pages but those that start work."""
    texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
    names = ["q", "k", "document", "thumb", "back", "find", "from", "name", "query_id", "kind", "job", "by"]
    values = st.sampled_from(["up", "down", "labels", "1", "-1", "revert.md#1"]) | texts
    fields = st.dictionaries(st.sampled_from(names) | texts, values, max_size=5)
    gets = ["/", "/why", "/documents", "/labels", "/generate", "/train", "/models", "/history"]
    posts = ["/thumb", "/labels/forget", "/stop", "/train/cancel", "/models/use", "/models/rollback"]
    inner = st.tuples(st.sampled_from(["/models/", "/static/", "/"]), texts, st.sampled_from(["", "/report"]))
    places = inner.map(lambda parts: parts[0] + urllib.parse.quote(parts[1], safe="./") + parts[2])
    return st.tuples(st.just("GET"), st.sampled_from(gets) | places, fields) | st.tuples(
        st.just("POST"), st.sampled_from(posts), fields
    )


def check_mcp(folder, call):
    """An answer is an answer, or an error that names what is wrong; a fault that only the log tells is one of ours."""
    result = mcp_tools().call(*call)
    json.dumps(result.structured_content, allow_nan=False).encode()
    if result.is_error:
        assert "the server's log" not in result.content[0].text, result
        raise DeepMemoryError(result.content[0].text)


def mcp_calls():
    values = st.text(max_size=8) | st.booleans() | st.integers() | st.floats()
    where = st.dictionaries(st.sampled_from(["lang", "year", "$or", "", "'--"]) | st.text(max_size=8), values | st.lists(values))
    search = {"query": st.text(max_size=60), "k": st.integers(-1, 30), "where": where | anything}
    feedback = {"query_id": st.text(max_size=8), "cited": st.lists(st.sampled_from("abc"))}
    return (
        st.tuples(st.just("search"), st.fixed_dictionaries({}, optional=search))
        | st.tuples(st.just("feedback"), st.fixed_dictionaries({}, optional=feedback))
        | st.tuples(st.sampled_from(["search", "why", "feedback", ""]), st.dictionaries(st.text(max_size=8), anything))
    )


qa = {"queries": {"1": "a"}, "corpus": {"d": "x"}, "relevant_docs": {"1": ["d"]}, "mode": "text"}
manifest = {"format": "deepmem-words", "version": 1, "checksum": "x", "segments": [{"name": "a", "deleted": None}]}
any_text = st.text(st.characters(exclude_categories=()), max_size=400)
DOORS = {
    "models": (models, check_model),
    "jobs": (changed_json(STATE) | changed(json.dumps(STATE).encode()) | anything, check_job),
    "checkpoints": (changed(lines), check_checkpoint),
    "labels": (changed(json.dumps(LABELS).encode()) | as_bytes(LABELS), check_labels),
    "labels of LlamaIndex": (as_bytes(qa), check_llama_index),
    "feedback": (changed(json.dumps(FEEDBACK).encode()) | as_bytes(FEEDBACK), check_feedback),
    "traces": (traces(), check_traces),
    "rate limits": (changed(limit_file()) | st.binary(), check_limit),
    "trainings": (changed(save(DONE)) | changed_tensors(DONE).map(save), check_training),
    "word indices": (as_bytes(manifest) | st.binary(), check_words),
    "paths": (any_text, check_path),
    "pickles": (st.binary(max_size=300).map(lambda data: b"\x80\x04" + data) | st.binary(), check_pickle),
    "URIs": (st.text(st.characters(exclude_categories=("Cs",)), min_size=3), check_uri),
    "filters": (filters(), check_filter),
    "MCP": (mcp_calls(), check_mcp),
    "web application": (requests(), check_web),
}
"""What is read → the values that it may hold, and the function that reads them."""


def once(values, check, count):
    """Make a function that feeds one door with a hundred values."""

    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(values)
    def fed(value):
        with tempfile.TemporaryDirectory() as outer:
            folder = Path(outer, "inner")
            folder.mkdir()
            count[0] += 1
            try:
                check(folder, value)
            except DeepMemoryError:
                count[1] += 1
            assert [path.name for path in Path(outer).iterdir()] == ["inner"], "something was written outside"

    return fed


def fuzz(seconds: float) -> Iterator[tuple[str, list[int]]]:
    """Feed every door for its share of the time. Yield how many values each had, and how many of these it refused."""
    for name, (values, check) in DOORS.items():
        count = [0, 0]
        feed = once(values, check, count)
        end = time.monotonic() + seconds / len(DOORS)
        while time.monotonic() < end:
            feed()
        yield name, count


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for door, (fed, refused) in fuzz(float(sys.argv[1]) if len(sys.argv) > 1 else 600):
        print(f"{door}: {fed:,} values, {refused:,} of them refused", flush=True)  # noqa: T201 - what was measured
