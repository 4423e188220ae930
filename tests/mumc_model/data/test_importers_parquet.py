import io
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mumc_model.data import site_writer
from mumc_model.data.importers import IMPORTERS
from mumc_model.data.records import read_site
from mumc_model.errors import ConfigError, DataError


def content(shade):
    buffer = io.BytesIO()
    Image.new("L", (12, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)


def bring_in(tmp_path, **options):
    summary = IMPORTERS["parquet"](tmp_path / "set", tmp_path / "site", **options)
    return summary, read_site(tmp_path / "site")


def row(shade, **more):
    return {"image": {"bytes": content(shade), "path": None}, "question": "so?", "answer": "yes", **more}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00005.parquet", "train"),
        ("validation-00000-of-00001.parquet", "val"),
        ("data/test-00004-of-00005.parquet", "test"),
        ("default/validation/0000.parquet", "val"),
        ("my-training_set.parquet", "train"),
        ("eval.parquet", "test"),
        ("test/train-00000-of-00001.parquet", "train"),
    ],
)
def test_the_split_is_read_off_a_files_name_and_then_off_its_folders(tmp_path, name, split):
    write(tmp_path / "set" / name, [row(1)])
    assert [record.split for record in bring_in(tmp_path)[1].vqa] == [split]


def test_a_column_of_splits_outranks_the_files_name_and_rows_without_any_are_dealt_by_patient(tmp_path):
    write(tmp_path / "set/train.parquet", [row(1, split="validation"), row(2, split=None)])
    assert [record.split for record in bring_in(tmp_path)[1].vqa] == ["val", "train"]
    rows = [row(1, patient_id=f"p{number % 60}") for number in range(180)]
    write(tmp_path / "rows.parquet", rows)
    IMPORTERS["parquet"](tmp_path / "rows.parquet", tmp_path / "dealt")
    dealt = {}
    for record in read_site(tmp_path / "dealt").vqa:
        dealt.setdefault(record.patient_id, set()).add(record.split)
    assert all(len(splits) == 1 for splits in dealt.values())
    assert set.union(*dealt.values()) == {"train", "val", "test"}


def test_one_image_that_many_rows_repeat_is_stored_once(tmp_path):
    write(tmp_path / "set/train.parquet", [row(shade % 3) for shade in range(60)], row_group_size=7)
    write(tmp_path / "set/test.parquet", [row(shade) for shade in (2, 3)])
    summary, data = bring_in(tmp_path)
    assert (summary.images, summary.questions) == (4, 62)
    for shade, record in enumerate([record for record in data.vqa if record.split == "train"][:3]):
        with Image.open(record.image) as image:
            assert image.getpixel((0, 0)) == shade


def test_images_that_the_site_lost_and_files_that_are_new_are_all_that_is_decoded(tmp_path, monkeypatch):
    write(tmp_path / "set/train-0.parquet", [row(shade) for shade in range(20)])
    bring_in(tmp_path)
    before = sorted((tmp_path / "site/images/parquet").iterdir())
    kept = before[5].read_bytes()
    before[5].unlink()
    write(tmp_path / "set/train-1.parquet", [row(shade) for shade in range(18, 24)])
    decoded, seen = [], []
    stored_form = site_writer.stored_form
    monkeypatch.setattr(site_writer, "stored_form", lambda *given: decoded.append(given[0]) or stored_form(*given))
    summary, _ = bring_in(tmp_path, on_progress=lambda *step: seen.append(step))
    assert (summary.images, summary.questions) == (24, 26)
    assert sorted(decoded) == sorted([kept, *map(content, range(20, 24))])
    assert seen == [(done, 24) for done in range(19, 25)]


def test_captions_are_taken_of_the_splits_asked_for(tmp_path):
    for split in ("train", "validation", "test"):
        write(tmp_path / f"set/{split}.parquet", [row(1, caption=f"of {split}")])
    summary, data = bring_in(tmp_path)
    assert [record.caption for record in data.captions] == ["of train"]
    assert summary.left_out == {"caption of another split": 2}
    assert summary.questions == 3
    assert bring_in(tmp_path, captions="train,validation")[0].captions == 2
    with pytest.raises(ConfigError, match="names the split 'tset'; choose among train, val, test"):
        bring_in(tmp_path, captions="tset")


@pytest.mark.parametrize("form", ["bytes", "path", "both"])
def test_an_image_is_bytes_or_a_path_or_a_struct_of_both(tmp_path, form):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.png").write_bytes(content(5))
    image = {"bytes": content(5), "path": "a.png", "both": {"bytes": content(5), "path": "gone.png"}}[form]
    write(tmp_path / "set/train.parquet", [row(1) | {"image": image}])
    summary, data = bring_in(tmp_path)
    assert summary.left_out == {}
    with Image.open(data.vqa[0].image) as stored:
        assert stored.getpixel((0, 0)) == 5


def test_columns_are_renamed_labelled_and_patients_protected(tmp_path):
    rows = [{"img": content(1), "text": "a lung", "mrn": 17, "modality": "ct", "organ": None, "other": [1]}]
    write(tmp_path / "set/train.parquet", rows)
    _, data = bring_in(tmp_path, columns="image=img,caption=text,patient_id=mrn")
    assert (data.unit, data.captions[0].patient_id, data.captions[0].labels) == ("patient", "17", {"modality": "ct"})
    with pytest.raises(DataError, match="no column for the image; name it 'image', or say -o columns"):
        bring_in(tmp_path)


def test_the_cache_of_the_hub_which_is_links_is_read_as_it_lies(tmp_path):
    write(tmp_path / "blobs/0a1b.parquet", [row(1)])
    (tmp_path / "set/data").mkdir(parents=True)
    (tmp_path / "set/data/train-00000-of-00001.parquet").symlink_to(tmp_path / "blobs/0a1b.parquet")
    assert bring_in(tmp_path)[0].questions == 1


def test_only_parquet_files_are_opened(tmp_path):
    write(tmp_path / "set/train.parquet", [row(1)])
    (tmp_path / "set/load.py").write_text("raise SystemExit")
    (tmp_path / "set/rows.pkl").write_bytes(b"cos\nsystem\n")
    os.mkfifo(tmp_path / "set/pipe.parquet")
    assert bring_in(tmp_path)[0].questions == 1


def test_a_file_without_end_and_a_part_that_is_damaged_leave_the_rest(tmp_path):
    write(tmp_path / "set/train.parquet", [row(number) for number in range(30)], row_group_size=10, compression="none")
    path = tmp_path / "set/train.parquet"
    place = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    damaged = bytearray(path.read_bytes())
    damaged[place : place + 20] = b"\xff" * 20
    path.write_bytes(damaged)
    write(tmp_path / "set/test.parquet", [row(1)])
    (tmp_path / "set/test.parquet").write_bytes((tmp_path / "set/test.parquet").read_bytes()[:-9])
    summary, _ = bring_in(tmp_path)
    assert summary.questions == 20
    assert summary.left_out == {
        "damaged part of a Parquet file (parts, not rows)": 1,
        "damaged Parquet file (files, not rows)": 1,
    }


def test_a_part_that_announces_too_much_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["mumc_model.data.importers.parquet"], "MAX_GROUP_BYTES", 10_000)
    rows = [row(1, note="x")] * 2
    write(tmp_path / "set/train.parquet", rows)
    noise = [row(1) | {"answer": os.urandom(20_000).hex()}]
    write(tmp_path / "set/train-2.parquet", noise)
    summary, _ = bring_in(tmp_path)
    assert (summary.questions, summary.left_out) == (2, {"part of a Parquet file too large (parts, not rows)": 1})


def test_without_pyarrow_the_message_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "set/train.parquet", [row(1)])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ConfigError, match=r"need pyarrow, which is not installed; run: pip install 'fedmumc\[parquet\]'"
    ):
        bring_in(tmp_path)
