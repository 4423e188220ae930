"""A run's bundle is only ever read for its digest: whatever it holds, that costs little and runs nothing."""

import io
import zipfile

import pytest

from protocol.bundle import MOST_FILES, code_digest
from protocol.errors import BundleError


def bundle(files, compression=zipfile.ZIP_DEFLATED):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def test_the_digest_is_of_names_and_contents_and_not_of_how_they_are_compressed():
    files = {"client/gate.py": b"x = 1\n" * 50, "client/app.py": b"y = 2\n"}
    digest = code_digest(bundle(files))
    assert digest == code_digest(bundle(dict(reversed(files.items())), zipfile.ZIP_STORED))
    assert digest != code_digest(bundle(files | {"client/app.py": b"y = 3\n"}))
    assert digest != code_digest(bundle(files | {"client/more.py": b""}))


@pytest.mark.parametrize(
    "files",
    [{"client/zeros.py": bytes(65 << 20)}, {f"client/f{number}.py": b"" for number in range(MOST_FILES + 1)}],
    ids=["1000:1", "files"],
)
def test_a_bomb_is_refused_by_what_it_would_unpack_to(files):
    bomb = bundle(files)
    assert len(bomb) < 1 << 20
    with pytest.raises(BundleError, match="unpacks to more than 5000 files or 64 MiB"):
        code_digest(bomb)


def test_a_bomb_that_lies_about_its_size_is_read_no_further_than_it_says():
    bomb = bytearray(bundle({"client/zeros.py": bytes(8 << 20)}))
    whole = (8 << 20).to_bytes(4, "little")
    assert bomb.count(whole) == 2
    with pytest.raises(BundleError, match="no zip file that can be read"):
        code_digest(bytes(bomb.replace(whole, (100).to_bytes(4, "little"))))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_a_compression_that_could_ask_for_any_memory_is_refused(compression):
    with pytest.raises(BundleError, match="compressed as none of ours is"):
        code_digest(bundle({"client/gate.py": b"x = 1\n"}, compression))


def test_a_damaged_bundle_is_refused_and_nothing_else_is_raised():
    whole = bundle({f"client/f{number}.py": b"x = 1\n" * 40 for number in range(3)})
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        try:
            code_digest(bytes(changed))
        except BundleError:
            continue
