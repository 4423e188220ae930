"""The hospitals of a simulation: whose records they hold, and which sources and splits do not go together."""

from dataclasses import replace

import pytest

from configs.loader import ConfigurationError
from mumc_model.data.importers import IMPORTERS
from mumc_model.data.phantom import PhantomConfig, write_hospitals
from mumc_model.data.records import read_site
from simulations.config import SourceConfig
from simulations.hospitals import pool, prepare
from simulations.partition import PartitionConfig

TINY = PhantomConfig(hospitals=1, images=12, train_questions=8, val_questions=4, test_questions=4, image_size=32)


@pytest.fixture
def public(tiny, tmp_path, monkeypatch):
    """Two public sets, each with captions and questions of its own."""
    for seed, name in enumerate(("archive", "quiz")):

        def write(source, destination, *, on_progress, seed=seed):
            write_hospitals(TINY, destination.parent, seed)[0].rename(destination)

        monkeypatch.setitem(IMPORTERS, name, write)
    config = tiny(tmp_path)
    source = SourceConfig(kind="public", path=str(tmp_path), captions="archive", questions="quiz")
    return replace(config, source=source, partition=PartitionConfig(scheme="alike", questions="alike"))


def texts(folders):
    sites = [read_site(folder) for folder in folders]
    captions = sorted(row.caption for site in sites for row in site.captions)
    return captions, sorted((row.question, row.answer) for site in sites for row in site.vqa)


def test_public_sets_give_the_captions_of_one_and_the_questions_of_the_other_and_nothing_else(public, tmp_path):
    hospitals = prepare(public, 0, tmp_path / "run" / "seed-0")
    imported = [next((tmp_path / "imported").glob(f"{name}-*")) for name in ("archive", "quiz")]
    captions, questions = texts(hospitals)
    assert captions == texts(imported[:1])[0]
    assert questions == texts(imported[1:])[1]


def test_public_sets_are_imported_once_for_all_seeds(public, tmp_path):
    notes = []
    for seed in (0, 1):
        prepare(public, seed, tmp_path / "run" / f"seed-{seed}", notes.append)
    assert [note for note in notes if note.startswith("importing")] == ["importing archive", "importing quiz"]


def test_public_sets_must_be_split(public, tmp_path):
    with pytest.raises(ConfigurationError, match=r"public sets come without hospitals.*partition=alike"):
        prepare(replace(public, partition=PartitionConfig()), 0, tmp_path / "run" / "seed-0")


def test_another_number_of_hospitals_than_was_asked_for_is_refused_with_both(tiny, tmp_path):
    write_hospitals(replace(TINY, hospitals=3), tmp_path / "source", 0)
    config = tiny(tmp_path)
    given = replace(config, source=SourceConfig(kind="folder", path=str(tmp_path / "source")))
    sites = config.run.federation.sites
    with pytest.raises(ConfigurationError, match=rf"has 3 hospitals and federation.sites is {sites}"):
        prepare(given, 0, tmp_path / "run" / "seed-0")


def test_the_pool_holds_every_caption_and_no_question(public, tmp_path):
    hospitals = prepare(public, 0, tmp_path / "run" / "seed-0")
    pooled = pool(hospitals, tmp_path / "pool", public)
    assert texts([pooled]) == (texts(hospitals)[0], [])
