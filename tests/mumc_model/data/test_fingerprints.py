"""Fingerprints of images: what they are, and what is remembered of them."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from mumc_model.data import fingerprints
from mumc_model.data.fingerprints import FILE, folder_fingerprints, site_fingerprints
from mumc_model.data.near import image_hash


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


KEYS = ("a.png", "b.png", "c.png", "broken.png", "missing.png")


def test_a_fingerprint_is_the_digest_of_the_bytes_and_the_hash_of_the_picture(root):
    found = site_fingerprints(root, KEYS)
    assert sorted(found) == ["a.png", "b.png", "c.png"]
    for key, (digest, value) in found.items():
        assert hashlib.sha256((root / key).read_bytes()).hexdigest().startswith(digest)
        assert len(digest) == 32
        assert value == image_hash(Image.open(root / key))
    assert folder_fingerprints(root, KEYS) == found


def test_an_unchanged_image_is_not_read_again_and_a_changed_one_is(root, monkeypatch):
    first = site_fingerprints(root, KEYS)
    read = []
    take = fingerprints._fingerprint
    monkeypatch.setattr(
        fingerprints, "_fingerprint", lambda path, formats: (read.append(path.name), take(path, formats))[1]
    )
    Image.new("L", (41, 41)).save(root / "b.png")
    second = site_fingerprints(root, KEYS)
    assert sorted(read) == ["b.png", "broken.png"]
    assert second["a.png"] == first["a.png"]
    assert second["b.png"] != first["b.png"]
    assert second["b.png"].hash == 0


def test_what_is_no_longer_asked_for_is_forgotten_on_the_disk(root):
    site_fingerprints(root, KEYS)
    site_fingerprints(root, ["a.png"])
    assert list(json.loads((root / FILE).read_text())["images"]) == ["a.png"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"version": 9, "images": {}}',
        '{"version": 1, "images": {"a.png": [1, 2]}}',
        '{"version": 1, "images": 3}',
    ],
)
def test_a_memory_that_cannot_be_read_is_no_loss(root, content):
    expected = site_fingerprints(root, KEYS)
    (root / FILE).write_text(content)
    assert site_fingerprints(root, KEYS) == expected


def test_what_was_found_before_a_kill_is_kept(root, monkeypatch):
    monkeypatch.setattr(fingerprints, "_BATCH", 1)
    monkeypatch.setattr(fingerprints, "_KEEP_EVERY", 1)

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        site_fingerprints(root, KEYS[:3], stop)
    assert sorted(json.loads((root / FILE).read_text())["images"]) == ["a.png", "b.png"]


def test_progress_ends_with_all_images(root):
    seen = []
    site_fingerprints(root, KEYS[:3], lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)
