"""Updates on the disk: as they came, whole or not there, and out of memory again."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from protocol.errors import NotFiniteError
from server.errors import OutputError
from server.spool import BLOCK, Spool, block_peaks, spans
from tests.server.spooled import report, resident

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "updates")


@settings(deadline=None, max_examples=30)
@given(arrays("float32", st.integers(0, 40), elements=FINITE), arrays("float64", st.integers(0, 9), elements=FINITE))
def test_an_update_comes_back_bit_for_bit_with_its_report(tmp_path_factory, single, double):
    spool = Spool(tmp_path_factory.mktemp("spool") / "updates")
    packed = {"float32": single, "float64": double, "uint32": np.arange(3, dtype="uint32")}
    spool.put(report("ash", 7), packed, late=2)
    (found,) = spool.updates()
    assert (found.site, found.report, found.late) == ("ash", report("ash", 7), 2)
    assert {name: array.tobytes() for name, array in found.arrays.items()} == {
        name: array.tobytes() for name, array in packed.items()
    }


def test_the_file_is_safetensors_that_the_library_reads(spool):
    spool.put(report("ash"), {"float32": np.arange(5, dtype="float32")})
    assert load_file(spool.folder / "ash.safetensors")["float32"].tolist() == [0, 1, 2, 3, 4]


def test_updates_come_in_the_order_of_their_names_and_a_site_has_one(spool):
    for site, value in (("oak", 1), ("ash", 2), ("oak", 3)):
        spool.put(report(site), {"float32": np.full(2, value, "float32")})
    assert [(update.site, update.arrays["float32"][0]) for update in spool.updates()] == [("ash", 2), ("oak", 3)]
    assert [update.site for update in spool.updates(["oak"])] == ["oak"]
    spool.drop("oak")
    spool.drop("oak")
    assert spool.sites() == list(spool.reports()) == ["ash"]
    spool.clear()
    assert spool.sites() == []
    assert not spool.folder.exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 2 * BLOCK + 4])
def test_what_is_not_finite_is_refused_and_what_was_there_stays(spool, bad, place):
    spool.put(report("ash"), {"float32": np.ones(3, "float32")})
    flat = np.zeros(2 * BLOCK + 5, "float32")
    flat[place] = bad
    with pytest.raises(NotFiniteError, match="1 blocks"):
        spool.put(report("ash"), {"float32": flat})
    assert spool.updates()[0].arrays["float32"].tolist() == [1, 1, 1]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 3 * BLOCK), st.integers(0, 2**32 - 1), st.sampled_from(["float16", "float32", "float64"]))
def test_peaks_are_the_largest_magnitudes_of_the_blocks(size, seed, kind):
    flat = np.random.default_rng(seed).normal(size=size).astype(kind)
    expected = [float(np.abs(flat[part]).max()) for part in spans(size, 1)]
    assert block_peaks(flat).tolist() == expected


def test_the_peak_of_zeros_of_either_sign_is_plain_zero():
    assert block_peaks(np.array([-0.0, 0.0], "float32")).tobytes() == bytes(8)


@settings(deadline=None)
@given(st.integers(0, 10**7), st.integers(1, 40))
def test_spans_are_whole_blocks_and_cover_everything_once(size, blocks):
    parts = spans(size, blocks)
    assert [part.start for part in parts] == list(range(0, size, blocks * BLOCK))
    assert [part.stop for part in parts] == [*(part.start for part in parts[1:]), size][: len(parts)]


@pytest.mark.parametrize("spoil", ["cut", "empty", "header", "report", "text"])
def test_a_damaged_file_is_named_with_the_remedy(spool, spoil):
    spool.put(report("ash"), {"float32": np.ones(1000, "float32")})
    path = spool.folder / "ash.safetensors"
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"]["report"] = "{}"
    other = json.dumps(header).encode()
    path.write_bytes(
        {
            "cut": whole[:-4],
            "empty": b"",
            "header": whole[:8] + b"[" + whole[9:],
            "report": len(other).to_bytes(8, "little") + other + whole[8 + length :],
            "text": b"no update at all, however long this line is",
        }[spoil]
    )
    with pytest.raises(OutputError, match=r"ash\.safetensors cannot be read.*delete it"):
        spool.updates()


def test_a_disk_that_refuses_keeps_nothing_and_is_named(tmp_path):
    (tmp_path / "updates").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(OutputError, match="updates"):
        Spool(tmp_path / "updates").put(report("ash"), {"float32": np.ones(3, "float32")})


def test_what_was_cut_off_while_writing_is_no_update(spool):
    spool.put(report("ash"), {"float32": np.ones(3, "float32")})
    (spool.folder / ".oak.safetensors.partial").write_bytes(b"\0" * 10)
    assert spool.sites() == ["ash"]


def test_values_that_were_let_go_leave_memory_and_can_be_read_again(spool):
    flat = np.random.default_rng(0).normal(size=64 * BLOCK).astype("float32")
    spool.put(report("ash"), {"float32": flat})
    (update,) = spool.updates()
    assert (update.arrays["float32"] == flat).all()
    assert resident(spool.folder) >= flat.nbytes
    update.let_go("float32", slice(32 * BLOCK, 64 * BLOCK))
    # The last page may hold more than the update.
    assert flat.nbytes / 2 - 2**22 <= resident(spool.folder) <= flat.nbytes / 2 + 2**13
    update.let_go("float32", slice(0, 64 * BLOCK))
    assert resident(spool.folder) <= 2**13
    assert (update.arrays["float32"] == flat).all()
