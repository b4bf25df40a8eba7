import uuid

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmem_integrations.deeplake import DeepLakeStore

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXTS, children, max_size=3),
    max_leaves=5,
)


@settings(max_examples=25)
@given(st.dictionaries(TEXTS, st.dictionaries(TEXTS, JSON, max_size=3), min_size=1, max_size=3))
def test_any_id_and_any_json_metadata_come_back_exactly(documents):
    store = DeepLakeStore(f"mem://{uuid.uuid4().hex}")
    store.add(["other", *documents], np.ones((len(documents) + 1, 4)), None, [{}, *documents.values()])
    for name, metadata in documents.items():
        found = store.get([name])
        assert [d.id for d in found] == [name]
        assert found[0].metadata == metadata
        assert list(map(type, found[0].metadata.values())) == list(map(type, metadata.values()))
