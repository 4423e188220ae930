"""Files that go through the officer's page, and numbers that are typed there."""

from pathlib import Path

import pytest

from client.errors import PageError

pytest.importorskip("gradio", reason="the pages need Gradio")

from client.ui.handling import number, whole
from client.ui.officer.key import _taken
from client.ui.officer.ledger import write_json


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def test_two_exports_of_one_name_are_two_files_in_the_pages_folder(scratch):
    first, second = (write_json({"of": one}, "ledger.json", indent=1) for one in ("ada", "bob"))
    assert first != second
    assert '"ada"' in Path(first).read_text()
    assert first.startswith(str(scratch))
    assert first.endswith("/ledger.json")


def test_an_upload_that_is_no_key_is_left_as_it_was(scratch):
    path = scratch / "ledger.json"
    path.write_text("somebody's export")
    with pytest.raises(PageError, match="is no encrypted private key"):
        _taken(path)
    assert path.read_text() == "somebody's export"


@pytest.mark.parametrize("kind", ["ENCRYPTED ", "", "RSA "])
def test_an_uploaded_key_is_erased_whether_it_can_be_used_or_not(scratch, kind):
    path = scratch / "key.pem"
    path.write_text(f"-----BEGIN {kind}PRIVATE KEY-----\nabc\n")
    if kind == "ENCRYPTED ":
        assert _taken(path) == ("key.pem", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nabc\n")
    else:
        with pytest.raises(PageError, match="is no encrypted private key"):
            _taken(path)
    assert not path.exists()


def test_a_key_outside_the_uploads_is_not_touched(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(PageError, match="this is no upload"):
        _taken(path)
    assert path.is_file()


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_infinity_is_a_sentence(value):
    for read in (number, whole):
        with pytest.raises(PageError, match="rounds is infinite; type a number"):
            read(value, "rounds")
