"""A storm over one folder: ``python -m tests.storm [SECONDS] [PROCESSES] [SEED]``, an hour with ten processes by default.

Processes train, cancel, switch, grow, delete, refresh, record and retrieve, on one folder and one feedback log. Meanwhile they
are killed (kill -9) and stopped (SIGSTOP), the disk is full (a small file system in memory where one can be mounted, and a limit
on the size of files everywhere), and their clocks jump by days. While it lasts and afterwards it must hold that

- one model is in use, and it and all others are whole,
- every label that the log acknowledged is there,
- no lock is held, no job runs and no half-written file is left once all processes are gone,
- no file grows without bound: the audit log and the feedback log grow by their entries, all else by what is kept.

`tests/test_storm.py` lets it blow for a minute.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations._locks import FileLock
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.errors import DeepMemoryError, StorageError
from deepmem_integrations.feedback import FeedbackLog
from deepmem_integrations.jobs.trainer import publish
from tests.embeddings import LookupEmbeddings
from tests.problems import Problem, make_problem

DISK = 48 << 20
"""How large the file system is, in bytes, without the feedback log."""
LOGGED = 100_000
"""How many bytes the feedback log may grow by in a second: its entries are kept, and an hour's would fill the file system."""
KEPT = 8
"""How many models the processes leave, about."""
SMALL = 2_000
"""The limit on the size of a file, in bytes, under which hardly anything can be written."""
DAY = 86_400.0


def folders(root: Path) -> tuple[Path, Path]:
    return root / "disk" / "m", root / "disk" / "feedback.db"


def small_problem() -> Problem:
    return make_problem(documents=60, train=40, test=20, dimension=16)


def opened(place: Path) -> FeedbackLog:
    """Open the log, as soon as the disk lets a service start."""
    for _ in range(100):
        with contextlib.suppress(StorageError):
            return FeedbackLog(place)
        time.sleep(0.1)
    return FeedbackLog(place)


def memory_of(problem: Problem, folder: Path, rows: list[int] | None = None) -> DeepMemory:
    embeddings = LookupEmbeddings(problem)
    ids = problem.ids if rows is None else [problem.ids[row] for row in rows]
    return DeepMemory(GivenCorpus(ids, ids, [f"{name} text" for name in ids], embeddings), embeddings, folder)


# ---- a process ------------------------------------------------------------------------------------------------------


class Worker:
    """One process, which does at random what services and their keepers do."""

    def __init__(self, root: Path, seed: int) -> None:
        from langchain_core.embeddings import Embeddings
        from langchain_core.vectorstores import InMemoryVectorStore

        from deepmem_integrations.langchain import DeepMemoryRetriever

        self.root, self.rng, self.skew = root, np.random.default_rng(seed), 0.0
        folder, log = folders(root)
        self.problem = small_problem()
        self.memory = memory_of(self.problem, folder)
        self.log = opened(log)
        embeddings = type("Model", (LookupEmbeddings, Embeddings), {})(self.problem)
        store = InMemoryVectorStore.from_texts(self.problem.ids, embeddings, ids=self.problem.ids)
        self.retriever = DeepMemoryRetriever(vectorstore=store, memory=str(folder), k=5, record=self.log)
        self.acknowledged = os.open(root / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.done: Counter[str] = Counter()
        self.asked: list[str] = []
        self.told = 0.0
        real = time.time
        time.time = lambda: real() + self.skew

    def some(self, names: list[str]) -> str:
        return names[self.rng.integers(len(names))] if names else "none"

    def seed(self) -> int:
        return int(self.rng.integers(100))

    def add(self) -> None:
        linear = np.eye(16, dtype=np.float32) + 0.1 * self.rng.normal(size=(16, 16)).astype(np.float32)
        with self.memory.jobs.new() as job:
            publish(job, QueryAdapter(16, linear=linear, fingerprint=self.memory.embedder.fingerprint()), made_by="remember")

    def prune(self) -> None:
        """Delete the oldest models and jobs, as a keeper does."""
        for name in self.memory.folder.models()[:-KEPT]:
            with contextlib.suppress(DeepMemoryError):
                self.memory.delete_model(name)
        for job in self.memory.jobs.all()[:-KEPT]:
            with contextlib.suppress(DeepMemoryError):
                self.memory.delete(job.id)

    def refresh(self) -> None:
        rows = sorted(self.rng.choice(60, size=int(self.rng.integers(30, 60)), replace=False).tolist())
        memory_of(self.problem, self.memory.folder.path, rows).refresh()

    def read(self) -> None:
        # Whole or not at all: loading checks the checksum. There is always a model in use, whatever the others do.
        for _ in range(20):
            assert np.isfinite(self.memory.transform(self.problem.test_queries)).all()

    def retrieve(self) -> None:
        query = self.problem.test.queries[int(self.rng.integers(20))]
        found = self.retriever.invoke(query)
        assert len({document.id for document in found}) == 5, found
        query_id = found[0].metadata["deepmem"]["query_id"]
        self.log.thumb(query_id, found[0].id, up=True)
        self.asked.append(query_id)

    def flush(self) -> None:
        asked, self.asked = self.asked, []
        before = self.log.dropped
        self.log.flush(5)
        assert self.log.dropped == before, "the queue is never full here"
        with self.unlimited():
            os.write(self.acknowledged, "".join(f"{one}\n" for one in asked).encode())

    def look(self) -> None:
        assert all(info.error is None for info in self.memory.list_models())
        assert all(job.state in ("pending", "training", "completed", "failed", "cancelled") for job in self.memory.jobs.all())

    def fill(self) -> None:
        """For this process the disk is full, or is so no more."""
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        full = resource.getrlimit(resource.RLIMIT_FSIZE)[0] != SMALL
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL if full and self.rng.random() < 0.5 else hard, hard))

    def jump(self) -> None:
        self.skew = float(self.rng.choice([0.0, -3 * DAY, 40 * DAY, -3600.0, 1.5]))

    def tell(self) -> None:
        """Keep the counts outside of the storm, for the case that this process is killed."""
        if time.monotonic() >= self.told + 0.5:
            self.told = time.monotonic()
            with self.unlimited():
                path = self.root / f"done-{os.getpid()}.json"
                Path(f"{path}.new").write_text(json.dumps(self.done))
                os.replace(f"{path}.new", path)

    @contextlib.contextmanager
    def unlimited(self) -> Iterator[None]:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit[1], limit[1]))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    def work(self, seconds: float) -> None:
        memory, problem = self.memory, self.problem
        actions = {
            "train": (
                1,
                lambda: memory.train(problem.train, seed=int(self.rng.integers(100)), words=bool(self.rng.random() < 0.5)),
            ),
            "train in the background": (0.3, lambda: memory.train(problem.train, wait=False, words=False)),
            "add": (8, self.add),
            "read": (20, self.read),
            "retrieve": (40, self.retrieve),
            "flush": (10, self.flush),
            "look": (4, self.look),
            "set": (10, lambda: memory.set_model(self.some(memory.folder.models()))),
            "roll back": (3, memory.rollback),
            "refresh": (5, self.refresh),
            "prune": (8, self.prune),
            "resume": (1, lambda: memory.resume(self.some([job.id for job in memory.jobs.all() if job.resumable_until]))),
            "cancel": (2, lambda: memory.cancel(self.some([job.id for job in memory.jobs.all() if job.running]))),
            "fill": (3, self.fill),
            "jump": (3, self.jump),
        }
        weights = np.array([weight for weight, _ in actions.values()])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            name = str(self.rng.choice(list(actions), p=weights / weights.sum()))
            try:
                actions[name][1]()
                self.done[name] += 1
            except DeepMemoryError as error:
                if name in ("read", "retrieve", "look"):
                    raise
                self.done[f"{name}: {type(error).__name__}"] += 1
            self.tell()


def worker(root: Path, seed: int, seconds: float) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as a full disk does, the limit leads to an error
    try:
        Worker(root, seed).work(seconds)
    except BaseException:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (root / f"failed-{os.getpid()}").write_text(traceback.format_exc())
        raise


# ---- the storm ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(root: Path, size: int) -> Iterator[bool]:
    """Mount a small file system at ``root/disk``, where this process may. Yields whether it is one."""
    disk = root / "disk"
    disk.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True
    ).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


class Storm:
    """The processes, and what happens to them.

    Args:
        root: An empty folder.
        processes: How many processes there are at a time.
        seed: Fixes what happens to them, but for the time it takes.
        mounted: Whether the disk is small enough to be filled.
    """

    def __init__(self, root: Path, processes: int, seed: int, *, mounted: bool) -> None:
        self.root, self.random, self.mounted = root, random.Random(seed), mounted
        self.started = 0
        self.happened: Counter[str] = Counter()
        self.largest: dict[str, int] = {}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.count = processes

    def start(self, seconds: float) -> None:
        self.started += 1
        command = [sys.executable, "-m", "tests.storm", "worker", str(self.root), str(self.started), str(seconds)]
        with open(self.root / "log", "ab") as log:
            # A session of its own, so that a training of its own in the background is killed with it, or is not.
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))

    def blow(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        for _ in range(self.count):
            self.start(seconds)
        while (left := end - time.monotonic()) > 0:
            time.sleep(self.random.uniform(0.2, 1.0))
            self.check_processes()
            while len(self.processes) < self.count and left > 10:
                self.start(left)
            self.measure()
            getattr(self, self.random.choice(["kill", "stop", "fill", "calm", "calm", "calm"]))()
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.wait(120)
        self.check_processes()

    def check_processes(self) -> None:
        if failed := sorted(self.root.glob("failed-*")):
            raise AssertionError(f"{len(failed)} processes failed:\n{failed[0].read_text()}")
        self.processes = [process for process in self.processes if process.poll() is None]

    def calm(self) -> None:
        self.happened["calm"] += 1

    def kill(self) -> None:
        if self.processes:
            process = self.random.choice(self.processes)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            self.happened["kill -9"] += 1

    def stop(self) -> None:
        if self.processes:
            process = self.random.choice(self.processes)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(self.random.uniform(0.1, 3))
                os.kill(process.pid, signal.SIGCONT)
                self.happened["SIGSTOP"] += 1

    def fill(self) -> None:
        if not self.mounted:
            return
        filler = self.root / "disk" / "filler"
        try:
            with open(filler, "wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * 4096)
                    file.flush()
        except OSError:  # what could not be flushed
            pass
        time.sleep(self.random.uniform(0.1, 2))
        filler.unlink()
        self.happened["full disk"] += 1

    def measure(self) -> None:
        """Note the largest size of every file, and how large the folder with all models and jobs was."""
        folder, _ = folders(self.root)
        total = 0
        # os.walk passes over folders that are deleted meanwhile.
        paths = [Path(place, name) for place, _, names in os.walk(self.root / "disk") for name in names if name != "filler"]
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                size = path.stat().st_size
                total += size if folder in path.parents and path.name != "audit.jsonl" else 0
                parent = "inputs" if path.parent.parent.name == "jobs" else path.parent.name
                name = path.name if parent in ("m", "disk") else f"{parent}/*{path.suffix}"
                self.largest[name] = max(self.largest.get(name, 0), size)
        self.largest["the folder"] = max(self.largest.get("the folder", 0), total)

    # ---- what must hold ---------------------------------------------------------------------------------------

    def check(self) -> dict[str, object]:
        """Check everything, once no process is left."""
        folder, log_path = folders(self.root)
        problem = small_problem()
        memory = memory_of(problem, folder)
        for job in memory.jobs.all():  # trainings in the background have outlived their starters
            if job.running:
                memory.cancel(job.id)
        held = [path for path in folder.rglob("*lock*") if path.is_file() and FileLock.is_held(path)]
        assert not held, f"locks left behind: {held}"
        assert not [job for job in memory.jobs.all() if job.running]
        assert memory.folder.in_use_name() in memory.folder.models()
        assert all(info.error is None for info in memory.list_models())
        assert len([info for info in memory.list_models() if info.in_use]) == 1
        for name in memory.folder.models():
            QueryAdapter.load(memory.folder.model_path(name))
        changes = memory.audit()
        lines = (folder / "audit.jsonl").read_bytes().splitlines()
        torn = [line for line in lines if not line.endswith(b"}")]
        assert len(torn) <= self.happened["kill -9"], torn
        assert changes[-1].in_use == memory.folder.in_use_name(), "the last line tells what serves"
        assert (folder / "audit.jsonl").stat().st_size <= 2000 * (len(changes) + len(torn))
        memory.refresh()
        assert memory.train(problem.train, words=True) == memory.folder.in_use_name()
        disk = list((self.root / "disk").rglob("*"))
        left = [path for path in disk if path.name.endswith(".tmp") or path.parent.parent.name == "jobs"]
        assert not left, f"left behind: {left}"
        self.measure()
        return {"models": len(memory.list_models()), "audit lines": len(changes), "acknowledged": self.check_log(log_path)}

    def check_log(self, place: Path) -> int:
        acknowledged = (self.root / "acknowledged").read_text().split()
        with FeedbackLog(place) as log:
            held = {query.query_id: query for query in log.queries()}
            lost = [one for one in acknowledged if one not in held or not [e for e in held[one].events if e.kind == "thumb"]]
            assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged labels are lost: {lost[:3]}"
            assert not log.stats()["dropped"]
            kept = len(held)
        size = sum(path.stat().st_size for path in place.parent.glob(f"{place.name}*"))
        assert size <= (4 << 20) + 6000 * kept, f"the feedback log has {size} bytes for {kept} queries"
        return len(acknowledged)


def storm(seconds: float, processes: int, seed: int = 0) -> dict[str, object]:
    """Let it blow, and return what happened and what was measured.

    Raises:
        AssertionError: An invariant does not hold.
    """
    root = Path(tempfile.mkdtemp(prefix="deepmem-storm-"))
    with small_disk(root, DISK + int(seconds * LOGGED)) as mounted:
        folder, log = folders(root)
        FeedbackLog(log).close()
        memory = memory_of(small_problem(), folder)
        memory.train(small_problem().train)
        one = Storm(root, processes, seed, mounted=mounted)
        try:
            one.blow(seconds)
            found = one.check()
        finally:
            for process in one.processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                process.wait()
        done = sum((Counter(json.loads(path.read_text())) for path in root.glob("done-*.json")), Counter[str]())
        assert one.largest["the folder"] <= DISK // 2, one.largest
    shutil.rmtree(root)
    counted = {"mounted": mounted, "happened": dict(one.happened), "processes": one.started, "done": dict(sorted(done.items()))}
    return {**counted, **found, "largest": one.largest}


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    else:
        asked = [*sys.argv[1:], *("3600", "10", "0")[len(sys.argv) - 1 :]]
        print(json.dumps(storm(float(asked[0]), int(asked[1]), int(asked[2])), indent=1))  # noqa: T201 - to its caller
