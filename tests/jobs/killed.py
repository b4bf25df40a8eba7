"""A training process that kills itself at a given moment: ``python -m tests.jobs.killed … FOLDER JOB DESCRIPTOR``.

The environment variable DEEPMEM_TEST_KILL names the moment. Without it, the process trains as ever. What it does is written to
the file that DEEPMEM_TEST_NOTES names.
"""

import os
import signal
import sys
from pathlib import Path

from deepmem_integrations.corpora import deeplake, shards
from deepmem_integrations.jobs import trainer
from deepmem_integrations.training import checkpoint, corpus_sample, cross_validation, train

MOMENTS = ("start", "corpus", "corpus, while written", "folds", "fit", "compare", "publish")


def patch(setattr=setattr):
    """Let 300 documents be a large corpus of 8 shards, and everything be kept at once."""
    setattr(checkpoint, "EVERY", 0.0)
    setattr(checkpoint, "SHARE", float("inf"))
    setattr(corpus_sample, "MAX_DOCUMENTS", 60)
    setattr(corpus_sample, "NEAR", 2)
    setattr(corpus_sample, "MINED_QUERIES", 20)
    for module in (shards, deeplake):
        setattr(module, "shard_rows", lambda rows, _: [slice(n, min(n + 40, rows)) for n in range(0, rows, 40)])


def note_and_kill(notes, moment, setattr=setattr):
    """Note the shards and folds that are read and trained, and kill this process at a moment.

    Args:
        notes: The file.
        moment: One of `MOMENTS`; None never.
        setattr: Sets an attribute.
    """
    done = {"shards": 0, "folds": 0}

    def note(what):
        done[what] = done.get(what, 0) + 1
        with open(notes, "a") as file:
            file.write(f"{what}\n")

    def kill(when):
        if moment == when:
            os.kill(os.getpid(), signal.SIGKILL)

    add, write, save = corpus_sample._Done.add, checkpoint.TrainingCheckpoint.write, checkpoint.save_file
    score = cross_validation._score_fold

    def added(self, *arguments, **options):
        add(self, *arguments, **options)
        note("shards")
        if done["shards"] == 5:
            kill("corpus")

    def saved(arrays, path):
        save(arrays, path)
        if done["shards"] == 4:
            kill("corpus, while written")

    def written(self, name, *arguments):
        write(self, name, *arguments)
        if name.startswith("fold"):
            note("kept")
            if done["kept"] == 2:
                kill("folds")

    def scored(*arguments):
        note("folds")
        return score(*arguments)

    setattr(corpus_sample._Done, "add", added)
    setattr(checkpoint, "save_file", saved)
    setattr(checkpoint.TrainingCheckpoint, "write", written)
    setattr(cross_validation, "_score_fold", scored)

    def killed_before(function, when):
        def called(*arguments, **options):
            kill(when)
            return function(*arguments, **options)

        return called

    setattr(train, "_fit", killed_before(train._fit, "fit"))
    setattr(trainer, "_compared", killed_before(trainer._compared, "compare"))
    setattr(trainer, "publish", killed_before(trainer.publish, "publish"))
    kill("start")


if __name__ == "__main__":
    patch()
    note_and_kill(Path(os.environ["DEEPMEM_TEST_NOTES"]), os.environ.get("DEEPMEM_TEST_KILL"))
    trainer.main(*sys.argv[-3:])
