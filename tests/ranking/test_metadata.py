import copy
import json
import pickle

from deepmem_integrations.ranking import EVIDENCE, Metadata


def test_evidence_tells_no_documents_apart_and_stays_with_copies():
    plain, score = {"page": 3}, {"score": 0.9}
    metadata = Metadata({**plain, EVIDENCE: score})
    other = Metadata({**plain, EVIDENCE: {"score": 0.1}})
    assert metadata == other == plain == metadata
    assert not (metadata != other or plain != metadata)
    assert metadata != Metadata({"page": 4, EVIDENCE: score})
    assert metadata not in ({"page": 4}, 3)
    assert str(metadata) == str(other) == str(plain)
    for copied in (copy.copy(metadata), copy.deepcopy(metadata), pickle.loads(pickle.dumps(metadata))):
        assert (type(copied), copied[EVIDENCE], copied) == (Metadata, score, other)
    assert json.loads(json.dumps(metadata)) == {**plain, EVIDENCE: score}
    assert "0.9" in repr(metadata)


def test_documents_whose_metadata_were_copied_into_a_plain_dict_stay_equal():
    """Splitters and other transformers of documents make new ones of a dict."""
    one, other = (dict(Metadata.with_evidence({"page": 3}, {"query_id": number})) for number in "12")
    assert one == other
    assert not one != other
    assert one[EVIDENCE] == {"query_id": "1"} != other[EVIDENCE]
    assert copy.deepcopy(one) == one == pickle.loads(pickle.dumps(other))
    assert one != {"page": 4, EVIDENCE: other[EVIDENCE]}
