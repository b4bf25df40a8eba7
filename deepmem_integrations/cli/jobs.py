"""The commands for trainings and models."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import typer

from deepmem_integrations._redaction import redacted
from deepmem_integrations.cli.options import (
    AsJson,
    By,
    ChangeEmbedding,
    Embedding,
    Folder,
    InUseChoice,
    LabelsFile,
    Level,
    MaxUnseenLoss,
    OnInvalidChoice,
    Ray,
    Seed,
    Show,
    Split,
    Store,
    StoreOfJobs,
    Words,
    check_words,
    folder_of,
    printing,
    read_labels,
    typed_path,
    words_line,
)
from deepmem_integrations.cli.stores import open_store
from deepmem_integrations.corpora import in_shards
from deepmem_integrations.drift import Drift, drift_of_index
from deepmem_integrations.errors import DeepMemoryError, JobNotFoundError
from deepmem_integrations.jobs import JobStatus, trainer
from deepmem_integrations.labels import Relevance
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.remote import publish as put
from deepmem_integrations.retraining import IN_USE

ENDED_BADLY = 3
"""The exit code of a training that failed or was cancelled."""


JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id of a job.")]


def train(
    labels: LabelsFile,
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    split: Split = "train",
    level: Level = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            metavar="LABELS",
            parser=typed_path,
            help="More labelled queries, to choose the model by in place of held-out training queries.",
        ),
    ] = None,
    validation_split: Annotated[str, typer.Option(help="The split of a BEIR folder that --validation names.")] = "dev",
    max_unseen_loss: MaxUnseenLoss = None,
    keep_texts: Annotated[
        bool, typer.Option("--keep-texts", help="Keep the queries' texts in the model, for the command explain.")
    ] = False,
    hold_out: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="A share of the queries, e.g. 0.2, to keep out of the training and to measure on, with and without the model.",
        ),
    ] = None,
    hold_out_by: Annotated[
        Literal["query", "document", "time"] | None,
        typer.Option(
            help="What --hold-out draws: questions, in all of their spellings (query, the default); also no labelled document on "
            "both sides (document); or the latest queries (time)."
        ),
    ] = None,
    save_held_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=typed_path,
            help="A file for the queries of --hold-out, as JSON lines, which the command evaluate takes.",
        ),
    ] = None,
    not_resumable: Annotated[
        bool,
        typer.Option(
            "--not-resumable", help="Keep nothing for the command resume: queries and labels are deleted if the training is lost."
        ),
    ] = False,
    words: Words = None,
    no_words: Annotated[
        bool, typer.Option("--no-words", help="Leave the documents' words out, and build no word index.")
    ] = False,
    change_embedding: ChangeEmbedding = False,
    in_use: Annotated[
        InUseChoice,
        typer.Option(
            help="Put the model in use always; if-better: only if it is better than the model in use on questions that are kept "
            "out of all trainings; or never."
        ),
    ] = "always",
    on_invalid: OnInvalidChoice = "raise",
    by: By = None,
    ray: Ray = None,
    background: Annotated[bool, typer.Option("--background", help="Return as soon as the vectors are gathered.")] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train a model on labelled queries and put it in use."""
    if hold_out_by is not None and hold_out is None:
        raise typer.BadParameter("--hold-out-by says how --hold-out draws: give both, as in --hold-out 0.2 --hold-out-by time.")
    if save_held_out is not None and hold_out is None:
        raise typer.BadParameter("--save-held-out saves the queries of --hold-out: give a share, e.g. --hold-out 0.2.")
    if background and hold_out is not None and save_held_out is None:
        raise typer.BadParameter(
            "--hold-out measures after the training, which --background does not wait for: keep the queries for the command "
            "evaluate with --save-held-out FILE."
        )
    check_words(words, no_words)
    with printing(as_json) as show:
        relevance, test = read_labels(labels, split, level), None
        if hold_out is not None:
            relevance, test = relevance.split(hold_out, by=hold_out_by or "query", seed=seed)
        judges = None if validation is None else read_labels(validation, validation_split, level)
        memory = open_store(store, embedding, path, words=words).memory
        if test is not None and save_held_out is not None:
            _save(test, save_held_out)
        job_id = memory.train(
            relevance,
            validation=judges,
            max_unseen_loss=max_unseen_loss,
            seed=seed,
            keep_texts=keep_texts,
            wait=not background,
            words=not no_words,
            change_embedding=change_embedding,
            in_use=IN_USE[in_use],
            on_invalid=on_invalid,
            by=by,
            on=ray,
            resumable=not not_resumable,
        )
        job = memory.jobs.job(job_id)
        if test is not None and not background:
            evaluation = memory.measure(
                test, model=job_id, on_invalid=on_invalid, on=ray if ray and in_shards(memory.corpus) is not None else None
            )
            show({**_as_json(job), "evaluation": evaluation.to_json()}, f"{job}\n\nHeld out:\n{evaluation.table()}")
            return
        _show_job(show, job, _look(memory.folder, job_id) if background else "")


def resume(
    job: JobId,
    store: StoreOfJobs = None,
    path: Folder = None,
    ray: Ray = None,
    background: Annotated[bool, typer.Option("--background", help="Return at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a training that was lost, where it was.

    Its process was killed, or its cluster or its store was out of reach. The commands status and jobs tell whether it can go on.
    """
    with printing(as_json) as show:
        folder = folder_of(store, path)
        trainer.resume(folder, job, wait=not background, on=ray)
        _show_job(show, folder.job(job), _look(folder.models, job) if background else "")


def _look(models: ModelFolder, job: str) -> str:
    return f"\nIt goes on in the background: deepmem status {job} --path {shlex.quote(str(models.path))} --wait"


def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="The id of a job; by default the newest.")] = None,
    store: StoreOfJobs = None,
    path: Folder = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the training has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a training: progress, result, and why.

    The exit code is 3 where it failed or was cancelled.
    """
    with printing(as_json) as show:
        folder = folder_of(store, path)
        known = folder.all() if job is None else [folder.job(job)]
        if not known:
            raise JobNotFoundError(f"No training job was found in {folder.models.path}.")
        found = known[-1]
        while wait and found.running:
            time.sleep(0.2)
            found = folder.job(found.id)
        drift = _drift(folder.models, found.id)
        facts = {} if drift is None else {"documents": {**asdict(drift), "retraining_due": drift.retraining_due}}
        _show_job(show, found, "" if drift is None else f"\ndocuments: {drift}", facts)


def refresh(
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    language: Annotated[
        str | None, typer.Option(help="ISO 639-1 code of the texts, e.g. de, which are then indexed anew; by default they tell.")
    ] = None,
    ray: Ray = None,
    as_json: AsJson = False,
) -> None:
    """Make the word index follow the documents of the store.

    Training does so, too. Run it after documents were added, changed or deleted.
    """
    with printing(as_json) as show:
        memory = open_store(store, embedding, path).memory
        done = memory.refresh(language, on=ray)
        index = memory.folder.lexical_search
        assert index is not None
        facts = {**asdict(done), "documents": len(index), "language": index.language, "bytes": index.statistics.bytes}
        counts = f"{done.added} added, {done.changed} changed, {done.deleted} deleted, {done.unchanged} unchanged"
        show(facts, f"{counts}\n{words_line(index)} in {index.folder}")


def jobs(store: StoreOfJobs = None, path: Folder = None, as_json: AsJson = False) -> None:
    """List all trainings, oldest first."""
    with printing(as_json) as show:
        folder = folder_of(store, path)
        found = folder.all()
        show([_as_json(job) for job in found], str(found) if found else f"No training job was found in {folder.models.path}.")


def cancel(job: JobId, store: StoreOfJobs = None, path: Folder = None, as_json: AsJson = False) -> None:
    """Stop a training that is pending or running.

    One that was lost is given up: what the command resume needs is deleted.
    """
    with printing(as_json) as show:
        stopped = folder_of(store, path).cancel(job)
        show({"id": job, "cancelled": stopped}, f"{job} is cancelled." if stopped else f"{job} had ended already.")


def delete(
    job: JobId,
    store: StoreOfJobs = None,
    path: Folder = None,
    model: Annotated[bool, typer.Option("--model", help="Delete the model of the training, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the record of a training that has ended.

    The model stays. With --model it is deleted, too, unless it is in use.
    """
    with printing(as_json) as show:
        folder = folder_of(store, path)
        folder.job(job)
        if model and job in folder.models.models():
            folder.models.delete_model(job)
        folder.delete(job)
        show({"id": job, "deleted": True}, f"{job} is deleted.")


def models(store: StoreOfJobs = None, path: Folder = None, as_json: AsJson = False) -> None:
    """List all models, oldest first; * marks the model in use."""
    with printing(as_json) as show:
        folder = folder_of(store, path).models
        found = folder.list_models()
        none = f"No model was found in {folder.path}."
        show([asdict(info) for info in found], "\n".join(map(str, found)) or none)


def use(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The name of a model.")],
    store: StoreOfJobs = None,
    path: Folder = None,
    change_embedding: ChangeEmbedding = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Put a model in use.

    Running retrievers use it from their next query on.
    """
    with printing(as_json) as show:
        folder = folder_of(store, path).models
        folder.use(model, change_embedding=change_embedding, by=by)
        show({"name": model, "in_use": True}, f"{model} is in use.")


def _save(labels: Relevance, file: Path) -> None:
    """Write labelled queries, unless others are in the file. The same ones are there where a training is run again."""
    if file.exists() and Relevance.from_jsonl(file) != labels:
        raise typer.BadParameter(f"{file} has other queries: name another file, or delete this one.")
    labels.to_jsonl(file)


def publish(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to, e.g. s3://bucket/support.deepmemory.")],
    store: StoreOfJobs = None,
    path: Folder = None,
    change_embedding: ChangeEmbedding = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Put the model in use and the word index into an object store.

    Services with the URL as their memory use both within a minute.
    """
    with printing(as_json) as show:
        name = put(folder_of(store, path).models, url, change_embedding=change_embedding, by=by)
        show({"name": name, "url": redacted(url)}, f"{name} is published to {redacted(url)}.")


def _drift(models: ModelFolder, name: str) -> Drift | None:
    """Tell what has become of the documents since the training of the model in use, as far as the word index has followed."""
    try:
        return drift_of_index(models) if models.in_use_name() == name else None
    except DeepMemoryError:  # the status of a training needs no model that can be read
        return None


def _show_job(show: Show, job: JobStatus, hint: str = "", known: Mapping[str, object] = MappingProxyType({})) -> None:
    show({**_as_json(job), **known}, f"{job}{hint}")
    if job.state in ("failed", "cancelled"):
        raise typer.Exit(ENDED_BADLY)


def _as_json(job: JobStatus) -> dict[str, object]:
    return {**asdict(job), "eta": job.eta}
