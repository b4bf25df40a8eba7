"""Pickles of other tools, read as data: no class of theirs is touched and no code runs.

A pickle is a program, which may call whatever it can name. The reader here lets it name a few classes of records alone, and puts
an empty class of its own in the place of each, so that all that a pickle can make is plain values and `Record`s of them.
"""

import io
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

from deepmem_integrations.errors import StoreError

Known = Iterable[tuple[str, str]]
"""The classes of records that a pickle may name, as (module, name)."""

DOCUMENTS: Known = (
    ("langchain_core.documents.base", "Document"),
    ("langchain_community.docstore.in_memory", "InMemoryDocstore"),
    ("langchain.docstore.in_memory", "InMemoryDocstore"),
    ("langchain.schema.document", "Document"),
)
"""What LangChain's FAISS store pickles."""

POINTS: Known = tuple(("qdrant_client.http.models.models", name) for name in ("PointStruct", "SparseVector"))
"""What a local Qdrant folder pickles."""


_SETS = (("builtins", "set"), ("__builtin__", "set"))
"""How old versions of pickle name sets, which are plain values."""


class Record:
    """An object of a pickle, without its class."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keep what the class of the object would have taken up."""
        self.state = state

    @property
    def fields(self) -> Mapping[str, Any]:
        """The attributes of the object.

        Raises:
            ValueError: The object has none.
        """
        fields = self.state.get("__dict__", self.state) if isinstance(self.state, dict) else None  # pydantic models keep more
        if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
            raise ValueError("a record has no fields")
        return fields


def read_records(data: bytes, known: Known, place: str) -> Any:
    """Read a pickle as plain values and `Record`s.

    Args:
        data: The pickle.
        known: The classes that the pickle may name.
        place: Where the pickle is, for messages.

    Raises:
        StoreError: The pickle is damaged, or names anything else.
    """
    try:
        return _Reader(data, known, place).load()
    except StoreError:
        raise
    except Exception as error:  # a damaged pickle raises any error
        raise StoreError(f"{place} is damaged ({type(error).__name__}: {error}).") from error


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes, known: Known, place: str) -> None:
        super().__init__(io.BytesIO(data))
        # New classes for each pickle: what a pickle does to a class is gone with the pickle.
        self._classes = {names: type("Record", (Record,), {}) for names in known}
        self._place = place

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SETS:
            return set
        if (module, name) not in self._classes:
            raise StoreError(
                f"{self._place} holds a {module}.{name}, and a pickle may run any code, so only documents with plain metadata "
                "are read. If you trust the file, load the store yourself and use DeepMemory.from_langchain."
            )
        return self._classes[module, name]
