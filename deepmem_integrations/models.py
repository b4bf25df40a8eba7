"""Trained models in a folder.

``models/<name>.safetensors`` is a model, with all that is known of it; ``current`` holds the name of the model in use. A model
is written once, whole, and never changed, so its name says what it is. Readers take no lock.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from deepmem_integrations._files import write_text
from deepmem_integrations._locks import FileLock
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.adapter.file import read_header
from deepmem_integrations.errors import ModelInUseError, ModelNotFoundError, StorageError


@dataclass(frozen=True)
class ModelInfo:
    """A version of the model.

    Attributes:
        name: Its name: the id of the job that made it.
        in_use: Whether it serves.
        created: Seconds since the epoch.
        made_by: ``train``, ``remember`` or ``forget``; empty where the file does not tell.
        parent: The model in use before it: the one that ``remember`` and ``forget`` grew, that ``train`` followed.
        data: Fingerprints of what it was trained on: ``queries`` (texts and labels) and ``corpus`` (ids and vectors). Equal
            ones mean equal data, in any order.
        embedding: The embedding model, as far as it is known.
        dimension: Of its vectors.
        report: The training report as JSON values.
        error: Why the file cannot be read; then nothing else is known.
    """

    name: str
    in_use: bool
    created: float
    made_by: str = ""
    parent: str | None = None
    data: Mapping[str, str] | None = None
    embedding: str | None = None
    dimension: int | None = None
    report: Mapping[str, Any] | None = field(default=None, repr=False)
    error: str | None = None

    def __str__(self) -> str:
        """A line: whether it is in use, its name, when it was made, and what it is or why it cannot be read."""
        chosen = self.error or (self.report or {}).get("chosen") or ""
        seen = (self.report or {}).get("seen")
        gain = f", recall@10 {100 * seen['gains']['recall@10']['mean']:+.1f} held out" if seen else ""
        grown = f", {self.made_by} of {self.parent}" if self.made_by in ("remember", "forget") else ""
        when = datetime.fromtimestamp(self.created).strftime("%Y-%m-%d %H:%M:%S")
        return f"{'*' if self.in_use else ' '} {self.name}  {when}  {chosen}{gain}{grown}"


class ModelFolder:
    """Models below one folder, which is made when something is first written.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Keep the path; nothing is touched yet."""
        self.path = Path(path)
        self._lock = threading.Lock()
        self._loaded: tuple[str, QueryAdapter] | None = None

    def lock(self) -> FileLock:
        """What everybody holds who puts a model in use or deletes one."""
        return FileLock(self.path / "lock")

    def models(self) -> list[str]:
        """The names of all models, oldest first."""
        dated = []
        for file in self.path.glob("models/*.safetensors"):
            try:
                dated.append((file.stat().st_mtime_ns, file.stem))
            except FileNotFoundError:  # deleted meanwhile
                continue
        return [name for _, name in sorted(dated)]

    def list_models(self) -> list[ModelInfo]:
        """What is known of all models, oldest first; their vectors are not read."""
        current, found = self.current(), []
        for name in self.models():
            try:
                found.append(self.info(name, current))
            except ModelNotFoundError:  # deleted meanwhile
                continue
        return found

    def info(self, name: str, current: str | None = None) -> ModelInfo:
        """What is known of one model.

        Args:
            name: Its name.
            current: The model in use, where that is at hand.

        Raises:
            ModelNotFoundError: No model has this name.
        """
        path = self._existing(name)
        in_use, created = name == (current or self.current()), 0.0
        try:
            created = path.stat().st_mtime
            header = read_header(path)
            metadata = header["metadata"]
            return ModelInfo(
                name=name,
                in_use=in_use,
                created=metadata.get("created", created),
                made_by=metadata.get("made_by", ""),
                parent=metadata.get("parent"),
                data=metadata.get("data"),
                embedding=header["model"],
                dimension=header["dimension"],
                report=metadata.get("report"),
            )
        except FileNotFoundError:
            raise self._unknown(name) from None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            return ModelInfo(name=name, in_use=in_use, created=created, error=f"{type(error).__name__}: {error}")

    def save_model(self, name: str, adapter: QueryAdapter) -> None:
        """Write a model; it is not in use before `set_current`.

        Raises:
            StorageError: The folder cannot be written, or the disk is full. No half of a model is left behind.
        """
        adapter.save(self.model_path(name))

    def load_model(self, name: str) -> QueryAdapter:
        """Read a model.

        Raises:
            ModelNotFoundError: No model has this name.
            AdapterFileError: Its file is damaged.
        """
        path = self._existing(name)
        try:
            return QueryAdapter.load(path)
        except StorageError:
            if path.exists():
                raise
            raise self._unknown(name) from None  # deleted meanwhile

    def delete_model(self, name: str) -> None:
        """Delete a model that is not in use. The record of its job stays.

        Raises:
            ModelNotFoundError: No model has this name.
            ModelInUseError: It serves.
            StorageError: It cannot be deleted.
        """
        with self.lock():
            path = self._existing(name)
            if name == self.current():
                others = ", ".join(other for other in self.models() if other != name)
                instead = f"set_model() another one first: {others}" if others else "train another one first"
                raise ModelInUseError(f"The model {name!r} in {self.path} is in use: {instead}.")
            try:
                path.unlink()
            except OSError as error:
                raise StorageError(f"Cannot delete {path}: {error.strerror or error}.") from error

    def current(self) -> str | None:
        """The name of the model in use; None where there is none yet."""
        try:
            return (self.path / "current").read_text(encoding="utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"Cannot read {self.path / 'current'}: {error.strerror or error}.") from error

    def in_use(self) -> tuple[str, QueryAdapter]:
        """The name of the model in use and the model, read again when another one is put in use: models never change.

        Raises:
            ModelNotFoundError: There is none yet; the message says how to train one.
            AdapterFileError: Its file is damaged.
        """
        loaded, name = self._loaded, self.name_in_use()
        if loaded is None or loaded[0] != name:
            with self._lock:
                loaded = self._loaded = self._load_in_use()
        return loaded

    def _load_in_use(self) -> tuple[str, QueryAdapter]:
        while True:
            name = self.name_in_use()
            try:
                return name, self.load_model(name)
            except ModelNotFoundError:  # deleted since, if another one is in use by now; else taken away by hand
                if self.current() == name:
                    raise

    def name_in_use(self) -> str:
        """`current`, where there has to be one.

        Raises:
            ModelNotFoundError: There is none yet; the message says how to train one.
        """
        name = self.current()
        if name is None:
            raise ModelNotFoundError(
                f"Deep Memory has no trained model in {self.path}. Train one: deep_memory.train(queries, relevance), where "
                "relevance[i] lists the (document id, 1.0) that answer queries[i]; or on the command line, deepmem train."
            )
        return name

    def set_current(self, name: str) -> None:
        """Put a model in use, if its file is whole.

        Raises:
            ModelNotFoundError: No model has this name.
            AdapterFileError: Its file is damaged.
            StorageError: The folder cannot be written.
        """
        self.load_model(name)
        with self.lock():
            self.put_in_use(name)

    def put_in_use(self, name: str) -> None:
        """`set_current`, for who holds the lock already and knows the file."""
        self._existing(name)
        for path in self.path.glob(".current.*.tmp"):  # of a process that was killed: nobody else is here now
            path.unlink(missing_ok=True)
        write_text(self.path / "current", name)

    def model_path(self, name: str) -> Path:
        """The file of a model, whether it is there or not."""
        return self.path / "models" / f"{name}.safetensors"

    def _existing(self, name: str) -> Path:
        if not is_plain_name(name) or not self.model_path(name).is_file():
            raise self._unknown(name)
        return self.model_path(name)

    def _unknown(self, name: str) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"Invalid model name. Please choose from the following models: {', '.join(self.models()) or 'none yet'} "
            f"(asked for {name!r} in {self.path})"
        )


def is_plain_name(name: str) -> bool:
    """Whether a name stays inside its folder."""
    return bool(name) and Path(name).name == name
