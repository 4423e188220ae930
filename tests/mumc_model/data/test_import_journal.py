import errno
import hashlib
import json
import os
import random
import signal
import stat
import subprocess
import sys

import pytest
from PIL import Image

from mumc_model.data import site_writer
from mumc_model.data.import_journal import ImportJournal, Stored, identity_of
from mumc_model.data.importers import IMPORTERS
from mumc_model.data.records import read_site
from mumc_model.errors import DataError

TOTAL = 40
STOPS_AT = 20


def archive(root, total=TOTAL):
    """A table of images that all differ and all have to be converted."""
    root.mkdir(parents=True)
    rows = []
    for number in range(total):
        Image.new("RGBA", (20, 20), (number, 0, 0, 255)).save(root / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": f"case {number}", "patient_id": f"p{number}"})
    (root / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def bring_in(source, site, **options):
    return IMPORTERS["jsonl_table"](source, site, **options)


def contents(root):
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def decoded(monkeypatch):
    """The sources that were decoded, in any order."""
    seen = []
    stored_form = site_writer.stored_form

    def counted(source, max_side):
        seen.append(source)
        return stored_form(source, max_side)

    monkeypatch.setattr(site_writer, "stored_form", counted)
    return seen


def test_a_second_import_decodes_nothing_and_a_changed_image_is_stored_anew(tmp_path, decoded):
    source = archive(tmp_path / "set")
    bring_in(source, tmp_path / "site")
    assert len(decoded) == TOTAL
    decoded.clear()
    bring_in(source, tmp_path / "site")
    assert decoded == []
    before = contents(tmp_path / "site")
    Image.new("RGBA", (20, 20), (0, 255, 0, 255)).save(source / "7.png")
    bring_in(source, tmp_path / "site")
    assert decoded == [source / "7.png"]
    after = contents(tmp_path / "site")
    changed = {name for name in before if before[name] != after[name] and name.startswith("images/")}
    assert len(changed) == 1
    fresh = archive_site(tmp_path, source)
    assert {name: content for name, content in after.items() if "state/" not in name} == fresh


def archive_site(tmp_path, source):
    """What an import into an empty folder gives."""
    bring_in(source, tmp_path / "fresh")
    return {name: content for name, content in contents(tmp_path / "fresh").items() if "state/" not in name}


def test_content_replaced_under_the_old_size_and_time_is_seen(tmp_path, decoded):
    source = archive(tmp_path / "set", 2)
    times = (source / "0.png").stat()
    bring_in(source, tmp_path / "site")
    decoded.clear()
    content = (source / "0.png").read_bytes()
    (source / "0.png").write_bytes(content[:-1] + b"x")
    os.utime(source / "0.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    bring_in(source, tmp_path / "site")
    assert decoded == [source / "0.png"]


def test_another_size_of_images_and_a_stored_file_that_was_altered_are_decoded_anew(tmp_path, decoded):
    source = archive(tmp_path / "set", 3)
    bring_in(source, tmp_path / "site")
    altered, gone, _ = sorted((tmp_path / "site/images/jsonl_table").iterdir())
    good = altered.read_bytes()
    altered.write_bytes(bytes(len(good)))
    gone.unlink()
    decoded.clear()
    bring_in(source, tmp_path / "site")
    assert len(decoded) == 2
    assert altered.read_bytes() == good
    decoded.clear()
    bring_in(source, tmp_path / "site", max_side=8)
    assert len(decoded) == 3
    with Image.open(altered) as image:
        assert image.size == (8, 8)


WAITS_HALF_WAY = f"""
import sys
from pathlib import Path
from mumc_model.data.importers import IMPORTERS

def shown(done, total):
    if done == {STOPS_AT}:
        print("half", flush=True)
        sys.stdin.read()

IMPORTERS["jsonl_table"](Path(sys.argv[1]), Path(sys.argv[2]), on_progress=shown)
"""


def test_an_import_that_was_killed_goes_on_where_it_was_and_ends_like_one_that_was_not(tmp_path, decoded):
    source, site = archive(tmp_path / "set"), tmp_path / "site"
    command = [sys.executable, "-c", WAITS_HALF_WAY, str(source), str(site)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (site / "captions.jsonl").exists()
    stored = len(list((site / "images/jsonl_table").glob("*.png")))
    assert STOPS_AT <= stored < TOTAL
    seen = []
    summary = bring_in(source, site, on_progress=lambda done, total: seen.append((done, total)))
    assert TOTAL - stored <= len(decoded) <= TOTAL - STOPS_AT
    assert seen == [(done, TOTAL) for done in range(1, TOTAL + 1)]
    assert summary.captions == TOTAL
    assert contents(site).keys() - {"state/import-jsonl_table.jsonl"} == archive_site(tmp_path, source).keys()
    assert not list(site.rglob("*.partial"))


def test_a_full_disk_is_said_in_one_line_and_the_import_goes_on_from_there(tmp_path, decoded, monkeypatch):
    source = archive(tmp_path / "set")
    write, written = site_writer.write_if_changed, []

    def fills_up(path, content, **more):
        if len(written) == STOPS_AT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        write(path, content, **more)

    with monkeypatch.context() as full:
        full.setattr(site_writer, "write_if_changed", fills_up)
        with pytest.raises(DataError, match=r"\(No space left on device\); make room"):
            bring_in(source, tmp_path / "site")
    assert not (tmp_path / "site/captions.jsonl").exists()
    decoded.clear()
    assert bring_in(source, tmp_path / "site").captions == TOTAL
    assert len(decoded) == TOTAL - STOPS_AT


def test_what_was_withdrawn_leaves_the_journal_and_the_disk(tmp_path):
    source = archive(tmp_path / "set", 3)
    bring_in(source, tmp_path / "site")
    journal = tmp_path / "site/state/import-jsonl_table.jsonl"
    assert len(journal.read_bytes().splitlines()) == 3
    rows = (source / "table.jsonl").read_text().splitlines(keepends=True)
    (source / "table.jsonl").write_text("".join(rows[:2]))
    bring_in(source, tmp_path / "site")
    assert len(journal.read_bytes().splitlines()) == 2
    assert len(list((tmp_path / "site/images/jsonl_table").iterdir())) == 2


def test_the_journal_is_private_and_names_no_file(tmp_path):
    source = archive(tmp_path / "Zebediah-Quux", 2)
    bring_in(source, tmp_path / "site")
    journal = tmp_path / "site/state/import-jsonl_table.jsonl"
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    assert set(json.loads(journal.read_bytes().splitlines()[0])) == {"source", "stored", "suffix"}
    assert b"Zebediah" not in journal.read_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_a_journal_that_was_cut_or_scrambled_costs_work_and_nothing_else(tmp_path, seed):
    source = archive(tmp_path / "set", 5)
    bring_in(source, tmp_path / "site")
    before = contents(tmp_path / "site")
    journal = tmp_path / "site/state/import-jsonl_table.jsonl"
    chance = random.Random(seed)
    content = bytearray(journal.read_bytes()[: chance.randrange(600)])
    for _ in range(chance.randrange(10)):
        content.insert(chance.randrange(len(content) + 1), chance.randrange(256))
    journal.write_bytes(content)
    bring_in(source, tmp_path / "site")
    after = contents(tmp_path / "site")
    assert {name: content for name, content in after.items() if "state/" not in name} == {
        name: content for name, content in before.items() if "state/" not in name
    }
    assert sorted(after["state/import-jsonl_table.jsonl"].splitlines()) == sorted(
        before["state/import-jsonl_table.jsonl"].splitlines()
    )


def test_a_line_cut_short_does_not_swallow_the_next(tmp_path):
    journal, mark = tmp_path / "j.jsonl", hashlib.sha256(b"a").digest()[:16]
    journal.write_bytes(b'{"source": "ab')
    ImportJournal(journal).note(mark, Stored(".png", mark))
    assert ImportJournal(journal).find(mark) == Stored(".png", mark)


def test_pixels_and_contents_are_told_apart_by_what_they_hold(tmp_path):
    grey, wide = Image.new("L", (2, 8)), Image.new("L", (8, 2))
    assert identity_of(grey) == identity_of(grey.copy())
    assert len({identity_of(source) for source in (grey, wide, b"", b"a")}) == 4


def test_images_of_two_tables_live_side_by_side_under_names_of_their_own(tmp_path):
    for name in ("one", "two"):
        bring_in(archive(tmp_path / name, 2), tmp_path / "site", name=name)
    assert len(read_site(tmp_path / "site").captions) == 4
