"""The trained query transform: a small file, applied with numpy alone."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from deepmem_integrations._files import write_bytes
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.adapter.attention import MANY_KEYS, Attention, KernelSpace, Lists
from deepmem_integrations.adapter.fingerprint import Fingerprint
from deepmem_integrations.adapter.remembered import Examples, Explanation, Growth, Influence, ValueSpace
from deepmem_integrations.errors import AdapterFileError, InvalidRelevanceError, StorageError
from deepmem_integrations.labels import LabelRows, Labels, Relevance

FORMAT = "deepmem-adapter"
FORMAT_VERSION = 2

SAME = 0.9999
"""Queries whose places in the kernel space have this cosine share a key."""
KNOWN = 0.999
"""From this cosine on, a query is taken for one that is remembered: a service may embed a text a little differently each time."""


class QueryAdapter:
    """A trained transform of query vectors. Immutable, safe to share between threads.

    ``x ← unit(x)``, then ``y ← unit(x + x W)`` (the linear part), then ``z ← unit(y + attention.shift(x))``. Either part may
    be absent; without both it is the identity. Document vectors are never touched, so no index is rewritten.

    Args:
        dimension: d, the length of the vectors.
        linear: W, (d, d) float32.
        attention: The attention part.
        examples: The labelled queries behind the attention.
        fingerprint: The embedding model it was trained with; by default its dimension is all that is known.
        metadata: Anything JSON can hold, kept in the file.
    """

    def __init__(
        self,
        dimension: int,
        *,
        linear: Vectors | None = None,
        attention: Attention | None = None,
        examples: Examples | None = None,
        fingerprint: Fingerprint | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the parts."""
        self.dimension = dimension
        self.linear = linear
        self.attention = attention
        self.examples = examples if attention is not None else None
        self.fingerprint = fingerprint or Fingerprint(dimension)
        self.metadata: Mapping[str, Any] = dict(metadata or {})

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every direction as it is."""
        return self.linear is None and self.attention is None

    def transform(self, vectors: ArrayLike) -> Vectors:
        """Transform query vectors.

        Args:
            vectors: (d,) or (n, d), any real dtype; their length does not matter.

        Returns:
            The same shape, float32, rows of length 1. A new array.

        Raises:
            EmbeddingMismatchError: The vectors have another dimension.
            InvalidVectorsError: A row with NaN, infinity or nothing but zeros.
        """
        given = np.asarray(vectors)
        queries = unit_rows(given[None] if given.ndim == 1 else given, "query vector", dimension=self.dimension)
        moved = self._turned(queries)
        if self.attention is not None:
            moved = _normalised(moved + self.attention.shift(queries), moved)
        return moved[0] if given.ndim == 1 else moved

    def remembered(self, vectors: ArrayLike) -> NDArray[np.bool_]:
        """Which queries the attention part holds already, that is, whose answers it was shown. A linear part cannot tell.

        Args:
            vectors: (n, d), as `transform` takes them.

        Returns:
            (n,) bool.
        """
        queries = unit_rows(vectors, "query vector", dimension=self.dimension)
        if self.attention is None:
            return np.zeros(len(queries), dtype=bool)
        return np.asarray(self.attention.attend(queries)[2].max(axis=1) > KNOWN)

    def _turned(self, queries: Vectors) -> Vectors:
        """What the linear part makes of unit rows."""
        return queries if self.linear is None else _normalised(queries + queries @ self.linear, queries)

    def explain(self, vector: ArrayLike, top: int = 5) -> Explanation:
        """Name the training queries that move a query.

        Args:
            vector: (d,), any real dtype.
            top: How many, at most.

        Returns:
            How far each part turns the query, and who did it. It prints well.

        Raises:
            EmbeddingMismatchError: The vector has another dimension.
            InvalidVectorsError: Not one vector of finite numbers with a direction.
        """
        query = unit_rows(np.asarray(vector)[None], "query vector", dimension=self.dimension)
        turned, final = self._turned(query), self.transform(query)
        influences: list[Influence] = []
        if self.attention is not None:
            rows, weights, similarities = (found[0] for found in self.attention.attend(query))
            pushes = weights[:, None] * self.attention.values[rows]
            shift = pushes.sum(axis=0)
            shares = pushes @ shift / max(float(shift @ shift), 1e-12)
            for place in np.argsort(-shares)[:top].tolist():
                influences.append(self._influence(int(rows[place]), float(similarities[place]), float(shares[place])))
        return Explanation(
            degrees=_degrees(query, final),
            linear_degrees=_degrees(query, turned),
            attention_degrees=_degrees(turned, final),
            influences=tuple(influences),
        )

    def _influence(self, key: int, similarity: float, share: float) -> Influence:
        if self.examples is None:
            return Influence((f"training query {key}",), (), {}, similarity, share)
        examples = self.examples
        rows = examples.of_key(key).tolist()
        documents: dict[str, float] = {}
        for row in rows:
            for name, weight in examples.documents_of(row).items():
                documents[name] = max(weight, documents.get(name, 0.0))
        texts = () if examples.texts is None else tuple(examples.texts[row] for row in rows)
        return Influence(tuple(examples.query_ids[row] for row in rows), texts, documents, similarity, share)

    @property
    def growth(self) -> Growth | None:
        """What was added and forgotten since the training, and whether a training is due; None without an attention part."""
        if self.examples is None:
            return None
        e = self.examples
        return Growth(e.trained_in_all, len(e.query_ids) - e.trained, e.trained_in_all - e.trained, self.linear is not None)

    def remember(
        self,
        query_vectors: ArrayLike,
        relevance: Relevance | Labels,
        documents: Mapping[str, ArrayLike] | None = None,
        *,
        query_ids: Sequence[str] | None = None,
        query_texts: Sequence[str] | None = None,
    ) -> "QueryAdapter":
        """Add labelled queries to the attention, without a training and without the corpus.

        The attention is then what it would be, had these queries been there when it was built, with the whitening and the scale
        of its training. The linear part stays as it is; `growth` says when a full training is due.

        Args:
            query_vectors: (n, d), any real dtype.
            relevance: The labels of these n queries. The ids of a `Relevance` must be new to the adapter.
            documents: Document id → (d,) vector, for the documents that the adapter does not know yet: those that no query
                of the training asked for. More may be passed.
            query_ids: The ids of a bare ``relevance``; by default made up.
            query_texts: Kept if the adapter keeps texts.

        Returns:
            A new adapter.

        Raises:
            InvalidRelevanceError: There is no attention part to add to, an id is known already, the numbers differ, or a
                document's vector is missing.
            InvalidVectorsError: A vector that cannot be used.
            EmbeddingMismatchError: Another dimension.
        """
        attention, examples = self._growing("remembers")
        if not isinstance(relevance, Relevance):
            made_up = [f"added {len(examples.query_ids) + row}" for row in range(len(relevance))]
            relevance = Relevance([f"query {row}" for row in range(len(relevance))], relevance, query_ids or made_up)
        elif query_ids is not None:
            raise InvalidRelevanceError("query_ids go with a bare relevance; a Relevance has its own.")
        queries = unit_rows(query_vectors, "query vector", dimension=self.dimension)
        if len(queries) != len(relevance) or (query_texts is not None and len(query_texts) != len(queries)):
            raise InvalidRelevanceError(f"Got {len(queries)} query vectors for {len(relevance)} labelled queries.")
        known = set(examples.query_ids).intersection(relevance.query_ids)
        if known:
            raise InvalidRelevanceError(
                f"The adapter has a query {min(known)!r} already: forget it first, or give the new one another id."
            )
        wanted = relevance.document_ids - set(examples.document_ids)
        missing = sorted(wanted - set(documents or {}))
        if missing:
            raise InvalidRelevanceError(
                f"No query of the training asked for the document {missing[0]!r} ({len(missing)} in all are new): pass their "
                "vectors, documents={id: vector}."
            )
        vectors = {
            name: unit_rows(np.asarray((documents or {})[name])[None], "document vector", dimension=self.dimension, ids=[name])[0]
            for name in wanted
        }
        places = attention.space.place(queries) if attention.space else queries
        keys, owners = attention.keys, np.empty(len(queries), dtype=np.int64)
        for row, place in enumerate(places):
            same = np.flatnonzero(keys @ place > SAME)
            owners[row] = same[0] if len(same) else len(keys)
            if not len(same):
                keys = np.concatenate([keys, place[None]])
        labels = [dict(query) for query in relevance.labels]
        grown = examples.added(relevance.query_ids, query_texts, owners, labels, vectors)
        return self._with(*sorted_into_lists(attention, keys, grown))

    def forget(self, *, query_ids: Collection[str] = (), document_ids: Collection[str] = ()) -> "QueryAdapter":
        """Take labelled queries out of the attention, or documents out of all labels, without a training or the corpus.

        Nothing of them is left in the attention, nor in its file. What the linear part learned from them stays until the next
        full training: `growth` says so.

        Args:
            query_ids: Queries to forget.
            document_ids: Documents to forget. A query that asked for no other document is forgotten too.

        Returns:
            A new adapter.

        Raises:
            InvalidRelevanceError: There is no attention part, or an id is unknown.
        """
        attention, examples = self._growing("forgets")
        for what, given, known in (
            ("query", query_ids, set(examples.query_ids)),
            ("document", document_ids, set(examples.document_ids)),
        ):
            if isinstance(given, str):
                raise InvalidRelevanceError(f"{what}_ids is a list of ids; got the string {given!r}.")
            unknown = sorted(set(given) - known)
            if unknown:
                raise InvalidRelevanceError(f"The adapter knows no {what} {unknown[0]!r} ({len(unknown)} unknown in all).")
        left, keys = examples.without(query_ids, document_ids)
        if not left.query_ids:
            return self._with(None, None)
        return self._with(*sorted_into_lists(attention, attention.keys[keys], left))

    def linear_only(self) -> "QueryAdapter":
        """Without the attention: nothing of a training query's vector, id or text is in it or its file."""
        return self._with(None, None)

    def _growing(self, verb: str) -> tuple[Attention, Examples]:
        if self.attention is None or self.examples is None:
            why = "has no attention part" if self.attention is None else "comes from a file of format 1, which named no queries"
            raise InvalidRelevanceError(
                f"Only an attention part {verb}, and this adapter {why}: train again with the labels as they are now."
            )
        return self.attention, self.examples

    def _with(self, attention: Attention | None, examples: Examples | None) -> "QueryAdapter":
        return QueryAdapter(
            self.dimension,
            linear=self.linear,
            attention=attention,
            examples=examples,
            fingerprint=self.fingerprint,
            metadata=self.metadata,
        )

    def check(self, fingerprint: Fingerprint) -> None:
        """Refuse an embedding model other than the one of the training.

        Raises:
            EmbeddingMismatchError: It is another model, as far as both fingerprints tell.
        """
        self.fingerprint.check(fingerprint)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically.

        With an attention part the file holds the training queries' vectors (whitened) and ids, those of their documents, and the
        texts only if they were to be kept. `linear_only` leaves all that out.

        Returns:
            The path.

        Raises:
            StorageError: It cannot be written. A file that was there before is unchanged.
        """
        path = Path(path)
        write_bytes(path, self.to_bytes())
        return path

    @classmethod
    def load(cls, path: str | Path) -> "QueryAdapter":
        """Read a file that `save` wrote.

        Raises:
            StorageError: It cannot be read.
            AdapterFileError: It is damaged, no adapter, or written by a newer version.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise StorageError(f"Cannot read the adapter {path}: {error.strerror or error}.") from error
        try:
            return cls.from_bytes(data)
        except AdapterFileError as error:
            raise AdapterFileError(f"{path}: {error}") from error.__cause__

    def to_bytes(self) -> bytes:
        """The content of the file: safetensors with a JSON header and a checksum."""
        tensors: dict[str, NDArray[Any]] = {}
        if self.linear is not None:
            tensors["linear"] = self.linear
        if self.attention is not None:
            tensors["memory.keys"] = self.attention.keys
            if self.attention.space is not None:
                tensors["memory.centre"] = self.attention.space.centre
                tensors["memory.projection"] = self.attention.space.projection
            if self.attention.lists is not None:
                tensors["memory.centroids"] = self.attention.lists.centroids
                tensors["memory.starts"] = self.attention.lists.starts
            if self.examples is None:
                tensors["memory.values"] = self.attention.values
            else:
                tensors |= _example_tensors(self.examples)
        if self.fingerprint.probes is not None:
            tensors["fingerprint.probes"] = self.fingerprint.probes
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        header = {
            "version": FORMAT_VERSION,
            "dimension": self.dimension,
            "model": self.fingerprint.model,
            "memory": self.attention
            and {name: getattr(self.attention, name) for name in ("temperature", "strength", "neighbours")},
            "examples": self.examples and _example_names(self.examples),
            "metadata": self.metadata,
        }
        header = json.loads(json.dumps(header))  # as it will be read
        # One entry, since safetensors writes several in random order: the same adapter gives the same bytes.
        return save_tensors(tensors, metadata={FORMAT: json.dumps({"checksum": _checksum(header, tensors), "header": header})})

    @classmethod
    def from_bytes(cls, data: bytes) -> "QueryAdapter":
        """Read what `to_bytes` made.

        Raises:
            AdapterFileError: The data is damaged, no adapter, or of a newer version.
        """
        try:
            # Copies, since views into the file's bytes lie where products are slower, and rounded otherwise.
            tensors = {name: tensor.copy() for name, tensor in load_tensors(data).items()}
            attributes = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
            envelope = json.loads(attributes[FORMAT]) if FORMAT in attributes else None
            checksum, header = (envelope["checksum"], envelope["header"]) if envelope else (None, None)
        except (SafetensorError, ValueError, KeyError) as error:
            raise AdapterFileError(f"not a whole safetensors file ({error}). Use a backup, or train again.") from error
        if header is None:
            raise AdapterFileError("a safetensors file, but not a Deep Memory adapter.")
        version = header.get("version") if isinstance(header, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise AdapterFileError(
                f"written in format {version}, newer than this package knows ({FORMAT_VERSION}). Upgrade deepmem-integrations."
            )
        if checksum != _checksum(header, tensors):
            raise AdapterFileError("damaged (its checksum does not match). Use a backup, or train again.")
        try:
            dimension, attention, examples = header["dimension"], None, None
            if header["memory"]:
                space = None
                if "memory.centre" in tensors:
                    space = KernelSpace(tensors["memory.centre"], tensors["memory.projection"])
                lists = None
                if "memory.centroids" in tensors:
                    lists = Lists(tensors["memory.centroids"], tensors["memory.starts"])
                # In version 1 every key took part.
                settings = {"neighbours": None, **header["memory"]}
                examples = _read_examples(header["examples"], tensors) if header.get("examples") else None
                values = tensors["memory.values"] if examples is None else examples.values
                attention = Attention(tensors["memory.keys"], values, space=space, lists=lists, **settings)
            adapter = cls(
                dimension,
                linear=tensors.get("linear"),
                attention=attention,
                examples=examples,
                fingerprint=Fingerprint(dimension, header["model"], tensors.get("fingerprint.probes")),
                metadata=header["metadata"],
            )
            adapter.transform(np.ones(dimension))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise AdapterFileError(f"its parts do not fit together ({error!r}). Use a backup, or train again.") from error
        return adapter

    def __repr__(self) -> str:
        """A line with the parts."""
        parts = [name for name, part in (("linear", self.linear), ("attention", self.attention)) if part is not None]
        return f"QueryAdapter({self.dimension} dimensions, {' + '.join(parts) or 'identity'})"


def _normalised(vectors: Vectors, otherwise: Vectors) -> Vectors:
    """Rows of length 1; a row that cancelled out to nothing is taken from ``otherwise``."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(norms > 1e-6, vectors / np.maximum(norms, 1e-6), otherwise).astype(np.float32, copy=False)


def sorted_into_lists(attention: Attention, keys: Vectors, examples: Examples) -> tuple[Attention, Examples]:
    """A attention with these keys and the values of the examples, in lists where there are very many."""
    lists = None
    if len(keys) >= MANY_KEYS:
        order, lists = Lists.of(keys)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        keys, examples = keys[order], replace(examples, owners=place[examples.owners])
    return replace(attention, keys=keys, values=examples.values, lists=lists), examples


def _degrees(one: Vectors, other: Vectors) -> float:
    """The angle between two unit vectors, by their chord: exact for small angles, where the cosine is not."""
    return float(np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(one.astype(np.float64) - other) / 2, 0, 1))))


def _example_tensors(examples: Examples) -> dict[str, NDArray[Any]]:
    return {
        "examples.owners": examples.owners,
        "examples.starts": examples.labels.starts,
        "examples.labels": examples.labels.documents,
        "examples.weights": examples.labels.weights,
        "examples.documents": examples.documents,
        "examples.mean": examples.space.mean,
        "examples.projection": examples.space.projection,
    }


def _example_names(examples: Examples) -> dict[str, Any]:
    names = ("query_ids", "texts", "document_ids", "trained", "trained_in_all")
    return {name: getattr(examples, name) for name in names} | {"scale": examples.space.scale}


def _read_examples(names: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Examples:
    return Examples(
        query_ids=tuple(names["query_ids"]),
        texts=None if names["texts"] is None else tuple(names["texts"]),
        owners=tensors["examples.owners"],
        labels=LabelRows(*(tensors[f"examples.{part}"] for part in ("starts", "labels", "weights"))),
        document_ids=tuple(names["document_ids"]),
        documents=tensors["examples.documents"],
        space=ValueSpace(tensors["examples.mean"], tensors["examples.projection"], names["scale"]),
        trained=names["trained"],
        trained_in_all=names["trained_in_all"],
    )


def _checksum(header: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the header and every tensor: safetensors itself does not notice a flipped bit."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()
