"""The registry of named things."""

import pytest

from unlearnable import InputError
from unlearnable.registry import Registry


def test_unknown_names_get_a_suggestion_or_the_list():
    things = Registry("thing")
    things.register("apple")(dict)
    things.register("pear")(dict)
    with pytest.raises(InputError, match="did you mean 'apple'"):
        things.create("aple")
    with pytest.raises(InputError, match="choose one of apple, pear"):
        things.create("zzz")


def test_a_name_is_taken_once():
    things = Registry("thing")
    things.register("apple")(dict)
    with pytest.raises(ValueError, match="registered twice"):
        things.register("apple")(list)
    assert things.create("apple", a=1) == {"a": 1}
    assert things.available("*ppl*") == ["apple"]
