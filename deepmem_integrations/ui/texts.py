"""Text files as documents: the files of a folder, cut into passages."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from deepmem_integrations._files import read_text
from deepmem_integrations._sentences import sentences_of
from deepmem_integrations._unicode import well_formed
from deepmem_integrations.errors import StoreError

SUFFIXES = (".txt", ".md", ".rst", ".text", ".markdown")
"""The files that are read."""
PASSAGE = 1_200
"""How many characters a passage has at most: about what small embedding models read of a text."""
MOST_FILES = 20_000
"""How many files are read at most."""

_PARAGRAPHS = re.compile(r"\n\s*\n")


def inside(root: Path, name: str) -> Path:
    """Return a folder inside of another one.

    Raises:
        StoreError: It lies outside, also by a link, or is no folder.
    """
    base = Path(os.path.realpath(root))
    try:
        place = Path(os.path.realpath(base / name))
        allowed = place == base or base in place.parents
        found = allowed and place.is_dir()
    except (OSError, ValueError):
        allowed, found = False, False
    if not allowed:
        raise StoreError(f"{name!r} is not inside of {base}, the folder that the application was started in.")
    if not found:
        raise StoreError(f"There is no folder {name!r} in {base}.")
    return place


def text_files(folder: Path) -> list[Path]:
    """List the text files of a folder and the folders in it, in the order of their names. Hidden ones and links are left out."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".deepmemory"))
        for name in sorted(names):
            path = Path(place, name)
            if name.lower().endswith(SUFFIXES) and not name.startswith(".") and path.is_file() and not path.is_symlink():
                found.append(path)
        if len(found) > MOST_FILES:
            return found[:MOST_FILES]
    return found


def passages(folder: Path, files: list[Path]) -> Iterator[tuple[str, str, str]]:
    """Yield (id, text, file) of each passage. An id is the file's path in the folder, and the number of the passage.

    Raises:
        StorageError: A file cannot be read; the message names it.
    """
    for path in files:
        name = well_formed(path.relative_to(folder).as_posix())
        for number, passage in enumerate(cut(read_text(path)), start=1):
            yield f"{name}#{number}", passage, name


def cut(text: str, most: int = PASSAGE) -> list[str]:
    r"""Cut a text into passages of whole paragraphs, as many as fit; longer paragraphs are cut between sentences.

    Example:
        >>> cut("One.\n\nTwo.\n\nThree is longer. Much longer.", most=20)
        ['One.\n\nTwo.', 'Three is longer.', 'Much longer.']
    """
    found: list[str] = []
    for paragraph in filter(None, (part.strip() for part in _PARAGRAPHS.split(well_formed(text)))):
        if len(paragraph) <= most:
            if found and len(found[-1]) + 2 + len(paragraph) <= most:
                found[-1] += f"\n\n{paragraph}"
            else:
                found.append(paragraph)
            continue
        piece = ""
        for sentence in sentences_of(paragraph):
            for part in [sentence[start : start + most] for start in range(0, len(sentence), most)]:
                if len(piece) + len(part.rstrip()) > most:
                    found.append(piece.rstrip())
                    piece = ""
                piece += part
        found += [piece.rstrip()] if piece.strip() else []
    return found
