import numpy as np
import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Fingerprint
from deepmem_integrations.errors import EmbeddingMismatchError
from tests.adapter.helpers import unit


def test_another_model_is_refused_and_noise_is_not():
    probes = unit(np.random.default_rng(0).normal(size=(3, 64))).astype(np.float32)
    adapter = QueryAdapter(64, fingerprint=Fingerprint(64, "one", probes))
    noisy = unit(probes + 0.005 * np.random.default_rng(1).normal(size=probes.shape)).astype(np.float32)
    adapter.check(Fingerprint(64, "the same by another name", noisy))
    with pytest.raises(EmbeddingMismatchError, match=r"trained for one \(64 dimensions\) but is used with two"):
        adapter.check(Fingerprint(64, "two", unit(np.random.default_rng(2).normal(size=(3, 64))).astype(np.float32)))
    with pytest.raises(EmbeddingMismatchError, match="32 dimensions"):
        adapter.check(Fingerprint(32))


def test_bare_arrays_leave_only_the_dimension_to_compare():
    probes = unit(np.ones((3, 4))).astype(np.float32)
    QueryAdapter(4).check(Fingerprint(4, "any", probes))
    QueryAdapter(4, fingerprint=Fingerprint(4, "one", probes)).check(Fingerprint(4))
    for adapter in (QueryAdapter(4), QueryAdapter(4, fingerprint=Fingerprint(4, "one", probes))):
        with pytest.raises(EmbeddingMismatchError, match=r"\(4 dimensions\) but is used with any \(5 dimensions\)"):
            adapter.check(Fingerprint(5, "any"))


def test_a_model_that_has_no_vector_for_a_probe_is_told_from_one_that_has():
    some = unit(np.random.default_rng(0).normal(size=(3, 8))).astype(np.float32)
    silent = some.copy()
    silent[1] = 0
    Fingerprint(8, "one", silent).check(Fingerprint(8, "again", silent))
    for one, other in ((silent, some), (some, silent)):
        with pytest.raises(EmbeddingMismatchError, match="cosine 0.000"):
            Fingerprint(8, "one", one).check(Fingerprint(8, "other", other))
