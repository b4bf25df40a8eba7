import builtins
import pickle
import re

import pytest

from deepmem_integrations import errors
from deepmem_integrations.errors import DeepMemoryError, MissingExtraError

TREE = dict(re.findall(r"^(?:│   )?[├└]── (\w+) .*\(also an? (\w+)\)$", errors.__doc__, re.MULTILINE))
"""Our errors and the built-in one that each is besides, as the module's docstring draws them."""


def test_the_tree_holds_every_error():
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == {"DeepMemoryError", *TREE}


@pytest.mark.parametrize("name", TREE)
def test_every_error_is_one_of_ours_and_a_built_in_one(name):
    error = getattr(errors, name)
    assert issubclass(error, DeepMemoryError)
    assert issubclass(error, getattr(builtins, TREE[name]))


@pytest.mark.parametrize("name", TREE)
def test_every_error_survives_a_process_boundary(name):
    arguments = ("torch", "train") if name == "MissingExtraError" else ("what went wrong",)
    error = getattr(errors, name)(*arguments)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_a_missing_extra_names_the_package_and_the_extra():
    error = MissingExtraError("torch", "train")
    assert error.package == "torch"
    assert error.extra == "train"
