"""Masked arms: the same rounds as the plain ones, up to rounding, with keys that nobody else has."""

import json

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from mumc_model.errors import ConfigError
from simulations.run import simulate

THREE = ("engine.workers=1", "federation.sites=3", "arms=[federated,masked]")
MASKED = "+variants.masked.run.secagg.mode=required"


@pytest.fixture(scope="module")
def both(tiny, tmp_path_factory):
    config = tiny(tmp_path_factory.mktemp("masked"), *THREE, MASKED, "federation.min_sites=3", "codec.kind=float32")
    return simulate(config, "pytest", Console(quiet=True))


def test_a_masked_arm_ends_with_the_weights_of_the_plain_one(both):
    _, out = both
    plain, masked = (load_file(out / f"seed-0/runs/{arm}/weights.safetensors") for arm in ("federated", "masked"))
    assert plain.keys() == masked.keys()
    for name in sorted(plain):
        found, expected = (without_key_bias(name, weights[name]) for weights in (masked, plain))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6, err_msg=name)


def without_key_bias(name, weight):
    """A key's bias moves all scores alike: its gradient is rounding, which Adam makes whole steps of."""
    if name.endswith("qkv.bias"):
        query, _, value = np.split(weight, 3)
        return np.concatenate([query, value])
    return weight[:0] if name.endswith("key.bias") else weight


def test_its_rounds_were_masked_and_its_answers_stand_beside_the_others(both):
    study, out = both
    said = json.loads((out / "seed-0/runs/masked/result.json").read_text())["secagg"]
    assert said["masked"]
    assert [len(attempt["survivors"]) for attempt in said["attempts"]] == [3, 3]
    assert {(found.arm, found.site) for found in study.results if found.rows} >= {
        (arm, f"hospital-{i}") for arm in ("federated", "masked") for i in (1, 2, 3)
    }


def test_two_hospitals_cannot_mask(tiny, tmp_path):
    config = tiny(tmp_path, "engine.workers=1", "arms=[federated]", "secagg.mode=required")
    with pytest.raises(ConfigError, match="2 sites take part, of which 1 may collude; it takes at least 3"):
        simulate(config, "pytest", Console(quiet=True))
