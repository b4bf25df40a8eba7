import inspect
import pickle

import pytest

from deepmem_integrations import errors
from deepmem_integrations.errors import DeepMemoryError, MissingExtraError

CLASSES = [found for _, found in inspect.getmembers(errors, inspect.isclass) if found.__module__ == errors.__name__]


def test_the_docstring_draws_the_whole_tree():
    drawn = [line.split()[1] for line in errors.__doc__.splitlines() if line.startswith(("├", "└"))]
    assert sorted(drawn) == sorted(found.__name__ for found in CLASSES if found is not DeepMemoryError)


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_is_one_of_ours_and_survives_a_process_boundary(error):
    assert issubclass(error, DeepMemoryError)
    made = error("torch", "train") if error is MissingExtraError else error("what was wrong")
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is error
    assert str(again) == str(made)


@pytest.mark.parametrize("error", [found for found in CLASSES if found is not DeepMemoryError], ids=lambda error: error.__name__)
def test_every_error_is_one_of_pythons_too(error):
    (line,) = [line for line in errors.__doc__.splitlines() if f" {error.__name__} " in line]
    also = line.rpartition("also a")[2].strip(" n)")
    assert also in {base.__name__ for base in error.__mro__}, line
