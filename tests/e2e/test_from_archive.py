"""From a hospital's DICOM export to a trained round: imported, checked, rehearsed, trained, by the commands alone."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mumc_model.data.records import read_site
from protocol.flower import free_port
from tests.client.intake.made import picture, written
from tests.e2e.deployment import BIN, Started, call, lines_of, wait_for
from tests.e2e.one_site import SITE, found, start_server

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(1200)]

RUN = ("experiment=smoke", "model=tiny", "run_id=trial", "pretrain.batch_size=8", "federation.rounds=1")
MORE = ("federation.local_steps=2", "federation.min_sites=1", "federation.round_timeout_s=400")
SURNAME = "Quastenflosser"


def from_archive(site):
    """Put an export of the site's own pictures, with a table of reports, in the place of its captions."""
    archive = site.parent.parent / "archive"
    archive.mkdir()
    data = read_site(site)
    with (archive.parent / "reports.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["accession", "text"])
        for number, record in enumerate(data.captions):
            pixels = np.asarray(Image.open(record.image).convert("L"))
            facts = {"PatientName": f"{SURNAME}^Ada", "AccessionNumber": f"A{number:05d}", "InstanceNumber": 1}
            dataset = picture(pixels, patient=record.patient_id, modality="CR", BodyPartExamined="CHEST", **facts)
            (archive / f"{number}.dcm").write_bytes(written(dataset))
            rows.writerow([f"A{number:05d}", f"{record.caption} In Mrs. {SURNAME}."])
    (site / "captions.jsonl").write_text("")
    said = call("mumc-site", "import", "dicom", archive, site, "-o", f"reports={archive.parent / 'reports.csv'}")
    # What may be text is left to a person, who sees here that it is none.
    if "wait for a person" in said:
        call("mumc-site", "quarantine", "sheet", site)
        call("mumc-site", "quarantine", "release", site, "--all", "--reason", "phantoms")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The whole way, and what was said on it."""
    place = tmp_path_factory.mktemp("archive")
    federation = found(place, f"127.0.0.1:{free_port()}", plant=from_archive)
    started = [start_server(federation)]
    try:
        checked = call("mumc-site", "check", federation.site, "--json", timeout=300)
        started.append(Started(place / "site.log", BIN / "mumc-site", "start", federation.site))
        wait_for(
            lambda: f"rehearsal\n{started[0].text}\n{started[1].text}",
            lambda: [*federation.hub.glob("runs/rehearsal-*/result.json")],
            seconds=500,
        )
        told = call("mumc-server", "run", federation.hub, *RUN, *MORE, timeout=900)
        yield SimpleNamespace(federation=federation, checked=json.loads(checked), told=told)
    finally:
        for one in reversed(started):
            one.stop()


def test_every_caption_of_the_site_comes_from_the_archive(story):
    data = read_site(story.federation.site)
    assert len(data.captions) == len([*(story.federation.place / "archive").iterdir()]) > 20
    assert {data.key(record).rsplit("/", 1)[0] for record in data.captions} == {"images/dicom"}
    assert all(record.labels == {"modality": "CR", "organ": "chest"} for record in data.captions)


def test_the_site_passes_its_check_and_trains_a_round_on_it(story):
    failed = [check for check in story.checked["checks"] if check["status"] == "fail"]
    assert failed == []
    (journal,) = lines_of(story.federation.hub / "runs" / "trial" / "journal.jsonl")
    assert journal["merged"] == [SITE]


def test_no_name_of_the_archive_is_in_the_site(story):
    for path in story.federation.site.rglob("*"):
        if path.is_file():
            assert SURNAME.lower().encode() not in path.read_bytes().lower(), path.name
