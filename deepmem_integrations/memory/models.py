"""Choose the model in use, and say who chose what."""

from typing import Any

from deepmem_integrations.audit import AuditEntry
from deepmem_integrations.memory.base import MemoryBase
from deepmem_integrations.models import ModelInfo
from deepmem_integrations.remote import publish


class ModelsMixin(MemoryBase):
    """The methods of a `DeepMemory` that choose among models."""

    def get_model(self) -> str:
        """Return the name of the model in use.

        Raises:
            ModelNotFoundError: There is no model yet.
        """
        name = self.folder.in_use_name()
        if name is None:
            raise self.folder.nothing_trained()
        return name

    def set_model(self, name: str, *, change_embedding: bool = False, by: str | None = None) -> None:
        """Put a model in use. Queries that are already running finish with the old model.

        Args:
            name: The model's name.
            change_embedding: Whether the model may belong to another embedding model than the model in use, with which services
                would then fail on every query.
            by: Who asks, for the audit log; by default the user of the process.

        Raises:
            ModelNotFoundError: No model has this name. The error is a ValueError, as in v3.
            EmbeddingMismatchError: The model in use belongs to another embedding model.
        """
        self.folder.use(name, change_embedding=change_embedding, by=by)

    def rollback(self, *, change_embedding: bool = False, by: str | None = None) -> str:
        """Put the model in use that was in use before the present one. A second call goes one further back.

        Args:
            change_embedding: See `set_model`.
            by: See `set_model`.

        Returns:
            The name of the model that is in use now.

        Raises:
            ModelNotFoundError: No model was in use before, or it was deleted.
            EmbeddingMismatchError: The model before belongs to another embedding model.
        """
        return self.folder.roll_back(change_embedding=change_embedding, by=by)

    def audit(self) -> list[AuditEntry]:
        """Return who put which model in use, when and why, and which models were refused or published, oldest first.

        Raises:
            StorageError: The audit log cannot be read.
        """
        return self.folder.audit.entries()

    def list_models(self) -> list[ModelInfo]:
        """Return what is known of all models, oldest first: their reports, data and parents, and which model is in use."""
        return self.folder.list_models()

    def publish(self, url: str, *, change_embedding: bool = False, by: str | None = None, **options: Any) -> str:
        """Put the model in use and the word index into an object store. Services with ``memory=url`` have both within a minute.

        Args:
            url: Where to publish to, such as ``s3://bucket/support.deepmemory``: whatever fsspec can write.
            change_embedding: Whether the model may replace a published one that belongs to another embedding model.
            by: Who asks, for the audit log; by default the user of the process.
            options: The options of fsspec's file system. By default, the machine's own configuration holds the credentials.

        Returns:
            The name of the model.

        Raises:
            NotTrainedError: There is no model yet.
            EmbeddingMismatchError: The published model belongs to another embedding model.
            StorageError: The store cannot be written.
            MissingExtraError: fsspec, or its package for this kind of URL, is not installed.
        """
        return publish(self.folder, url, change_embedding=change_embedding, by=by, options=options)

    def delete_model(self, name: str) -> None:
        """Delete a model that is not in use. The record of its job stays.

        Raises:
            ModelNotFoundError: No model has this name.
            ModelInUseError: The model is in use: put another model in use first.
        """
        self.folder.delete_model(name)
