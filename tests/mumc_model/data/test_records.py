import contextlib
import json
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mumc_model.data import verification
from mumc_model.data.records import SiteWriter, list_faults, read_site
from mumc_model.errors import DataError

QUESTION = {"answer_type": "CLOSED", "question_type": "presence", "split": "train"}
CANARY = "Zebediah-Quux-1931"


def picture(shade=0, size=(8, 8)):
    return Image.new("L", size, shade)


def make_site(root, images=4, unit="patient", **writer):
    with SiteWriter(root, "north", unit, **writer) as site:
        for number in range(images):
            image = site.add_image(picture(number), f"i{number}")
            site.add_caption(image, f"caption {number}", patient_id=f"p{number // 2}", labels={"modality": "ct"})
            site.add_question(image, "is it so?", "yes", patient_id=f"p{number // 2}", **QUESTION)
    return root


def append(root, file_name, *rows):
    with (root / file_name).open("a") as file:
        for row in rows:
            file.write((row if isinstance(row, str) else json.dumps(row)) + "\n")


def caption_row(**changes):
    return {"image": "images/i0.png", "caption": "a", "patient_id": "p", **changes}


def question_row(**changes):
    return {"image": "images/i0.png", "question": "q", "answer": "a", "patient_id": "p", **QUESTION, **changes}


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_what_was_written_is_read(tmp_path):
    data = read_site(make_site(tmp_path))
    assert (data.name, data.unit, data.skipped) == ("north", "patient", {})
    assert [record.caption for record in data.captions] == [f"caption {number}" for number in range(4)]
    assert [record.patient_id for record in data.vqa] == ["p0", "p0", "p1", "p1"]
    assert data.captions[0].labels == {"modality": "ct"}
    assert data.vqa[0].labels == {}
    assert data.captions[3].image.is_file()
    assert data.key(data.captions[3]) == "images/i3.png"


def test_where_the_unit_is_the_image_the_image_is_the_unit(tmp_path):
    data = read_site(make_site(tmp_path, unit="image"))
    assert [record.patient_id for record in data.captions] == [f"images/i{number}.png" for number in range(4)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not an object"),
        (caption_row(answer="a"), "unknown key"),
        ({"image": "images/i0.png", "patient_id": "p"}, "missing key"),
        (caption_row(caption=3), "wrong type"),
        (caption_row(labels={"a": 1}), "wrong type"),
        (caption_row(labels="ct"), "wrong type"),
        (caption_row(caption="\ud800"), "not Unicode"),
        (caption_row(caption="  "), "empty caption"),
        (caption_row(patient_id=""), "no patient id"),
        (caption_row(image="images/none.png"), "image missing"),
        (caption_row(image="images"), "image missing"),
        (caption_row(image="x" * 5000), "image missing"),
        (caption_row(image="../i0.png"), "image outside the folder"),
        (caption_row(image="images/../../i0.png"), "image outside the folder"),
        (caption_row(image="/etc/hostname"), "image outside the folder"),
        (caption_row(image="C:/i0.png"), "image outside the folder"),
        (caption_row(image="..\\i0.png"), "image outside the folder"),
        (caption_row(image="images/\0.png"), "image outside the folder"),
        (caption_row(caption="x" * (1 << 20)), "line too long"),
    ],
)
def test_an_unusable_caption_is_left_out_and_counted(tmp_path, row, reason):
    append(make_site(tmp_path), "captions.jsonl", row, caption_row())
    data = read_site(tmp_path, bad_share=0.5)
    assert data.skipped == {reason: 1}
    assert len(data.captions) == 5


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (question_row(answer_type="open"), "unknown answer type"),
        (question_row(split="dev"), "unknown split"),
        (question_row(answer=""), "empty answer"),
        (question_row(question=" "), "empty question"),
        (question_row(caption="a"), "unknown key"),
    ],
)
def test_an_unusable_question_is_left_out_and_counted(tmp_path, row, reason):
    append(make_site(tmp_path), "vqa.jsonl", row)
    data = read_site(tmp_path, bad_share=0.5)
    assert data.skipped == {reason: 1}
    assert len(data.vqa) == 4


def test_images_cut_short_or_linked_out_of_the_folder_or_of_another_kind_are_left_out(tmp_path):
    root = make_site(tmp_path / "site", images=6)
    picture(size=(64, 64)).save(root / "images/whole.png")
    (root / "images/i0.png").write_bytes((root / "images/whole.png").read_bytes()[:-30])
    (root / "images/i1.png").write_text("<svg>")
    picture().save(tmp_path / "outside.png")
    (root / "images/i2.png").unlink()
    (root / "images/i2.png").symlink_to(tmp_path / "outside.png")
    (root / "images/i3.png").unlink()
    (root / "images/i3.png").symlink_to(root / "images/i3.png")
    picture().save(root / "images/i4.png", format="GIF")
    data = read_site(root, bad_share=1)
    assert data.skipped == {"image unreadable": 6, "image outside the folder": 2, "image missing": 2}
    assert len(data.captions) == 1


@pytest.mark.parametrize("side", [9_000, 12_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, side):
    root = make_site(tmp_path)
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (root / "images/i0.png").write_bytes(body + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    assert read_site(root, bad_share=1).skipped == {"image too large": 2}


def test_above_the_limit_nothing_is_read_and_the_message_only_counts(tmp_path):
    root = make_site(tmp_path / CANARY)
    append(root, "captions.jsonl", caption_row(image=f"images/{CANARY}.png"), f'{{"{CANARY}')
    with pytest.raises(DataError, match=r"2 of 6 rows of captions.jsonl .* \(33.3 %.* limit is 1.0 %\): .*; repair"):
        read_site(root)


def test_the_site_itself_is_told_which_lines_are_left_out_and_why(tmp_path):
    append(make_site(tmp_path), "captions.jsonl", "", "{", caption_row(), caption_row(image="images/gone.png"))
    append(tmp_path, "vqa.jsonl", question_row(split="exam"))
    (tmp_path / "images" / "i3.png").write_bytes(b"no image")
    assert list_faults(tmp_path) == [
        ("captions.jsonl", 4, "image unreadable"),
        ("captions.jsonl", 6, "not JSON"),
        ("captions.jsonl", 8, "image missing"),
        ("vqa.jsonl", 4, "image unreadable"),
        ("vqa.jsonl", 5, "unknown split"),
    ]
    assert read_site(tmp_path, bad_share=1).skipped == {
        "image missing": 1,
        "image unreadable": 2,
        "not JSON": 1,
        "unknown split": 1,
    }


def test_no_message_names_a_path_or_quotes_a_record(tmp_path):
    root = make_site(tmp_path / CANARY)
    plant = (
        caption_row(image=f"images/{CANARY}"),
        caption_row(**{CANARY: "a"}),
        f'{{"{CANARY}',
        caption_row(caption=""),
    )
    append(root, "captions.jsonl", *plant)
    faults = [lambda: read_site(root), lambda: read_site(root / CANARY)]
    faults += [lambda text=text: rewrite_settings(root, text) for text in (f"{CANARY}: [", f"- {CANARY}", "name: 1")]
    faults += [lambda: rewrite_settings(root, f"name: a\nunit: {CANARY}"), lambda: write_twice(tmp_path / "other")]
    faults += [lambda: SiteWriter(tmp_path / "b", "b").add_image(tmp_path / CANARY, CANARY)]
    faults += [lambda: SiteWriter(tmp_path / "b", "b").add_caption("images/a.png", "", patient_id=CANARY)]
    faults += [lambda: SiteWriter(tmp_path / "b", "b").add_caption(f"/{CANARY}", "a")]
    for fault in faults:
        with pytest.raises(DataError) as caught:
            fault()
        assert CANARY not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        assert ";" in str(caught.value) or "needs" in str(caught.value) or "must" in str(caught.value)


def rewrite_settings(root, text):
    (root / "site.yaml").write_text(text)
    read_site(root)


def write_twice(root):
    site = SiteWriter(root, CANARY)
    site.add_image(picture(1), CANARY)
    site.add_image(picture(2), CANARY)


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither captions nor questions"):
        read_site(make_site(tmp_path, images=0))


garbage = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5).map(
            as_json := (lambda value: json.dumps(value).encode())
        ),
        st.dictionaries(
            st.sampled_from(["image", "caption", "patient_id", "labels", "question"]),
            st.one_of(st.text(max_size=8), st.sampled_from(["images/i0.png", "../x"]), st.integers()),
        ).map(as_json),
    ).map(lambda line: line.replace(b"\n", b" ").replace(b"\r", b" ")),
    max_size=6,
)


@pytest.mark.parametrize("file_name", ["captions.jsonl", "vqa.jsonl"])
@given(lines=garbage)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_garbage_never_crashes_and_every_line_is_kept_or_counted(tmp_path, file_name, lines):
    make_site(tmp_path)
    with (tmp_path / file_name).open("ab") as file:
        file.writelines(line + b"\n" for line in lines)
    data = read_site(tmp_path, bad_share=1)
    kept = len(data.captions if file_name == "captions.jsonl" else data.vqa)
    assert kept + sum(data.skipped.values()) == 4 + sum(bool(line.strip()) for line in lines)


def test_a_second_start_does_not_decode_an_image_again(tmp_path, monkeypatch):
    first = read_site(make_site(tmp_path))
    monkeypatch.setattr(verification, "open_image", lambda path: pytest.fail("decoded again"))
    assert read_site(tmp_path) == first


def test_a_changed_image_is_checked_again(tmp_path):
    root = make_site(tmp_path)
    read_site(root)
    (root / "images/i0.png").write_bytes(b"")
    assert read_site(root, bad_share=1).skipped == {"image unreadable": 2}
    assert read_site(root, bad_share=1).skipped == {"image unreadable": 2}


@pytest.mark.parametrize(
    "cache", ["", "[]", '{"version": 1}', '{"version": 1, "images": {"images/i0.png": [1]}}', "[" * 10**5]
)
def test_a_spoiled_cache_is_no_loss(tmp_path, cache):
    root = make_site(tmp_path)
    (root / "state").mkdir()
    (root / "state/verified.json").write_text(cache)
    assert len(read_site(root).captions) == 4


def test_writing_the_same_again_changes_no_byte_and_no_time(tmp_path):
    root = make_site(tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*")}
    make_site(tmp_path)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*")} == before


def test_a_writer_that_fails_leaves_the_old_records(tmp_path):
    before = contents(make_site(tmp_path))
    with contextlib.suppress(RuntimeError), SiteWriter(tmp_path, "north") as site:
        site.add_caption(site.add_image(picture(), "new"), "new")
        raise RuntimeError
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before


def test_data_sets_with_a_source_live_side_by_side_and_each_is_replaced_alone(tmp_path):
    make_site(tmp_path, source="a")
    make_site(tmp_path, source="b", images=3)
    make_site(tmp_path, source="a", images=2)
    data = read_site(tmp_path)
    assert sorted(map(data.key, data.captions)) == [
        f"images/{name}.png" for name in ("a/i0", "a/i1", "b/i0", "b/i1", "b/i2")
    ]
    assert len(list((tmp_path / "images/a").iterdir())) == 2


def test_an_existing_site_keeps_its_settings(tmp_path):
    (tmp_path / "site.yaml").write_text("name: south\nunit: patient\ndevice: cpu\n")
    assert read_site(make_site(tmp_path)).name == "south"
    assert "device: cpu" in (tmp_path / "site.yaml").read_text()


def test_data_with_patients_is_not_imported_where_only_images_are_protected(tmp_path):
    make_site(tmp_path, unit="image")
    with pytest.raises(DataError, match="protects single images; set `unit: patient`"):
        SiteWriter(tmp_path, "north", "patient")


def test_images_are_stored_small_and_small_files_are_kept_as_they_are(tmp_path):
    picture(size=(1000, 500)).save(tmp_path / "large.jpg")
    picture(size=(100, 50)).save(tmp_path / "small.jpg")
    site = SiteWriter(tmp_path / "site", "north", max_side=400)
    large, small = (site.add_image(tmp_path / f"{name}.jpg", name) for name in ("large", "small"))
    with Image.open(site.root / large) as image:
        assert (image.size, image.format) == ((400, 200), "PNG")
    assert (site.root / small).read_bytes() == (tmp_path / "small.jpg").read_bytes()
    assert small.endswith("small.jpg")


@pytest.mark.parametrize(
    ("mode", "stored"),
    [("1", "L"), ("LA", "L"), ("P", "RGB"), ("RGBA", "RGB"), ("I;16", "L"), ("F", "L"), ("CMYK", "RGB")],
)
def test_every_pixel_format_is_stored_as_eight_bit_grey_or_colour(tmp_path, mode, stored):
    site = SiteWriter(tmp_path, "north")
    with Image.open(tmp_path / site.add_image(Image.new(mode, (5, 4)), "a")) as image:
        assert (image.mode, image.size) == (stored, (5, 4))


def test_sixteen_bit_grey_keeps_its_contrast(tmp_path):
    image = Image.new("I;16", (2, 1))
    image.putpixel((0, 0), 1000)
    image.putpixel((1, 0), 3000)
    site = SiteWriter(tmp_path, "north")
    with Image.open(tmp_path / site.add_image(image, "a")) as stored:
        assert list(stored.tobytes()) == [0, 255]


def test_a_turned_photograph_is_stored_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(size=(30, 20)).save(tmp_path / "a.jpg", exif=exif)
    site = SiteWriter(tmp_path / "site", "north")
    with Image.open(site.root / site.add_image(tmp_path / "a.jpg", "a")) as image:
        assert image.size == (20, 30)


def test_names_stay_apart_and_inside_the_folder_whatever_they_are(tmp_path):
    site = SiteWriter(tmp_path, "north")
    keys = {site.add_image(picture(), name) for name in ("a/b", "a b", "a_b", "../a", "é", "..", "", "a" * 300)}
    assert len(keys) == 8
    assert all((tmp_path / key).parent == tmp_path / "images" for key in keys)


def test_many_images_are_stored_at_once_with_progress_and_the_unreadable_named(tmp_path):
    (tmp_path / "bad.png").write_text("no")
    picture().save(tmp_path / "good.png")
    seen = []
    site = SiteWriter(tmp_path / "site", "north")
    sources = {name: tmp_path / f"{name}.png" for name in ("good", "bad", "absent")}
    keys, problems = site.add_images(sources, lambda done, total: seen.append((done, total)))
    assert keys == {"good": "images/good.png"}
    assert problems == {"bad": "image unreadable", "absent": "image unreadable"}
    assert seen == [(1, 3), (2, 3), (3, 3)]
