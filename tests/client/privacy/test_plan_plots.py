"""A plan's curves: readable text, the same bytes for the same plan, and no other format."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest

from client.privacy.errors import PlanError
from client.privacy.plan import PlanRequest
from client.privacy.plan_plots import write_plots
from client.privacy.planner import compute


@pytest.fixture(scope="module")
def plan():
    return compute(
        PlanRequest(patients=5000, batch=64, steps=50, rounds=100, noise_multiplier=1.0, delta=1e-5, cap=5.576)
    )


def words(path):
    return [element.text.strip() for element in ElementTree.parse(path).iter() if element.tag.endswith("}text")]


def test_the_picture_names_both_accountants_the_cap_and_the_refused_round(plan, tmp_path):
    write_plots(plan, tmp_path / "new" / "plan.svg")
    found = words(tmp_path / "new" / "plan.svg")
    assert {"this plan, PLD", "life-time, RDP", "cap 5.576", "round 86 is refused", "epsilon", "round"} <= set(found)
    assert "1e-10" in found
    assert not any("$" in word for word in found)


def test_without_a_cap_no_cap_and_no_stop_is_drawn(plan, tmp_path):
    write_plots(dataclasses.replace(plan, cap=None, stops_at_step=None, stops_at_round=None), tmp_path / "plan.svg")
    assert not [word for word in words(tmp_path / "plan.svg") if "cap" in word or "refused" in word]


def test_a_plan_of_one_round_is_drawn_over_its_steps(plan, tmp_path):
    single = dataclasses.replace(plan, rounds=1, steps_a_round=5000, stops_at_round=1)
    write_plots(single, tmp_path / "plan.svg")
    assert {"step", "stops after step 4,275"} <= set(words(tmp_path / "plan.svg"))


def test_the_same_plan_gives_the_same_bytes(plan, tmp_path):
    for name in ("a.svg", "b.svg"):
        write_plots(plan, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_png_is_a_png(plan, tmp_path):
    write_plots(plan, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_another_format_is_refused(plan, tmp_path):
    with pytest.raises(PlanError, match=r"'\.pdf'.*\.svg or \.png"):
        write_plots(plan, tmp_path / "plan.pdf")
    assert not list(tmp_path.iterdir())
