import re

import pytest

from client.preflight.run import read_run, usual_run
from client.privacy.ledger import Ledger
from client.privacy.policy import sign_policy
from configs.compose import compose
from configs.loader import ConfigurationError, load
from protocol.signing import new_key, payload_hash
from server.config import RunConfig
from tests.client.preflight.conftest import run_file
from tests.client.privacy.officer import POLICY


@pytest.fixture
def run_of(tmp_path):
    """The run that these overrides give, through the file that an operator would send."""

    def make(*overrides):
        return read_run(run_file(tmp_path, *overrides))

    return make


def test_a_run_within_the_limits_passes_with_its_hours(site):
    assert site.find("policy").what == "the run is within this site's limits"
    site.limit(hours="19:00-07:00")
    del site.asked
    assert site.find("policy").what == "the run is within this site's limits, at 19:00-07:00"


def test_without_limits_nothing_is_trained(site):
    site.set(policy={})
    found = site.find("policy")
    assert (found.status, found.what) == (
        "fail",
        "site.yaml sets no limits (policy.runs), and without them this site trains nothing",
    )
    assert found.remedy == f"write the usual ones with: mumc-site limits {site.root} --write"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_steps": 1}, "the order's steps is 2, and this site allows at most 1 (policy.runs.max_steps)"),
        ({"max_rounds": 1}, "the order's rounds is 2, and this site allows at most 1 (policy.runs.max_rounds)"),
        ({"privacy": "required"}, "the run is not differentially private, which this site requires"),
        ({"min_records": 1000}, "the site has fewer records of this kind than its own limit asks for"),
        ({"actions": ["train.pretrain"]}, "the order's action is train.finetune, and this site follows train.pretrain"),
        ({"code": ["d" * 64]}, "and this site accepts dddddddddddddddd"),
        ({"secure_aggregation": "required"}, "the run sends updates without masks, and this site requires them"),
    ],
)
def test_a_run_beyond_a_limit_is_told_in_the_words_of_the_site_s_door(site, limits, reason):
    site.limit(**limits)
    found = site.find("policy")
    assert found.status == "fail"
    assert found.what.startswith("the run would be refused: ")
    assert reason in found.what
    assert found.remedy == "change the limits in site.yaml, or ask the operator for a run within them"


@pytest.mark.parametrize(
    ("mode", "peers", "masked"),
    [("auto", 0, False), ("auto", 1, False), ("auto", 2, True), ("required", 0, True), ("off", 4, False)],
)
def test_masks_are_expected_where_the_run_has_them(site, run_of, mode, peers, masked):
    site.limit(secure_aggregation="required", min_sites=1)
    site.run = run_of(f"secagg.mode={mode}")
    site.dial("localhost:9092", peers)
    found = site.find("policy")
    assert found.status == ("pass" if masked else "fail"), found
    assert masked or "sends updates without masks" in found.what


def test_a_federation_smaller_than_the_site_hides_in_is_told(site, run_of):
    site.limit(min_sites=5)
    site.run = run_of("secagg.mode=required")
    site.dial("localhost:9092", 2)
    assert site.find("policy").what == (
        "the run would be refused: the federation has 3 sites, and this site hides among no fewer than 5 "
        "(policy.runs.min_sites)"
    )


def test_a_recipe_is_known_by_the_digest_that_an_order_of_it_has(site, run_of, server):
    site.limit(recipes=[payload_hash(server.pretrain().recipe)])
    assert site.find("policy").status == "pass"
    site.run = run_of("pretrain.batch_size=6")
    del site.asked
    assert "and this site accepts 1 others (policy.runs.recipes)" in site.find("policy").what


def test_the_officer_s_policy_is_held_to_the_run_too(site, run_of):
    Ledger.open(site.root).approve(sign_policy(POLICY, "north", new_key()))
    assert site.find("policy").what == (
        "the run would be refused: the run is not differentially private, and this site's policy demands it for each "
        "patient; set privacy.unit=patient in the run"
    )
    site.run = run_of("privacy=patient")
    del site.asked
    assert site.find("policy").status == "pass"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "is not valid YAML"),
        ("[]", "needs federation, recipe, secagg, vocabulary; ask the operator"),
        ("recipe: {}\nvocabulary: phantom\nfederation: {}\nsecagg: {}", "missing recipe.model"),
    ],
)
def test_a_file_that_is_no_run_is_refused(tmp_path, content, says):
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        read_run(path)


def test_the_usual_run_is_what_the_server_starts_by_itself():
    usual, config = usual_run(), load(RunConfig, compose("run"))
    assert (usual.recipe, usual.vocabulary) == (config.recipe, config.vocabulary)
    assert usual.federation.rounds == config.federation.rounds
