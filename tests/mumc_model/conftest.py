"""A model and batches small enough for tests of a fraction of a second."""

import pytest
import torch

from mumc_model.config import ModelConfig, TextConfig, VisionConfig
from mumc_model.data.collate import PretrainBatch

VOCAB_SIZE, CLS, SEP, MASK = 40, 2, 3, 4


@pytest.fixture
def small_config():
    return ModelConfig(
        vision=VisionConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2),
        text=TextConfig(width=16, text_layers=1, fusion_layers=2, heads=2, vocab_size=VOCAB_SIZE, max_positions=16),
        projection=8,
    )


@pytest.fixture
def captioned():
    """A maker of batches: images of noise and captions of 4 to 9 tokens, all different."""

    def make(pairs=4, seed=0):
        generator = torch.Generator().manual_seed(seed)
        ids_BL = torch.randint(5, VOCAB_SIZE, (pairs, 9), generator=generator)
        lengths_B = torch.randint(4, 10, (pairs,), generator=generator)
        lengths_B[0] = 9
        place_L = torch.arange(9)
        ids_BL[:, 0] = CLS
        ids_BL[place_L == lengths_B[:, None] - 1] = SEP
        mask_BL = (place_L < lengths_B[:, None]).long()
        return PretrainBatch(
            image_BCHW=torch.randn(pairs, 3, 32, 32, generator=generator),
            ids_BL=ids_BL * mask_BL,
            mask_BL=mask_BL,
            caption_id_B=torch.arange(pairs),
        )

    return make
