import dataclasses
from datetime import date, timedelta

import pytest
import yaml

from client.config import read_site_config
from client.privacy.errors import PolicyError
from client.privacy.policy import check_run, read_policy, sign_policy, write_policy
from mumc_model.data.site_writer import SiteWriter
from mumc_model.privacy import PrivacyConfig
from protocol.signing import new_key
from tests.client.privacy.officer import NAME, POLICY, policy, write_site

KEY = new_key()
RUN = PrivacyConfig(unit="patient", noise_multiplier=1.0)
YESTERDAY = (date.today() - timedelta(days=1)).isoformat()


@pytest.fixture
def root(tmp_path):
    return write_site(tmp_path / "site")


def edit(root, **changes):
    path = root / "site.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["policy"]["privacy"] |= changes
    path.write_text(yaml.safe_dump(settings))


def test_a_site_without_a_policy_has_none(root):
    assert read_policy(root) is None
    (root / "site.yaml").write_text(f"name: {NAME}\npolicy: {{}}\n")
    assert read_policy(root) is None


def test_a_signed_policy_is_read_back_from_site_yaml(root):
    signed = sign_policy(policy(epsilon=8, expires="2099-12-31", noise_multiplier=1), NAME, KEY)
    write_policy(root, signed)
    assert read_policy(root) == signed


def test_writing_a_policy_keeps_every_other_line_and_replaces_an_earlier_policy(root):
    before = (root / "site.yaml").read_text()
    for number in (1, 2):
        write_policy(root, sign_policy(policy(number), NAME, KEY))
    text = (root / "site.yaml").read_text()
    assert text.startswith(before)
    assert text.count("policy:") == 1
    assert read_policy(root) == sign_policy(policy(2), NAME, KEY)


@pytest.mark.parametrize(
    "text",
    [
        "policy: {privacy: null}\nname: north # ours\n",
        "name: north\npolicy:\n  # none yet\n\n  privacy:\nunit: patient",
        "{name: north, device: cpu}\n",
        "---\nname: north\n...\n",
    ],
)
def test_a_policy_finds_its_place_in_any_spelling_of_site_yaml(root, text):
    (root / "site.yaml").write_text(text)
    kept = {name: value for name, value in yaml.safe_load(text).items() if name != "policy"}
    signed = sign_policy(policy(), NAME, KEY)
    write_policy(root, signed)
    assert read_policy(root) == signed
    assert {**yaml.safe_load((root / "site.yaml").read_text()), "policy": 0} == {**kept, "policy": 0}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unit", "record"),
        ("units", 2000),
        ("epsilon", 60.0),
        ("delta", 2e-6),
        ("noise_multiplier", 0.1),
        ("expires", "2099-01-01"),
        ("officer", "Charles Babbage"),
        ("role", "nobody"),
        ("reason", "because"),
        ("approved", "2027-01-01T00:00:00+00:00"),
        ("public_key", "00" * 32),
        ("signature", "00" * 64),
    ],
)
def test_a_policy_is_refused_after_any_field_was_edited(root, field, value):
    assert {found.name for found in dataclasses.fields(POLICY)} >= {field}
    write_policy(root, sign_policy(policy(noise_multiplier=0.5), NAME, KEY))
    edit(root, **{field: value})
    with pytest.raises(PolicyError, match="not signed as it stands"):
        read_policy(root)


def test_a_policy_is_good_for_the_site_that_it_names_only(root):
    write_policy(root, sign_policy(policy(), "south", KEY))
    with pytest.raises(PolicyError, match="for the site 'north'"):
        read_policy(root)


def test_a_policy_for_patients_is_refused_where_the_site_no_longer_knows_them(root):
    write_policy(root, sign_policy(policy(), NAME, KEY))
    text = (root / "site.yaml").read_text()
    (root / "site.yaml").write_text(text.replace("unit: patient\ndevice", "unit: image\ndevice"))
    with pytest.raises(PolicyError, match="the policy protects patients"):
        read_policy(root)


def test_an_unsigned_policy_and_an_unknown_field_are_refused(root):
    write_policy(root, policy())
    with pytest.raises(PolicyError, match="not signed"):
        read_policy(root)
    write_policy(root, sign_policy(policy(), NAME, KEY))
    edit(root, epsilom=3.0)
    with pytest.raises(PolicyError, match="did you mean 'epsilon'"):
        read_policy(root)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"units": 100_001}, "100,001 patients; choose at most 1/"),
        ({"delta": 2e-6, "units": 100_000}, "delta 2e-06 is too large"),
        ({"units": 0}, "units is 0"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": float("inf")}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"delta": 0.0}, "delta"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"unit": "image"}, "patient or record"),
        ({"expires": "soon"}, "expires"),
        ({"approved": "2026-01-01"}, "approved"),
        ({"officer": ""}, "officer"),
        ({"reason": "two\nlines"}, "reason"),
    ],
)
def test_a_policy_that_protects_nothing_cannot_be_made(changes, words):
    with pytest.raises(PolicyError, match=words):
        dataclasses.replace(POLICY, **changes)


def test_delta_may_be_one_tenth_of_a_unit_exactly():
    assert dataclasses.replace(POLICY, units=100_000, delta=1e-6).delta == 1e-6


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"unit": "none"}, "demands it for each patient"),
        ({"unit": "record"}, "single records"),
        ({"noise_multiplier": 0.79}, "at least 0.8"),
    ],
)
def test_a_run_that_protects_less_than_the_policy_is_refused(run, words):
    check_run(policy(noise_multiplier=0.8), dataclasses.replace(RUN, noise_multiplier=0.8))
    with pytest.raises(PolicyError, match=words):
        check_run(policy(noise_multiplier=0.8), dataclasses.replace(RUN, **run))


def test_a_run_may_protect_more_than_the_policy():
    check_run(policy(unit="record", noise_multiplier=0.8), RUN)


def test_a_private_run_needs_a_policy_and_a_plain_run_needs_none():
    check_run(None, PrivacyConfig())
    with pytest.raises(PolicyError, match="no signed policy"):
        check_run(None, RUN)


def test_nothing_runs_after_the_policys_last_day():
    check_run(policy(expires=date.today().isoformat()), RUN)
    with pytest.raises(PolicyError, match=f"ended on {YESTERDAY}"):
        check_run(policy(expires=YESTERDAY), RUN)


def test_importing_another_data_set_keeps_the_policy(root):
    from PIL import Image

    signed = sign_policy(policy(), NAME, KEY)
    write_policy(root, signed)
    for source in ("", "more"):
        with SiteWriter(root, "another name", source=source) as writer:
            key = writer.add_image(Image.new("L", (8, 8)), "one")
            writer.add_caption(key, "a black square", patient_id="p1")
    assert read_policy(root) == signed
    assert read_site_config(root).device == "cpu"
