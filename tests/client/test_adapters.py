"""Rounds in which only adapters learn: what leaves, what the server reads of it, and that a round can be done again."""

import dataclasses
import shutil

import numpy as np
import pytest

from client.pretrain import pretrain_site
from client.seal import check_leaves
from client.site import open_folder
from mumc_model.adapters import ADAPTED, HEADS, _targets
from mumc_model.errors import ConfigError
from mumc_model.model import build_model
from protocol.codec import unpack
from protocol.compression import Codec, decode
from protocol.errors import UnexpectedWeightsError
from protocol.messages import Report
from tests.client import conftest
from tests.client.conftest import TINY, Server

RANK = 2


@pytest.fixture(scope="module")
def adapting():
    """A server of a run whose sites train adapters."""
    conftest.TINY = (*TINY, f"pretrain.adapters.rank={RANK}", "pretrain.optimizer.warmup_steps=0")
    try:
        return Server()
    finally:
        conftest.TINY = TINY


def read(server, answer, order):
    assert isinstance(answer.message, Report), answer.message
    return unpack(decode(answer.arrays, server.schema, Codec.of(order.codec)), server.schema)


def whole(order):
    """The same order, asking for the differences of all weights."""
    return dataclasses.replace(order, codec=Codec().to_dict())


def test_what_the_server_reads_is_what_the_adapters_added(adapting, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy" / "site")
    order = adapting.pretrain()
    found = read(adapting, adapting.ask(folder, order), order)
    expected = read(adapting, adapting.ask(copy, whole(order)), whole(order))
    for name in adapting.schema.names:
        assert np.allclose(found[name], expected[name], atol=2e-7), name
    assert all(np.linalg.matrix_rank(found[name]) <= RANK for name in adapted(adapting))
    assert sum(found[name].any() for name in adapted(adapting)) > len(adapted(adapting)) / 2


def adapted(server):
    return {f"{name}.weight" for name in _targets(build_model(server.recipe.model, 0))}


def test_the_patterns_of_an_order_name_just_the_layers_that_get_an_adapter(adapting):
    adapters = Codec.of(adapting.pretrain().codec).adapters
    assert (adapters.rank, adapters.factored) == (RANK, ADAPTED)
    assert {name for name, _, _ in adapters.matrices(adapting.schema)} == adapted(adapting)
    assert adapters.whole == tuple(f"{head}*" for head in HEADS)


def test_the_frozen_backbone_does_not_move_and_is_not_sent(adapting, folder):
    order = adapting.pretrain()
    answer = adapting.ask(folder, order)
    found = read(adapting, answer, order)
    moved = {name for name, weight in found.items() if weight.any()}
    assert moved <= adapted(adapting) | {name for name in found if name.startswith(HEADS)}
    shapes = {name: shape for name, shape, _ in adapting.schema}
    heads = sum(np.prod(shape) for name, shape in shapes.items() if name.startswith(HEADS))
    factors = sum(RANK * sum(shapes[name]) for name in adapted(adapting))
    assert sum(flat.nbytes for flat in answer.arrays.values()) == 4 * (heads + factors)


def test_a_later_round_goes_on_and_a_round_done_again_gives_the_same_bits(adapting, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy" / "site")
    answers = [[adapting.ask(site, adapting.pretrain(n)) for n in (1, 2)] for site in (folder, copy)]
    for one, other in zip(*answers, strict=True):
        assert one.arrays["float32"].tobytes() == other.arrays["float32"].tobytes()
    assert answers[0][0].arrays["float32"].tobytes() != answers[0][1].arrays["float32"].tobytes()


def test_an_order_for_other_factors_than_its_recipe_s_is_refused(adapting, server, folder):
    order = server.pretrain()
    asked = dataclasses.replace(order, codec=adapting.pretrain().codec)
    assert server.ask(folder, asked).message.code == "missing_weights"


def test_all_weights_would_not_leave_where_factors_were_asked_for(adapting):
    order = adapting.pretrain()
    report = Report(run_id="trial", round=1, attempt=1, site="a", examples=1, metrics={}, base_digest=order.base_digest)
    with pytest.raises(UnexpectedWeightsError):
        check_leaves(report, adapting.base, order, adapting.base)
    factors = {"float32": np.zeros(Codec.of(order.codec).sent(adapting.schema).flat_sizes["float32"], np.float32)}
    check_leaves(report, factors, order, adapting.base)


def test_under_masks_the_products_are_what_is_masked(adapting, folder):
    order = whole(adapting.pretrain())
    _, arrays = pretrain_site(order, adapting.base, open_folder(folder), keep=False)
    assert {name: flat.size for name, flat in arrays.items()} == adapting.schema.flat_sizes


def test_a_rehearsal_sends_factors_too(adapting, folder):
    order = adapting.rehearse()
    assert read(adapting, adapting.ask(folder, order), order).keys() == set(adapting.schema.names)


def test_a_private_run_has_adapters_of_its_own():
    conftest.TINY = (*TINY, f"pretrain.adapters.rank={RANK}", "privacy=patient")
    try:
        with pytest.raises(ConfigError, match=r"privacy\.adapters\.rank in its place"):
            Server()
    finally:
        conftest.TINY = TINY
