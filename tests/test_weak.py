import gc

from deepmem_integrations._weak import WeakCache


class Unhashable:
    __hash__ = None

    def __eq__(self, other):
        return True


def test_a_value_is_made_once_and_dropped_with_its_object():
    cache, made = WeakCache(), []
    one, other = Unhashable(), Unhashable()

    def make():
        made.append(1)
        return len(made)

    assert [cache.get(one, make), cache.get(other, make), cache.get(one, make)] == [1, 2, 1]
    del one
    gc.collect()
    assert len(cache._found) == 1
    assert cache.get(other, make) == 2


def test_an_object_that_takes_no_weak_reference_is_asked_each_time():
    cache, texts = WeakCache(), []
    value = ()
    assert cache.get(value, lambda: texts.append(1)) is None
    cache.get(value, lambda: texts.append(1))
    assert len(texts) == 2
