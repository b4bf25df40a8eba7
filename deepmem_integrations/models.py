"""Trained models in a folder.

``models/<name>.safetensors`` is a model with all that is known of it, and ``current`` holds the name of the model in use. A model
is written once, whole, and never changed, so its name identifies it. ``words`` is the word index of the store's texts, which all
models share and which follows the store. ``audit.jsonl`` tells who put which model in use. Readers take no lock.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any

from deepmem_integrations._files import LONGEST_NAME, is_missing, is_plain_name, lasting_path, read_text, user_path, write_text
from deepmem_integrations._forks import fork_safe
from deepmem_integrations._locks import FileLock
from deepmem_integrations.adapter import Fingerprint, QueryAdapter, Ranking
from deepmem_integrations.adapter.cache import AdapterCache, shared
from deepmem_integrations.adapter.file import read_header
from deepmem_integrations.audit import AuditLog, history
from deepmem_integrations.errors import (
    AdapterFileError,
    EmbeddingMismatchError,
    ModelInUseError,
    ModelNotFoundError,
    NotTrainedError,
    StorageError,
    StoreError,
)
from deepmem_integrations.words import WordIndex

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelInfo:
    """What is known of one model.

    Attributes:
        name: The model's name, which is the id of the job that made it.
        in_use: Whether the model serves.
        created: When the model was made, in seconds since the epoch.
        made_by: ``train``, ``remember``, ``forget`` or ``relabel``; empty where the file does not say.
        parent: The model that was in use before: ``remember``, ``forget`` and ``relabel`` grew it, ``train`` followed it.
        data: Fingerprints of what the model was trained on: ``queries`` (texts and labels) and ``corpus`` (ids and vectors).
            Equal fingerprints mean equal data, in any order.
        embedding: The name of the embedding model, as far as it is known.
        dimension: The length of its vectors.
        ranking: The weights by which a retriever ranks, as in ``vector + 0.05 words``; None where the transformed query alone
            ranks.
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
    ranking: str | None = None
    report: Mapping[str, Any] | None = field(default=None, repr=False)
    error: str | None = None

    @classmethod
    def from_header(cls, name: str, header: Any, *, in_use: bool, otherwise: float) -> "ModelInfo":
        """Take what is known out of a file's header.

        Args:
            name: The model's name.
            header: The JSON header of the file, of any content.
            in_use: Whether the model serves.
            otherwise: When the model was made, where the header does not say.

        Raises:
            TypeError, ValueError, KeyError: A field is missing or has another type.
        """
        metadata = header["metadata"]
        if not isinstance(metadata, dict):
            raise TypeError("the metadata is no JSON object")
        fields: dict[str, tuple[Any, Any]] = {
            "created": (metadata.get("created", otherwise), (int, float)),
            "made_by": (metadata.get("made_by", ""), str),
            "parent": (metadata.get("parent"), (str, NoneType)),
            "data": (metadata.get("data"), (dict, NoneType)),
            "embedding": (header["model"], (str, NoneType)),
            "dimension": (header["dimension"], int),
            "report": (metadata.get("report"), (dict, NoneType)),
        }
        for field_name, (value, kinds) in fields.items():
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise TypeError(f"{field_name} is {value!r}")
        datetime.fromtimestamp(fields["created"][0])  # raises where there is no such time
        ranking = str(Ranking(**header["ranking"])) if header.get("ranking") else None
        return cls(name, in_use, ranking=ranking, **{field_name: value for field_name, (value, _) in fields.items()})

    def __str__(self) -> str:
        """Say in one line whether the model is in use, its name, when it was made, and what it is or why it is unreadable."""
        chosen = self.error or (self.report or {}).get("chosen") or ""
        seen = (self.report or {}).get("seen")
        gain = f", recall@10 {100 * seen['gains']['recall@10']['mean']:+.1f} held out" if seen else ""
        grown = f", {self.made_by} of {self.parent}" if self.made_by in ("remember", "forget", "relabel") else ""
        ranking = f", retrievers rank by {self.ranking}" if self.ranking else ""
        when = datetime.fromtimestamp(self.created).strftime("%Y-%m-%d %H:%M:%S")
        return f"{'*' if self.in_use else ' '} {self.name}  {when}  {chosen}{gain}{ranking}{grown}"


class ModelFolder:
    """A folder of models, which is made when something is first written.

    Args:
        path: The folder.
        cache: The cache that keeps the model in use for other `ModelFolder`s of the folder; by default the process's own.
    """

    def __init__(self, path: str | os.PathLike[str], cache: AdapterCache = shared) -> None:
        if "://" in str(path):
            raise StorageError(
                f"{path} is no folder of this machine: give path= a folder here to train into, and memory.publish({str(path)!r})."
            )
        self.path = Path(lasting_path(path))
        self.audit = AuditLog(self.path / "audit.jsonl")
        self._cache = cache
        self._lock = fork_safe(threading.Lock())
        self._loaded: tuple[str, QueryAdapter] | None = None
        self._names: weakref.WeakKeyDictionary[QueryAdapter, str] = weakref.WeakKeyDictionary()
        self._lost = False
        self._words: WordIndex | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path alone: another process reads the models and opens the word index itself."""
        return type(self), (self.path,)

    @property
    def place(self) -> str:
        """Where the models are, for messages."""
        return str(self.path)

    def lock(self) -> FileLock:
        """Return the lock that every process holds while it puts a model in use or deletes one."""
        return FileLock(self.path / "lock")

    # ---- all models --------------------------------------------------------------------------------------------

    def models(self) -> list[str]:
        """Return the names of all models, oldest first."""
        dated = []
        for file in self.path.glob("models/*.safetensors"):
            try:
                dated.append((file.stat().st_mtime_ns, file.stem))
            except FileNotFoundError:  # deleted meanwhile
                continue
        return [name for _, name in sorted(dated)]

    def list_models(self) -> list[ModelInfo]:
        """Return what is known of all models, oldest first. Their vectors are not read."""
        in_use, found = self.in_use_name(), []
        for name in self.models():
            try:
                found.append(self.info(name, in_use))
            except ModelNotFoundError:  # deleted meanwhile
                continue
        return found

    def info(self, name: str, in_use: str | None = None) -> ModelInfo:
        """Return what is known of one model.

        Args:
            name: The model's name.
            in_use: The name of the model in use, where it is at hand.

        Raises:
            ModelNotFoundError: No model has this name.
        """
        path = self._existing(name)
        serves, created = name == (in_use or self.in_use_name()), 0.0
        try:
            created = path.stat().st_mtime
            header = read_header(path)
            known = ModelInfo.from_header(name, header, in_use=serves, otherwise=created)
            str(known)  # a report that lacks what every report has is found here
            return known
        except FileNotFoundError:
            raise self._unknown(name) from None
        except Exception as error:  # a file that anybody may have written must not hide the others
            return ModelInfo(name=name, in_use=serves, created=created, error=f"{type(error).__name__}: {error}")

    def model_path(self, name: str) -> Path:
        """Return the path of a model's file, whether the file exists or not."""
        return self.path / "models" / f"{name}.safetensors"

    def save_model(self, name: str, adapter: QueryAdapter) -> None:
        """Write a model. It is in use only after `use`.

        Raises:
            StorageError: The folder cannot be written, or the disk is full. No half-written model is left behind.
        """
        adapter.save(self.model_path(name))

    def load_model(self, name: str) -> QueryAdapter:
        """Read a model.

        Raises:
            ModelNotFoundError: No model has this name.
            AdapterFileError: The model's file is damaged.
        """
        return self._load(name, QueryAdapter.load)

    def _load(self, name: str, read: Callable[[Path], QueryAdapter]) -> QueryAdapter:
        path = self._existing(name)
        try:
            return read(path)
        except StorageError:
            if path.exists():
                raise
            raise self._unknown(name) from None  # deleted meanwhile

    def delete_model(self, name: str) -> None:
        """Delete a model that is not in use. The record of its job stays.

        Raises:
            ModelNotFoundError: No model has this name.
            ModelInUseError: The model is in use.
            StorageError: The file cannot be deleted.
        """
        with self.lock():
            path = self._existing(name)
            if name == self.in_use_name():
                others = ", ".join(other for other in self.models() if other != name)
                instead = f"set_model() another one first: {others}" if others else "train another one first"
                raise ModelInUseError(f"The model {name!r} in {self.path} is in use: {instead}.")
            try:
                path.unlink()
            except OSError as error:
                raise StorageError(f"Cannot delete {path}: {error.strerror or error}.") from error

    # ---- words --------------------------------------------------------------------------------------------------

    @property
    def words_path(self) -> Path:
        """The folder of the word index, whether there is one or not."""
        return self.path / "words"

    @property
    def lexical_search(self) -> WordIndex | None:
        """The word index of the store's texts; None where there is none yet. It is opened once, and sees later changes by itself.

        Raises:
            StorageError: The index is damaged.
        """
        if not WordIndex.exists(self.words_path):
            self._words = None
        elif self._words is None:
            self._words = WordIndex(self.words_path)
        return self._words

    # ---- the model in use --------------------------------------------------------------------------------------

    def in_use(self) -> tuple[str, QueryAdapter]:
        """Return the name of the model in use and the model. A file is read once: models never change.

        Raises:
            NotTrainedError: No model is in use yet; the message says how to train one.
            ModelNotFoundError: The file of the model in use is gone.
            AdapterFileError: The model's file is damaged.
        """
        loaded, name = self._loaded, self.in_use_name()
        if loaded is not None and name is None:  # no model is ever taken out of use
            if not self._lost:
                self._lost = True
                _logger.warning("%s names no model in use any more: is the folder lost? %s serves on.", self.place, loaded[0])
            return loaded
        self._lost = False
        if loaded is None or loaded[0] != name:
            with self._lock:
                loaded = self._loaded = self._load_in_use()
                self._names[loaded[1]] = loaded[0]
        return loaded

    def name_of(self, adapter: QueryAdapter) -> str | None:
        """Return the name of an adapter that was in use while this object looked; None where it was not."""
        return self._names.get(adapter)

    def in_use_name(self) -> str | None:
        """Return the name of the model in use; None where no model is in use yet."""
        try:
            return read_text(self.path / "current", LONGEST_NAME + 2).strip()
        except StorageError as error:
            if is_missing(error):
                return None
            raise

    def use(self, name: str, *, change_embedding: bool = False, by: str | None = None) -> None:
        """Put a model in use, if its file is whole.

        Args:
            name: The model's name.
            change_embedding: Whether the model may belong to another embedding model than the model in use.
            by: Who asks, for the audit log; by default the user of the process.

        Raises:
            ModelNotFoundError: No model has this name.
            AdapterFileError: The model's file is damaged.
            EmbeddingMismatchError: The model in use belongs to another embedding model: see `check_embedding`.
            StorageError: The folder cannot be written.
        """
        adapter = self.load_model(name)
        with self.lock():
            if not change_embedding:
                self.check_embedding(adapter.fingerprint)
            self.write_in_use(name, by=by)

    def roll_back(self, *, change_embedding: bool = False, by: str | None = None) -> str:
        """Put the model in use that was in use before the present one. A second call goes one further back.

        Args:
            change_embedding: See `use`.
            by: See `use`.

        Returns:
            The name of the model that is in use now.

        Raises:
            NotTrainedError: No model is in use.
            ModelNotFoundError: No model was in use before, or it was deleted.
            AdapterFileError: The file of the model before is damaged.
            EmbeddingMismatchError: The model before belongs to another embedding model: see `check_embedding`.
            StorageError: The folder cannot be written, or the audit log cannot be read.
        """
        with self.lock():
            name = self.in_use_name()
            if name is None:
                raise self.nothing_trained()
            past = history(self.audit.entries(), name)
            before = past[-2] if len(past) > 1 else self._parent(name)
            if before is None:
                raise ModelNotFoundError(f"No model was in use in {self.path} before {name!r}: there is nothing to go back to.")
            if not self.model_path(before).is_file():
                others = ", ".join(other for other in self.models() if other != name) or "none is left"
                raise ModelNotFoundError(
                    f"The model {before!r}, which was in use before {name!r}, was deleted from {self.path}. Put another one in "
                    f"use with set_model() or `deepmem use`: {others}."
                )
            adapter = self.load_model(before)
            if not change_embedding:
                self.check_embedding(adapter.fingerprint)
            self.write_in_use(before, action="rollback", by=by, reason=f"back from {name}")
        return before

    def _parent(self, name: str) -> str | None:
        """Return the model that was in use when a model was made, as the model's own file says; None where it does not."""
        try:
            return self.info(name).parent
        except ModelNotFoundError:
            return None

    def check_embedding(self, fingerprint: Fingerprint) -> None:
        """Refuse a model of another embedding model than that of the model in use, whose services would fail on every query.

        Where no model is in use, or the one in use cannot be read, nothing is refused.

        Args:
            fingerprint: The fingerprint of the embedding model of the model to be put in use.

        Raises:
            EmbeddingMismatchError: The embedding models differ; the message says what to do.
        """
        try:
            name, adapter = self.in_use()
        except (AdapterFileError, ModelNotFoundError, StorageError):
            return
        check_same_embedding(self.place, name, adapter, fingerprint)

    def write_in_use(
        self,
        name: str,
        *,
        action: str = "use",
        by: str | None = None,
        reason: str = "",
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the name of the model in use, and write the change to the audit log.

        The caller holds the lock, and knows that the model's file is whole.

        Args:
            name: The model's name.
            action: What put the model in use: see `AuditEntry`.
            by: Who asked; by default the user of the process.
            reason: Why.
            figures: The figures of the decision, as JSON values.

        Raises:
            StorageError: The folder cannot be written. The model in use and the log stay as they were.
        """
        self._existing(name)
        for path in self.path.glob(".current.*.tmp"):  # of killed processes: no other process writes now
            path.unlink(missing_ok=True)
        before = self.in_use_name()
        if before == name:
            return
        with self.audit.recorded(action, name, before=before, in_use=name, by=by, reason=reason, figures=figures):
            write_text(self.path / "current", name)

    def nothing_trained(self) -> NotTrainedError:
        """Make the error for a folder without a model in use."""
        return NotTrainedError(
            f"Deep Memory has no trained model in {self.path}. Train one: deep_memory.train(queries, relevance), where "
            "relevance[i] lists the (document id, 1.0) that answer queries[i]; or on the command line, deepmem train."
        )

    def _load_in_use(self) -> tuple[str, QueryAdapter]:
        while True:
            name = self.in_use_name()
            if name is None:
                raise self.nothing_trained()
            try:
                return name, self._load(name, self._cache.load)
            except ModelNotFoundError:  # another model may have been put in use since, and this one deleted
                if self.in_use_name() == name:
                    raise

    def _existing(self, name: str) -> Path:
        if not is_plain_name(name) or not self.model_path(name).is_file():
            raise self._unknown(name)
        return self.model_path(name)

    def _unknown(self, name: str) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"Invalid model name. Please choose from the following models: {', '.join(self.models()) or 'none yet'} "
            f"(asked for {name!r} in {self.path})"
        )


def check_same_embedding(place: str, name: str, adapter: QueryAdapter, fingerprint: Fingerprint) -> None:
    """Refuse a model of another embedding model than that of the model that a place serves: see `ModelFolder.check_embedding`.

    Args:
        place: Where the model serves.
        name: The name of the model that serves.
        adapter: The model that serves.
        fingerprint: The fingerprint of the embedding model of the model to be put in use.

    Raises:
        EmbeddingMismatchError: The embedding models differ.
    """
    try:
        adapter.check(fingerprint)
    except EmbeddingMismatchError as error:
        raise EmbeddingMismatchError(
            f"{place} serves the model {name} of {adapter.fingerprint}, and this model belongs to {fingerprint}: services there "
            "would fail on every query. Train the new embedding model in a folder of its own, path=…, and move the services "
            "there. If no service uses this place, or all of them change at once: change_embedding=True, on the command line "
            f"--change-embedding. ({error})"
        ) from error


def beside(dataset_path: str) -> str:
    """Return the default folder for the models of a local Deep Lake data set.

    Raises:
        StoreError: The data set is not a local folder.
    """
    if "://" in dataset_path:
        raise StoreError(
            f"{dataset_path!r} is no local folder, so there is no place beside it for the trained models: "
            "pass the folder as path= (deep_memory_path= for a vector store)."
        )
    dataset_path = user_path(dataset_path)
    if os.path.basename(dataset_path.rstrip("/\\")) in ("", ".", ".."):  # beside "." there is nothing with a name that starts so
        dataset_path = os.path.abspath(dataset_path)
    return dataset_path.rstrip("/\\") + ".deepmemory"


def check_outside(folder: str | os.PathLike[str], dataset_path: str | os.PathLike[str]) -> None:
    """Refuse a folder of models that is a local Deep Lake data set or lies in one: it would be deleted with the data set.

    Neither links nor relative paths hide that, nor letter case where the file system ignores it.

    Raises:
        StoreError: The folder is the data set, or lies in the data set.
    """
    dataset_path = os.fspath(dataset_path).removeprefix("file://")
    if "://" in dataset_path:
        return
    dataset, place = _real_path(dataset_path), _real_path(os.fspath(folder).removeprefix("file://"))
    if any(_same_path(one, dataset) for one in (place, *place.parents)):
        raise StoreError(
            f"The models cannot be kept in {os.fspath(folder)!r}, which {'is' if _same_path(place, dataset) else 'lies in'} the "
            f"data set {dataset_path!r}: deleting or overwriting the data set would delete the models. Pass a folder outside as "
            "path= (deep_memory_path= for a vector store), and move models that are there already."
        )


def _real_path(path: str) -> Path:
    return Path(os.path.realpath(user_path(path)))


def _same_path(one: Path, other: Path) -> bool:
    """Tell whether two real paths name one folder, which need not exist yet."""
    try:
        return one.samefile(other)
    except OSError:
        pass
    if one.exists() or other.exists() or one.parent == one or other.parent == other:
        return False
    same_name = one.name.casefold() == other.name.casefold() if _ignores_case(one.parent) else one.name == other.name
    return same_name and (one.parent == other.parent or _same_path(one.parent, other.parent))


def _ignores_case(folder: Path) -> bool:
    """Tell whether the nearest folder that exists is found under its name in the other letter case, too."""
    while not folder.exists():
        folder = folder.parent
    swapped = folder.with_name(folder.name.swapcase()) if folder.name else folder
    try:
        return swapped != folder and swapped.samefile(folder)
    except OSError:
        return False
