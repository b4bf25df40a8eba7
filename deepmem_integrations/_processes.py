"""Processes that prove who they are, so that no other process is killed in their place.

The number of a process proves nothing: after its end the kernel gives it to another process, and another container on a shared
volume has a process of the same number. A lock file therefore says who holds it by number, start, boot and namespace, and a
process counts as the holder only if all of them fit *and* the process has the lock file open.
"""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from deepmem_integrations._files import read_bytes
from deepmem_integrations.errors import StorageError

_PROC = Path("/proc")
_LONGEST = 4096


@dataclass(frozen=True)
class ProcessIdentity:
    """What tells a process from every other, on any machine and in any container.

    Attributes:
        pid: The number of the process in its namespace.
        start: When the process started, in clock ticks since the boot.
        boot: The id of the machine's boot.
        namespace: The namespace of process numbers.
    """

    pid: int
    start: int
    boot: str
    namespace: str

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """Return the identity of a running process; None where there is none, or no system that tells (macOS, Windows)."""
        try:
            if os.readlink(_PROC / "self") != str(os.getpid()):  # /proc shows another namespace than this process lives in
                return None
            # The name of the program stands in brackets, and may hold anything.
            fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
            return cls(pid, int(fields[19]), boot, os.readlink(_PROC / str(pid) / "ns/pid"))
        except (OSError, ValueError, IndexError):
            return None

    def __str__(self) -> str:
        """Write the identity in one line, which `read` reads."""
        return f"{self.pid} {self.start} {self.boot} {self.namespace}"

    @classmethod
    def read(cls, path: Path) -> "ProcessIdentity | None":
        """Read an identity from a file; None where the file holds none."""
        try:
            pid, start, boot, namespace = read_bytes(path, _LONGEST).decode("ascii").split()
            return cls(int(pid), int(start), boot, namespace)
        except (StorageError, ValueError):
            return None

    def write(self, descriptor: int) -> None:
        """Write the identity over the content of an open file. On a full disk the file holds none."""
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{self}\n".encode("ascii"), 0)


def kill_holder(path: Path) -> bool:
    """Kill the process that holds a lock, if the process can be proven to be the one that the lock file names.

    Args:
        path: The lock file.

    Returns:
        Whether the process was killed, or had ended by itself. False where nothing proves who holds the lock.

    Raises:
        PermissionError: The process belongs to another user.
    """
    identity = ProcessIdentity.read(path)
    if identity is None or identity.pid <= 1 or identity.pid == os.getpid() or not hasattr(os, "pidfd_open"):
        return False
    try:
        # The descriptor stands for this very process, also after the number was given to another one.
        process = os.pidfd_open(identity.pid)
    except OSError:
        return False
    try:
        if ProcessIdentity.of(identity.pid) != identity or not _has_open(identity.pid, path):
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return True
    finally:
        os.close(process)


def _has_open(pid: int, path: Path) -> bool:
    """Tell whether a process has a file open."""
    try:
        wanted = os.stat(path)
        for name in os.listdir(_PROC / str(pid) / "fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if os.path.samestat(os.stat(_PROC / str(pid) / "fd" / name), wanted):
                    return True
    except OSError:  # of another user
        return False
    return False
