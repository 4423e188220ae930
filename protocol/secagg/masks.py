"""Masks: ChaCha20 keystreams, taken as words and added to a vector in place."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

Array = np.ndarray[Any, Any]

BLOCK_BYTES = 1 << 17
"""Of the vector, taken through all masks before the next: it stays in the processor's cache."""
MAX_VALUES = 2**32
"""Of a vector: far below the 2**38 bytes after which a ChaCha20 keystream would repeat."""

_ZEROS = memoryview(bytes(BLOCK_BYTES))
_NONCE = bytes(16)
"""Counter and nonce. Every key is derived for one keystream of one session, so none needs to tell streams apart."""


@dataclass(frozen=True)
class Mask:
    """One keystream by its 32-byte ChaCha20 key, and whether it is added or subtracted."""

    key: bytes
    subtract: bool = False


def add_masks(words: Array, masks: Iterable[Mask]) -> None:
    """Add every mask to the words, in place, modulo their size; beyond them it takes two blocks of memory.

    The keystream's bytes are read as little-endian words from its beginning.
    """
    assert words.dtype.kind == "u", "words are unsigned, and wrap"
    assert words.ndim == 1, "one vector"
    streams = [(_stream(mask.key), mask.subtract) for mask in masks]
    block = bytearray(BLOCK_BYTES)
    stream_words = np.frombuffer(block, dtype=words.dtype)
    step = len(stream_words)
    for start in range(0, len(words), step):
        part = words[start : start + step]
        for stream, subtract in streams:
            stream.update_into(_ZEROS[: part.nbytes], block)
            (np.subtract if subtract else np.add)(part, stream_words[: len(part)], out=part)


def subtracts(own: str, peer: str) -> bool:
    """Whether a site subtracts the mask that it shares with a peer; of two sites exactly one does."""
    return own < peer


def vector_digest(words: Array) -> str:
    """SHA-256, in hex, over the words' size and bytes."""
    sha = hashlib.sha256(f"{words.dtype.str}:{words.size}|".encode())
    sha.update(np.ascontiguousarray(words).view(np.uint8).data)
    return sha.hexdigest()


def _stream(key: bytes) -> CipherContext:
    return Cipher(ChaCha20(key, _NONCE), mode=None).encryptor()
