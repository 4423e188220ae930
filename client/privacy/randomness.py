"""Randomness that protects: a keyed AES-256-CTR stream, its key from the operating system and never kept.

Sampling and noise must be unpredictable to whoever knows the run's seed, so nothing here takes one. Tests inject a key.

Source: AES-CTR as a generator, NIST SP 800-90A; normals by Box and Muller, Ann. Math. Statist. 29 (1958).
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

KEY_BYTES = 32
LANES = 4
"""Streams that make noise side by side; their number is fixed, so that the cores of a machine change no number."""
_PAIRS = 1 << 14
"""Pairs of normals made at once: what a core's cache holds."""
_ZEROS = bytes(12 * _PAIRS)
"""What is encrypted: for each pair 64 bits for the radius, then 32 for the angle."""

Array = np.ndarray[Any, Any]


class SecureSource:
    """A stream of random numbers that nobody can predict or draw again."""

    def __init__(self, key: bytes | None = None) -> None:
        """Take a fresh key from the operating system; `key` is for tests.

        Raises:
            ValueError: the key is not of 32 bytes.
        """
        key = os.urandom(KEY_BYTES) if key is None else key
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes; AES-256 takes {KEY_BYTES}")
        self._stream = _stream(key)
        self._lanes = [_Lane() for _ in range(LANES)]

    def words(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        """Uniform 64-bit words."""
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype=np.uint64)

    def chosen(self, count: int, probability: float) -> Tensor:
        """Booleans, each true with the given probability (to 2**-64) apart from all others."""
        if probability >= 1:
            return torch.ones(count, dtype=torch.bool)
        return torch.from_numpy(self.words(count) < np.uint64(int(probability * 2.0**64)))

    def choices(self, counts: Tensor) -> Tensor:
        """For each count a whole number from 0 to below it; the bias is below 2**-32 for counts below 2**21."""
        uniform = torch.from_numpy((self.words(len(counts)) >> np.uint64(11)).astype(np.float64)) * 2.0**-53
        return (uniform * counts).long()

    def generator(self) -> torch.Generator:
        """A generator for masks, crops and dropout, seeded from this stream."""
        return torch.Generator().manual_seed(int(self.words(1)[0] >> np.uint64(1)))

    def normals(self, count: int) -> Tensor:
        """Standard normals, single precision, on the CPU; radii are drawn with 64 bits, so tails reach 9 deviations."""
        normal_N = torch.zeros(count)
        self.add_normals([normal_N.numpy()], 1.0)
        return normal_N

    def add_normals(self, sums: Sequence[Array], deviation: float, step: float = 0.0) -> None:
        """Add normals of this deviation to flat arrays of single precision, in place; round to multiples of `step`."""
        size = 2 * _PAIRS
        blocks = [flat[first : first + size] for flat in sums for first in range(0, flat.size, size)]
        for lane in self._lanes:
            lane.stream = _stream(self._stream.update(bytes(KEY_BYTES)))
        with ThreadPoolExecutor(min(LANES, os.cpu_count() or 1)) as threads:
            for lane, done in [
                (lane, threads.submit(lane.add, blocks[number::LANES], deviation, step))
                for number, lane in enumerate(self._lanes)
            ]:
                done.result()
                lane.stream = None


class _Lane:
    """Box and Muller in buffers that are made once: fresh memory would cost more than the logarithms."""

    def __init__(self) -> None:
        self.stream: Any = None
        self._bits = bytearray(len(_ZEROS) + 16)
        self._radius_bits_P = np.frombuffer(self._bits, dtype=np.int64, count=_PAIRS)
        self._angle_bits_P = np.frombuffer(self._bits, dtype=np.int32, count=_PAIRS, offset=8 * _PAIRS)
        self._radius_P, self._single_P = np.empty(_PAIRS), np.empty(_PAIRS, dtype=np.float32)
        self._normal_N = np.empty(2 * _PAIRS, dtype=np.float32)

    def add(self, blocks: Sequence[Array], deviation: float, step: float) -> None:
        """Add to each block; with a `step`, round the sum to its multiples."""
        unit = step or 1.0
        for block in blocks:
            noise = self._draw()[: block.size]
            noise *= np.float32(deviation / unit)
            if step:
                block *= np.float32(1 / unit)
            block += noise
            if step:
                np.rint(block, out=block)
                block *= np.float32(unit)

    def _draw(self) -> Array:
        """Standard normals, good until the next call."""
        first_P, second_P = self._normal_N[:_PAIRS], self._normal_N[_PAIRS:]
        self.stream.update_into(_ZEROS, self._bits)
        # Signed words are uniform on [-2**63, 2**63); the half step keeps the logarithm off zero.
        np.multiply(self._radius_bits_P, 2.0**-64, out=self._radius_P)
        self._radius_P += 0.5 + 2.0**-65
        np.log(self._radius_P, out=self._radius_P)
        self._radius_P *= -2
        np.maximum(self._radius_P, 0, out=self._single_P, casting="same_kind")
        np.sqrt(self._single_P, out=self._single_P)
        np.multiply(self._angle_bits_P, np.float32(math.pi * 2.0**-31), out=second_P, casting="unsafe")
        np.cos(second_P, out=first_P)
        np.sin(second_P, out=second_P)
        first_P *= self._single_P
        second_P *= self._single_P
        return self._normal_N


def _stream(key: bytes) -> Any:
    """AES-256 in counter mode: as many unpredictable bytes as are asked for."""
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
