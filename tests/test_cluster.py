"""Trainings and evaluations on a real Ray cluster of two nodes, on this machine."""

import asyncio
import contextlib
import functools
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from deepmem_integrations import DeepMemory, corpora
from deepmem_integrations.cluster import RETRIES, RayWorkers, check_address, workers_on
from deepmem_integrations.corpora import DeepLakeCorpus, GivenCorpus, LanceCorpus, ParquetCorpus, parquet
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import GenerationError, InvalidVectorsError, JobCancelledError, JobFailedError, StoreError
from deepmem_integrations.generation import Answer, OpenAIModel, QueryGenerator, RateLimit
from deepmem_integrations.generation.askers import RayTurns
from deepmem_integrations.judging import RelevanceJudge
from deepmem_integrations.training import corpus_sample
from deepmem_integrations.words import TextShards, WordIndex
from tests.generation import helpers as generation
from tests.jobs.helpers import leftovers, until_ended
from tests.openai_server import honest, openai_server
from tests.words.conftest import state


@pytest.mark.parametrize("address", ["somewhere", "", 8])
def test_what_is_no_address_is_refused(address, memory, problem):
    with pytest.raises(ValueError, match="on names a Ray cluster: 'ray', 'auto'"):
        check_address(address)
    with pytest.raises(ValueError, match="on names a Ray cluster"):
        memory.train(problem.train, on=address)


def test_without_an_address_the_work_stays_here():
    with workers_on(None) as workers:
        assert workers is None


cluster_test = [pytest.mark.slow, pytest.mark.enable_socket]  # Ray's nodes have the machine's own address


# ---- a cluster -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two nodes with a CPU each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)  # workers import the tests, too
    node = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=node)
    del node["include_dashboard"]
    found.add_node(**node)
    found.node = node
    try:
        yield found
    finally:
        found.shutdown()
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture
def workers(cluster):
    with RayWorkers(cluster.address) as found:
        yield found


def noted(folder, item):
    """Note in a file that an item was begun."""
    with open(Path(folder, str(item)), "a") as file:
        file.write(f"{os.getpid()}\n")
    return item


def begun(folder, item):
    path = Path(folder, str(item))
    return len(path.read_text().splitlines()) if path.exists() else 0


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def slowly(folder, item):
    time.sleep(0.5)
    return noted(folder, item)


def killed_once(folder, victim, item):
    noted(folder, item)
    if item == victim and begun(folder, item) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def killed_always(item):
    os.kill(os.getpid(), signal.SIGKILL)


def slow(folder, seconds, item):
    noted(folder, item)
    time.sleep(seconds)
    noted(folder, f"{item} ended")
    return item


def slow_model(folder):
    """Make a model that notes, once a second, how many requests it has got."""

    def ask(messages, schema):
        slow(folder, 1.0, len(list(Path(folder).glob("[0-9]"))))
        return '{"questions": []}'

    return ask


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def refused(item):
    raise StoreError(f"Item {item} cannot be read.")


def broken(item):
    return {}[item]


@dataclass(frozen=True)
class Pages:
    """A shard of texts, which notes that it is read; the first reader of the victim is killed."""

    folder: str
    number: int
    victim: int

    def texts(self):
        noted(self.folder, self.number)
        yield [f"{self.number}-{n}" for n in range(50)], [f"text {n} of the shard {self.number}" for n in range(50)]
        if self.number == self.victim and begun(self.folder, self.number) == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class TestWorkers:
    pytestmark = cluster_test

    def test_results_come_in_the_order_of_the_items(self, workers, tmp_path):
        assert workers.count == 2
        assert list(workers.map(noted, ((number,) for number in range(20)), (str(tmp_path),))) == list(range(20))

    def test_items_are_taken_when_their_call_starts(self, workers, tmp_path):
        taken = []
        items = ((taken.append(number) or number,) for number in range(50))
        results = workers.map(noted, items, (str(tmp_path),))
        assert next(results) == 0
        assert len(taken) <= 4, "two for each CPU"
        results.close()

    def test_a_killed_worker_costs_its_own_item_alone(self, workers, tmp_path):
        assert list(workers.map(killed_once, ((n,) for n in range(8)), (str(tmp_path), 3))) == list(range(8))
        assert [begun(tmp_path, n) for n in range(8)] == [1, 1, 1, 2, 1, 1, 1, 1]

    def test_a_killed_worker_costs_a_word_index_its_own_shard_alone(self, workers, tmp_path):
        shards = [Pages(str(tmp_path), number, victim=3) for number in range(8)]
        index = WordIndex.build(tmp_path / "there", TextShards(shards, workers), "en")
        assert [begun(tmp_path, n) for n in range(8)] == [1, 1, 1, 2, 1, 1, 1, 1]
        texts = TextShards([Pages(str(tmp_path), number, victim=-1) for number in range(8)], workers).texts()
        assert state(index) == state(WordIndex.build(tmp_path / "here", texts, "en"))

    def test_an_item_that_kills_every_worker_fails_the_job(self, workers):
        with pytest.raises(JobFailedError, match=f"lost a worker {RETRIES + 1} times"):
            list(workers.map(killed_always, [(1,)]))

    def test_a_lost_node_costs_the_items_that_ran_there(self, cluster, workers, tmp_path):
        lost = cluster.add_node(**cluster.node)
        until(lambda: workers.count == 3)
        ended = []

        def take_away():
            until(lambda: sum(begun(tmp_path, n) for n in range(12)) >= 6)
            ended.extend(n for n in range(12) if begun(tmp_path, f"{n} ended"))
            time.sleep(0.5)  # what they returned has arrived
            cluster.remove_node(lost, allow_graceful=False)

        taker = threading.Thread(target=take_away)
        taker.start()
        assert list(workers.map(slow, ((n,) for n in range(12)), (str(tmp_path), 1.0))) == list(range(12))
        taker.join()
        assert len(ended) >= 2 and all(begun(tmp_path, n) == 1 for n in ended), "what had ended is not done again"
        assert sum(begun(tmp_path, n) for n in range(12)) <= 13, "one ran there"
        until(lambda: workers.count == 2)

    def test_an_error_of_ours_arrives_as_it_is(self, workers, tmp_path):
        with pytest.raises(StoreError, match=r"^Item 7 cannot be read\.$"):
            list(workers.map(refused, [(7,)]))
        with pytest.raises(JobFailedError, match="A worker of the Ray cluster failed: KeyError: 7"):
            list(workers.map(broken, [(7,)] * 6))
        assert list(workers.map(noted, [(1,)], (str(tmp_path),))) == [1], "this process and the cluster are still there"

    def test_the_last_of_two_users_leaves_the_cluster(self, cluster, tmp_path):
        """Before, the first left it, and the other one waited for ever."""
        found = []

        def work():
            with RayWorkers(cluster.address) as workers:
                found.extend(workers.map(slowly, [(str(tmp_path), number) for number in range(4)]))

        with RayWorkers(cluster.address) as first:
            other = threading.Thread(target=work, daemon=True)
            other.start()
            until(lambda: begun(tmp_path, 0))
            assert list(first.map(os.path.join, [("a", "b")])) == ["a/b"]
        other.join(60)
        assert found == list(range(4))
        assert not pytest.importorskip("ray").is_initialized()

    def test_a_process_that_has_left_its_cluster_is_told(self, cluster, tmp_path):
        workers = RayWorkers(cluster.address)
        with workers:
            pass
        with pytest.raises(JobFailedError, match="is out of reach: this process has left it"):
            list(workers.map(noted, [(str(tmp_path), 1)]))

    def test_cancelling_stops_the_tasks_of_the_cluster(self, cluster, tmp_path):
        def poll():
            if begun(tmp_path, 0):
                raise JobCancelledError("cancelled")

        with pytest.raises(JobCancelledError), RayWorkers(cluster.address, poll) as workers:
            list(workers.map(slow, [(n,) for n in range(4)], (str(tmp_path), 20.0)))
        with RayWorkers(cluster.address) as workers:  # the CPUs are free again
            started = time.monotonic()
            assert list(workers.map(noted, [(10,), (11,)], (str(tmp_path),))) == [10, 11]
            assert time.monotonic() - started < 15
        assert not begun(tmp_path, "0 ended")

    @pytest.mark.parametrize(
        "work",
        [
            "list(workers.map(slow, ((n,) for n in range(100)), (folder, 0.5)))",
            "QueryGenerator(slow_model(folder), 2, on=url, progress=False)(generation.documents(100))",
            "QueryGenerator(slow_model(folder), 2, on=url, progress=False, limit=RateLimit(20))(generation.documents(100))",
        ],
        ids=["map", "generate", "limited"],
    )
    def test_a_cluster_that_goes_away_from_its_client_is_told(self, tmp_path, work):
        """So that the work goes on elsewhere. Ray ends a process that is a part of the cluster by itself."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        cluster_program = f"""
            import sys
            from ray.cluster_utils import Cluster
            node = {{"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}}
            cluster = Cluster(initialize_head=True, head_node_args={{**node, "ray_client_server_port": {port}}})
            sys.stdin.read()
            cluster.shutdown()
        """
        client_program = f"""
            from deepmem_integrations.cluster import RayWorkers
            from deepmem_integrations.errors import JobFailedError
            from deepmem_integrations.generation import QueryGenerator, RateLimit
            from tests.generation import helpers as generation
            from tests.test_cluster import slow, slow_model
            folder, url = {str(tmp_path)!r}, "ray://127.0.0.1:{port}"
            try:
                with RayWorkers(url) as workers:
                    {work}
            except JobFailedError as error:
                print(error)
        """
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "RAY_USAGE_STATS_ENABLED": "0"}
        environment["RAY_CLIENT_RECONNECT_GRACE_PERIOD"] = "5"  # seconds for which a client tries to come back
        run = functools.partial(subprocess.Popen, env=environment, text=True)
        with run([sys.executable, "-c", textwrap.dedent(cluster_program)], stdin=subprocess.PIPE) as cluster:
            until(lambda: listens(port))
            command = [sys.executable, "-c", textwrap.dedent(client_program)]
            with run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
                try:
                    until(lambda: begun(tmp_path, 2))
                    cluster.communicate("")
                    said = client.communicate(timeout=100)
                finally:
                    client.kill()
                    cluster.kill()
        assert "is out of reach" in said[0], "".join(said)

    def test_no_cluster(self):
        with pytest.raises(JobFailedError, match=r"There is no Ray cluster at '127\.0\.0\.1:9'"), RayWorkers("127.0.0.1:9"):
            pass


# ---- trainings -------------------------------------------------------------------------------------------------------


def documents(problem):
    """The ids and the vectors of the problem's documents, and of others, 3,000 in all."""
    rng = np.random.default_rng(9)
    others = rng.normal(size=(2_700, problem.corpus.shape[1])).astype(np.float32)
    vectors = np.concatenate([others[:1_350], problem.corpus, others[1_350:]])
    return [*(f"other-{n}" for n in range(1_350)), *problem.ids, *(f"other-{n}" for n in range(1_350, 2_700))], vectors


def table(ids, vectors):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.table({"id": ids, "vector": lists, "text": [f"the words of {name}" for name in ids]})


def write(folder, problem, files=3):
    """Write the documents to Parquet files of two shards each."""
    ids, vectors = documents(problem)
    rows = len(ids) // files
    folder.mkdir()
    for number in range(files):
        part = slice(number * rows, (number + 1) * rows)
        pq.write_table(table(ids[part], vectors[part]), folder / f"{number}.parquet", row_group_size=rows // 2)
    return folder


def parquet_files(place, problem, s3=None):
    if s3 is None:
        return ParquetCorpus(write(place, problem))
    s3fs = pytest.importorskip("s3fs")
    options = {
        "key": s3["aws_access_key_id"],
        "secret": s3["aws_secret_access_key"],
        "client_kwargs": {"endpoint_url": s3["endpoint_url"], "region_name": "us-east-1"},
    }
    s3fs.S3FileSystem(**options).put(str(write(place, problem)), "bucket/parquet", recursive=True)
    return ParquetCorpus("s3://bucket/parquet", storage_options=options)


def lance_data_set(place, problem, s3=None):
    lance = pytest.importorskip("lance")
    options = {name: value for name, value in (s3 or {}).items() if name != "endpoint_url"}
    options |= {"aws_endpoint": s3["endpoint_url"], "allow_http": "true"} if s3 else {}
    url, (ids, vectors) = "s3://bucket/pages.lance" if s3 else str(place), documents(problem)
    for start in (0, 1_000):
        part = slice(start, None if start else 1_000)
        lance.write_dataset(table(ids[part], vectors[part]), url, mode="append" if start else "create", storage_options=options)
    lance.write_dataset(table(["gone"], vectors[:1]), url, mode="append", storage_options=options)
    lance.dataset(url, storage_options=options).delete("id = 'gone'")
    return LanceCorpus(url, storage_options=options)


def deeplake_data_set(place, problem, s3=None):
    store, (ids, vectors) = DeepLakeStore("s3://bucket/deeplake" if s3 else place, creds=s3), documents(problem)
    for part in (slice(0, 1_000), slice(1_000, None)):
        store.add(ids[part], vectors[part], [f"the words of {name}" for name in ids[part]])
    store.add(["gone"], vectors[:1])
    store.delete(["gone"])
    return DeepLakeCorpus(store)


KINDS = pytest.mark.parametrize("kind", [parquet_files, lance_data_set, deeplake_data_set], ids=lambda kind: kind.__name__[:8])


@pytest.fixture
def small(monkeypatch):
    """Let a corpus of 3,000 documents be a large one."""
    monkeypatch.setattr(corpus_sample, "MAX_DOCUMENTS", 500)
    monkeypatch.setattr(corpus_sample, "NEAR", 3)
    monkeypatch.setattr(parquet, "SHARD_ROWS", 400)
    for module in (corpora.lance, corpora.deeplake):
        monkeypatch.setattr(module, "shard_rows", lambda rows, _: [slice(n, min(n + 400, rows)) for n in range(0, rows, 400)])


def check_equal(one, other, problem):
    """Check that two memories have the same model, to the last bit, but for its name and times."""
    one, other = one.adapter, other.adapter
    np.testing.assert_array_equal(one.transform(problem.test_queries), other.transform(problem.test_queries))
    assert one.ranking == other.ranking or str(one.ranking) == str(other.ranking)
    reports = [{k: v for k, v in adapter.metadata["report"].items() if k != "seconds"} for adapter in (one, other)]
    assert reports[0] == reports[1]
    assert one.metadata["data"] == other.metadata["data"]


class TestTrainings:
    pytestmark = cluster_test

    @pytest.mark.parametrize("words", [False, True], ids=["vectors", "words too"])
    @KINDS
    def test_the_model_and_its_evaluation_are_those_of_one_machine(
        self, cluster, problem, embeddings, tmp_path, small, kind, words
    ):
        corpus = kind(tmp_path / "pages", problem)
        here, there = (DeepMemory(corpus, embeddings, tmp_path / name) for name in ("here", "there"))
        here.train(problem.train, words=words, in_use="if better")
        there.train(problem.train, words=words, in_use="if better", on=cluster.address)
        check_equal(here, there, problem)
        if words:
            assert state(here.lexical_search) == state(there.lexical_search)
        assert there.adapter.metadata["report"]["ranked_documents"] == 500
        one, other = here.measure(problem.test), there.measure(problem.test, on=cluster.address)
        assert one == other and one.found == other.found

    def test_a_store_of_any_kind_is_read_from_the_files_of_the_job(self, cluster, problem, embeddings, tmp_path, small):
        def memory(name):
            return DeepMemory(GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings), embeddings, tmp_path / name)

        corpus_sample.MAX_DOCUMENTS = 200  # undone by the fixture
        here, there = memory("here"), memory("there")
        here.train(problem.train)
        there.train(problem.train, on=cluster.address)
        check_equal(here, there, problem)
        with pytest.raises(StoreError, match="This store is read and searched by this process"):
            there.measure(problem.test, on=cluster.address)

    @KINDS
    def test_from_s3(self, cluster, problem, embeddings, tmp_path, small, s3, kind):
        there = DeepMemory(kind(tmp_path / "copy", problem, s3), embeddings, tmp_path / "there")
        here = DeepMemory(kind(tmp_path / "pages", problem), embeddings, tmp_path / "here")
        there.train(problem.train, on=cluster.address)
        here.train(problem.train)
        check_equal(here, there, problem)

    @pytest.mark.parametrize("kind", [lance_data_set, deeplake_data_set], ids=lambda kind: kind.__name__[:8])
    def test_a_write_while_the_workers_read(self, cluster, problem, embeddings, tmp_path, small, kind):
        """Half of the documents are deleted once a shard has been read."""
        corpus, untouched = kind(tmp_path / "pages", problem), kind(tmp_path / "other", problem)

        def delete(*_):
            if isinstance(corpus, LanceCorpus):
                pytest.importorskip("lance").dataset(corpus.path).delete("id < 'other-2'")
            else:
                corpus.store.delete([name for name in corpus.store.ids() if name < "other-2"])

        shards = corpus.in_shards()
        with RayWorkers(cluster.address) as workers:
            read = [
                corpus_sample.read_corpus_sample(one, None, problem.train_queries, set(problem.ids), 0, on_read, workers)
                for one, on_read in ((shards, delete), (untouched.in_shards(), lambda _: None))
            ]
        assert len(shards) == read[0].total == 3_000 > len(corpus.in_shards())
        assert read[0].ids == read[1].ids and read[0].digest == read[1].digest
        np.testing.assert_array_equal(read[0].vectors, read[1].vectors)
        np.testing.assert_array_equal(read[0].statistics.covariance, read[1].statistics.covariance)

    def test_a_vector_that_cannot_be_used_is_named(self, cluster, problem, embeddings, tmp_path, small):
        folder = write(tmp_path / "pages", problem)
        rows = pa.array(np.zeros(32, dtype=np.float32))
        nowhere = pa.table({"id": ["nowhere"], "vector": pa.FixedSizeListArray.from_arrays(rows, 32), "text": [""]})
        pq.write_table(nowhere, folder / "4.parquet")
        memory = DeepMemory(ParquetCorpus(folder), embeddings, tmp_path / "m")
        with pytest.raises(InvalidVectorsError, match=r"vector 3000 \(id 'nowhere'\) is all zeros"):
            memory.train(problem.train, on=cluster.address, words=False)
        assert memory.jobs.all()[-1].state == "failed"

    def test_a_job_in_the_background(self, cluster, problem, embeddings, tmp_path):
        memory = DeepMemory(ParquetCorpus(write(tmp_path / "pages", problem)), embeddings, tmp_path / "m")
        job = memory.train(problem.train, on=cluster.address, wait=False, words=False)
        assert until_ended(memory, job).state == "completed"
        assert memory.get_model() == job

    def test_a_cancelled_job_and_a_killed_driver_free_the_cluster(self, cluster, problem, embeddings, tmp_path):
        memory = DeepMemory(ParquetCorpus(write(tmp_path / "pages", problem)), embeddings, tmp_path / "m")
        job = memory.train(problem.train, on=cluster.address, wait=False, words=False)
        until(lambda: memory.jobs.job(job).state == "training")
        assert memory.cancel(job)
        assert memory.jobs.job(job).state == "cancelled"
        job = memory.train(problem.train, on=cluster.address, wait=False, words=False)
        until(lambda: memory.jobs.job(job).state == "training")
        os.kill(memory.jobs.job(job).pid, signal.SIGKILL)
        until(lambda: memory.jobs.job(job).state == "failed")
        assert "is gone: it was killed" in memory.jobs.job(job).error
        with RayWorkers(cluster.address) as workers:
            assert list(workers.map(noted, [(1,), (2,), (3,)], (str(tmp_path),))) == [1, 2, 3]

    def test_a_refresh_follows_the_files_and_is_cancelled_with_its_job(self, cluster, problem, embeddings, tmp_path, small):
        folder = write(tmp_path / "pages", problem)
        here, there = (DeepMemory(ParquetCorpus(folder), embeddings, tmp_path / name) for name in ("here", "there"))
        assert there.refresh(on=cluster.address).added == 3_000
        table = pq.read_table(folder / "1.parquet")
        texts = ["another text", *table["text"].to_pylist()[1:]]
        pq.write_table(table.set_column(2, "text", pa.array(texts)), folder / "1.parquet", row_group_size=500)
        here.refresh()
        done = there.refresh(on=cluster.address)
        assert (done.changed, done.unchanged) == (1, 2_999)
        assert there.refresh(on=cluster.address).unchanged == 3_000
        assert len(there.lexical_search) == len(here.lexical_search) == 3_000
        assert there.lexical_search.fingerprint == here.lexical_search.fingerprint
        with pytest.raises(JobCancelledError):
            there.train(problem.train, on=cluster.address, on_start=there.cancel)
        assert there.lexical_search.fingerprint == here.lexical_search.fingerprint

    @KINDS
    def test_the_word_index_is_that_of_one_process(self, cluster, problem, embeddings, tmp_path, small, kind):
        corpus = kind(tmp_path / "pages", problem)
        here, there = (DeepMemory(corpus, embeddings, tmp_path / name) for name in ("here", "there"))
        here.refresh()
        assert there.refresh(on=cluster.address).added == 3_000
        assert there.lexical_search.fingerprint == here.lexical_search.fingerprint
        assert there.lexical_search.search("words of other-7", 1).ids == ["other-7"]

    @pytest.mark.parametrize(("moment", "shards"), [("corpus", 5), ("folds", 8)])
    def test_a_killed_driver_goes_on(self, cluster, problem, embeddings, tmp_path, killing, moment, shards):
        """The shards and folds that were done are not done again, and the model is that of a training that was not killed."""
        store = DeepLakeStore(tmp_path / "pages")
        store.add(problem.ids, problem.corpus, problem.ids)
        here, there = (DeepMemory(DeepLakeCorpus(store), embeddings, tmp_path / name) for name in ("here", "there"))
        killing(None)
        until_ended(here, here.train(problem.train, wait=False))
        killing(moment)
        job = there.train(problem.train, wait=False, on=cluster.address)
        assert until_ended(there, job).state == "failed"
        before = killing(None)
        assert before["shards"] == shards
        there.resume(job, wait=False)
        assert until_ended(there, job).state == "completed"
        after = killing(None)
        assert after["shards"] == 8 - shards
        assert moment == "corpus" or after["kept"] == 6 - before["kept"]
        check_equal(here, there, problem)
        assert leftovers(there) == []

    def test_a_cluster_that_is_started_for_the_work(self):
        program = (
            "from deepmem_integrations.cluster import RayWorkers\n"
            "from deepmem_integrations.words import search_name\n"
            "with RayWorkers('local') as workers:\n"
            "    print(*workers.map(search_name, [(1,), ('text',)]))\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=200)
        assert found.stdout.split() == ["int", "str"], found.stderr


# ---- language models -------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    with openai_server(latency=0.05) as running:
        yield running


@pytest.fixture
def writer(server, cluster):
    """Make a generator over the server, on the cluster unless ``on`` says otherwise."""

    def make(**options):
        model = OpenAIModel("gpt-test", api_key="good-key", base_url=server.url)
        return QueryGenerator(model, 2, **{"on": cluster.address, "concurrency": 4, "progress": False, **options})

    return make


def askers():
    """The processes of the cluster that ask a model."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::_Asker"):
                found.append(int(path.parent.name))
    return found


def killing(victims, port):
    """Kill a process that asks while the server, on this port, answers it. Returns a script of the server."""
    lock, seen = threading.Lock(), []

    def script(messages, attempt):
        with lock:
            seen.append(1)
            if len(seen) == 6:
                victims.append(next(pid for pid in askers() if connected(pid, port)))
                os.kill(victims[0], signal.SIGKILL)
                time.sleep(0.5)
        return honest(messages, attempt)

    return script


def connected(pid, port):
    """Whether a process has a connection to a port of this machine."""
    there = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port and fields[3] == "01":  # established
            there.add(f"socket:[{fields[9]}]")
    links = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.add(os.readlink(descriptor))
    return bool(links & there)


def same_words(query, texts):
    return [len({*query.split()} & {*text.split()}) for text in texts]


class Broken:
    """A model that opens nowhere but in this process."""

    name = "broken"

    def ask(self, request):
        return Answer()

    async def aask(self, request):
        return Answer()

    def __reduce__(self):
        return broken, ("the weights",)


class Deadly(Broken):
    """A model that ends the process that opens it, as one does that is larger than the memory."""

    name = "deadly"

    def __reduce__(self):
        return os._exit, (1,)


class TestAsking:
    pytestmark = cluster_test

    @pytest.mark.parametrize("door", ["generate", "agenerate"])
    def test_two_nodes_keep_one_limit_and_write_what_one_process_writes(self, server, writer, door):
        pairs = generation.documents(24)
        here = writer(on=None).generate(pairs)
        server.times.clear()
        there = writer(limit=RateLimit(requests=6, seconds=2.0))
        result = there.generate(pairs) if door == "generate" else asyncio.run(there.agenerate(pairs))
        assert (result.queries, result.relevance, result.usage) == (here.queries, here.relevance, here.usage)
        assert len(server.times) == 24 and server.most_within(2.0) == 6

    def test_two_runs_keep_one_limit(self, server, cluster, writer):
        limit, threads = RateLimit(requests=5, seconds=2.0, name="account"), []
        with RayWorkers(cluster.address):  # this process is connected before and after both
            for first in (0, 8):
                run = writer(limit=limit, concurrency=2)
                threads.append(threading.Thread(target=run.generate, args=(generation.documents(16)[first : first + 8],)))
                threads[-1].start()
            for thread in threads:
                thread.join()
        assert len(server.times) == 16 and server.most_within(2.0) <= 5

    def test_a_killed_worker_costs_its_own_requests_alone(self, server, writer, tmp_path):
        pairs, victims = generation.documents(40), []
        server.script = killing(victims, int(server.url.split(":")[2].split("/")[0]))
        result = writer(checkpoint=tmp_path / "run.jsonl").generate(pairs)
        assert victims and not result.failed and not result.skipped
        assert 40 < sum(server.asked.values()) <= 40 + 4, "four requests were in flight there"
        server.script = honest
        assert result.relevance == writer(on=None).generate(pairs).relevance

    def test_a_killed_driver_resumes_from_a_bucket(self, server, cluster, writer, s3, monkeypatch):
        pytest.importorskip("s3fs")
        for name, key in (("AWS_ACCESS_KEY_ID", "aws_access_key_id"), ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key")):
            monkeypatch.setenv(name, s3[key])
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3["endpoint_url"])
        url = "s3://bucket/answers/run"
        program = f"""
            from deepmem_integrations.generation import OpenAIModel, QueryGenerator
            from tests.generation import helpers as generation
            model = OpenAIModel("gpt-test", api_key="good-key", base_url={server.url!r})
            QueryGenerator(model, 2, on={cluster.address!r}, concurrency=4, checkpoint={url!r})(generation.documents(60))
        """
        server.latency = 0.3
        driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], env={**os.environ, "PYTHONPATH": os.getcwd()})
        until(lambda: len(server.times) >= 24)
        driver.kill()
        driver.wait()
        until(lambda: not askers())
        before, server.latency = len(server.times), 0.0
        result = writer(checkpoint=url).generate(generation.documents(60))
        assert result.recorded >= before - 8, "eight requests were in flight"
        assert sum(server.asked.values()) <= 60 + 8
        assert result.relevance == writer(on=None).generate(generation.documents(60)).relevance

    def test_a_reranker_runs_on_the_workers(self, cluster):
        def judge(on):
            options = {"thresholds": [2, 4], "rankings": [lambda query: generation.documents(12)], "progress": False}
            return RelevanceJudge(reranker=same_words, on=on, **options).judge(
                ["how is unit-3 set up", "renew serial-5 once a year"]
            )

        here, there = judge(None), judge(cluster.address)
        assert there.grades == here.grades and there.relevance == here.relevance

    def test_a_model_that_cannot_travel_or_open_is_named(self, cluster):
        lock = threading.Lock()
        with pytest.raises(GenerationError, match=r"cannot travel to the workers.*a function that opens the model"):
            QueryGenerator(lambda messages, schema: lock, on=cluster.address, progress=False)(generation.documents(2))
        with pytest.raises(
            GenerationError, match=r"worker of the Ray cluster cannot open the model broken: KeyError: 'the weights'"
        ):
            QueryGenerator(Broken(), on=cluster.address, progress=False)(generation.documents(2))
        with pytest.raises(ValueError, match="on names a Ray cluster"):
            QueryGenerator(len, on="somewhere")

    def test_a_model_that_ends_its_workers_ends_the_run(self, cluster):
        with pytest.raises(JobFailedError, match="lost 4 workers one after another while they opened the model deadly"):
            QueryGenerator(Deadly(), on=cluster.address, progress=False)(generation.documents(2))

    def test_a_lost_keeper_of_a_limit_counts_the_window_as_full(self, workers):
        import ray

        limit, turns = RateLimit(requests=3, seconds=3.0), RayTurns("lost")
        assert [turns.take(limit, 1)[0] for _ in range(3)] == [0, 0, 0]
        other = pickle.loads(pickle.dumps(turns))
        assert other.take(limit, 1)[0] > 2.5, "whoever asks for the name finds the same turns"
        ray.kill(turns._keeper, no_restart=False)
        until(lambda: turns.take(RateLimit(requests=3, seconds=3.0), 1)[0] > 3.5)
        assert pickle.loads(pickle.dumps(turns)).take(limit, 1)[0] > 3.5
