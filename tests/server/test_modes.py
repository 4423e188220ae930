"""Which runs mask, and the table of what goes with it."""

from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.compose import compose
from configs.loader import load
from mumc_model.errors import ConfigError
from protocol.compression import Codec
from protocol.schema import WeightSchema
from protocol.secagg.errors import SessionError
from server.config import RunConfig, SecaggConfig
from server.home import SecaggFile
from server.modes import TABLE, masked_terms, table
from server.orders import SMALLEST, Orders, run_codec

DOCS = Path(__file__).parents[2] / "docs" / "secagg.md"
SCHEMA = WeightSchema(names=("a",), shapes=((4,),), dtypes=("float32",))


def post(sites, colluding=1, required=False, units=10):
    members = {f"site-{i}": SimpleNamespace(signing_key=f"{i:064x}", units=units) for i in range(sites)}
    return SimpleNamespace(members=members, secagg=SecaggFile(required=required, colluding=colluding))


@cache
def config(*overrides):
    return load(RunConfig, compose("run", ["federation.sites=3", "federation.min_sites=1", *overrides]))


def session(terms, *online):
    run = config()
    order = Orders(run, "run", run.recipe, ("a",)).pretrain(1, "b" * 64)
    return terms.session(order, SCHEMA, online)


def test_the_table_of_the_documentation_is_that_of_the_code():
    assert table() in DOCS.read_text(encoding="utf-8")
    assert len({row.what for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize(
    ("sites", "colluding", "mode", "masks"),
    [
        (2, 1, "auto", False),
        (3, 1, "auto", True),
        (3, 2, "auto", False),
        (4, 2, "auto", True),
        (3, 1, "required", True),
        (3, 1, "off", False),
    ],
)
def test_auto_masks_where_enough_sites_are_enrolled(sites, colluding, mode, masks):
    assert (masked_terms(config(f"secagg.mode={mode}"), post(sites, colluding)) is not None) == masks


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_a_codec_that_rounds_is_refused_where_rounds_go_under_masks(kind):
    with pytest.raises(ConfigError, match=rf"codec\.kind is {kind}.*set it to auto, or secagg.mode to off"):
        masked_terms(config(f"codec.kind={kind}"), post(3))
    assert masked_terms(config(f"codec.kind={kind}", "secagg.mode=off"), post(3)) is None


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "krum", "multi_krum", "norm_bounded"])
def test_a_rule_that_needs_single_updates_is_refused_where_rounds_go_under_masks(rule):
    with pytest.raises(ConfigError, match=rf"merge\.rule is {rule}, .*set it to mean, or secagg.mode to off"):
        masked_terms(config(f"merge.rule={rule}"), post(3))
    assert masked_terms(config(f"merge.rule={rule}", "secagg.mode=off"), post(3)) is None


@pytest.mark.parametrize("kind", ["auto", "float32"])
def test_under_masks_updates_are_whole_words(kind):
    run = config(f"codec.kind={kind}")
    assert masked_terms(run, post(3)) is not None
    assert run_codec(run.codec, run.recipe, masked=True) == Codec(kind="float32", block=256)


def test_a_run_s_orders_name_its_codec():
    plain = Orders(config("codec.kind=int8", "codec.block=64"), "run", config().recipe, ("a",))
    named = {"kind": "int8", "block": 64, "adapters": {}}
    assert plain.pretrain(1, "b" * 64).codec == named
    assert plain.rehearse("b" * 64).codec == named
    assert Orders(config(), "run", config().recipe, ("a",)).pretrain(1, "b" * 64).codec["kind"] == SMALLEST


def test_a_codec_with_an_odd_block_is_refused_where_the_run_is_configured():
    with pytest.raises(ConfigError, match=r"codec\.block is 100"):
        config("codec.block=100")


def test_a_run_of_no_rounds_and_one_without_a_federation_have_nothing_to_mask():
    assert masked_terms(config("federation.rounds=0", "secagg.mode=required"), post(1)) is None
    assert masked_terms(config(), None) is None


@pytest.mark.parametrize(
    ("overrides", "found", "text"),
    [
        (["secagg.mode=required"], None, "this run has no federation with enrolled sites"),
        (["secagg.mode=required"], post(2), "2 sites take part, of which 1 may collude; it takes at least 3"),
        ([], post(2, required=True), "2 sites take part, of which 1 may collude; it takes at least 3"),
        (["secagg.mode=off"], post(5, required=True), "secagg.mode is off, and federation.yaml requires"),
        (["strategy.max_examples=9"], post(3), "enrolled with 10 units, above strategy.max_examples, 9"),
        (["secagg.tolerance=1e-30"], post(3), "even in 64 bits; allow more, or clip below 1"),
    ],
    ids=["no federation", "two sites", "two sites, required", "off", "weight", "tolerance"],
)
def test_what_cannot_work_is_refused_before_the_run(overrides, found, text):
    with pytest.raises(ConfigError, match=text):
        masked_terms(config(*overrides), found)


@pytest.mark.parametrize(
    ("sites", "colluding", "least_online", "named"), [(5, 0, 2, 3), (5, 1, 3, 3), (5, 2, 4, 4), (5, 3, 5, 5)]
)
def test_absent_sites_stand_in_a_session_that_would_be_too_small(sites, colluding, least_online, named):
    terms = masked_terms(config(), post(sites, colluding))
    assert terms.least_online == least_online
    smallest = session(terms, *sorted(terms.keys)[:least_online])
    assert len(smallest.sites) == named
    assert smallest.threshold <= least_online
    everybody = session(terms, *terms.keys)
    assert (len(everybody.sites), everybody.share("site-0")) == (sites, Fraction(1, sites))


def test_too_few_enrolled_sites_make_no_session():
    terms = masked_terms(config(), post(3))
    with pytest.raises(SessionError, match="there must be at least 3"):
        terms.threshold(2)


def test_the_threshold_is_no_lower_than_the_run_s_fewest_sites_and_no_higher_than_the_session_s():
    terms = masked_terms(config("federation.sites=5", "federation.min_sites=5"), post(5))
    assert session(terms, *terms.keys).threshold == 5
    assert session(terms, *sorted(terms.keys)[:4]).threshold == 4


@pytest.mark.parametrize("values", [{"clip": 0.0}, {"tolerance": float("inf")}, {"stage_timeout_s": -1.0}])
def test_settings_that_mean_nothing_are_refused(values):
    with pytest.raises(ConfigError, match=f"secagg.{next(iter(values))}"):
        SecaggConfig(**values)
