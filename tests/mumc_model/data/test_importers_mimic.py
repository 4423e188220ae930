import gzip

import pytest
from PIL import Image

from mumc_model.data.importers import IMPORTERS
from mumc_model.data.importers.mimic_cxr_report import caption_of
from mumc_model.data.records import read_site
from mumc_model.errors import ConfigError, DataError

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough  // r/o pneumonia

 COMPARISON:  ___

 FINDINGS:

 In comparison with the study of ___, there is no change.
 LUNGS:  Clear.  Dr. ___ was told at 12:30.

 IMPRESSION:

 No acute process.

 NOTIFICATION:  Told to ___ by phone.
"""
SUBJECT, STUDY = "10000032", "50414267"
METADATA = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition\n"


def dicom_id(number):
    return f"{number:08x}-02aa804e"


def make_set(root, views=("PA", "LATERAL", "AP"), splits=("train", "train", "validate"), report=REPORT):
    folder = root / f"files/p10/p{SUBJECT}/s{STUDY}"
    folder.mkdir(parents=True)
    metadata, dealt = METADATA, "dicom_id,study_id,subject_id,split\n"
    for number, (view, split) in enumerate(zip(views, splits, strict=True)):
        Image.new("L", (12, 8), number).save(folder / f"{dicom_id(number)}.jpg")
        metadata += f'{dicom_id(number)},{SUBJECT},{STUDY},"CHEST (PA AND LAT)",{view}\n'
        dealt += f"{dicom_id(number)},{STUDY},{SUBJECT},{split}\n"
    with gzip.open(root / "mimic-cxr-2.0.0-metadata.csv.gz", "wt") as file:
        file.write(metadata)
    (root / "mimic-cxr-2.0.0-split.csv").write_text(dealt)
    folder.with_suffix(".txt").write_text(report)
    return root


def bring_in(tmp_path, **options):
    summary = IMPORTERS["mimic_cxr_jpg"](tmp_path / "set", tmp_path / "site", **options)
    return summary, read_site(tmp_path / "site")


def test_findings_and_impression_become_the_caption_and_the_subject_the_patient(tmp_path):
    make_set(tmp_path / "set")
    summary, data = bring_in(tmp_path)
    (record,) = data.captions
    assert data.unit == "patient"
    assert record.patient_id == f"p{SUBJECT}"
    assert record.caption == (
        "In comparison with the study of, there is no change. lungs: Clear. Dr. was told at 12:30. No acute process."
    )
    assert record.labels == {"modality": "x-ray", "organ": "chest", "split": "train", "view": "pa"}
    assert summary.left_out == {"another view": 1, "another split": 1}


@pytest.mark.parametrize(
    ("sections", "marks", "caption"),
    [
        (["impression"], "remove", "No acute process."),
        (["indication"], "remove", "F with cough // r/o pneumonia"),
        (["indication"], "keep", "___F with cough // r/o pneumonia"),
        (["findings", "impression"], "sentence", "lungs: Clear. Dr. No acute process."),
        (["wet read"], "remove", ""),
    ],
)
def test_a_caption_is_the_sections_asked_for_and_the_owners_marks_go_as_asked(sections, marks, caption):
    assert caption_of(REPORT, sections, marks) == caption


def test_one_heading_for_both_sections_is_taken_once():
    assert caption_of(" FINDINGS AND IMPRESSION:  Clear.\n", ["findings", "impression"], "remove") == "Clear."
    assert caption_of("no heading at all", ["findings"], "remove") == ""
    assert caption_of(" CONCLUSION:  Clear.\n", ["impression"], "remove") == "Clear."


def test_views_and_splits_are_taken_as_asked_for(tmp_path):
    make_set(tmp_path / "set")
    assert bring_in(tmp_path, views="lateral")[0].captions == 1
    _, data = bring_in(tmp_path, views="all", splits="train,validate,test")
    assert [record.labels["split"] for record in data.captions] == ["train", "train", "val"]
    with pytest.raises(ConfigError, match="no split 'val'; choose among train, validate, test"):
        bring_in(tmp_path, splits="val")
    with pytest.raises(ConfigError, match="choose one of remove, sentence, keep"):
        bring_in(tmp_path, marks="drop")


def test_labels_of_chexpert_name_what_is_present_and_leave_out_what_is_uncertain(tmp_path):
    make_set(tmp_path / "set")
    header = "subject_id,study_id,Edema,Lung Opacity,Pneumonia,Fracture\n"
    (tmp_path / "set/mimic-cxr-2.0.0-chexpert.csv").write_text(header + f"{SUBJECT},{STUDY},1.0,1.0,-1.0,0.0\n")
    assert bring_in(tmp_path)[1].captions[0].labels["findings"] == "edema, lung opacity"


def test_reports_may_lie_in_a_folder_of_their_own_and_missing_or_unusable_ones_are_counted(tmp_path):
    make_set(tmp_path / "set")
    report = tmp_path / f"set/files/p10/p{SUBJECT}/s{STUDY}.txt"
    elsewhere = tmp_path / f"reports/files/p10/p{SUBJECT}/s{STUDY}.txt"
    elsewhere.parent.mkdir(parents=True)
    report.rename(elsewhere)
    assert bring_in(tmp_path, reports=str(tmp_path / "reports"))[0].captions == 1
    for content, reason in (
        (None, "report missing"),
        (b" HISTORY: none\n", "report without the sections asked for"),
        (b" FINDINGS: M\xfcller\n", "report is not UTF-8"),
        (b" FINDINGS: " + b"x" * 300_000, "report too long"),
    ):
        if content:
            report.write_bytes(content)
        with pytest.raises(DataError, match=f"another split 1, another view 1, {reason} 1"):
            bring_in(tmp_path)


def test_identifiers_that_would_climb_out_of_the_set_are_no_rows(tmp_path):
    make_set(tmp_path / "set")
    (tmp_path / "secret.txt").write_text(REPORT)
    rows = [f"{dicom_id(0)},../../secret,{STUDY},c,PA", f"{dicom_id(0)},{SUBJECT},../../../../secret,c,PA", "../a,1"]
    (tmp_path / "set/mimic-cxr-2.0.0-metadata.csv").write_text(METADATA + "\n".join(rows))
    with pytest.raises(DataError, match=r"nothing could be imported \(another split 1, not a row 2\)"):
        bring_in(tmp_path)


@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: content[:60] + b"\xff" * 40])
def test_a_damaged_table_is_refused_by_name(tmp_path, damage):
    make_set(tmp_path / "set")
    path = tmp_path / "set/mimic-cxr-2.0.0-metadata.csv.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"mimic-cxr-2.0.0-metadata.csv.gz (cannot be read to its end|has no column)"):
        bring_in(tmp_path)


def test_tables_that_are_missing_or_lack_a_column_are_named(tmp_path):
    make_set(tmp_path / "set")
    (tmp_path / "set/mimic-cxr-2.0.0-split.csv").write_text("dicom_id,study_id\n")
    with pytest.raises(DataError, match=r"mimic-cxr-2.0.0-split.csv has no column split"):
        bring_in(tmp_path)
    (tmp_path / "set/mimic-cxr-2.0.0-split.csv").unlink()
    with pytest.raises(DataError, match=r"no mimic-cxr-2.0.0-split.csv or .csv.gz; check that its folder is complete"):
        bring_in(tmp_path)
