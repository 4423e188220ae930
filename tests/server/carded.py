"""A finished run in a federation's folder, with everything that a card must and must not tell."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mumc_model.config import ModelConfig, Recipe, TextConfig, VisionConfig
from protocol.messages import EPSILON, Order, Refusal
from protocol.records import to_record
from server import federation
from server.config import CodecConfig, FederationConfig, RunConfig, ScreenConfig
from server.home import Home
from tests.federation import found
from tests.server.fake_grid import FakeGrid, Packed, report, site

RECIPE = Recipe(
    model=ModelConfig(
        vision=VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2),
        text=TextConfig(width=8, text_layers=1, fusion_layers=1, heads=2, max_positions=16),
        projection=4,
    )
)
SITES = ("heidelberg", "north-clinic", "south")


def private(order: Order, base: Packed):
    """`north-clinic`, which trains under differential privacy and releases metrics under odd names."""
    told = report(order, site="north-clinic", metrics={"total": 2.0, EPSILON: 0.5 + 0.25 * order.round})
    if order.action != "train.pretrain":
        metrics = {"accuracy": 0.61234, "tested": 347.0, "ward of heidelberg": 1.0}
        return to_record(replace(told, metrics=metrics))
    return to_record(told, {name: np.full_like(flat, 0.01) for name, flat in base.items()})


def faulty(order: Order, base: Packed):
    """`heidelberg`: NaN in round 1, a refusal that tells its name and a path in round 2, a server's code in 3."""
    told = report(order, site="heidelberg")
    if order.round == 1:
        return to_record(told, {name: np.full_like(flat, np.nan) for name, flat in base.items()})
    if order.round == 3:
        return to_record(Refusal(code="not_finite", text="the loss is no number here"))
    return to_record(Refusal(code="heidelberg_closed", text="see /srv/heidelberg/log"))


def play(place: Path, run_id: str = "lung-1") -> tuple[Home, Path]:
    """The federation, and the folder of its finished run of three rounds."""
    home = found(place, *SITES, address="hub.example.org:443")
    words = place / "vocab.txt"
    words.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nkidney\n")
    limits = {"local_steps": 1, "sites": 3, "min_sites": 1, "wait_s": 0.05, "rejoin_s": 0.0, "round_timeout_s": 5.0}
    config = RunConfig(
        recipe=RECIPE,
        federation=FederationConfig(rounds=3, **limits),
        codec=CodecConfig(kind="float32"),
        screen=ScreenConfig(norm_factor=0, free_riders=False),
        vocabulary=str(words),
        output_dir=str(home.runs / run_id),
        run_id=run_id,
        seed=3,
    )
    federation.run(FakeGrid({11: faulty, 12: private, 13: site("south", 1.0, 30)}), config)
    return home, home.runs / run_id
