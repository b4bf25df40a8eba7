"""Processes for the tests of the word index: ``python -m tests.words.worker write|read FOLDER …``."""

import itertools
import sys
import time

from deepmem_integrations.words import WordIndex


def documents(version, size=60):
    """All documents of a version: a word of their own each, a word that all have, and the version's word."""
    own = word(version)
    return {f"d{number}": f"word{number} everywhere {own} {'more ' * (number % 7)}" for number in range(size + version % 5)}


def word(version):
    """A word that no other version has, not even in parts."""
    return "q" + "".join(chr(ord("a") + int(digit)) for digit in str(version)) + "q"


def batches(version):
    items = list(documents(version).items())
    for start in range(0, len(items), 16):
        ids, texts = zip(*items[start : start + 16], strict=True)
        yield list(ids), list(texts)


def check(index):
    """What the index holds is one version, whole: all documents have its word, and none is missing."""
    found = set(index.search("everywhere", k=1_000).ids)
    versions = [version for version in range(300) if index.search(word(version), k=1).ids]
    assert len(versions) == 1, versions
    assert found == set(index.search(word(versions[0]), k=1_000).ids) == set(documents(versions[0]))


def write(folder, how, first="1"):
    """Change the index again and again, beginning with a version, until killed."""
    for version in itertools.count(int(first)):
        if how == "build":
            WordIndex.build(folder, batches(version % 300), language="en")
        else:
            WordIndex.open(folder).refresh(batches(version % 300))
        if version == int(first):
            sys.stdout.write("started\n")
            sys.stdout.flush()


def read(folder, seconds):
    """Search while others write; every search sees one state."""
    index, end, seen = WordIndex.open(folder), time.monotonic() + float(seconds), set()
    while time.monotonic() < end:
        found = index.search("everywhere", k=1_000)
        assert len(found.ids) == len(set(found.ids)) >= 60, len(found.ids)
        assert found.scores.min() > 0
        seen.add(index.statistics.generation)
    sys.stdout.write(f"{len(seen)}\n")


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
