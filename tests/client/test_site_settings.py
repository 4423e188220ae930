"""What is put into a site.yaml, and what stays of it."""

import pytest
import yaml

from client.config import RunLimits, read_site_config
from client.errors import SiteError
from client.site_settings import with_limits, with_privacy_policy, write_limits

OWN = "# our own\nname: north  # a pseudonym\n"
POLICY = {"epsilon": 3.0, "deltas": [1e-5, 1e-6], "signature": "5" * 128}


def test_the_usual_limits_are_those_that_the_code_knows_and_ask_for_a_card(tmp_path):
    (tmp_path / "site.yaml").write_text(OWN)
    assert write_limits(tmp_path) == tmp_path / "site.yaml"
    assert read_site_config(tmp_path).policy.runs == RunLimits(card="required")
    assert (tmp_path / "site.yaml").read_text().startswith(OWN)


def test_limits_that_are_there_are_not_written_over(tmp_path):
    text = f"{OWN}policy:\n  runs:\n    max_steps: 7\n"
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(SiteError, match="sets limits already; see them with: mumc-site limits"):
        write_limits(tmp_path)
    assert (tmp_path / "site.yaml").read_text() == text


@pytest.mark.parametrize("tail", ["", "device: cpu\n", "\n# the end\nbank: ../bank\n"])
def test_comments_stay_when_a_policy_is_signed_and_signed_anew(tail):
    text = with_limits(OWN)
    first = with_privacy_policy(text + tail, POLICY)
    second = with_privacy_policy(first, POLICY | {"epsilon": 1.0})
    for edited, epsilon in ((first, 3.0), (second, 1.0)):
        assert "max_steps: 2000  # optimiser steps in answer to one order" in edited
        assert edited.startswith(OWN)
        values = yaml.safe_load(edited)
        assert values["policy"]["privacy"] == POLICY | {"epsilon": epsilon}
        assert values["policy"]["runs"] == yaml.safe_load(text)["policy"]["runs"]
        assert values.keys() == {"name", "policy", *(yaml.safe_load(tail) or {})}


@pytest.mark.parametrize(
    "text",
    [
        'name: north\npolicy: {privacy: {epsilon: 9.0}}\ndevice: "policy:"\n',
        "policy:\n    privacy:\n        epsilon: 9.0\nname: north\n",
        "name: north\npolicy:\n  privacy:\n    epsilon: 9.0\n    note: |\n      a\n\n      b",
        "name: north\npolicy:\n",
    ],
)
def test_any_layout_comes_out_with_the_right_values(text):
    before = yaml.safe_load(text)
    rest = {name: value for name, value in before.items() if name != "policy"}
    after = yaml.safe_load(with_limits(with_privacy_policy(text, POLICY)))
    runs = yaml.safe_load(with_limits(OWN))["policy"]["runs"]
    assert after == rest | {"policy": {"privacy": POLICY, "runs": runs}}
