import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations.adapter.answers import PRIOR, answer_scores
from deepmem_integrations.labels import LabelRows

LABELS = st.lists(st.dictionaries(st.integers(0, 9), st.floats(0.1, 5), min_size=1, max_size=4), min_size=1, max_size=6)


@given(LABELS, st.data())
def test_scores_are_the_kernel_regression_of_the_docstring(labels, data):
    answers = LabelRows.of_rows(labels)
    keys = data.draw(st.lists(st.integers(0, len(labels) - 1), min_size=1, unique=True))
    similarities = np.array([data.draw(st.floats(-1, 1, width=32)) for _ in keys], dtype=np.float32)
    documents, scores = answer_scores(np.array(keys), similarities, answers, 0.1)
    kernel = np.exp((similarities - 1.0) / 0.1)
    expected = {}
    for key, weight in zip(keys, kernel.tolist(), strict=True):
        for document, relevance in answers.weight_of(key).items():
            expected[document] = expected.get(document, 0.0) + weight * relevance / (float(kernel.sum()) + PRIOR)
    assert documents.tolist() == sorted(expected)
    np.testing.assert_allclose(scores, [expected[document] for document in documents.tolist()], rtol=1e-4, atol=1e-7)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_far_from_all_that_was_asked_answers_count_little():
    answers = LabelRows.of_rows([{0: 1.0}])
    near, far = (answer_scores(np.array([0]), np.array([s], dtype=np.float32), answers, 0.1)[1][0] for s in (1.0, 0.2))
    assert near > 0.9
    assert far < 0.02
