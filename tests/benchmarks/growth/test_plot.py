"""The figure of the curves, from recorded ones."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

from growth.plot import TITLES, write_figure

RECORDED = json.loads((Path(__file__).parents[1] / "recorded" / "curves.json").read_text(encoding="utf-8"))["curves"]


def test_every_curve_has_a_panel_with_its_slope_and_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("one.svg", "two.svg"):
        write_figure(RECORDED, tmp_path / "figures" / name)
    one, two = ((tmp_path / "figures" / name).read_text(encoding="utf-8") for name in ("one.svg", "two.svg"))
    assert one == two
    ET.fromstring(one)
    for row in RECORDED:
        assert f">{TITLES[row['curve']]}: {row['slope']:.2f}<" in one
