"""Models in an object store: `RemoteModels` serves them from a local copy, and `publish` puts them there.

An object store holds what a folder of models holds, ``current``, ``models/<name>.safetensors`` and ``words/``, for one model in
use. Whatever a file names is written before it, so that readers find a whole state at every moment.
"""

import contextlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from deepmem_integrations._files import is_plain_name, parse_json, read_bytes, replacing, write_bytes, write_text
from deepmem_integrations._forks import fork_safe
from deepmem_integrations._locks import LOCKS_AVAILABLE, FileLock
from deepmem_integrations._store import Store
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.errors import AdapterFileError, DeepMemoryError, NotTrainedError, StorageError
from deepmem_integrations.models import ModelFolder, check_same_embedding

_logger = logging.getLogger(__name__)

_INDEX = "words/index.json"


def _clean(store: Store, folders: Iterable[str], keep: Collection[str]) -> None:
    """Delete the adapters and word segments in some folders that are not to be kept. Where that is not allowed, they stay."""
    for folder in folders:
        try:
            for name in store.names(folder):
                if name.endswith(".safetensors") and f"{folder}/{name}" not in keep:
                    store.delete(f"{folder}/{name}")
        except StorageError as error:
            _logger.warning("What earlier models left stays in %s: %s", store.url, error)


class RemoteModels(ModelFolder):
    """The model in use of an object store, served from a copy on this machine.

    The copy is made when it is first needed, and shared by all processes of the machine. Every so often a thread looks whether
    another model was published, while queries go on with the copy. Where the store cannot be reached, the copy serves on, and a
    warning is logged once. Models are published with `DeepMemory.publish`.

    Args:
        url: The URL that was published to, such as ``s3://bucket/support.deepmemory``.
        every: After how many seconds to look again.
        copy: The folder of the copy; by default a folder in ``DEEPMEM_CACHE``, or else in ``~/.cache/deepmem``.
        options: The options of fsspec's file system, such as ``key=…`` and ``secret=…``. By default, the environment and the
            configuration of the machine tell the credentials.

    Raises:
        MissingExtraError: fsspec, or its package for this kind of URL, is not installed.

    Example:
        >>> import tempfile
        >>> from deepmem_integrations.models import ModelFolder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trained = ModelFolder(f"{folder}/trained")
        ...     trained.save_model("one", QueryAdapter(2))
        ...     trained.use("one")
        ...     publish(trained, "memory://support.deepmemory")
        ...     RemoteModels("memory://support.deepmemory", copy=f"{folder}/copy").in_use()
        'one'
        ('one', QueryAdapter(2 dimensions, identity))
    """

    def __init__(
        self,
        url: str,
        *,
        every: float = 60.0,
        copy: str | os.PathLike[str] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.url, self.every, self._options = url.rstrip("/"), every, dict(options or {})
        super().__init__(_copy_of(self.url, self._options) if copy is None else copy)
        self._store = Store(self.url, self._options)
        self._looked: float | None = None
        self._looking = fork_safe(threading.Lock())
        self._said = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the address alone."""
        return _again, (self.url, self.every, self.path, self._options)

    @property
    def place(self) -> str:
        """The URL for messages, without a password."""
        return self._store.url

    def nothing_trained(self) -> NotTrainedError:
        """Make the error for a URL to which nothing was published."""
        return NotTrainedError(f"No model was published to {self.place} yet: train one, and call memory.publish({self.place!r}).")

    def in_use_name(self) -> str | None:
        """Return the name of the model in use; None where none was published yet.

        Raises:
            StorageError: There is no copy yet, and the store cannot be reached.
        """
        if self._looked is None:
            with self._looking:
                if self._looked is None:
                    self._first_look()
        elif time.monotonic() - self._looked > self.every and self._looking.acquire(blocking=False):
            try:
                threading.Thread(target=self._look_again, name=f"deepmem looks at {self.place}", daemon=True).start()
            except RuntimeError:  # there are too many threads, or the interpreter is ending
                self._looking.release()
        return super().in_use_name()

    def look(self) -> None:
        """Bring the copy up to date now.

        Raises:
            StorageError: The store cannot be reached, or the copy cannot be written.
            AdapterFileError: The published model is damaged. The copy is unchanged.
        """
        with FileLock(self.path / "lock") if LOCKS_AVAILABLE else contextlib.nullcontext():
            self._update()
        self._looked = time.monotonic()
        self._said = False

    def _first_look(self) -> None:
        try:
            # An earlier process left a copy, which serves while another process brings it up to date.
            if super().in_use_name() is not None and FileLock.is_held(self.path / "lock"):
                self._looked = time.monotonic()
            else:
                self.look()
        except DeepMemoryError as error:
            if super().in_use_name() is None:
                raise
            self._say(error)  # an earlier process left a copy

    def _look_again(self) -> None:
        try:
            self.look()
        except Exception as error:  # the thread has nobody to raise to
            self._say(error)
        finally:
            self._looking.release()

    def _say(self, error: Exception) -> None:
        self._looked = time.monotonic()
        if not self._said:
            self._said = True
            _logger.warning("The copy of %s serves on, because it cannot be brought up to date: %s", self.place, error)

    def _update(self) -> None:
        if LOCKS_AVAILABLE:  # what killed processes were copying
            _delete([*self.path.glob("models/.*.tmp"), *self.words_path.glob(".*.tmp")])
        current = self._store.find("current")
        if current is None:
            return
        name = _name_in(current)
        if not is_plain_name(name):
            raise StorageError(f"{self.place}/current names no model: {name!r}. Publish again.")
        if name != super().in_use_name() or not self.model_path(name).is_file():
            with replacing(self.model_path(name)) as copy:
                self._store.download(_file_of(name), copy)
                QueryAdapter.load(copy)  # a damaged file takes no working model's place
        self._update_words()
        write_text(self.path / "current", name)
        _delete([path for path in self.path.glob("models/*.safetensors") if path.stem != name])

    def _update_words(self) -> None:
        index = self._store.find(_INDEX)
        if index is None or index == _content(self.path / _INDEX):
            return
        needed = word_files(index)
        for name in needed:
            if not (self.words_path / name).is_file():
                with replacing(self.words_path / name) as copy:
                    self._store.download(f"words/{name}", copy)
        write_bytes(self.path / _INDEX, index)
        _delete([path for path in self.words_path.glob("*.safetensors") if path.name not in needed])

    def save_model(self, name: str, adapter: QueryAdapter) -> None:
        """Refuse: models are published, not written here."""
        raise self._only_read()

    def lock(self) -> FileLock:
        """Refuse: a copy of published models is only read."""
        raise self._only_read()

    def _only_read(self) -> StorageError:
        return StorageError(
            f"{self.place} is only read here: train in a folder on this machine, and memory.publish({self.place!r})."
        )


def publish(
    models: ModelFolder,
    url: str,
    *,
    change_embedding: bool = False,
    by: str | None = None,
    options: dict[str, Any] | None = None,
) -> str:
    """Put the model in use, and the word index, into an object store, where services find both within a minute.

    Args:
        models: The folder of models.
        url: Where to publish to, such as ``s3://bucket/support.deepmemory``.
        change_embedding: Whether the model may belong to another embedding model than the one that is published there.
        by: Who asks, for the audit log, which is left as it is where this user may not write it.
        options: The options of fsspec's file system.

    Returns:
        The name of the model.

    Raises:
        NotTrainedError: No model is in use.
        EmbeddingMismatchError: The store serves a model of another embedding model: see `ModelFolder.check_embedding`.
        StorageError: The store cannot be written.
        MissingExtraError: fsspec, or its package for this kind of URL, is not installed.
    """
    name, adapter = models.in_use()
    store = Store(url, options or {})
    published = _name_in(store.find("current"))
    if published not in ("", name) and not change_embedding:
        _check_embedding(store, published, adapter)
    before = _needed(store)
    store.upload(_file_of(name), models.model_path(name))
    _publish_words(store, models, before)
    store.write("current", name.encode())
    # What the state before needs stays, for readers that are just copying it, and what another publication has put there by now.
    _clean(store, ("models", "words"), before | _needed(store) | {_file_of(name)})
    if name == _name_in(store.find("current")) and f"{name}.safetensors" not in store.names("models"):
        store.upload(_file_of(name), models.model_path(name))  # another publication deleted it meanwhile
    with contextlib.suppress(StorageError), models.lock():
        now = models.in_use_name()
        reason = f"to {store.url}" + (f", in place of {published}" if published not in ("", name) else "")
        with models.audit.recorded("publish", name, before=now, in_use=now, by=by, reason=reason):
            pass
    return name


def _check_embedding(store: Store, published: str, adapter: QueryAdapter) -> None:
    if f"{published}.safetensors" not in store.names("models"):
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "published")
        store.download(_file_of(published), copy)
        with contextlib.suppress(AdapterFileError):  # a damaged model serves nobody
            check_same_embedding(store.url, published, QueryAdapter.load(copy), adapter.fingerprint)


def _name_in(current: bytes | None) -> str:
    return (current or b"").decode("utf-8", "replace").strip()


def _file_of(model: str) -> str:
    return f"models/{model}.safetensors"


def _needed(store: Store) -> set[str]:
    """Return the files that the present state of a store needs."""
    words: list[str] = []
    if index := store.find(_INDEX):
        with contextlib.suppress(StorageError):  # a damaged index needs none
            words = word_files(index)
    return {_file_of(_name_in(store.find("current"))), *(f"words/{file}" for file in words)}


def _publish_words(store: Store, models: ModelFolder, there: Collection[str]) -> None:
    """Publish the word index, if there is one, without the files that were published before."""
    done = set(there)
    while (index := _content(models.path / _INDEX)) is not None:
        try:
            for file in word_files(index):
                if f"words/{file}" not in done:
                    store.upload(f"words/{file}", models.words_path / file)
                    done.add(f"words/{file}")
        except StorageError:
            if index == _content(models.path / _INDEX):
                raise
            continue  # the index changed meanwhile, and its files went
        store.write(_INDEX, index)
        return


def word_files(index: bytes) -> list[str]:
    """Return the names of the files that the manifest of a word index lists."""
    try:
        entries = parse_json(index)["segments"]
        names = [file["name"] for entry in entries for file in (entry, entry["deleted"]) if file]
        if odd := [name for name in names if not is_plain_name(name)]:
            raise ValueError(f"{odd[0]!r} is no name of a file")
        return names
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"The manifest of a word index is damaged: {error!r}.") from error


def _delete(paths: Iterable[Path]) -> None:
    """Delete files of a copy. Readers that have one mapped keep it; on Windows it stays until a later look."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _content(path: Path) -> bytes | None:
    try:
        return read_bytes(path)
    except StorageError:
        return None


def _copy_of(url: str, options: dict[str, Any]) -> Path:
    """Return the folder of the copy. Stores at different addresses may have the same URL."""
    given = [options, options.get("client_kwargs"), os.environ.get("AWS_ENDPOINT_URL_S3"), os.environ.get("AWS_ENDPOINT_URL")]
    addresses = [one.get("endpoint_url") if isinstance(one, dict) else one for one in given]
    known = next((f" at {address}" for address in addresses if address), "")
    root = os.environ.get("DEEPMEM_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "deepmem"
    )
    return Path(root, f"{url.rpartition('/')[2]}-{sha256(f'{url}{known}'.encode()).hexdigest()[:16]}")


def _again(url: str, every: float, copy: Path, options: dict[str, Any]) -> RemoteModels:
    return RemoteModels(url, every=every, copy=copy, options=options)


_OPEN: dict[str, RemoteModels] = {}


def remote_models(url: str) -> RemoteModels:
    """Return the models of a URL, one object for all parts of the process."""
    return _OPEN.setdefault(url.rstrip("/"), RemoteModels(url))
