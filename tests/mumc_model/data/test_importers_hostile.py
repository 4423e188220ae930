"""Tables that mean harm, or come out of a broken export: counted by reason, and nothing is written outside the site."""

import csv
import io
import json
import os
import struct
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mumc_model.data.importers import IMPORTERS
from mumc_model.data.records import read_site
from mumc_model.errors import DataError

GOOD = {"image": "good.png", "caption": "a lung", "question": "so?", "answer": "yes"}
COLUMNS = (*GOOD, "answer_type", "split", "modality")
LONG = "x" * (2 << 20)
SHORT_OF_TIME = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def png(width, height):
    """A PNG whose header announces this size over next to no data."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.fixture
def world(tmp_path):
    """A set with one good image, and outside it a file that nobody may take in or change."""
    (tmp_path / "set").mkdir()
    Image.new("L", (12, 8), 90).save(tmp_path / "set/good.png")
    Image.new("L", (12, 8), 7).save(tmp_path / "secret.png")
    (tmp_path / "set/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set/loop.png").symlink_to("loop.png")
    (tmp_path / "set/inner.png").symlink_to("good.png")
    (tmp_path / "set/up").symlink_to(tmp_path)
    (tmp_path / "set/huge.png").write_bytes(png(60_000, 60_000))
    (tmp_path / "set/empty.png").write_bytes(b"")
    (tmp_path / "set/folder.png").mkdir()
    os.mkfifo(tmp_path / "set/pipe.png")
    return tmp_path


def outside(root):
    """Every file outside the site, and what it holds; pipes are only named."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if not path.startswith(str(root / "site") + os.sep) and os.path.isfile(path):
                with open(path, "rb") as file:
                    found[path] = file.read()
    return found


def write_csv(root, rows):
    with (root / "set/table.csv").open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return "csv_table"


def write_jsonl(root, rows):
    (root / "set/table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "jsonl_table"


def write_parquet(root, rows):
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in COLUMNS}
    pq.write_table(pa.table(columns), root / "set/train.parquet")
    return "parquet"


WRITERS = [write_csv, write_jsonl, write_parquet]
FAULTS = {
    "image outside the folder": ["../secret.png", "/etc/passwd", "link.png", "up/secret.png", "a\\b.png", "C:/a.png"],
    "image missing": ["gone.png", "n" * 5000, "a/" * 2000 + "b.png", "pipe.png", "folder.png", ".", "loop.png"],
    "image too large": ["huge.png"],
    "image unreadable": ["empty.png"],
}


@pytest.mark.parametrize("write", WRITERS)
def test_images_that_may_not_be_taken_are_counted_by_reason_and_the_rest_is_imported(world, write):
    rows = [GOOD, GOOD | {"image": "inner.png"}]
    rows += [{"image": name, "caption": "c"} for names in FAULTS.values() for name in names]
    kind = write(world, rows)
    before = outside(world)
    summary = IMPORTERS[kind](world / "set", world / "site")
    assert summary.left_out == {reason: len(names) for reason, names in FAULTS.items()}
    assert (summary.images, summary.captions, summary.questions) == (2, 2, 2)
    assert outside(world) == before
    assert read_site(world / "site").skipped == {}


@pytest.mark.parametrize("write", WRITERS)
def test_a_row_too_long_to_be_a_record_is_left_out(world, write):
    rows = [GOOD] * 200 + [GOOD | {"caption": LONG, "question": ""}]
    summary = IMPORTERS[write(world, rows)](world / "set", world / "site")
    assert summary.captions == 200
    assert sum(summary.left_out.values()) <= len(LONG) // (1 << 20) + 1
    assert read_site(world / "site").skipped == {}


@pytest.mark.parametrize("kind", ["csv_table", "jsonl_table"])
def test_one_row_in_a_hundred_may_be_malformed_and_more_of_them_mean_the_table_was(world, kind):
    for bad, whole in ((2, 400), (5, 400)):
        rows = [b"good.png,a lung\n"] * whole + [b"good.png,M\xfcller\n"] * bad
        if kind == "csv_table":
            (world / "set/table.csv").write_bytes(b"image,caption\n" + b"".join(rows))
        else:
            bodies = [b'{"image": "%s", "caption": "%s"}\n' % tuple(row.strip().split(b",")) for row in rows]
            (world / "set/table.jsonl").write_bytes(b"\xef\xbb\xbf" + b"".join(bodies))
        if bad == 2:
            assert IMPORTERS[kind](world / "set", world / "site").left_out == {"not UTF-8": 2}
        else:
            with pytest.raises(DataError, match=r"5 of 405 rows cannot be read \(not UTF-8 5\)"):
                IMPORTERS[kind](world / "set", world / "site")


def test_a_quote_that_is_never_closed_costs_the_rows_it_swallows_and_no_more(world):
    (world / "set/table.csv").write_text(
        "image,caption\n" + "good.png,a lung\n" * 500 + 'good.png,"open\n' + "good.png,a lung\n" * 12_000
    )
    summary = IMPORTERS["csv_table"](world / "set", world / "site")
    assert summary.left_out == {"not CSV": 1}
    assert 12_500 - (131_072 / 16) - 2 <= summary.captions < 12_500


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["good.png", "..", "../secret.png", "/etc/passwd", "up", "\ud800", "\0", "nan", "train", "OPEN"]),
    st.text(max_size=8),
)
NESTED = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
ROWS = st.lists(st.one_of(st.dictionaries(st.sampled_from(COLUMNS), NESTED), NESTED), max_size=3)


@SHORT_OF_TIME
@given(rows=ROWS)
def test_whatever_a_line_of_json_holds_it_is_imported_or_counted(world, rows):
    body = "".join(json.dumps(row) + "\n" for row in [*rows, *[GOOD] * 300])
    (world / "set/table.jsonl").write_text(body)
    before = outside(world)
    summary = IMPORTERS["jsonl_table"](world / "set", world / "site")
    assert summary.captions >= 300
    assert summary.captions + summary.questions + sum(summary.left_out.values()) >= 600 + len(rows)
    assert outside(world) == before
    assert read_site(world / "site").skipped == {}


@SHORT_OF_TIME
@given(content=st.binary(max_size=200), place=st.integers(0, 3))
def test_whatever_bytes_a_csv_file_holds_they_are_imported_counted_or_refused(world, content, place):
    parts = [b"image,caption\n", b"good.png,a lung\n", b"good.png,a lung\n"]
    (world / "set/table.csv").write_bytes(b"".join([*parts[:place], content, *parts[place:]]))
    before = outside(world)
    try:
        IMPORTERS["csv_table"](world / "set", world / "site")
    except DataError:
        pass
    else:
        assert read_site(world / "site").skipped == {}
    assert outside(world) == before


def good_content():
    buffer = io.BytesIO()
    Image.new("L", (12, 8), 90).save(buffer, "PNG")
    return buffer.getvalue()


def test_images_inside_a_parquet_file_may_hold_anything(world):
    contents = [good_content(), png(60_000, 60_000), b"", b"no image", good_content()[:40], b"\x80\x04cos\nsystem\n"]
    images = [{"bytes": content, "path": "../secret.png"} for content in contents]
    images += [None, {"bytes": None, "path": None}, {"bytes": None, "path": "/etc/passwd"}]
    rows = {"image": images, "caption": ["c"] * len(images)}
    pq.write_table(pa.table(rows), world / "set/train.parquet")
    before = outside(world)
    summary = IMPORTERS["parquet"](world / "set", world / "site")
    assert (summary.images, summary.captions) == (1, 1)
    assert summary.left_out == {
        "image too large": 1,
        "image unreadable": 3,
        "no image name": 2,
        "image outside the folder": 2,
    }
    assert outside(world) == before


def test_cells_of_a_parquet_file_that_are_not_unicode_or_not_text_cost_their_row(world):
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a lung", b"M\xfcller", b"a leg"]).buffers())
    table = pa.table({"image": ["good.png"] * 3, "caption": broken, "patient_id": [["p"], None, None]})
    pq.write_table(table, world / "set/a.parquet")
    with pytest.raises(DataError, match=r"\(no patient id 1, not UTF-8 1, wrong type 1\)"):
        IMPORTERS["parquet"](world / "set", world / "site")


@SHORT_OF_TIME
@given(data=st.data())
def test_a_damaged_parquet_file_is_counted_and_the_other_files_are_imported(world, data):
    rows = {"image": [{"bytes": good_content(), "path": "a"}] * 40, "caption": ["a lung"] * 40}
    pq.write_table(pa.table(rows), world / "set/train.parquet")
    pq.write_table(pa.table(rows), world / "set/train-2.parquet", row_group_size=10)
    content = bytearray((world / "set/train-2.parquet").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(content)))
    (world / "set/train-2.parquet").write_bytes(content[:length])
    before = outside(world)
    summary = IMPORTERS["parquet"](world / "set", world / "site")
    assert summary.captions + sum(summary.left_out.values()) >= 40
    assert summary.captions >= 40
    assert outside(world) == before
