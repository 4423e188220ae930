"""A whole import, by the command as it is typed, of an archive with one of everything."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.cli import main
from client.intake.archive import Source, walk
from client.intake.burned_in import SECONDARY, Examined
from client.intake.config import IntakeConfig
from client.intake.deidentify import SEEN, deidentify
from client.intake.identity import KEY_FILE, Pseudonyms
from client.intake.provenance import provenance
from client.intake.quarantine import SHEET, decide, waiting, write_sheet
from client.intake.reading import NO_DICOM
from client.intake.reports import NO_STUDY, scrubbed
from client.intake.run import TWICE, import_dicom
from client.intake.scrub import Scrubber
from client.intake.store import Store
from client.intake.taking import NO_PATIENT, STAGING, Taking
from mumc_model.data.records import read_site
from mumc_model.errors import DataError
from tests.client.intake.made import labelled, picture, report, written

CONFIG = IntakeConfig(workers=1)
SURNAME, GIVEN, NUMBER, ACCESSION = "Quastenflosser", "Hieronyma", "MRN-471199", "ACC-88123"
PERSON = {
    "patient": NUMBER,
    "PatientName": f"{SURNAME}^{GIVEN}",
    "PatientBirthDate": "19440217",
    "StudyDate": "20240305",
}
SECRETS = (SURNAME, GIVEN, NUMBER, ACCESSION, "19440217", "20240305")


def slices(rng, count, **attributes):
    """A series of so many different images, too smooth to be taken for text."""
    ramp = np.add.outer(np.arange(48), np.arange(48))
    made = [picture((ramp * 20 + rng.integers(0, 900)).astype(np.uint16), **attributes) for _ in range(count)]
    for number, dataset in enumerate(made, start=1):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = made[0].StudyInstanceUID, made[0].SeriesInstanceUID
        dataset.InstanceNumber = number
    return made


def write(path: Path, content: bytes | str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An export of three patients: CT with a report, X-ray with a text file, ultrasound, and what goes wrong."""
    root, rng = tmp_path_factory.mktemp("archive"), np.random.default_rng(0)
    ct = slices(rng, 5, AccessionNumber=ACCESSION, BodyPartExamined="CHEST", **PERSON)
    for number, dataset in enumerate(ct):
        write(root / SURNAME / "ct" / f"{number}.dcm", written(dataset))
    sentences = [f"A nodule in the left lung of Mrs. {SURNAME}, seen on 05.03.2024."]
    spoken = report(sentences, AccessionNumber=ACCESSION, StudyInstanceUID=ct[0].StudyInstanceUID, **PERSON)
    write(root / SURNAME / "report.dcm", written(spoken))
    (xray,) = slices(rng, 1, patient="MRN-2", modality="DX", PatientName="Zwirbel^Otto")
    write(root / "two" / "a.dcm", written(xray))
    write(root / "two" / "a.txt", "FINDINGS: the heart is enlarged in Zwirbel.\nSIGNED BY: Dr. Nobody")
    (ultrasound,) = slices(rng, 1, patient="MRN-3", modality="US")
    with zipfile.ZipFile(root / "three.zip", "w") as packed:
        packed.writestr("us/1.dcm", written(ultrasound))
        packed.writestr("us/again.dcm", written(ct[0]))
    shown = labelled(np.full((256, 256), 60, dtype=np.uint8), f"{SURNAME} {GIVEN}", place=(0.1, 0.1), size=20, grey=255)
    write(root / "burned.dcm", written(picture(shown, modality="CR", **PERSON)))
    write(root / "nobody.dcm", written(picture(np.eye(16, dtype=np.uint8), patient="")))
    write(root / "cut.dcm", written(ct[1])[:600])
    write(root / "notes.doc", "no DICOM at all")
    write(root / "elsewhere.txt", "a report of nothing")
    return root


@pytest.fixture(scope="module")
def site(archive, tmp_path_factory):
    """The site that the command makes of it, and what the command says."""
    root = tmp_path_factory.mktemp("hospital") / "north"
    found = import_dicom(archive, root, CONFIG)
    return root, found


def contents(root: Path) -> bytes:
    """Every byte of a folder, names of files included; compressed texts of images are read out."""
    parts = []
    for path in sorted(root.rglob("*")):
        parts.append(str(path.relative_to(root)).encode())
        if path.is_file():
            parts.append(path.read_bytes())
        if path.suffix == ".png":
            parts.append(provenance(path).to_json().encode())
    return b"\n".join(parts)


def test_images_with_their_reports_become_captions_and_the_rest_is_counted(site):
    root, found = site
    data = read_site(root)
    captions = {record.labels["modality"]: record.caption for record in data.captions}
    assert captions["CT"].startswith("A nodule in the left lung of Mrs. [NAME]")
    assert captions["DX"] == "the heart is enlarged in [NAME]."
    assert [record.labels["modality"] for record in data.captions].count("CT") == CONFIG.images_a_series
    assert len({record.patient_id for record in data.captions}) == 2
    assert found.images == 7  # five slices, the X-ray, and the one that was painted over
    assert found.waiting == 1
    assert found.captions == len(data.captions) == 4
    expected = {NO_PATIENT: 1, NO_DICOM: 1, NO_STUDY: 1, TWICE: 1}
    assert {reason: found.left_out.get(reason) for reason in expected} == expected
    assert sum(found.left_out.values()) == 5


def test_no_word_of_an_identity_is_in_any_file_of_the_site(site):
    root, _ = site
    everything = contents(root).lower()
    for secret in (*SECRETS, "Zwirbel", "Nobody", "MRN-2"):
        assert secret.lower().encode() not in everything, secret


def test_an_image_says_itself_where_it_comes_from_and_how_it_was_cleaned(site):
    root, _ = site
    with Store(root) as store:
        found = next(found for found in store.pictures() if found.modality == "CT")
    header = provenance(root / found.file)
    assert header.PatientIdentityRemoved == "YES"
    assert header.BurnedInAnnotation == "NO"
    assert {code.CodeValue for code in header.DeidentificationMethodCodeSequence} >= {"113100", "113101", "113107"}
    assert header.PatientID == found.patient
    assert header.PatientAge == "080Y"


def test_the_same_import_again_takes_nothing_and_changes_nothing(archive, site):
    root, first = site
    before = contents(root / "images") + (root / "captions.jsonl").read_bytes()
    again = import_dicom(archive, root, CONFIG)
    assert again.new == 0
    assert (again.images, again.captions, again.waiting) == (first.images, first.captions, first.waiting)
    assert again.left_out.items() <= first.left_out.items()
    assert contents(root / "images") + (root / "captions.jsonl").read_bytes() == before


def test_two_sites_have_other_pseudonyms_of_the_same_patient(archive, site, tmp_path):
    single = archive / SURNAME / "ct" / "0.dcm"
    write(tmp_path / "export" / "0.dcm", single.read_bytes())
    import_dicom(tmp_path / "export", tmp_path / "south", IntakeConfig(workers=1, describe=True))
    ours, theirs = (
        {record.patient_id for record in read_site(root).captions} for root in (site[0], tmp_path / "south")
    )
    assert not ours & theirs
    assert (tmp_path / "south" / KEY_FILE).stat().st_mode & 0o777 == 0o600


@pytest.fixture
def small(tmp_path):
    """An export of three images that may be changed, and the site folder that it goes to."""
    rng = np.random.default_rng(1)
    for number, dataset in enumerate(slices(rng, 2, patient="MRN-9")):
        write(tmp_path / "export" / f"{number}.dcm", written(dataset))
    (us,) = slices(rng, 1, patient="MRN-10", modality="US")
    write(tmp_path / "export" / "us.dcm", written(us))
    return tmp_path / "export", tmp_path / "west"


DESCRIBED = IntakeConfig(workers=1, describe=True)


def test_a_patient_who_left_the_export_leaves_the_site_with_the_images(small):
    export, root = small
    import_dicom(export, root, DESCRIBED)
    (export / "0.dcm").unlink()
    (export / "us.dcm").unlink()
    found = import_dicom(export, root, DESCRIBED)
    assert (found.images, found.waiting, found.captions) == (1, 0, 1)
    assert len(list((root / "images" / "dicom").iterdir())) == 1
    assert not list((root / "quarantine").glob("*.png"))


def test_what_waits_is_released_by_a_person_and_noted_with_the_name(small):
    export, root = small
    import_dicom(export, root, DESCRIBED)
    (item,) = waiting(root)
    assert item.reason == "its modality is US"
    with Image.open(root / item.record.file) as image:
        before = np.asarray(image)
    assert "BurnedInAnnotation" not in provenance(root / item.record.file)
    page = write_sheet(root).read_text()
    assert item.name in page
    assert "data:image/png;base64," in page
    assert decide(root, [item.name], "released", reason="a phantom", person="ada") == 3
    assert waiting(root) == []
    assert [record.labels["modality"] for record in read_site(root).captions].count("US") == 1
    with Store(root) as store:
        assert store.decisions()[0][3:] == ("released", "a phantom", "ada")
    here = root / f"images/dicom/{item.record.name}.png"
    with Image.open(here) as image:
        assert np.array_equal(np.asarray(image), before)
    header = provenance(here)
    assert SEEN in header.DeidentificationMethod
    assert header.BurnedInAnnotation == "NO"
    assert "113101" in {code.CodeValue for code in header.DeidentificationMethodCodeSequence}
    again = import_dicom(export, root, DESCRIBED)
    assert (again.waiting, again.captions) == (0, 3)


def test_what_is_rejected_is_deleted_and_stays_away(small):
    export, root = small
    import_dicom(export, root, DESCRIBED)
    (item,) = waiting(root)
    assert decide(root, [item.name], "rejected") == 2
    assert not (root / item.record.file).exists()
    assert import_dicom(export, root, DESCRIBED).captions == 2
    with pytest.raises(DataError, match=f"nothing waits under {item.name}"):
        decide(root, [item.name], "released")


def test_export_and_site_in_one_another_are_refused(small, tmp_path):
    export, _ = small
    for root in (export / "site", tmp_path):
        with pytest.raises(DataError, match="lie one in the other"):
            import_dicom(export, root, DESCRIBED)
    with pytest.raises(DataError, match="there is nothing at the source"):
        import_dicom(tmp_path / "none", tmp_path / "site", DESCRIBED)


def test_a_site_of_single_images_takes_no_patients(small):
    export, root = small
    write(root / "site.yaml", "name: west\nunit: image\n")
    with pytest.raises(DataError, match="set `unit: patient`"):
        import_dicom(export, root, DESCRIBED)


def test_an_import_that_is_killed_goes_on_where_it_was(tmp_path):
    rng = np.random.default_rng(2)
    for number, dataset in enumerate(slices(rng, 6, patient="MRN-9")):
        write(tmp_path / "export" / f"{number:02d}.dcm", written(dataset))
    root = tmp_path / "east"
    program = (
        "import client.intake.run as run, pathlib\nrun._COMMIT = 1\nfrom client.intake.config import IntakeConfig\n"
        f"run.import_dicom(pathlib.Path({str(tmp_path / 'export')!r}), pathlib.Path({str(root)!r}),"
        " IntakeConfig(workers=1, describe=True), lambda done, found: print(done, flush=True))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(f"if __name__ == '__main__':\n    {program.replace(chr(10), chr(10) + '    ')}\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 2:
            process.send_signal(signal.SIGKILL)
            break
    process.wait(20)
    process.stdout.close()
    time.sleep(0.5)
    assert not (root / "captions.jsonl").exists()
    found = import_dicom(tmp_path / "export", root, DESCRIBED)
    assert 0 < found.new <= 4
    assert found.images == 6
    straight = import_dicom(tmp_path / "export", tmp_path / "other", DESCRIBED)
    assert (found.images, found.captions) == (straight.images, straight.captions)


def test_the_command_says_what_came_of_it_and_its_quarantine_is_decided_there(small, typed):
    export, root = small
    code, out, err = typed(main, "mumc-site", "import", "dicom", export, root, "-o", "workers=1", "-o", "describe=true")
    assert (code, err) == (0, "")
    assert "3 files, 3 of them new; 2 images, 2 with a caption" in out
    assert "1 wait for a person: mumc-site quarantine sheet" in out
    _, listed, _ = typed(main, "mumc-site", "quarantine", "list", root, "--json")
    (item,) = json.loads(listed)
    _, out, _ = typed(main, "mumc-site", "quarantine", "sheet", root)
    assert SHEET in out
    _, out, _ = typed(main, "mumc-site", "quarantine", "release", root, item["name"], "--reason", "seen")
    assert "released: 1; the site has 3 captioned images" in out
    code, _, err = typed(main, "mumc-site", "import", "dicom", export, root, "-o", "windw=lung")
    assert code == 2
    assert "did you mean 'window'" in err
    code, _, err = typed(main, "mumc-site", "import", "dicom", export, root, "-o", "window=lungs")
    assert code == 2
    assert "intake.window is 'lungs'; write one of abdomen" in err


def test_a_secondary_capture_waits_whatever_is_on_it(tmp_path):
    capture = picture(np.tile(np.arange(64, dtype=np.uint8), (64, 1)), modality="CT", ConversionType="WSD")
    write(tmp_path / "export" / "1.dcm", written(capture))
    import_dicom(tmp_path / "export", tmp_path / "site", DESCRIBED)
    assert [item.reason for item in waiting(tmp_path / "site")] == [SECONDARY]
    with Image.open(tmp_path / "site" / waiting(tmp_path / "site")[0].record.file) as image:
        assert image.size == (64, 64)


def only_source(export: Path) -> Source:
    (found,) = walk(export, IntakeConfig())
    assert isinstance(found, Source)
    return found


def test_an_object_of_many_frames_is_de_identified_once_and_every_frame_says_what_was_found_in_it(
    tmp_path, monkeypatch
):
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    frames = np.stack([ramp, ramp + 9, ramp + 20])
    content = written(picture(frames, frames=3, modality="MR", PatientName=SURNAME))
    write(tmp_path / "export" / "1.dcm", content)
    taking = Taking(tmp_path / "site", IntakeConfig(frames="all"), b"k" * 32, frozenset())
    (tmp_path / "site" / STAGING).mkdir(parents=True)
    cleaned, found = [], iter(["clean", "waiting", "clean"])
    monkeypatch.setattr("client.intake.taking.deidentify", lambda *_, **__: cleaned.append(1) or deidentify(*_, **__))
    monkeypatch.setattr("client.intake.burned_in.examine", lambda pixels, *_: Examined(pixels, next(found)))
    taken = taking.take(only_source(tmp_path / "export"), "digest")
    assert [picture.verdict for picture in taken.pictures] == ["clean", "waiting", "clean"]
    assert cleaned == [1]
    headers = [provenance(tmp_path / "site" / picture.file) for picture in taken.pictures]
    assert [header.get("BurnedInAnnotation") for header in headers] == ["NO", None, "NO"]
    codes = [{code.CodeValue for code in header.DeidentificationMethodCodeSequence} for header in headers]
    assert ["113101" in said for said in codes] == [True, False, True]


def test_what_reads_a_structured_report_hands_it_on_and_leaves_the_cleaning_to_one_process(tmp_path):
    write(tmp_path / "export" / "1.dcm", written(report([f"Seen: {SURNAME}."], PatientName=SURNAME, patient="P1")))
    taking = Taking(tmp_path, IntakeConfig(), b"k" * 32, frozenset())
    taken = taking.take(only_source(tmp_path / "export"), "digest")
    assert taken.spoken is not None
    assert SURNAME in taken.spoken.text
    done = scrubbed(taken, Scrubber(frozenset(), IntakeConfig()), Pseudonyms(b"k" * 32))
    assert done.spoken is None
    assert [text.text for text in done.texts] == ["Seen: [NAME]."]


def test_a_person_without_a_name_in_the_list_of_users_decides_by_their_number(small, monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 4711")

    export, root = small
    monkeypatch.setattr("getpass.getuser", nameless)
    for number in range(2):
        (export / f"{number}.dcm").unlink()
    import_dicom(export, root, DESCRIBED)
    (item,) = waiting(root)
    decide(root, [item.name], "rejected")
    with Store(root) as store:
        assert store.decisions()[0][-1] == str(os.getuid())
