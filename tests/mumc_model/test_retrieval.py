import math

import numpy as np
import pytest
import torch
from PIL import Image

from mumc_model.data.records import read_site
from mumc_model.data.site_writer import SiteWriter
from mumc_model.data.tokenizer import vocabulary
from mumc_model.errors import DataError
from mumc_model.model import build_model
from mumc_model.retrieval import hits, retrieve


def test_a_query_is_hit_when_fewer_than_k_wrong_ones_lie_before_its_best_right_one():
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    right = torch.tensor([[False, True, False], [True, False, True]])
    assert hits(similarity, right) == {1: [False, True], 5: [True, True], 10: [True, True]}


def test_a_model_that_finds_everything_alike_gets_no_merit_from_the_order_of_the_file():
    right = torch.eye(20, dtype=torch.bool)
    assert hits(torch.ones(20, 20), right)[10] == [False] * 20


def test_features_that_point_at_their_own_are_all_found():
    feature = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    feature /= feature.norm(dim=1, keepdim=True)
    assert all(hits(feature @ feature.T, torch.eye(30, dtype=torch.bool))[1])


def test_captions_that_read_the_same_are_right_for_every_image_that_has_them(small_config, tmp_path):
    tokenizer = vocabulary("phantom")
    with SiteWriter(tmp_path, "clinic", unit="image") as writer:
        for number in range(4):
            noise = np.random.default_rng(number).integers(0, 255, (32, 32)).astype(np.uint8)
            image = writer.add_image(Image.fromarray(noise), f"i{number}")
            writer.add_caption(image, ["a mass", "no finding"][number % 2])
    text = small_config.text.__class__(**{**vars(small_config.text), "vocab_size": len(tokenizer.vocab)})
    model = build_model(small_config.__class__(**{**vars(small_config), "text": text}), 0)
    found = retrieve(model, read_site(tmp_path), tokenizer, device=torch.device("cpu"))
    assert (len(found.captions[1]), len(found.images[1])) == (4, 2)
    assert all(found.captions[5])
    text = found.describe(np.random.default_rng(0))
    assert "n = 4 queries" in text
    assert "n = 2 queries" in text
    assert not math.isnan(sum(found.captions[1]))


def test_a_site_without_captions_is_told_so(small_config, tmp_path):
    with SiteWriter(tmp_path, "clinic", unit="image") as writer:
        image = writer.add_image(Image.new("L", (32, 32)), "a")
        writer.add_question(image, "?", "yes", answer_type="CLOSED", question_type="x", split="test")
    with pytest.raises(DataError, match="needs captioned images"):
        retrieve(build_model(small_config, 0), read_site(tmp_path), vocabulary("phantom"), device=torch.device("cpu"))
