"""Near images and texts: the hash in closed form, and the index against comparing each with each."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import idctn

from mumc_model.data.near import DISTANCE, LOW, SIDE, bits_set, image_hash, near_pairs, pixel_hash, plain_form

WORDS = st.integers(0, 2**64 - 1)


def picture(seed, size=96):
    """Smooth random structure, as a scan has."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8))
    return coarse.resize((size, size), Image.Resampling.BICUBIC)


def apart(left, right):
    return bin(left ^ right).count("1")


def each_with_each(hashes, most):
    plain = [int(value) for value in hashes]
    return {(i, j) for i in range(len(plain)) for j in range(i + 1, len(plain)) if apart(plain[i], plain[j]) <= most}


def pairs_of(hashes, most):
    found = [
        (min(i, j), max(i, j))
        for left, right in near_pairs(hashes, most)
        for i, j in zip(left.tolist(), right.tolist(), strict=True)
    ]
    assert len(found) == len(set(found)), "a pair was given twice"
    return set(found)


def test_a_sum_of_cosines_has_the_bits_of_its_strong_frequencies():
    rng = np.random.default_rng(0)
    strong = rng.permutation(LOW * LOW)[: LOW * LOW // 2]
    spectrum = np.zeros((SIDE, SIDE))
    spectrum[0, 0] = 4000.0
    low = np.full(LOW * LOW, -1.0)
    low[strong] = 1.0
    spectrum[1 : LOW + 1, 1 : LOW + 1] = low.reshape(LOW, LOW)
    spectrum[20, 20] = 50.0
    assert pixel_hash(idctn(spectrum, norm="ortho")) == sum(1 << int(place) for place in strong)


@pytest.mark.parametrize("level", [0, 17, 255])
def test_all_flat_images_have_the_hash_zero(level):
    assert image_hash(Image.new("L", (50, 40), level)) == 0


def test_brightness_and_contrast_do_not_change_a_hash():
    grey = np.asarray(picture(1, SIDE), dtype=np.float64)
    assert pixel_hash(grey) == pixel_hash(0.5 * grey + 30)


@pytest.mark.parametrize("seed", range(5))
def test_an_image_that_was_scaled_or_compressed_is_near_and_another_is_not(seed):
    image = picture(seed)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=70)
    for copy in (image.resize((64, 64), Image.Resampling.LANCZOS), image.convert("RGB"), Image.open(buffer)):
        assert apart(image_hash(image), image_hash(copy)) <= DISTANCE
    assert apart(image_hash(image), image_hash(picture(seed + 100))) > 2 * DISTANCE


@given(st.lists(WORDS, max_size=30, unique=True), st.lists(st.sets(st.integers(0, 63), max_size=6), max_size=8))
@settings(deadline=None, max_examples=60)
def test_the_index_finds_exactly_the_pairs_that_comparing_each_with_each_finds(values, flips):
    near = [values[n % len(values)] ^ sum(1 << bit for bit in bits) for n, bits in enumerate(flips) if values]
    hashes = np.unique(np.array([*values, *near], dtype=np.uint64))
    for most in (0, 1, DISTANCE):
        assert pairs_of(hashes, most) == each_with_each(hashes, most)


def test_pairs_are_found_where_many_hashes_share_their_bands_and_portions_are_small(monkeypatch):
    monkeypatch.setattr("mumc_model.data.near._ROWS", 7)
    hashes = np.arange(200, dtype=np.uint64)
    assert pairs_of(hashes, 2) == each_with_each(hashes, 2)


def test_bits_are_counted():
    assert bits_set(np.array([0, 1, 0b1011, 2**64 - 1], dtype=np.uint64)).tolist() == [0, 1, 3, 64]


@pytest.mark.parametrize(
    "text", ["No effusion, heart normal.", "  no EFFUSION heart\nnormal", "No effusion; heart normal!"]
)
def test_texts_that_differ_in_case_punctuation_and_spacing_have_one_form(text):
    assert plain_form(text) == "no effusion heart normal"


def test_a_word_more_is_another_text():
    assert plain_form("effusion") != plain_form("no effusion")
