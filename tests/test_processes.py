"""No process is killed in place of another: the holder of a lock is proven, also across namespaces."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from deepmem_integrations import _processes
from deepmem_integrations._locks import FileLock
from deepmem_integrations._processes import ProcessIdentity, kill_holder
from deepmem_integrations.jobs import JobFolder
from deepmem_integrations.models import ModelFolder

pytestmark = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="the system has no /proc with namespaces")

JOB = "0123456789abcdef01234567"
HOLD = """
import os, sys
from pathlib import Path
from deepmem_integrations._locks import FileLock
from deepmem_integrations._processes import ProcessIdentity
lock = FileLock(Path(sys.argv[1]))
lock.acquire()
ProcessIdentity.of(os.getpid()).write(lock.descriptor)
print("held", flush=True)
sys.stdin.readline()
"""
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


@contextmanager
def running(script, *arguments):
    with subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], **PIPES) as process:
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def ended(process):
    try:
        return process.wait(0.3)
    except subprocess.TimeoutExpired:
        return None


def test_an_identity_is_written_and_read(tmp_path):
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    with FileLock(tmp_path / "lock") as lock:
        me.write(lock.descriptor)
        assert ProcessIdentity.read(tmp_path / "lock") == me
    for damage in ("", "1 2 3", "x 1 boot namespace", "1 " * 9000):
        (tmp_path / "lock").write_text(damage)
        assert ProcessIdentity.read(tmp_path / "lock") is None
    assert ProcessIdentity.of(2**22 + 1) is None


def test_the_holder_is_killed_and_nobody_else(tmp_path):
    lock, other = tmp_path / "lock", tmp_path / "other"
    with running(HOLD, lock) as holder, running(HOLD, other) as bystander:
        stranger = ProcessIdentity.of(bystander.pid)
        for wrong in (
            stranger,  # it is who it says, but has another file open
            replace(stranger, pid=holder.pid),
            replace(ProcessIdentity.of(holder.pid), start=1),
            replace(ProcessIdentity.of(holder.pid), boot="another"),
            replace(ProcessIdentity.of(holder.pid), namespace="pid:[1]"),
            *(replace(stranger, pid=pid) for pid in (-1, 0, 1, os.getpid(), -bystander.pid)),
        ):
            copy = tmp_path / "copy"
            copy.unlink(missing_ok=True)
            os.link(lock, copy)  # the same file, as the holder has it open
            before = copy.read_text()
            copy.write_text(f"{wrong}\n")
            assert kill_holder(copy) is False, wrong
            copy.write_text(before)
        assert ended(bystander) is None
        assert ended(holder) is None
        assert kill_holder(lock) is True
        assert ended(holder) == -9
        assert kill_holder(lock) is False, "nobody has that number now"


def test_without_proc_nobody_is_killed(tmp_path, monkeypatch):
    with running(HOLD, tmp_path / "lock") as holder:
        monkeypatch.setattr(_processes, "_PROC", tmp_path / "none")
        assert kill_holder(tmp_path / "lock") is False
        assert ended(holder) is None


# ---- jobs ------------------------------------------------------------------------------------------------------------


def hostile_job(folder, pid):
    """A job that says it runs in the process of this number, and whose lock somebody holds."""
    jobs = JobFolder(ModelFolder(folder))
    jobs.path.mkdir(parents=True, exist_ok=True)
    state = {"id": JOB, "state": "training", "progress": 0.5, "created": 1.0, "started": 1.0, "pid": pid, "detached": True}
    (jobs.path / f"{JOB}.json").write_text(json.dumps(state))
    return jobs


@pytest.mark.parametrize("number", ["of a bystander", -1, 0])
def test_cancel_kills_no_process_that_a_file_merely_names(tmp_path, number, monkeypatch, caplog):
    """Before, ``os.kill`` took any number from the file: -1 is every process, and 0 the caller's group."""

    def kill(pid, sent):
        raise AssertionError(f"os.kill({pid}, {sent})")

    with running("print(1, flush=True); input()") as bystander:
        jobs = hostile_job(tmp_path, bystander.pid if number == "of a bystander" else number)
        with FileLock(jobs.lock_path(JOB)), monkeypatch.context() as patched:
            patched.setattr(os, "kill", kill)
            assert jobs.cancel(JOB) is True
            assert jobs.cancel_path(JOB).exists(), "the job is asked to stop"
            assert "Nothing proves that process" in caplog.text
        assert ended(bystander) is None
    assert jobs.job(JOB).state == "cancelled"


NAMESPACES = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
CANCEL = """
import sys, os
from deepmem_integrations.jobs import JobFolder
from deepmem_integrations.models import ModelFolder
bystander = os.fork()
if bystander == 0:
    import time
    time.sleep(60)
    os._exit(0)
# A pid that both containers have: the job of the other one runs under the number of a bystander here.
jobs = JobFolder(ModelFolder(sys.argv[1]))
import json
path = jobs.path / f"{sys.argv[2]}.json"
path.write_text(json.dumps({**json.loads(path.read_text()), "pid": bystander}))
print(jobs.cancel(sys.argv[2]))
import time
time.sleep(0.2)
print(os.waitpid(bystander, os.WNOHANG) == (0, 0))
os.kill(bystander, 9)
"""


def can_unshare():
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACES, "true"], capture_output=True, timeout=30).returncode == 0


def test_cancel_in_one_container_kills_nobody_of_the_other_ones_number(tmp_path):
    if not can_unshare():
        pytest.skip("unshare may not make namespaces here: tests/containers.sh does the same by hand, as root")
    jobs = hostile_job(tmp_path, 4242)
    with FileLock(jobs.lock_path(JOB)) as lock:
        ProcessIdentity.of(os.getpid()).write(lock.descriptor)
        command = [*NAMESPACES, sys.executable, "-c", CANCEL, str(tmp_path), JOB]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.stdout.split() == ["True", "True"], done.stderr
        assert "Nothing proves that process" in done.stderr
