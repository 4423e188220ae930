"""Randomness that protects: a keyed AES-256-CTR stream, its key from the operating system and never kept.

Sampling and noise must be unpredictable to whoever knows the run's seed, so nothing here takes one. Tests inject a key.

Source: AES-CTR as a generator, NIST SP 800-90A; normals by Box and Muller, Ann. Math. Statist. 29 (1958).
"""

import math
import os

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

KEY_BYTES = 32
_PAIRS = 1 << 14
"""Pairs of normals made at once: what a core's cache holds."""
_ZEROS = bytes(12 * _PAIRS)
"""What is encrypted: for each pair 64 bits for the radius, then 32 for the angle."""


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
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._bits = bytearray(len(_ZEROS) + 16)
        self._radius_bits_P = torch.frombuffer(self._bits, dtype=torch.int64, count=_PAIRS)
        self._angle_bits_P = torch.frombuffer(self._bits, dtype=torch.int32, count=_PAIRS, offset=8 * _PAIRS)
        self._radius_P, self._single_P = torch.empty(_PAIRS, dtype=torch.float64), torch.empty(_PAIRS)

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
        blocks = -(-count // (2 * _PAIRS))
        normal_KN = torch.empty(blocks, 2 * _PAIRS)
        for row_N in normal_KN:
            self._fill(row_N)
        return normal_KN.view(-1)[:count]

    def _fill(self, normal_N: Tensor) -> None:
        """Box and Muller in buffers that are made once: fresh memory would cost more than the logarithms."""
        first_P, second_P = normal_N[:_PAIRS], normal_N[_PAIRS:]
        self._stream.update_into(_ZEROS, self._bits)
        # Signed words are uniform on [-2**63, 2**63); the half step keeps the logarithm off zero.
        self._radius_P.copy_(self._radius_bits_P).mul_(2.0**-64).add_(0.5 + 2.0**-65).log_().mul_(-2)
        radius_P = self._single_P.copy_(self._radius_P).clamp_(min=0).sqrt_()
        angle_P = second_P.copy_(self._angle_bits_P).mul_(math.pi * 2.0**-31)
        torch.cos(angle_P, out=first_P).mul_(radius_P)
        second_P.sin_().mul_(radius_P)
