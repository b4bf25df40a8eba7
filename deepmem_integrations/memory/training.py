"""Train models, at once or when it is due, and look after the jobs."""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepmem_integrations._extras import require
from deepmem_integrations._files import printable
from deepmem_integrations._locks import FileLock
from deepmem_integrations.audit import user
from deepmem_integrations.cluster import check_address
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.jobs import JobList, JobStatus, trainer
from deepmem_integrations.jobs.inputs import write_inputs
from deepmem_integrations.labels import Labels, OnInvalid, Relevance
from deepmem_integrations.memory.freshness import FreshnessMixin
from deepmem_integrations.memory.models import ModelsMixin
from deepmem_integrations.retraining import (
    HELD_OUT,
    Due,
    InUse,
    Questions,
    Retraining,
    RetrainPolicy,
    check_in_use,
    labels_sketch,
)
from deepmem_integrations.words import LexicalSearch


class TrainingMixin(FreshnessMixin, ModelsMixin):
    """The methods of a `DeepMemory` that train."""

    def train(
        self,
        queries: Sequence[str] | Relevance,
        relevance: Labels | Relevance | None = None,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        token: str | None = None,
        *,
        validation: Relevance | tuple[Sequence[str], Labels] | None = None,
        max_unseen_loss: float | None = None,
        seed: int = 0,
        keep_texts: bool = False,
        wait: bool = True,
        words: bool | LexicalSearch = True,
        change_embedding: bool = False,
        in_use: InUse = "always",
        held_out: float = HELD_OUT,
        on_invalid: OnInvalid = "raise",
        by: str | None = None,
        on_start: Callable[[str], None] | None = None,
        on: str | None = None,
        resumable: bool = True,
        runtime: Any = None,
    ) -> str:
        """Train a model on labelled queries, and put it in use.

        Labels may name parents of the store's documents: see `Relevance.level`.

        Where the training chooses the identity, a model that is in use already stays in use, and a warning is logged.

        Args:
            queries: The texts of the queries, or a `Relevance` with texts and labels.
            relevance: For each query, its documents as (id, weight), weight > 0.
            embedding_function: Embeds the queries in place of the store's embedding model.
            token: Ignored, with a warning. Deep Lake v3 trained on a server; this training runs on this machine.
            validation: Labelled queries of your own to choose by, in place of held-out training queries: a `Relevance`, or the
                pair (queries, relevance).
            max_unseen_loss: How many points the model may lose on answers that no training query asks for: see
                `train_adapter`.
            seed: Fixes the result, whatever the order of the labels. Documents in another order may lead to another choice.
            keep_texts: Whether the model keeps the texts of the queries, for `explain` to show.
            wait: Whether to wait until the training is done. A progress bar tells about how long it takes. False returns as soon
                as the vectors are gathered, and trains in a process of its own that outlives this one: see `status`, `list_jobs`
                and `cancel`.
            words: Whether a retriever may rank by the documents' words as well. The texts of a store that can be listed are
                indexed, or the index follows the store: see `refresh`. A `LexicalSearch` takes the place of the index, such as
                the store's own search by words, and so does one that was set as `lexical_search`; give the same one to the
                retriever.
            change_embedding: Whether the model may take the place of a model in use that belongs to another embedding model.
                Services with that embedding model would then fail on every query: train in a folder of its own instead.
            in_use: ``"if better"`` keeps a share of the questions out of this and all later trainings, and puts the model in use
                only if it is better on them than the model in use: see `deepmem_integrations.retraining.contest`. ``"never"``
                trains a model for `set_model`. The audit log has the decision, and `rollback` takes a change back.
            held_out: The share of the questions that ``"if better"`` keeps out: see `hold_out`.
            on_invalid: ``"drop"`` leaves out judgements of documents that are not in the store, with a warning that counts them.
            by: Who asks, for the audit log; by default the user of the process.
            on_start: Is called with the id of the job before the vectors are gathered, which may take long: another thread can
                `cancel` the job from then on.
            on: The Ray cluster that reads the corpus, indexes its words and trains the folds, with the same result: ``"ray"``,
                ``"local"``, ``"host:6379"`` or ``"ray://host:10001"``; see `RayWorkers`. By default this machine. What `status`,
                `list_jobs` and `cancel` do stays the same.
            resumable: Whether `resume` can go on if the training is lost. Its inputs, queries and labels among them, then stay in
                its private folder: see `resume`. False deletes them as soon as the loss is noticed.
            runtime: Ignored, with a warning, as ``token`` is.

        Returns:
            The id of the job, which is also the name of the model.

        Raises:
            MissingExtraError: torch is not installed, or Ray where ``on`` asks for Ray.
            InvalidRelevanceError: The labels cannot be used.
            EmbeddingMismatchError: The model in use belongs to another embedding model, or the store was filled with another.
            StorageError: The folder cannot be written, which is noticed before the training, or the disk is full. The model in
                use stays in use.
            StoreError: The store cannot be read.
            TypeError: ``words`` is neither true nor false, nor a search by words.
            JobCancelledError: Another process or thread has cancelled the job.
            JobFailedError: The training process cannot be started, or there is no such Ray cluster.
        """
        if ignored := [name for name, value in {"token": token, "runtime": runtime}.items() if value is not None]:
            told = f"{' and '.join(ignored)} {'are' if len(ignored) > 1 else 'is'} ignored"
            warnings.warn(f"{told}: Deep Memory trains on this machine.", UserWarning, stacklevel=2)
        require("torch", extra="train")
        if on is not None:
            check_address(on)
            require("ray", extra="ray")
        labels = Relevance.of(queries, relevance)
        if not len(labels):
            raise InvalidRelevanceError("There is no labelled query to learn from.")
        if validation is not None and not isinstance(validation, Relevance):
            if not isinstance(validation, list | tuple) or len(validation) != 2:
                raise InvalidRelevanceError("validation is a Relevance, or the pair (queries, relevance).")
            validation = Relevance.of(*validation)
        if validation is not None:
            if not len(validation):
                raise InvalidRelevanceError("There is no validation query: leave validation out, or label queries for it.")
            labels.check_level(validation)
        if max_unseen_loss is not None and not max_unseen_loss >= 0:
            raise ValueError(f"max_unseen_loss is a number of points, 0 or more; got {max_unseen_loss}.")
        limit = None if max_unseen_loss is None else float(max_unseen_loss)
        options: dict[str, Any] = {"max_unseen_loss": limit, "seed": int(seed), "keep_texts": bool(keep_texts)}
        check_in_use(in_use)
        options |= {"change_embedding": bool(change_embedding), "in_use": in_use, "by": by or user()}
        options |= {"labels": labels_sketch(labels), "on": on, "resumable": bool(resumable)}
        if isinstance(words, np.bool_):
            words = bool(words)
        if not isinstance(words, bool | LexicalSearch):
            raise TypeError(f"words is True, False, or a search with search(text, k, filter); got {type(words).__name__}.")
        own = words if isinstance(words, LexicalSearch) else self._own_search() if words else None
        embedder = self._embedder(embedding_function)
        if not change_embedding and self.folder.in_use_name() is not None:
            self.folder.check_embedding(embedder.fingerprint())
        tested: Relevance | None = None
        if in_use == "if better":
            with self.folder.lock():
                labels, tested, validation = self._questions.hold_out(labels, held_out, validation=validation)
            if not len(labels):
                raise InvalidRelevanceError("All of these questions are held out, so there is none to learn from: label more.")
            if validation is not None and not len(validation):
                raise InvalidRelevanceError(
                    "All validation queries ask questions that are held out, so there is none to choose by: leave validation out."
                )
        with self.jobs.new() as running:
            if on_start is not None:
                on_start(running.job.id)
            folder = self.jobs.inputs(running.job.id)
            options["index_words"] = own is None and bool(words) and self._follow(on, running.check)
            options["documents"] = self._sketch(options["index_words"])
            options["id_key"] = self.id_key
            write_inputs(folder, self.corpus, labels, validation, embedder, options, own, tested or None, on_invalid)
            if own is not None:
                self._add_search(own)
            if not wait:
                trainer.start(running)
                return running.job.id
            trainer.train(running, bar=True)
        return running.job.id

    def resume(self, job_id: str, *, wait: bool = True, on: str | None = None) -> str:
        """Go on with a training that was lost, where it was: its process was killed, or its cluster or its store out of reach.

        The model is the one that the training would have given, to the last bit. The shards and folds that are done are not done
        again, but for the last seconds before the loss, and no query is embedded again. `JobStatus.resumable_until` tells which
        jobs can go on.

        The inputs of a lost training are kept until it completes, is cancelled (`cancel`) or deleted (`delete`), until another
        training of the folder has begun, and for three days at most.

        Args:
            job_id: The id of the job.
            wait: See `train`.
            on: Another Ray cluster than before, also for further attempts: see `train`. By default that of the last attempt.

        Returns:
            The id of the job, which is also the name of the model.

        Raises:
            MissingExtraError: torch is not installed, or Ray where the training needs Ray.
            JobNotFoundError: No job has this id.
            JobRunningError: The job is running.
            JobFailedError: The job cannot go on: it had ended, its inputs were not complete yet, or they are deleted. Or see
                `train`.
            StorageError, StoreError, JobCancelledError: See `train`.
        """
        trainer.resume(self.jobs, job_id, wait=wait, on=on)
        return job_id

    def retrain(
        self,
        labels: Relevance,
        *,
        policy: RetrainPolicy | None = RetrainPolicy(),  # noqa: B008 - it never changes
        in_use: InUse = "if better",
        **options: Any,
    ) -> Retraining:
        """Train again if a retraining is due, and put the new model in use if it is better: what a nightly job calls.

        Args:
            labels: All labelled queries there are, not only the new ones.
            policy: When a retraining is due; None trains in any case.
            in_use: See `train`.
            options: Passed to `train`: ``seed``, ``max_unseen_loss``, ``held_out``, ``by``, … The call waits for the training.

        Returns:
            Whether a retraining was due and why, the new model, the model in use, and the reason for the choice between the two.

        Raises:
            InvalidRelevanceError, EmbeddingMismatchError, StoreError, StorageError: See `train`.
            TypeError: ``wait`` is among the options.
        """
        if "wait" in options:
            raise TypeError("retrain waits for its training: to have it in the background, run `deepmem retrain` there.")
        if not isinstance(labels, Relevance):
            raise InvalidRelevanceError(f"retrain takes one Relevance; got {type(labels).__name__}.")
        if not isinstance(policy, RetrainPolicy | None):
            raise TypeError(f"policy is a RetrainPolicy, such as RetrainPolicy(new_labels=50), or None; got {policy!r:.60}.")
        with contextlib.ExitStack() as held:
            if policy is None:
                due = Due(("asked for",))
            else:  # one process at a time decides and trains: the others find that nothing is due
                lock = FileLock(self.folder.path / "retrain.lock")
                if not lock.acquire(wait=False):
                    return Retraining(Due((), "another retraining is running"), in_use=self.folder.in_use_name())
                held.callback(lock.release)
                due = self.retraining_due(labels, policy)
            if not due:
                return Retraining(due, in_use=self.folder.in_use_name())
            name = self.train(labels, in_use=in_use, **options)
        entry = next((entry for entry in reversed(self.audit()) if entry.model == name), None)
        reason, figures = (entry.reason, entry.figures) if entry is not None else ("", None)
        return Retraining(due, name, self.folder.in_use_name(), reason, figures)

    def retraining_due(self, labels: Relevance | None = None, policy: RetrainPolicy | None = None) -> Due:
        """Tell whether a retraining is due, and why. While a training is running, none is.

        Args:
            labels: All labelled queries there are; without them, those that `remember` added count.
            policy: When a retraining is due; by default as `RetrainPolicy` says.

        Raises:
            StoreError: The store cannot be read.
        """
        running = [job.id for job in self.jobs.all() if job.running]
        if running:
            return Due((), f"the training {running[0]} is running")
        return (policy or RetrainPolicy()).due(self.folder, self.corpus, labels)

    def hold_out(self, labels: Relevance, share: float = HELD_OUT) -> tuple[Relevance, Relevance]:
        """Split labelled queries as ``train(…, in_use="if better")`` does, into those that may be learned and those that may not.

        A question stays on its side whatever labels come later. Give only the first part to `remember`, and evaluate on the
        second.

        Args:
            labels: The labelled queries.
            share: The share of the questions to hold out. Questions that were drawn before stay on their side.

        Raises:
            ValueError: The share is not between 0 and 1.
            StorageError: The folder cannot be written.
        """
        with self.folder.lock():
            return self._questions.hold_out(labels, share)[:2]

    def _own_search(self) -> LexicalSearch | None:
        """Return the search by words that takes the place of the index, where one was set or given to an earlier training."""
        search = self.lexical_search if self._own_searches else None
        return search if search in self._own_searches.values() else None

    @property
    def _questions(self) -> Questions:
        return Questions(self.folder.path / "questions.json")

    def trainer(self, **options: Any) -> Callable[[Relevance], str]:
        """Make `train` the last step of a LangChain chain: ``(generator | memory.trainer()).invoke(memory.documents())``.

        A generator may stream its labels piece by piece. The pieces add up, and one training uses all of them.

        Args:
            options: Passed to `train`: ``seed``, ``max_unseen_loss``, …

        Returns:
            A function from a `Relevance` to the id of the job.
        """

        def train(labels: Relevance) -> str:
            if not isinstance(labels, Relevance):
                raise InvalidRelevanceError(
                    f"memory.trainer() takes a Relevance; the step before it gave {type(labels).__name__}."
                )
            return self.train(labels, **options)

        return train

    def status(self, job_id: str) -> JobStatus:
        """Print v3's table of a job, and return the state of the job.

        Below the recall stands what it was measured on: held-out training queries, or validation queries.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: The job's file is damaged.
        """
        job = self.jobs.job(job_id)
        print(printable(str(job)))  # noqa: T201 - as v3 did
        return job

    def list_jobs(self, debug: bool | None = None) -> JobList:
        """Print v3's table of all jobs, and return the states of the jobs, oldest first.

        Args:
            debug: Ignored, with a warning. Deep Lake v3 returned its table with ``debug=True``; ``str()`` of the result is the
                table.
        """
        if debug is not None:
            warnings.warn("debug is ignored: str(list_jobs()) is the table.", UserWarning, stacklevel=2)
        jobs = self.jobs.all()
        print(printable(str(jobs)))  # noqa: T201 - as v3 did
        return jobs

    def cancel(self, job_id: str) -> bool:
        """Stop a job that is pending or training: with ``wait=False`` it stops at once, with ``wait=True`` at its next step.

        A job that was lost is given up: `resume` cannot go on with it any more.

        Returns:
            Whether the job was stopped or given up; False where it had ended already.

        Raises:
            JobNotFoundError: No job has this id.
        """
        return self.jobs.cancel(job_id)

    def delete(self, job_id: str) -> bool:
        """Delete the record of a job that has ended. The model of the job stays: see `delete_model`.

        Returns:
            True.

        Raises:
            JobNotFoundError: No job has this id.
            JobRunningError: The job is running.
        """
        return self.jobs.delete(job_id)
