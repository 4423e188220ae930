import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mumc_model.data import site_writer
from mumc_model.data.importers import IMPORTERS
from mumc_model.data.importers.vqa_med_caption import compose_caption
from mumc_model.data.records import read_site
from mumc_model.errors import ConfigError, DataError

CANARY = "Zebediah-Quux-1931"


def picture(path, shade=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (12, 8), shade).save(path)


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def vqa_rad_source(root):
    row = {"image_name": "synpic1.jpg", "image_organ": "HEAD", "answer": 3, "answer_type": "CLOSED ", "question": "q?"}
    picture(root / "images/synpic1.jpg")
    (root / "trainset.json").write_text(
        json.dumps(
            [
                row | {"question_type": "PRSE, POS"},
                row | {"question_type": "Other", "image_name": "../x.jpg"},
                row | {"image_name": "gone.jpg", "question_type": "PRES"},
                row | {"answer_type": "MAYBE", "question_type": "PRES"},
                7,
            ]
        )
    )
    (root / "testset.json").write_text(json.dumps([row | {"question_type": "ORGAN", "answer": "brain"}]))
    return root


def slake_source(root):
    row = {"question": "q?", "answer": "CT", "answer_type": "OPEN", "content_type": "Modality", "modality": "CT"}
    for number in (1, 2):
        picture(root / f"imgs/xmlab{number}/source.jpg")
    english = row | {"q_lang": "en", "img_name": "xmlab1/source.jpg", "location": "Chest_heart"}
    chinese = english | {"q_lang": "zh"}
    climbing = english | {"img_name": "../../x.jpg"}
    for name, rows in (("train", [english]), ("validate", [climbing]), ("test", [chinese])):
        (root / f"{name}.json").write_text(json.dumps(rows))
    return root


def vqa_med_source(root):
    for folder, split, images in (
        ("training", "train", "train_images"),
        ("validation", "val", "val_images"),
        ("testing", "test", "VQAMed2019_Test_Images"),
    ):
        picture(root / folder / images / f"synpic_{split}.jpg")
        answers = ("is this a ct scan?|yes", "what plane?|axial", "which organ?|breast", "what is wrong?|a cyst (big)")
        categories = ("Modality", "Plane", "Organ", "Abnormality")
        for number, (category, answer) in enumerate(zip(categories, answers, strict=True), start=1):
            lines(
                root / folder / "QAPairsByCategory" / f"C{number}_{category}_{split}.txt",
                f"synpic_{split}|{answer}\n",
                f"synpic15006|{answer}\n",
                "not a row\n",
            )
    lines(
        root / "testing/VQAMed2019_Test_Questions_w_Ref_Answers.txt",
        "synpic_test|organ|which organ?|face#skull\n",
        "synpic_test|modality|what is it?|ct (with contrast)\n",
    )
    return root


def pathvqa_source(root):
    for split in ("train", "val", "test"):
        picture(root / f"pvqa/images/{split}/{split}_0001.jpg")
        lines(
            root / f"pvqa/qas/{split}/{split}_qa.jsonl",
            {"image": f"{split}_0001", "question": "Is it a liver?", "answer": "yes"},
            {"img_id": f"{split}_0001", "sent": "what is shown?", "label": {"liver": 1}, "answer_type": "other"},
            {"image": f"../{split}_0001", "question": "what?", "answer": "a"},
        )
    return root


def roco_source(root):
    for split in ("train", "validation", "test"):
        folder = root / "data" / split / "radiology"
        picture(folder / f"images/ROCO_{split}.jpg")
        lines(folder / "captions.txt", f"ROCO_{split}\t A scan of {split}.\n", "ROCO_9\t not fetched\n", "no tab\n")
        lines(folder / "licences.txt", "ROCO_ID,PMC_ID,CC\n", f"ROCO_{split},PMC1_a,b.jpg,CC BY\n")
    return root


def csv_source(root):
    for name in ("a.png", "sub/b.png"):
        picture(root / name)
    lines(
        root / "table.csv",
        "image;report;mrn;modality;question;answer\n",
        'a.png;"Effusion; left\nand right";p1;ct;is it so?;No\n',
        "sub/b.png;;p2;;where?;left\n",
        "../a.png;outside;p1;ct;;\n",
        "a.png;no patient;;ct;;\n",
        "a.png;;p1;ct;;\n",
        ";no image;p1;ct;;\n",
        "gone.png;gone;p1;ct;;\n",
    )
    return root


def jsonl_source(root):
    row = {"image": "a.png", "report": "Effusion", "mrn": 17, "modality": "ct", "question": "so?", "answer": "No"}
    picture(root / "a.png")
    lines(root / "table.jsonl", row, row | {"image": "gone.png"}, row | {"mrn": None}, row | {"report": ["a"]})
    return root


def mimic_source(root):
    study = "files/p10/p10000032/s50414267"
    header = "dicom_id,subject_id,study_id,ViewPosition,Rows\n"
    names = [f"0000000{number}-aaaa" for number in range(4)]
    for name in names:
        picture(root / study / f"{name}.jpg")
    lines(root / f"{study}.txt", " FINAL REPORT\n INDICATION: ___F\n\n FINDINGS:\n No change\n since ___.\n")
    views = ("PA", "AP", "LATERAL", "")
    rows = [f"{name},10000032,50414267,{view},9\n" for name, view in zip(names, views, strict=True)]
    rows += [f"{names[0]},../../etc,50414267,PA,9\n", f"{names[0]},10000032,50414268,PA,9\n"]
    lines(root / "mimic-cxr-2.0.0-metadata.csv", header, *rows)
    dealt = [
        f"{name},50414267,10000032,{split}\n" for name, split in zip(names, ["train", "validate"] * 2, strict=True)
    ]
    lines(root / "mimic-cxr-2.0.0-split.csv", "dicom_id,study_id,subject_id,split\n", *dealt)
    with gzip.open(root / "mimic-cxr-2.0.0-chexpert.csv.gz", "wt") as file:
        file.write("subject_id,study_id,Edema,Pneumonia,No Finding\n10000032,50414267,1.0,-1.0,\n")
    return root


def parquet_source(root):
    picture(root / "data/a.png")
    content = (root / "data/a.png").read_bytes()
    images = [
        {"bytes": content, "path": None},
        {"bytes": None, "path": "data/a.png"},
        None,
        {"bytes": None, "path": ""},
    ]
    columns = {"image": images, "question": ["so?"] * 4, "answer": ["yes"] * 4, "text": ["a lung"] * 4}
    for name in ("train-00000-of-00001", "validation-00000-of-00001"):
        pq.write_table(pa.table(columns), root / f"data/{name}.parquet")
    return root


SOURCES = {
    "vqa_rad": (vqa_rad_source, {}),
    "slake": (slake_source, {}),
    "vqa_med_2019": (vqa_med_source, {}),
    "pathvqa": (pathvqa_source, {}),
    "roco": (roco_source, {}),
    "csv_table": (csv_source, {"columns": "caption=report,patient_id=mrn"}),
    "jsonl_table": (jsonl_source, {"columns": "caption=report,patient_id=mrn"}),
    "mimic_cxr_jpg": (mimic_source, {}),
    "parquet": (parquet_source, {"columns": "caption=text"}),
}


def load(tmp_path, name, **options):
    make, default = SOURCES[name]
    source = make(tmp_path / CANARY)
    summary = IMPORTERS[name](source, tmp_path / "site", **(default | options))
    return summary, read_site(tmp_path / "site")


def test_every_importer_is_tested_here_and_describes_itself_in_one_line():
    assert set(SOURCES) == set(IMPORTERS)
    for function in IMPORTERS.values():
        assert function.__doc__.splitlines()[0].rstrip().endswith(".")


@pytest.mark.parametrize("name", IMPORTERS)
def test_an_import_counts_what_it_wrote_and_a_second_one_changes_nothing(tmp_path, name):
    summary, data = load(tmp_path, name)
    assert (summary.captions, summary.questions) == (len(data.captions), len(data.vqa))
    assert summary.images == len(data.image_keys)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "site").rglob("*") if path.is_file()}
    again = IMPORTERS[name](tmp_path / CANARY, tmp_path / "site", **SOURCES[name][1])
    assert again == summary
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "site").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", IMPORTERS)
def test_a_second_import_of_an_unchanged_source_decodes_no_image(tmp_path, name, monkeypatch):
    summary, _ = load(tmp_path, name)
    monkeypatch.setattr(site_writer, "stored_form", None)
    seen = []
    again = IMPORTERS[name](
        tmp_path / CANARY, tmp_path / "site", on_progress=lambda *step: seen.append(step), **SOURCES[name][1]
    )
    assert again == summary
    assert seen[-1] == (summary.images, summary.images)


@pytest.mark.parametrize("name", IMPORTERS)
def test_progress_is_shown_to_the_last_image(tmp_path, name):
    seen = []
    summary, _ = load(tmp_path, name, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, summary.images) for done in range(1, summary.images + 1)]


@pytest.mark.parametrize("name", IMPORTERS)
def test_options_may_be_text_and_unknown_or_impossible_ones_are_refused_with_the_nearest(tmp_path, name):
    load(tmp_path, name, max_side="8")
    with pytest.raises(ConfigError, match="no option 'max_sid'; did you mean 'max_side'"):
        load(tmp_path, name, max_sid=8)
    with pytest.raises(ConfigError, match="max_side is 'wide', but must be of type int"):
        load(tmp_path, name, max_side="wide")


@pytest.mark.parametrize("name", IMPORTERS)
def test_a_source_that_is_not_this_set_is_refused_without_naming_it_and_the_site_stays(tmp_path, name):
    load(tmp_path, name)
    before = (tmp_path / "site/vqa.jsonl").read_bytes()
    (tmp_path / f"empty-{CANARY}").mkdir()
    for source in (tmp_path / f"empty-{CANARY}", tmp_path / f"absent-{CANARY}"):
        with pytest.raises(DataError) as caught:
            IMPORTERS[name](source, tmp_path / "site")
        assert CANARY not in str(caught.value)
    assert (tmp_path / "site/vqa.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "name", sorted(IMPORTERS.keys() - {"parquet"})
)  # Its images are inside the file with the rows.
def test_images_alone_missing_means_nothing_could_be_imported(tmp_path, name):
    make, options = SOURCES[name]
    source = make(tmp_path / CANARY)
    for path in [*source.rglob("*.jpg"), *source.rglob("*.png")]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="nothing could be imported") as caught:
        IMPORTERS[name](source, tmp_path / "site", **options)
    assert CANARY not in str(caught.value)
    assert "image unreadable" in str(caught.value)


def test_vqa_rad_rows_are_repaired_where_that_is_safe_and_counted_where_not(tmp_path):
    summary, data = load(tmp_path, "vqa_rad")
    assert summary.left_out == {"no image name": 1, "image missing": 1, "unknown answer type": 1, "not an object": 1}
    first, second = data.vqa
    assert (first.answer, first.answer_type, first.question_type) == ("3", "CLOSED", "PRES")
    assert (second.split, second.labels) == ("test", {"organ": "head", "protocol": "vqa_rad_mevf"})
    with pytest.raises(ConfigError, match="choose one of mevf, official, image_disjoint"):
        load(tmp_path, "vqa_rad", split="random")


def test_slake_questions_in_both_languages_follow_the_english_split_of_their_image(tmp_path):
    summary, data = load(tmp_path, "slake")
    assert summary.left_out == {"question in another language": 1, "image outside the folder": 1}
    assert data.vqa[0].labels == {"modality": "ct", "organ": "chest", "protocol": "slake_en"}
    _, data = load(tmp_path, "slake", language="both")
    assert [record.split for record in data.vqa] == ["train", "train"]
    _, data = load(tmp_path, "slake", language="zh")
    assert [record.split for record in data.vqa] == ["test"]


def test_vqa_med_answers_become_a_caption_and_test_answers_stay_as_they_are(tmp_path):
    summary, data = load(tmp_path, "vqa_med_2019")
    assert [record.caption for record in data.captions] == ["axial ct of breast, a cyst (big)"]
    assert data.captions[0].labels == {"modality": "ct", "organ": "breast"}
    assert [record.answer for record in data.vqa if record.split == "test"] == ["face#skull", "ct (with contrast)"]
    assert {record.answer_type for record in data.vqa if record.question_type == "modality"} == {"CLOSED", "OPEN"}
    assert summary.left_out == {"image excluded": 8, "not a row": 8}


def test_vqa_med_images_are_excluded_by_name_and_captions_made_for_the_splits_asked_for(tmp_path):
    summary, data = load(tmp_path, "vqa_med_2019", exclude="synpic_val, synpic15006", captions="train,val")
    assert summary.left_out["image excluded"] == 12
    assert len(data.captions) == 1
    assert {record.split for record in data.vqa} == {"train", "test"}


@pytest.mark.parametrize(
    ("modality", "abnormality", "caption"),
    [
        (("is this a ct scan?", "no"), ("what is abnormal in the mri?", "a"), "axial mri of lung, a"),
        (("is this a noncontrast mri?", "no"), ("is the mri normal?", "yes"), "axial contrast mri of lung, normal"),
        (("was the ct scan taken with contrast?", "no"), ("q?", "a"), "axial ct without contrast of lung, a"),
        (("was iv contrast given to the patient?", "yes"), ("q?", "a"), "axial ct with iv contrast of lung, a"),
        (("is \tthis a t1 weighted image?", "yes"), ("q?", "a"), "axial t1 weighted mri of lung, a"),
        (("what is the mr weighting in this image?", "t2"), ("q?", "a"), "axial t2 weighted mri of lung, a"),
        (("is this a contrast or noncontrast ct?", "contrast"), ("q?", "a"), "axial contrast ct of lung, a"),
        (("what is it?", "us - ultrasound"), ("is it normal?", "no"), "axial us - ultrasound of lung, abnormal"),
        (("is this a ct scan?", "no"), ("are there abnormalities?", "no"), "axial of lung, normal"),
    ],
)
def test_a_caption_says_what_the_four_answers_say(modality, abnormality, caption):
    pairs = {
        "modality": modality,
        "plane": ("which?", "axial"),
        "organ": ("which?", "lung"),
        "abnormality": abnormality,
    }
    assert compose_caption(pairs) == caption


def test_pathvqa_reads_both_forms_of_its_rows(tmp_path):
    summary, data = load(tmp_path, "pathvqa")
    assert summary.left_out == {"no image name": 3}
    assert [(record.split, record.answer, record.answer_type, record.question_type) for record in data.vqa[:2]] == [
        ("train", "yes", "CLOSED", "yes/no"),
        ("train", "liver", "OPEN", "what"),
    ]


def test_pickled_questions_are_never_opened_and_the_message_says_what_to_do(tmp_path):
    source = pathvqa_source(tmp_path)
    rows = source / "pvqa/qas/val/val_qa.jsonl"
    rows.unlink()
    rows.with_suffix(".pkl").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(DataError, match=r"pickle file, which can run code .* write them as JSON lines"):
        IMPORTERS["pathvqa"](source, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_roco_takes_the_splits_and_licences_asked_for(tmp_path):
    summary, data = load(tmp_path, "roco")
    assert summary.left_out == {"not a row": 1, "image missing": 1}
    assert data.captions[0].caption == "A scan of train."
    assert data.captions[0].labels == {"split": "train", "licence": "CC BY"}
    summary, _ = load(tmp_path, "roco", splits="train,test", licences="cc by,CC0")
    assert (summary.captions, summary.left_out["another licence"]) == (2, 2)
    with pytest.raises(ConfigError, match="no split 'dev'; choose among train, validation, test"):
        load(tmp_path, "roco", splits="dev")


def test_a_table_gives_captions_and_questions_and_its_faulty_rows_are_counted(tmp_path):
    summary, data = load(tmp_path, "csv_table")
    assert data.unit == "patient"
    assert [record.caption for record in data.captions] == ["Effusion; left\nand right"]
    assert data.captions[0].labels == {"modality": "ct"}
    assert [(record.patient_id, record.answer_type) for record in data.vqa] == [("p1", "CLOSED"), ("p2", "OPEN")]
    assert summary.left_out == {
        "image outside the folder": 1,
        "no patient id": 1,
        "neither caption nor question": 1,
        "no image name": 1,
        "image missing": 1,
    }


def test_a_table_without_patients_protects_images_and_file_names_do_not_reach_the_site(tmp_path):
    picture(tmp_path / f"{CANARY}.png")
    lines(tmp_path / "t.csv", "image,caption\n", f"{CANARY}.png,a lung\n")
    IMPORTERS["csv_table"](tmp_path / "t.csv", tmp_path / "site")
    assert read_site(tmp_path / "site").unit == "image"
    assert all(CANARY not in str(path) for path in (tmp_path / "site").rglob("*"))
    assert CANARY not in (tmp_path / "site/captions.jsonl").read_text()


def test_rows_of_a_table_without_a_split_are_dealt_by_patient(tmp_path):
    picture(tmp_path / "a.png")
    rows = [f"a.png,q{number}?,yes,patient{number % 100}\n" for number in range(300)]
    lines(tmp_path / "t.csv", "image,question,answer,patient_id\n", *rows)
    IMPORTERS["csv_table"](tmp_path, tmp_path / "site")
    splits = {}
    for record in read_site(tmp_path / "site").vqa:
        splits.setdefault(record.patient_id, set()).add(record.split)
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"picture,caption\na.png,b\n", "no column for the image; name it 'image'"),
        (b"image,caption\na.png,\xff\n", r"1 of 1 rows cannot be read \(not UTF-8 1\); save it again as CSV in UTF-8"),
        (b"image,\xff\na.png,b\n", "header is not UTF-8; save it again"),
        (b'image,caption\na.png,"' + b"x" * 200_000 + b'"\n', r"\(not CSV 1\); save it again"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_the_remedy(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        IMPORTERS["csv_table"](tmp_path / "t.csv", tmp_path / "site")


def test_the_same_rows_and_options_make_the_same_site_whatever_file_they_come_in(tmp_path):
    source = tmp_path / "set"
    rows = [
        {"file": f"{number}.png", "asked": "what is shown", "answer": f"a{number}", "mrn": f"p{number}", "kind": "ct"}
        for number in range(6)
    ]
    for number, row in enumerate(rows):
        picture(source / row["file"], 20 * number)
    cells = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (source / "t.csv").write_text("\n".join(cells) + "\n")
    lines(source / "t.jsonl", *rows)
    pq.write_table(pa.Table.from_pylist(rows), source / "t.parquet")
    asked = {"columns": "image=file,question=asked,patient_id=mrn", "labels": "kind , organ", "name": "own"}
    made = []
    for kind, file in (("csv_table", "t.csv"), ("jsonl_table", "t.jsonl"), ("parquet", "t.parquet")):
        site = tmp_path / kind
        assert IMPORTERS[kind](source / file, site, **asked).questions == 6
        made.append((site / "vqa.jsonl").read_bytes())
    assert made[0] == made[1] == made[2]
    assert json.loads(made[0].splitlines()[0])["labels"] == {"kind": "ct"}


@pytest.mark.parametrize("name", ["vqa_med_2019", "parquet"])
def test_a_split_that_is_none_cannot_have_captions(tmp_path, name):
    with pytest.raises(ConfigError, match="'tarin'; choose among"):
        IMPORTERS[name](tmp_path, tmp_path / "site", captions="tarin")


def test_a_column_that_no_table_has_cannot_be_renamed(tmp_path):
    with pytest.raises(ConfigError, match="write KNOWN=YOURS"):
        IMPORTERS["csv_table"](csv_source(tmp_path / "set"), tmp_path / "site", columns="report")
