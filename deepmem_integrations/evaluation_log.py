"""`EvaluationLog`, which keeps evaluations in a Deep Lake data set with the columns of Deep Lake v3."""

import json
import math
import os
import secrets
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepmem_integrations._files import user_path
from deepmem_integrations._vectors import Vectors
from deepmem_integrations.deeplake import import_deeplake
from deepmem_integrations.errors import StoreError
from deepmem_integrations.evaluation import LISTED, WITH, WITHOUT, Evaluation
from deepmem_integrations.labels import Relevance

_EMPTY = "columns"
"""The message of the first commit, from which branches start."""


class EvaluationLog:
    """A Deep Lake data set of evaluations, with a row for each query. Evaluations add up; version 3 kept only the last one.

    The columns are ``text``; ``metadata`` with ``relevance`` (a list of [id, weight]), ``evaluation`` (an id that the rows of one
    evaluation share), ``time`` (seconds since the epoch) and ``model``; ``embedding``, the untransformed vector; ``id``, the id
    of the row; and ``deep_memory_top_10``, ``deep_memory_recall``, ``vector_search_top_10`` and ``vector_search_recall``, where
    recall is recall@10. The lists are JSON texts, since Deep Lake v4 has no type for lists of texts that can be read safely.

    Args:
        path: The data set, which the first evaluation creates.
        branch: A branch of the data set. A branch that does not exist is created without rows.
    """

    def __init__(self, path: str, branch: str = "main") -> None:
        self.path, self.branch = path, branch

    @classmethod
    def wanted(cls, qvs_params: Mapping[str, Any] | None, path: str) -> "EvaluationLog | None":
        """Return the log that v3's ``qvs_params`` ask for, or None.

        Args:
            qvs_params: ``log_queries`` and ``branch``.
            path: The data set.

        Raises:
            ValueError: There is another parameter.
            MissingExtraError: ``deeplake`` is not installed, which is noticed here and not after the evaluation.
        """
        for name in qvs_params or ():
            if name not in ("log_queries", "branch"):
                raise ValueError(f"Invalid query param {name!r}. Valid query params are 'log_queries' and 'branch'.")
        if qvs_params is None or not qvs_params.get("log_queries", True):
            return None
        import_deeplake()
        return cls(path, qvs_params.get("branch") or "main")

    def add(self, labels: Relevance, vectors: Vectors, evaluation: Evaluation, model: str) -> None:
        """Add an evaluation, in one commit. Two processes must not add at the same time.

        Args:
            labels: The n labelled queries.
            vectors: (n, d), their untransformed vectors.
            evaluation: The evaluation on these queries.
            model: The name of the model.

        Raises:
            StoreError: The data set cannot be opened or written.
        """
        shared = {"evaluation": uuid.uuid4().hex, "time": time.time(), "model": model}
        right = [{name for name, _ in documents} for documents in labels.labels]
        rows: dict[str, list[Any]] = {
            "text": list(labels.queries),
            "metadata": [{"relevance": [list(pair) for pair in judged], **shared} for judged in labels.relevance],
            "embedding": list(vectors),
            "id": [uuid.uuid4().hex for _ in range(len(labels))],
        }
        for name, side in (("deep_memory", WITH), ("vector_search", WITHOUT)):
            top = [list(found[:LISTED]) for found in evaluation.found[side]]
            rows[f"{name}_top_10"] = [json.dumps(found) for found in top]
            rows[f"{name}_recall"] = [
                len(wanted & set(found)) / len(wanted) if wanted else math.nan for wanted, found in zip(right, top, strict=True)
            ]
        deeplake = import_deeplake()
        try:
            main = self._open(deeplake)
            if self.branch == "main":
                dataset = main
            elif self.branch in main.branches.names():
                branch = main.branches[self.branch]
                dataset = branch.open()
            else:
                first = next(version.id for version in main.history if version.message == _EMPTY)
                branch = main.branch(self.branch, first)
                dataset = branch.open()
            dataset.append(rows)
            dataset.commit(f"evaluation {shared['evaluation']}")
        except Exception as error:  # Deep Lake's many error classes have no common base
            raise StoreError(f"The evaluation cannot be logged to {self.path!r}: {type(error).__name__}: {error}") from error

    def _open(self, deeplake: Any) -> Any:
        """Open the data set, or make it, whole or not at all."""
        if deeplake.exists(self.path):
            dataset = deeplake.open(self.path)
            if len(dataset) or any(version.message == _EMPTY for version in dataset.history):
                return dataset
            del dataset  # whoever made it ran out of space, or was killed, before there was a row
            deeplake.delete(self.path)
        if "://" in self.path:
            return self._create(deeplake, self.path)
        path = Path(user_path(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            self._create(deeplake, str(unfinished))
            os.replace(unfinished, path)  # an empty folder may stand there, and nothing else
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return deeplake.open(self.path)

    @staticmethod
    def _create(deeplake: Any, path: str) -> Any:
        types = deeplake.types
        # Reading a row of the type Sequence(Text()) crashes Deep Lake 4.7.
        found, recall = types.Text(), types.Float32()
        dataset = deeplake.create(path)
        for name, type_ in {
            "text": types.Text(),
            "metadata": types.Dict(),
            "embedding": types.Array("float32", 1),
            "id": types.Text(),
            "deep_memory_top_10": found,
            "deep_memory_recall": recall,
            "vector_search_top_10": found,
            "vector_search_recall": recall,
        }.items():
            dataset.add_column(name, type_)
        dataset.commit(_EMPTY)
        return dataset
