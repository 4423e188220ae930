"""A card is of the image files too, by what is in them: not by when they were changed, and none is read twice."""

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from client.datacard import image_files
from client.datacard.card import build
from client.datacard.image_files import DIGEST_CHARS, MEMORY, MOST_BYTES, Seen, digest_of, look, named_images
from client.datacard.stamp import CARD, FOLDER, card_state, data_digest
from client.datacard.write import write_card
from mumc_model.data import fingerprints, images
from mumc_model.data.site_writer import SiteWriter

SIZE = 16


def picture(seed, size=SIZE):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8))


@pytest.fixture
def site(tmp_path):
    """Three images of a caption each, of which the third is missing, and a card of that."""
    root = tmp_path / "north"
    with SiteWriter(root, "north") as writer:
        for number in range(3):
            key = writer.add_image(picture(number), f"image-{number}")
            writer.add_caption(key, f"a picture {number}", patient_id=f"p{number}")
    (root / named_images(root)[2]).unlink()
    write_card(root, build(root))
    return root


def image(root, number=0):
    return root / named_images(root)[number]


def write(path, seed):
    picture(seed).save(path, format="PNG")


def test_an_image_that_is_exchanged_under_its_name_makes_another_card_necessary(site):
    assert card_state(site) == "current"
    write(image(site), 99)
    assert card_state(site) == "stale"
    write_card(site, build(site))
    assert card_state(site) == "current"


def test_an_image_that_comes_back_as_it_was_makes_the_card_current_again(site):
    content = image(site).read_bytes()
    image(site).unlink()
    assert card_state(site) == "stale"
    image(site).write_bytes(content)
    assert card_state(site) == "current"


@pytest.mark.parametrize("content", ["an image", "no image"])
def test_a_missing_image_that_is_there_now_is_other_data(site, content):
    image(site, 2).write_bytes(image(site).read_bytes() if content == "an image" else b"none")
    assert card_state(site) == "stale"


def test_a_copy_of_the_folder_is_of_the_same_data_and_is_read_once(site, tmp_path, monkeypatch):
    copy = tmp_path / "restored"
    shutil.copytree(site, copy, copy_function=shutil.copyfile)
    for path in copy.rglob("*"):
        os.utime(path, ns=(1, 1))
    read = []
    take = image_files._digest
    monkeypatch.setattr(image_files, "_digest", lambda path: (read.append(path.name), take(path))[1])
    assert [card_state(copy), card_state(copy)] == ["current", "current"]
    assert sorted(read) == sorted(image(copy, number).name for number in (0, 1))


def test_what_was_read_for_the_card_is_not_read_again_by_the_gate(site, monkeypatch):
    monkeypatch.setattr(image_files, "_digest", lambda path: pytest.fail("an image was read"))
    monkeypatch.setattr(image_files, "named_images", lambda root: pytest.fail("the records were parsed"))
    assert card_state(site) == "current"


def test_other_records_are_found_without_a_look_at_the_images(site, monkeypatch):
    with (site / "captions.jsonl").open("a") as file:
        file.write("\n")
    monkeypatch.setattr("client.datacard.stamp.look", lambda *_: pytest.fail("the images were looked at"))
    assert card_state(site) == "stale"


@pytest.mark.parametrize(
    "memory", [None, "", "[]", "{", '{"version": 1}', '{"version": 2, "records": "", "images": {}}']
)
def test_without_a_memory_the_images_are_read_and_found_to_be_the_same(site, memory):
    before = data_digest(site)
    if memory is None:
        (site / MEMORY).unlink()
    else:
        (site / MEMORY).write_text(memory)
    assert card_state(site) == "current"
    assert data_digest(site) == before
    assert json.loads((site / MEMORY).read_text())["images"]


def test_a_folder_that_cannot_be_written_is_read_each_time(site, monkeypatch):
    (site / MEMORY).unlink()

    def refuse(*_, **__):
        raise OSError

    monkeypatch.setattr(image_files, "write_atomically", refuse)
    assert [card_state(site), card_state(site)] == ["current", "current"]


def test_an_image_that_changes_while_the_card_is_made_is_found_by_the_gate(site, monkeypatch):
    stat = image(site).stat()
    take = fingerprints._fingerprint

    def exchanged(path, formats):
        found = take(path, formats)
        if path == image(site):
            write(path, 7)
        return found

    monkeypatch.setattr(fingerprints, "_fingerprint", exchanged)
    (site / "state" / "fingerprints.json").unlink()
    write_card(site, build(site))
    assert image(site).stat().st_mtime_ns != stat.st_mtime_ns
    assert card_state(site) == "stale"


@pytest.mark.parametrize("kind", ["folder", "device", "loop", "nowhere"])
def test_what_is_no_file_is_as_good_as_missing_and_is_not_read(site, kind):
    path = image(site, 2)
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path.name, "nowhere": "/nowhere/at/all"}[kind])
    assert card_state(site) == "current"


def test_a_file_that_is_too_large_for_an_image_stands_for_itself_by_its_size(site, monkeypatch):
    monkeypatch.setattr(image_files, "MOST_BYTES", 10)
    for seed, expected in ((1, "stale"), (2, "current")):
        image(site, 2).write_bytes(bytes([seed]) * 20)
        assert card_state(site) == expected
        write_card(site, build(site))
    image(site, 2).write_bytes(bytes(21))
    assert card_state(site) == "stale"


def test_the_limits_are_those_of_the_fingerprints():
    assert (MOST_BYTES, DIGEST_CHARS) == (images.MAX_BYTES, fingerprints.DIGEST_CHARS)


def test_rows_that_name_no_image_of_the_folder_are_passed_over(site):
    with (site / "captions.jsonl").open("ab") as file:
        file.write(b'\xff\n[]\n{"image": 3}\n{"image": "../../etc/passwd"}\n{"image": "/etc/passwd"}\n{"no": 1}\n')
    assert [key.startswith("images/") for key in named_images(site)] == [True] * 3


def test_a_card_of_before_says_nothing_of_the_images_and_is_made_again(site):
    path = site / FOLDER / CARD
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {"data": plain["data"].partition("-")[0]}))
    assert card_state(site) == "old"


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6)
DIGESTS = st.text("0123456789abcdef", min_size=4, max_size=4)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, DIGESTS, min_size=1, max_size=4), st.integers(0), st.data())
def test_the_digest_is_of_names_and_contents_and_of_nothing_else(contents, when, data):
    def digest(found, time):
        return digest_of(Seen(records="", images={key: (3, time, one) for key, one in sorted(found.items())}))

    assert digest(contents, when) == digest(contents, 0)
    key = data.draw(st.sampled_from(sorted(contents)))
    other = data.draw(DIGESTS.filter(lambda one: one != contents[key]))
    assert digest(contents | {key: other}, when) != digest(contents, when)
    fewer = {name: one for name, one in contents.items() if name != key}
    assert digest(fewer, when) != digest(contents, when)


def test_only_what_changed_is_read(site, monkeypatch):
    write(image(site), 5)
    read = []
    monkeypatch.setattr(image_files, "_digest", lambda path: (read.append(path), "0" * DIGEST_CHARS)[1])
    look(site, data_digest(site).partition("-")[0])
    assert read == [image(site)]
