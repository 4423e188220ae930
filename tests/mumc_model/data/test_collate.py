from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from mumc_model.data import pixels
from mumc_model.data.collate import CaptionDataset, VqaSamples
from mumc_model.data.pixels import Pixels, decode_square
from mumc_model.data.records import SiteWriter, read_site
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.data.transforms import Augmentation
from mumc_model.errors import DataError

CAPTIONS = ("left lung", "right lung", "no nodule")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(CAPTIONS, 100)


def shade(image_BCHW):
    """Which image it is: the brightness as it was drawn."""
    return image_BCHW.flatten(1).mean(1)


def make_site(root, images=10, captions=2, mode="L"):
    with SiteWriter(root, "north") as site:
        for number in range(images):
            image = site.add_image(Image.new(mode, (20, 12), (20 * number,) * len(mode)), f"i{number}")
            for text in range(captions):
                site.add_caption(image, f"{CAPTIONS[text]} {number}", patient_id="p")
            for split in ("train", "val"):
                site.add_question(
                    image, f"lung {number}", "yes", patient_id="p", answer_type="CLOSED", question_type="a", split=split
                )
    return read_site(root)


def dataset(site, tokenizer, **options):
    return CaptionDataset(site, tokenizer, 8, 10, 0.6, **options)


def equal(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in vars(one))


def test_a_batch_has_the_shapes_and_types_that_training_expects(tmp_path, tokenizer):
    batch = next(dataset(make_site(tmp_path), tokenizer).batches(4, seed=0))
    assert (batch.image_BCHW.shape, batch.image_BCHW.dtype) == ((4, 3, 8, 8), torch.float32)
    assert batch.ids_BL.shape == batch.mask_BL.shape
    assert batch.ids_BL.dtype == batch.mask_BL.dtype == batch.caption_id_B.dtype == torch.int64
    assert batch.mask_BL.sum(1).max() == batch.ids_BL.shape[1]
    assert len(batch) == 4


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(tmp_path, tokenizer):
    data = dataset(make_site(tmp_path), tokenizer)
    first, again, other = (list(islice(data.batches(4, seed), 5)) for seed in (1, 1, 2))
    assert all(map(equal, first, again))
    assert not all(map(equal, first, other))


@pytest.mark.parametrize("start", [1, 2, 5])
def test_starting_at_a_later_step_gives_the_batches_that_would_have_come(tmp_path, tokenizer, start):
    data = dataset(make_site(tmp_path), tokenizer)
    whole = list(islice(data.batches(4, 3), 8))
    assert all(map(equal, whole[start:], islice(data.batches(4, 3, start), 8 - start)))


def test_a_process_that_shares_a_batch_makes_only_its_own_images_of_it(tmp_path, tokenizer):
    data = dataset(make_site(tmp_path), tokenizer, flip_with_text=True)
    asked, own_B = [], torch.tensor([1, 3])
    mine = data.batches(4, seed=0, images=lambda pairs: asked.append(pairs) or own_B)
    for whole, part in islice(zip(data.batches(4, seed=0), mine, strict=False), 5):
        torch.testing.assert_close(part.image_BCHW, whole.image_BCHW[own_B])
        assert all(torch.equal(getattr(part, name), text) for name, text in vars(whole).items() if name != "image_BCHW")
    assert set(asked) == {4}


def test_an_epoch_shows_each_image_at_most_once_and_the_next_in_another_order(tmp_path, tokenizer):
    data = dataset(make_site(tmp_path, captions=3), tokenizer)
    batches = list(islice(data.batches(5, 0), 4))
    numbers = [decoded_numbers(batch, tokenizer) for batch in batches]
    assert sorted(numbers[0] + numbers[1]) == sorted(numbers[2] + numbers[3]) == list(range(10))
    assert numbers[:2] != numbers[2:]


def decoded_numbers(batch, tokenizer):
    return [int(tokenizer.decode(ids).split()[-1]) for ids in batch.ids_BL]


def test_image_and_caption_of_a_pair_belong_together(tmp_path, tokenizer):
    data = dataset(make_site(tmp_path), tokenizer)
    data._augmentation = Augmentation(crop_scale=1, rotation_degrees=0, brightness=0, contrast=0)
    for batch in islice(data.batches(5, 0), 4):
        ranks = shade(batch.image_BCHW).argsort().argsort().tolist()
        numbers = decoded_numbers(batch, tokenizer)
        assert [sorted(numbers)[rank] for rank in ranks] == numbers


def test_every_caption_of_an_image_is_drawn_in_time(tmp_path, tokenizer):
    data = dataset(make_site(tmp_path, images=2, captions=3), tokenizer)
    seen = {tokenizer.decode(ids) for batch in islice(data.batches(2, 0), 60) for ids in batch.ids_BL}
    assert len(seen) == 6


def test_equal_captions_have_equal_numbers_at_every_site(tmp_path, tokenizer):
    numbers = []
    for name in ("a", "b"):
        with SiteWriter(tmp_path / name, name) as site:
            for index, text in enumerate(("left lung", "Left lung!", "right lung")):
                site.add_caption(site.add_image(Image.new("L", (9, 9)), f"{name}{index}"), text)
        data = dataset(read_site(tmp_path / name), tokenizer)
        numbers.append(sorted(next(data.batches(3, 0)).caption_id_B.tolist()))
    assert numbers[0] == numbers[1]
    assert len(set(numbers[0])) == 2


def test_a_site_with_fewer_images_than_a_batch_gives_smaller_batches(tmp_path, tokenizer):
    assert len(next(dataset(make_site(tmp_path, images=3), tokenizer).batches(32, 0))) == 3


def test_one_captioned_image_is_too_few_and_the_message_says_so(tmp_path, tokenizer):
    with pytest.raises(DataError, match="this site has 1 with a caption; import"):
        dataset(make_site(tmp_path, images=1), tokenizer)


def test_a_flip_mirrors_the_image_and_swaps_the_sides_in_its_caption(tmp_path, tokenizer):
    with SiteWriter(tmp_path, "north") as site:
        for number in range(8):
            image = Image.new("L", (8, 8))
            image.paste(255, (0, 0, 4, 8) if number % 2 else (4, 0, 8, 8))
            site.add_caption(site.add_image(image, f"i{number}"), "left" if number % 2 else "right")
    data = dataset(read_site(tmp_path), tokenizer, flip_with_text=True)
    flips = 0
    for batch in islice(data.batches(8, 0), 4):
        bright_left = batch.image_BCHW[..., 0].mean((1, 2)) > batch.image_BCHW[..., -1].mean((1, 2))
        said_left = [tokenizer.decode(ids) == "left" for ids in batch.ids_BL]
        assert said_left == bright_left.tolist()
        flips += sum(said_left) != 4
    assert flips


def test_decoded_images_are_found_again_and_not_decoded(tmp_path, monkeypatch):
    site = make_site(tmp_path)
    first = Pixels(site.root, site.image_keys, 8)
    monkeypatch.setattr(pixels, "decode_square", lambda *_: pytest.fail("decoded again"))
    second = Pixels(site.root, site.image_keys, 8)
    assert np.array_equal(first.array_NCSS, second.array_NCSS)


def test_a_changed_image_makes_the_cache_new_and_removes_the_old_one(tmp_path):
    site = make_site(tmp_path)
    Pixels(site.root, site.image_keys, 8)
    Pixels(site.root, site.image_keys, 16)
    Image.new("L", (5, 5), 255).save(tmp_path / "images/i0.png")
    assert Pixels(site.root, site.image_keys, 8).array_NCSS[0].min() == 255
    assert sorted(path.name[:9] for path in (tmp_path / "state").glob("pixels-*")) == ["pixels-16", "pixels-8-"]


def test_a_spoiled_cache_is_built_again(tmp_path):
    site = make_site(tmp_path)
    before = Pixels(site.root, site.image_keys, 8).array_NCSS.copy()
    cache = next((tmp_path / "state").glob("pixels-*"))
    for content in (b"", b"\x93NUMPY", cache.read_bytes()[:-7]):
        cache.unlink()
        cache.write_bytes(content)
        assert np.array_equal(Pixels(site.root, site.image_keys, 8).array_NCSS, before)


def test_a_state_folder_that_cannot_be_written_is_no_obstacle_to_few_images_and_a_clear_stop_for_many(
    tmp_path, monkeypatch
):
    site = make_site(tmp_path)
    (tmp_path / "state/verified.json").unlink()
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_text("in the way")
    assert Pixels(site.root, site.image_keys, 8).array_NCSS.shape == (10, 1, 8, 8)
    monkeypatch.setattr(pixels, "MEMORY_BYTES", 10)
    with pytest.raises(DataError, match="state folder, which is full or may not be written; make room"):
        Pixels(site.root, site.image_keys, 8)


def test_an_image_that_breaks_after_its_check_is_counted_and_not_named(tmp_path):
    site = make_site(tmp_path)
    (tmp_path / "images/i3.png").write_text("no longer an image")
    with pytest.raises(DataError, match=r"^1 of 10 images can no longer be read since they were checked; restore"):
        Pixels(site.root, site.image_keys, 8)
    (tmp_path / "images/i3.png").unlink()
    with pytest.raises(DataError, match=r"^an image vanished"):
        Pixels(site.root, site.image_keys, 8)
    assert not list((tmp_path / "state").glob("*.partial"))


def test_colour_is_kept_where_a_site_has_any_and_grey_costs_a_third(tmp_path):
    grey, colour = make_site(tmp_path / "grey"), make_site(tmp_path / "colour", mode="RGB")
    assert Pixels(grey.root, grey.image_keys, 8).array_NCSS.shape == (10, 1, 8, 8)
    assert Pixels(colour.root, colour.image_keys, 8).array_NCSS.shape == (10, 3, 8, 8)


def test_a_withdrawn_image_does_not_survive_in_a_cache(tmp_path):
    for images in (3, 2):
        with SiteWriter(tmp_path, "north", source="set") as writer:
            for number in range(images):
                writer.add_caption(writer.add_image(Image.new("L", (9, 9), number), f"i{number}"), "lung")
        if images == 3:
            Pixels(read_site(tmp_path).root, read_site(tmp_path).image_keys, 8)
            assert list((tmp_path / "state").glob("pixels-*"))
    assert not list((tmp_path / "state").glob("pixels-*"))


def test_a_jpeg_decoded_at_reduced_size_looks_like_the_whole_one(tmp_path):
    y, x = np.mgrid[:512, :512]
    Image.fromarray(((x + y) // 4).astype(np.uint8)).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        whole = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(decode_square(tmp_path / "a.jpg", 32, 1)[0] - whole).max() <= 2


def test_questions_of_a_split_are_batched_with_their_images(tmp_path, tokenizer):
    site = make_site(tmp_path)
    samples = VqaSamples(site, "val", tokenizer, 8, 10)
    assert len(samples) == len(samples.unique_image_keys) == 10
    for batch in [*samples.ordered(4), *islice(samples.batches(4, 0), 3)]:
        assert torch.equal(batch.image_BCHW, samples.images(samples.image_of_N[batch.index_B]))
        assert [tokenizer.decode(ids) for ids in batch.ids_BL] == [samples.questions[i] for i in batch.index_B]


def test_ordered_batches_hold_every_question_once_and_image_batches_every_image_once(tmp_path, tokenizer):
    samples = VqaSamples(make_site(tmp_path), "train", tokenizer, 8, 10)
    assert torch.cat([batch.index_B for batch in samples.ordered(4)]).tolist() == list(range(10))
    images = torch.cat(list(samples.image_batches(3)))
    assert torch.equal(images[samples.image_of_N], torch.cat([batch.image_BCHW for batch in samples.ordered(4)]))


def test_training_questions_are_augmented_only_when_asked_and_repeat_by_seed(tmp_path, tokenizer):
    samples = VqaSamples(make_site(tmp_path), "train", tokenizer, 8, 10)
    plain, again, seen = (next(samples.batches(4, 5, 3, augmentation)) for augmentation in (None, None, Augmentation()))
    assert equal(plain, again)
    assert torch.equal(plain.index_B, seen.index_B)
    assert not torch.equal(plain.image_BCHW, seen.image_BCHW)


def test_a_split_without_questions_is_empty_and_cannot_be_trained_on(tmp_path, tokenizer):
    samples = VqaSamples(make_site(tmp_path), "test", tokenizer, 8, 10)
    assert (len(samples), list(samples.ordered(4)), list(samples.image_batches(4))) == (0, [], [])
    with pytest.raises(DataError, match="no questions to train on; import"):
        next(samples.batches(4, 0))
