"""Exports that are broken or hostile: every file is a source or a counted reason, and nothing outside is touched."""

import os
import socket
import struct
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.intake import archive
from client.intake.archive import Left, Source, walk
from client.intake.config import IntakeConfig
from client.intake.errors import UnusableSourceError

CONFIG = IntakeConfig()


def reasons(root: Path, config: IntakeConfig = CONFIG) -> dict[str, str]:
    """Name and reason of each file that was left out, and an empty reason of each that can be read."""
    return {found.name: found.reason if isinstance(found, Left) else "" for found in walk(root, config)}


def zipped(path: Path, members: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_files_come_in_the_order_of_their_names_and_with_their_content(tmp_path):
    for name in ("b/2", "b/1", "a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    zipped(tmp_path / "c.zip", {"y": b"why", "x/z": b"zed"})
    found = list(walk(tmp_path, CONFIG))
    assert [source.name for source in found] == ["a", "b/1", "b/2", "c.zip/x/z", "c.zip/y"]
    assert [source.read(CONFIG) for source in found] == [b"a", b"b/1", b"b/2", b"zed", b"why"]


def test_one_zip_can_be_the_whole_export(tmp_path):
    assert reasons(zipped(tmp_path / "export.zip", {"a": b"1"})) == {"export.zip/a": ""}


def test_a_stamp_changes_with_the_content_and_not_otherwise(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (first,), (again,) = walk(tmp_path, CONFIG), walk(tmp_path, CONFIG)
    (tmp_path / "a").write_bytes(b"three")
    (other,) = walk(tmp_path, CONFIG)
    assert first.stamp == again.stamp != other.stamp


def test_links_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    root = tmp_path / "export"
    root.mkdir()
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    assert reasons(root) == dict.fromkeys(("file", "folder", "loop"), archive.LINK)


def test_a_file_that_becomes_a_link_after_the_walk_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (source,) = walk(tmp_path, CONFIG)
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to("/etc/hostname")
    with pytest.raises(UnusableSourceError, match=archive.UNREADABLE):
        source.read(CONFIG)


def test_pipes_and_sockets_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fsencode(tmp_path / "s"))
        assert reasons(tmp_path) == {"pipe": archive.NO_FILE, "s": archive.NO_FILE}


def test_names_that_are_not_unicode_are_left_out_and_can_be_told(tmp_path):
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.dcm"))).write_bytes(b"x")
    ((name, reason),) = reasons(tmp_path).items()
    assert reason == archive.UNNAMEABLE
    assert name.encode() == b"M?ller.dcm"


def test_empty_and_giant_files_are_left_out_unread(tmp_path):
    (tmp_path / "empty").touch()
    with (tmp_path / "giant").open("wb") as file:
        file.truncate((1 << 20) + 1)
    assert reasons(tmp_path, IntakeConfig(max_file_mib=1)) == {"empty": archive.EMPTY, "giant": archive.TOO_LARGE}


def test_a_file_that_grows_after_the_walk_is_not_read_without_end(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    config = IntakeConfig(max_file_mib=1)
    (source,) = walk(tmp_path, config)
    with (tmp_path / "a").open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(UnusableSourceError, match=r"larger than intake\.max_file_mib"):
        source.read(config)


def test_folders_may_be_nested_deeper_than_python_calls(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    finally:
        os.close(here)
    ((name, reason),) = reasons(tmp_path).items()
    # Python's own removal of a tree does not get as deep, and pytest would try.
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)
    assert name == "d/" * 1500 + "file"
    assert reason == archive.EMPTY


def test_more_files_than_allowed_are_counted_as_one_reason(tmp_path):
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"x")
    found = reasons(tmp_path, IntakeConfig(max_files=3))
    assert list(found.values()) == ["", "", "", archive.TOO_MANY]


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../outside", "C:/windows", "a\\..\\..\\outside", "..", "a/.."]
)
def test_a_name_in_a_zip_that_leads_elsewhere_is_left_out(tmp_path, name):
    zipped(tmp_path / "a.zip", {name: b"x", "good": b"x"})
    assert sorted(reasons(tmp_path).values()) == ["", archive.OUTSIDE]


def test_a_link_in_a_zip_is_left_out(tmp_path):
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    assert reasons(tmp_path) == {"a.zip/link": archive.LINK}


def test_a_zip_in_a_zip_is_left_out(tmp_path):
    zipped(tmp_path / "a.zip", {"inner.ZIP": b"PK"})
    assert reasons(tmp_path) == {"a.zip/inner.ZIP": archive.NESTED}


def test_an_encrypted_member_is_left_out(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a": b"secret"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert reasons(tmp_path) == {"a.zip/a": archive.ENCRYPTED}


def test_a_bomb_in_a_zip_is_left_out_unpacked(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as file,
        file.open("bomb", "w", force_zip64=True) as member,
    ):
        for _ in range(80):
            member.write(bytes(1 << 20))
    assert reasons(tmp_path) == {"a.zip/bomb": archive.BOMB}


def test_a_zip_that_unpacks_to_more_than_allowed_is_left_out_whole(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a": b"x", "b": b"x"})
    content = bytearray(path.read_bytes())
    first = content.index(b"PK\x01\x02")
    struct.pack_into("<L", content, first + 24, (1 << 31) - 1)
    path.write_bytes(content)
    assert reasons(tmp_path, IntakeConfig(max_archive_gib=1)) == {"a.zip": archive.ZIP_TOO_LARGE}


def test_a_member_that_is_longer_than_it_says_gives_no_more_than_it_says(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a": bytes(5000)}, compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + 24, 10)
    path.write_bytes(content)
    (source,) = walk(tmp_path, CONFIG)
    with pytest.raises(UnusableSourceError, match=archive.UNREADABLE):
        source.read(CONFIG)


def test_a_member_whose_content_was_changed_is_not_read(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a": b"content"})
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT", 1))
    (source,) = walk(tmp_path, CONFIG)
    with pytest.raises(UnusableSourceError, match=archive.UNREADABLE):
        source.read(CONFIG)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_a_zip_is_more_than_a_reason(tmp_path, data):
    path = zipped(tmp_path / "a.zip", {"a": b"content" * 20, "b/c": b"x"}, compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    before = sorted(tmp_path.rglob("*"))
    for found in walk(tmp_path, CONFIG):
        if isinstance(found, Source):
            with suppress(UnusableSourceError):
                assert len(found.read(CONFIG)) <= found.size
    assert sorted(tmp_path.rglob("*")) == before
