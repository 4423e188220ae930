import pytest
from flwr.app import Context, RecordDict
from PIL import Image

from client.config import SiteConfig, read_site_config
from client.privacy.ledger import Ledger
from client.site import open_folder, open_site
from configs.loader import ConfigurationError
from mumc_model.data.site_writer import SiteWriter
from mumc_model.errors import DataError


def context(**config):
    return Context(run_id=1, node_id=5, node_config=config, state=RecordDict(), run_config={})


@pytest.fixture
def folder(tmp_path):
    with SiteWriter(tmp_path, "north") as writer:
        key = writer.add_image(Image.new("L", (16, 16)), "a")
        writer.add_caption(key, "a chest film", patient_id="p1")
    return tmp_path


def test_a_node_opens_the_folder_that_its_own_configuration_names(folder):
    site = open_site(context(site=str(folder)))
    assert (site.config.name, len(site.data.captions)) == ("north", 1)


def test_a_folder_is_read_once_until_its_files_change(folder):
    first = open_site(context(site=str(folder)))
    assert open_site(context(site=str(folder))) is first
    (folder / "site.yaml").write_text("name: south\n")
    assert open_site(context(site=str(folder))).config.name == "south"


def test_a_node_without_a_folder_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("MUMC_SITE", raising=False)
    with pytest.raises(DataError, match="--node-config"):
        open_site(context())


def test_the_environment_may_name_the_folder(folder, monkeypatch):
    monkeypatch.setenv("MUMC_SITE", str(folder))
    assert open_site(context()).config.name == "north"


def test_an_unknown_key_in_site_yaml_gets_a_did_you_mean(folder):
    (folder / "site.yaml").write_text("name: north\ndevcie: cpu\n")
    with pytest.raises(ConfigurationError, match=r"site.yaml.devcie'; did you mean 'device'"):
        read_site_config(folder)


def test_sites_draw_differently_and_each_the_same_again(folder):
    site = open_site(context(site=str(folder)))
    assert site.seed(3) == site.seed(3) != site.seed(4)
    other = type(site)(root=site.root, config=SiteConfig(name="south"), data=site.data)
    assert other.seed(3) != site.seed(3)


def test_a_withdrawn_patient_is_in_no_record_from_the_next_opening_on(tmp_path):
    with SiteWriter(tmp_path, "north") as writer:
        for patient in ("p1", "p2"):
            key = writer.add_image(Image.new("L", (16, 16)), patient)
            writer.add_caption(key, "a chest film", patient_id=patient)
    assert [record.patient_id for record in open_folder(tmp_path).data.captions] == ["p1", "p2"]
    Ledger.open(tmp_path).exclude("p1")
    assert [record.patient_id for record in open_folder(tmp_path).data.captions] == ["p2"]
    assert open_site(context(site=str(tmp_path))).data.captions[0].patient_id == "p2"
