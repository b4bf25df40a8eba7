import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations._strings import Strings


@given(st.lists(st.text(st.characters())))
def test_strings_come_back_by_row_by_slice_and_all(texts):
    strings = Strings.of(texts)
    strings.check("names")
    assert list(strings) == texts and len(strings) == len(texts)
    assert [strings[row] for row in range(-len(texts), len(texts))] == texts + texts
    assert strings[1:3] == texts[1:3]
    assert Strings.of(strings) is strings


def test_there_is_no_string_beyond_the_last():
    with pytest.raises(IndexError, match="there are 2 strings"):
        Strings.of(["a", "b"])[2]


@pytest.mark.parametrize(
    ("data", "starts", "message"),
    [
        ("ab", [0, 1], "do not rise"),
        ("ab", [1, 2], "do not rise"),
        ("ab", [0, 2, 1, 2], "do not rise"),
        ("é", [0, 1, 2], "inside a character"),
        (b"\xff", [0, 1], "invalid start byte"),
        ("ab", [], "holds no strings"),
        ("ab", [[0, 2]], "holds no strings"),
    ],
)
def test_arrays_that_hold_no_strings_are_refused(data, starts, message):
    data = np.frombuffer(data if isinstance(data, bytes) else data.encode(), np.uint8)
    with pytest.raises((TypeError, ValueError), match=message):
        Strings(data, np.array(starts, dtype=np.int64)).check("names")
