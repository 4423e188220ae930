import os
import tracemalloc

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from protocol.secagg.keys import pair_mask_key, public_of, self_mask_key
from protocol.secagg.masks import BLOCK_BYTES, Mask, add_masks, subtracts, vector_digest
from tests.protocol.secagg.federation import session

TYPES = ("<u4", "<u8")


def keystream(key, values, dtype):
    """The whole stream at once."""
    size = values * np.dtype(dtype).itemsize
    return np.frombuffer(Cipher(ChaCha20(key, bytes(16)), None).encryptor().update(bytes(size)), dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("values", [1, 15, 16, 17, BLOCK_BYTES // 4, BLOCK_BYTES // 4 + 1, 3 * BLOCK_BYTES // 8 + 7])
def test_blocks_take_the_keystream_from_its_beginning_without_a_gap(values, dtype):
    words = np.arange(values, dtype=dtype)
    first, second = os.urandom(32), os.urandom(32)
    expected = words + keystream(first, values, dtype) - keystream(second, values, dtype)
    add_masks(words, [Mask(first), Mask(second, subtract=True)])
    np.testing.assert_array_equal(words, expected)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_mask_that_is_added_and_subtracted_is_gone(dtype):
    words = np.arange(100_000, dtype=dtype)
    key = os.urandom(32)
    add_masks(words, [Mask(key)])
    assert (words != np.arange(100_000, dtype=dtype)).any()
    add_masks(words, [Mask(key, subtract=True)])
    np.testing.assert_array_equal(words, np.arange(100_000, dtype=dtype))


def test_the_first_block_of_a_mask_is_that_of_rfc_8439():
    """Appendix A.1, test vector 1: key, nonce and counter zero."""
    words = np.zeros(16, "<u4")
    add_masks(words, [Mask(bytes(32))])
    assert words.tobytes().hex().startswith("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")


def test_masking_takes_a_constant_of_memory_beyond_the_vector():
    words, masks = np.zeros(4_000_000, "<u4"), [Mask(os.urandom(32)) for _ in range(5)]
    tracemalloc.start()
    add_masks(words, masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * BLOCK_BYTES


def test_two_sites_derive_one_mask_key_and_use_it_with_opposite_signs():
    terms, ash, birch = session(3), os.urandom(32), os.urandom(32)
    ours = pair_mask_key(terms, ash, "ash", public_of(birch), "birch")
    assert ours == pair_mask_key(terms, birch, "birch", public_of(ash), "ash")
    assert subtracts("ash", "birch") != subtracts("birch", "ash")


def test_mask_keys_differ_by_session_site_and_pair():
    ash, birch = os.urandom(32), os.urandom(32)
    seen = set()
    for terms in (session(3), session(3, attempt=2), session(3, round=3), session(3, base_digest="0" * 64)):
        seen.add(pair_mask_key(terms, ash, "ash", public_of(birch), "birch"))
        seen.add(pair_mask_key(terms, ash, "ash", public_of(birch), "cedar"))
        seen |= {self_mask_key(terms, ash, site) for site in ("ash", "birch")}
    assert len(seen) == 16


def test_a_full_seed_counts_and_not_its_first_32_bits():
    """Flower's own SecAgg+ gives one mask to two seeds that agree in 32 bits."""
    keys = [bytes(4) + bytes([place]) + bytes(27) for place in range(8)]
    vectors = [np.zeros(16, "<u4") for _ in keys]
    for words, key in zip(vectors, keys, strict=True):
        add_masks(words, [Mask(key)])
    assert len({words.tobytes() for words in vectors}) == 8


def test_the_digest_of_a_vector_tells_size_type_and_every_word():
    words = np.zeros(4, "<u4")
    others = [np.zeros(5, "<u4"), np.zeros(2, "<u8"), np.array([0, 0, 0, 1], "<u4")]
    assert len({vector_digest(w) for w in (words, *others)}) == 4
