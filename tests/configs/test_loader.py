from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.loader import ConfigurationError, dump, load


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    pair: tuple[float, float] = (0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class Outer:
    steps: int
    kind: Literal["plain", "fancy"] = "plain"
    names: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)
    limit: int | None = None


def test_nested_values_become_frozen_dataclasses():
    outer = load(Outer, {"steps": 3, "inner": {"rate": 1, "pair": [0.5, 0.6]}, "names": ["a"]})
    assert outer == Outer(steps=3, inner=Inner(rate=1.0, pair=(0.5, 0.6)), names=("a",))
    assert isinstance(outer.inner.rate, float)


@given(
    steps=st.integers(),
    rate=st.floats(allow_nan=False),
    names=st.lists(st.text()),
    kind=st.sampled_from(["plain", "fancy"]),
    limit=st.none() | st.integers(),
)
def test_what_dump_writes_load_reads_back(steps, rate, names, kind, limit):
    outer = Outer(steps=steps, kind=kind, names=tuple(names), inner=Inner(rate=rate), limit=limit)
    assert load(Outer, dump(outer)) == outer


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"steps": 1, "inner": {"raet": 0.2}}, r"unknown key 'inner.raet'; did you mean 'rate'\?"),
        ({"steps": 1, "zzz": 0.2}, "unknown key 'zzz'; there are inner, kind, limit, names, steps"),
        ({}, "missing steps; give it a value"),
        ({"steps": "3"}, "steps must be int, not str: '3'"),
        ({"steps": True}, "steps must be int, not bool"),
        ({"steps": 1, "kind": "fanci"}, "kind must be one of plain, fancy, not 'fanci'; did you mean 'fancy'"),
        ({"steps": 1, "inner": {"pair": [1.0]}}, "inner.pair must have 2 values, not 1"),
        ({"steps": 1, "inner": 4}, "inner must be a mapping of keys to values, not int"),
        ({"steps": 1, "names": "abc"}, "names must be a list, not str"),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(node, message):
    with pytest.raises(ConfigurationError, match=message):
        load(Outer, node)
