"""A value is made once for an owner and a key, and so is the reason why there is none."""

import gc
import weakref
from contextlib import nullcontext

import pytest

from hypergrad.compile.cache import Identity, WeakCache
from hypergrad.compile.tracing import CannotCompileError


class Owner:
    pass


def test_a_value_is_made_once_for_an_owner_and_a_key():
    cache, made = WeakCache[int](), []

    def make():
        made.append(1)
        return len(made)

    first, second = Owner(), Owner()
    places = [(first, "a"), (first, "b"), (second, "a"), (first, "a"), (second, "a")]
    assert [cache.get(owner, key, make) for owner, key in places] == [1, 2, 3, 1, 3]


def test_a_refusal_is_kept_as_its_message():
    cache, owner, tried = WeakCache[int](), Owner(), []

    def make():
        tried.append(1)
        raise CannotCompileError("no compiler")

    for _ in range(2):
        with pytest.raises(CannotCompileError, match=r"^no compiler$"):
            cache.get(owner, "a", make)
    assert len(tried) == 1


def test_any_other_error_is_not_kept():
    cache, owner = WeakCache[float](), Owner()
    with pytest.raises(ZeroDivisionError):
        cache.get(owner, "a", lambda: 1 / 0)
    assert cache.get(owner, "a", lambda: 2) == 2


def test_a_value_can_be_refused_later():
    cache, owner = WeakCache[int](), Owner()
    cache.get(owner, "a", lambda: 1)
    cache.refuse(owner, "a", "a step differs")
    with pytest.raises(CannotCompileError, match="a step differs"):
        cache.get(owner, "a", lambda: 1)
    assert cache.get(owner, "b", lambda: 2) == 2


@pytest.mark.parametrize("refused", [True, False])
def test_values_and_reasons_go_with_the_owner(refused):
    cache, owner, values = WeakCache[Owner](), Owner(), [Owner()]

    def make(owner=owner):
        if refused:
            raise CannotCompileError(f"not for {owner}")
        return values[0]

    with pytest.raises(CannotCompileError) if refused else nullcontext():
        cache.get(owner, "a", make)
    gone = weakref.ref(owner), weakref.ref(values.pop())
    del owner, make
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_what_cannot_be_referred_to_weakly_is_made_each_time():
    cache, made = WeakCache[int](), []
    for count in (1, 2):
        assert cache.get((1, 2), "a", lambda: made.append(1) or len(made)) == count
    cache.refuse((1, 2), "a", "not kept either")
    assert cache.get((1, 2), "a", lambda: 5) == 5


def test_an_identity_is_that_of_one_object_which_it_keeps_alive():
    cache, owner, solver = WeakCache[int](), Owner(), [1]
    cache.get(owner, Identity(solver), lambda: 1)
    assert cache.get(owner, Identity(solver), lambda: 2) == 1
    assert cache.get(owner, Identity([1]), lambda: 3) == 3
    part = Owner()
    gone = weakref.ref(part)
    cache.get(owner, Identity(part), lambda: 4)
    del part
    gc.collect()
    assert gone() is not None
