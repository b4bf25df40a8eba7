"""The commands for retraining, and for who put which model in use."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

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
    Split,
    Store,
    StoreOfJobs,
    Words,
    check_words,
    folder_of,
    printing,
    read_labels,
)
from deepmem_integrations.cli.stores import open_store
from deepmem_integrations.retraining import HELD_OUT, IN_USE, RetrainPolicy

REFUSED = 4
"""The exit code of a training whose model was not put in use."""


def retrain(
    labels: LabelsFile,
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    split: Split = "train",
    level: Level = None,
    new_labels: Annotated[
        int, typer.Option(min=0, help="Train again from so many new labelled queries on; 0 leaves them out of account.")
    ] = 50,
    drift: Annotated[
        float,
        typer.Option(min=0, help="Train again once this share of the documents has changed; 0 leaves that out of account."),
    ] = 0.2,
    age: Annotated[
        float, typer.Option(min=0, help="Train again once the last training is so many days old; 0 leaves that out of account.")
    ] = 0,
    now: Annotated[bool, typer.Option("--now", help="Train whether it is due or not.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell whether a retraining is due, and train nothing.")] = False,
    in_use: Annotated[
        InUseChoice,
        typer.Option(help="Put the new model in use if it is better than the model in use (if-better), always, or never."),
    ] = "if-better",
    held_out: Annotated[float, typer.Option(help="The share of the questions to keep out of all trainings.")] = HELD_OUT,
    max_unseen_loss: MaxUnseenLoss = None,
    words: Words = None,
    no_words: Annotated[bool, typer.Option("--no-words", help="Leave the documents' words out.")] = False,
    change_embedding: ChangeEmbedding = False,
    on_invalid: OnInvalidChoice = "raise",
    by: By = None,
    ray: Ray = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train again if it is due, and use the model if it is better.

    A nightly job runs this command with all labels there are. The exit code is 0 where nothing was due or the new model is in
    use, 4 where the new model was refused and the model in use stays, and 1 where something went wrong.
    """
    policy = RetrainPolicy(new_labels or None, drift or None, timedelta(days=age) if age else None)
    check_words(words, no_words)
    with printing(as_json) as show:
        relevance = read_labels(labels, split, level)
        memory = open_store(store, embedding, path, words=words).memory
        if dry_run:
            due = memory.retraining_due(relevance, policy)
            show({"due": bool(due), "reasons": list(due.reasons), "known": due.known}, str(due))
            return
        done = memory.retrain(
            relevance,
            policy=None if now else policy,
            in_use=IN_USE[in_use],
            held_out=held_out,
            max_unseen_loss=max_unseen_loss,
            words=not no_words,
            change_embedding=change_embedding,
            on_invalid=on_invalid,
            by=by,
            on=ray,
            seed=seed,
        )
        show(done.to_json(), str(done))
        if done.refused and in_use != "never":
            raise typer.Exit(REFUSED)


def rollback(
    store: StoreOfJobs = None,
    path: Folder = None,
    change_embedding: ChangeEmbedding = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the model that was in use before.

    A second time, it goes back to the one before that.
    """
    with printing(as_json) as show:
        name = folder_of(store, path).models.roll_back(change_embedding=change_embedding, by=by)
        show({"name": name, "in_use": True}, f"{name} is in use.")


def audit(store: StoreOfJobs = None, path: Folder = None, as_json: AsJson = False) -> None:
    """List who put which model in use, and why.

    Refused and published models are listed, too, the oldest line first.
    """
    with printing(as_json) as show:
        folder = folder_of(store, path).models
        entries = folder.audit.entries()
        none = f"The model in use was never changed in {folder.path}, or by an earlier version, which kept no log."
        show([asdict(entry) for entry in entries], "\n".join(map(str, entries)) or none)
