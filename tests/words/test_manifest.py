import json
import os

import pytest

from deepmem_integrations.errors import StorageError
from deepmem_integrations.remote import word_files
from deepmem_integrations.words import WordIndex
from deepmem_integrations.words.manifest import INDEX, Manifest, _json_checksum


@pytest.mark.parametrize("name", ["../../victim", "/etc/passwd", "..", "", 5, None])
def test_a_word_index_names_no_file_outside_its_folder(tmp_path, name):
    """The copy of a published index was written to wherever its manifest said."""
    WordIndex.build(tmp_path / "words", [(["a"], ["some words"])])
    values = json.loads((tmp_path / "words" / INDEX).read_text())
    values["segments"][0]["name"] = name
    del values["checksum"]
    checksum = _json_checksum({key: value for key, value in values.items() if key not in ("format", "version")})
    data = json.dumps({**values, "checksum": checksum})
    (tmp_path / "words" / INDEX).write_text(data)
    with pytest.raises(StorageError, match="is no name of a file"):
        Manifest.read(tmp_path / "words" / INDEX)
    with pytest.raises(StorageError, match="is no name of a file"):
        word_files(data.encode())


def test_a_pipe_in_place_of_a_word_index_hangs_nobody(tmp_path):
    os.mkfifo(tmp_path / INDEX)
    with pytest.raises(StorageError, match="no regular file"):
        WordIndex.open(tmp_path)
