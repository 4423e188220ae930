import argparse
import io
import json
import shutil
import stat
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from PIL import Image

from client.config import RunLimits, read_site_config
from client.joining import check_answer
from client.keys import SiteKeys
from mumc_model.data.records import read_site
from mumc_model.data.site_writer import SiteWriter
from protocol.enrolment import Enrolment, Join, Leave
from protocol.errors import ExpiredError, NotYetValidError, SigningError
from protocol.node_keys import new_node_key, public_pem
from protocol.papers import read_paper, to_json
from protocol.signing import fingerprint, new_key, public_hex
from server.home import Home
from server.joining import admit, publish, revoke
from tests.federation import found


@pytest.fixture
def home(tmp_path) -> Home:
    return found(tmp_path, address="hub.example.org:9092")


@pytest.fixture
def north(call, tmp_path) -> Path:
    call("init", tmp_path / "north", "--name", "north", "--units", "1200")
    return tmp_path / "north"


def enrol(home: Home, folder: Path) -> Path:
    """The join file with which the operator answers the folder's enrolment."""
    enrolment = read_paper(Enrolment, folder / f"enrolment-{folder.name}.json")
    publish(home, admit(home, enrolment))
    return home.join_file(folder.name)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def keys_of(folder: Path) -> set[str]:
    return {path.name for path in (folder / "keys").iterdir()}


def test_init_makes_a_site_folder_with_keys_of_its_own(call, tmp_path):
    said = call("init", tmp_path / "north", "--name", "north", "--units", "1200")
    folder, keys = tmp_path / "north", SiteKeys.open(tmp_path / "north")
    assert read_site_config(folder).name == "north"
    assert {path.name for path in folder.iterdir()} == {
        "site.yaml",
        "images",
        "state",
        "keys",
        "enrolment-north.json",
    }
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (keys.auth_key, keys.signing_key)} == {0o600}
    enrolment = read_paper(Enrolment, folder / "enrolment-north.json")
    enrolment.verify()
    assert (enrolment.auth_key, enrolment.signing_key, enrolment.units) == (*keys.public, 1200)
    assert fingerprint(enrolment.signing_key) in said
    assert "looks like an exact count" not in said


def test_flower_loads_the_keys_that_init_made(north):
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    keys = SiteKeys.open(north)
    given = argparse.Namespace(auth_supernode_private_key=str(keys.auth_key), auth_supernode_public_key=None)
    _, public = _try_setup_client_authentication(given)
    assert public == keys.node_key().public_key()
    assert try_load_public_key(keys.auth_pub).decode() == keys.public[0]


def test_a_count_that_looks_exact_is_remarked_on(call, tmp_path):
    assert "looks like an exact count" in call("init", tmp_path / "a", "--name", "a", "--units", "837")


def test_init_adds_keys_and_limits_to_an_imported_site_and_leaves_its_settings(call, tmp_path):
    folder = tmp_path / "north"
    folder.mkdir()
    (folder / "site.yaml").write_text("# ours\nname: north\nunit: image\ndevice: cpu\n")
    before = (folder / "site.yaml").read_bytes()
    call("init", folder)
    assert (folder / "site.yaml").read_bytes().startswith(before)
    assert read_site_config(folder).policy.runs == RunLimits(card="required")
    assert SiteKeys.open(folder).exists


def test_data_can_be_imported_into_a_folder_that_init_made(call, tmp_path):
    call("init", tmp_path / "north", "--name", "north", "--unit", "image")
    with SiteWriter(tmp_path / "north", "another name", unit="image", source="set") as writer:
        key = writer.add_image(Image.new("RGB", (8, 8)), "one")
        writer.add_caption(key, "a scan")
    data = read_site(tmp_path / "north")
    assert (data.name, data.unit, len(data.captions)) == ("north", "image", 1)
    assert SiteKeys.open(tmp_path / "north").exists


@pytest.mark.parametrize(
    ("existing", "options", "says"),
    [
        ({}, [], "name"),
        ({}, ["--name", "a/b"], "letters"),
        ({}, ["--name", "a", "--units", "0"], "choose it from 1"),
        ({"notes.txt": "x"}, ["--name", "a"], "no site folder"),
        ({"site.yaml": "name: north\n"}, ["--name", "south"], "says the site is 'north', not 'south'"),
        ({"site.yaml": "name: north\nunits: 3\n"}, [], "unknown key"),
    ],
)
def test_an_init_that_is_refused_writes_nothing(call, tmp_path, existing, options, says):
    folder = tmp_path / "site"
    for name, text in existing.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    error = call("init", folder, *options, expect=2)
    assert says in error
    assert error.startswith("mumc-site: ")
    assert error.count("\n") == 1
    assert contents(folder) == {name: text.encode() for name, text in existing.items()}


def test_init_never_replaces_keys(call, north):
    before = contents(north)
    assert "mumc-site rotate makes new ones" in call("init", north, expect=2)
    assert contents(north) == before


def test_keys_that_others_can_read_are_not_used(call, home, north):
    file = enrol(home, north)
    SiteKeys(north).auth_key.chmod(0o644)
    assert "chmod 600" in call("join", north, file, "--yes", expect=2)


def test_join_shows_what_it_pins(call, home, north, tmp_path):
    call("init", tmp_path / "south", "--name", "south")
    enrol(home, tmp_path / "south")
    said = call("join", north, enrol(home, north), "--yes")
    joined, keys = SiteKeys.open(north).joined(), SiteKeys.open(north)
    shown = ("lung", "hub.example.org:9092", fingerprint(public_hex(home.signer())), "1,200 units", "south")
    assert [text for text in (*shown, fingerprint(joined.peers["south"])) if text not in said] == []
    assert keys.ca_cert.read_bytes() == home.ca_cert.read_bytes()
    assert joined == read_paper(Join, home.join_file("north"))
    assert "pinned already" in call("join", north, home.join_file("north"))


def test_join_asks_and_a_no_pins_nothing(call, home, north, monkeypatch):
    file, before = enrol(home, north), contents(north)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    call("join", north, file, expect=1)
    assert contents(north) == before


def test_a_newer_join_file_says_what_changed(call, home, north, tmp_path):
    call("join", north, enrol(home, north), "--yes")
    for name in ("south", "west"):
        call("init", tmp_path / name, "--name", name)
        enrol(home, tmp_path / name)
    home.settings.write_text(home.settings.read_text().replace("hub.example.org", "new.example.org"))
    publish(home, revoke(home, "west", "x"))
    said = call("join", north, home.join_file("north"), "--yes")
    assert "changed      address: hub.example.org:9092 -> new.example.org:9092" in said
    assert "changed      peer joined: south" in said
    revoke(home, "south", "x")
    assert "changed      peer left: south" in call("join", north, home.join_file("north"), "--yes")


@pytest.fixture
def refused(call, tmp_path):
    def check(folder: Path, join: Join, says: str, *options: str):
        file, before = tmp_path / "bad.json", contents(folder)
        file.write_text(to_json(join))
        assert says in call("join", folder, file, "--yes", *options, expect=2)
        assert contents(folder) == before

    return check


def test_a_forged_or_misdirected_join_file_is_refused_and_pins_nothing(home, north, refused):
    good, server = read_paper(Join, enrol(home, north)), home.signer()
    other = public_hex(new_key())
    refused(north, replace(good, address="evil.example.org:1"), "signature of this join")
    refused(north, replace(good, signature=""), "missing")
    refused(north, replace(good, server_key=other), "signature of this join")
    refused(north, replace(good, site="south").signed(server), "is for the site south")
    refused(north, replace(good, signing_key=other).signed(server), "another signing key")
    refused(north, replace(good, auth_key=public_pem(new_node_key())).signed(server), "another authentication key")
    refused(north, replace(good, ca="x").signed(server), "not one certificate")
    leaf = home.server_cert.read_text()
    refused(north, replace(good, ca=leaf).signed(server), "no CA certificate")


def test_an_older_join_file_is_not_taken_back(call, home, north, refused):
    old = read_paper(Join, enrol(home, north))
    call("join", north, home.join_file("north"), "--yes")
    enrol(home, north)
    call("join", north, home.join_file("north"), "--yes")
    for options in ((), ("--replace",)):
        refused(north, old, "serial 1 of", *options)
        refused(north, replace(old, serial=2, units=9).signed(home.signer()), "serial 2 of", *options)


def test_another_federation_or_ca_needs_replace(call, home, north, tmp_path, refused):
    call("join", north, enrol(home, north), "--yes")
    call("join", north, enrol(home, north), "--yes")
    twin = found(tmp_path / "twin", address="hub.example.org:9092")
    strange = read_paper(Join, enrol(twin, north))
    refused(north, strange, "another server's signing key than the one pinned")
    mine = read_paper(Join, home.join_file("north"))
    newer = replace(mine, serial=9, ca=strange.ca).signed(home.signer())
    refused(north, newer, "another CA than the one pinned")
    refused(north, replace(newer, serial=1).signed(home.signer()), "serial 1 of", "--replace")
    refused(north, replace(mine, serial=9, federation="heart").signed(home.signer()), "another federation")
    said = call("join", north, twin.join_file("north"), "--replace", "--yes")
    assert "changed      the federation's CA is another" in said
    assert fingerprint(mine.server_key) in said
    assert SiteKeys.open(north).joined() == strange
    assert SiteKeys.open(north).ca_cert.read_bytes() == twin.ca_cert.read_bytes()


def test_a_ca_that_is_not_valid_on_this_clock_is_not_pinned(home, north):
    join = read_paper(Join, enrol(home, north))
    with pytest.raises(NotYetValidError, match="CA certificate fedmumc CA of lung"):
        check_answer(north, join, replace=False, now=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ExpiredError, match="CA certificate fedmumc CA of lung"):
        check_answer(north, join, replace=False, now=datetime(2066, 1, 1, tzinfo=UTC))


def test_a_pinned_file_that_was_edited_is_noticed(call, home, north):
    file = enrol(home, north)
    call("join", north, file, "--yes")
    pinned = SiteKeys(north).federation
    pinned.write_text(json.dumps({**json.loads(pinned.read_text()), "peers": {"evil": public_hex(new_key())}}))
    assert "signature of this join" in call("join", north, file, "--yes", expect=2)


def test_rotation_end_to_end(call, home, north):
    call("join", north, enrol(home, north), "--yes")
    keys = SiteKeys.open(north)
    old = keys.public
    said = call("rotate", north)
    assert "stay in use" in said
    assert keys.public == old
    assert {stat.S_IMODE(p.stat().st_mode) for p in (keys.next.auth_key, keys.next.signing_key)} == {0o600}
    new = keys.next.public
    assert new[0] != old[0]
    assert new[1] != old[1]
    call("join", north, home.join_file("north"))
    assert SiteKeys.open(north).public == old
    said = call("join", north, enrol(home, north), "--yes")
    assert "the new keys are in use" in said
    assert SiteKeys.open(north).public == new
    assert SiteKeys.open(north).joined().units == 1200
    assert keys_of(north) == {"auth.key", "auth.pub", "signing.key", "federation.json", "ca.crt"}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (keys.auth_key, keys.signing_key)} == {0o600}


def test_rotate_again_before_the_answer_keeps_the_keys_that_were_sent(call, home, north):
    call("join", north, enrol(home, north), "--yes")
    call("rotate", north)
    sent = SiteKeys.open(north).next.public
    call("rotate", north, "--units", "2000")
    assert SiteKeys.open(north).next.public == sent
    call("join", north, enrol(home, north), "--yes")
    assert (SiteKeys.open(north).public, SiteKeys.open(north).joined().units) == (sent, 2000)


def test_a_crash_anywhere_in_the_swap_leaves_one_whole_pair(call, home, north, monkeypatch):
    """However many of the steps of the swap were done, the next command finds the new pair and the new pin."""
    call("join", north, enrol(home, north), "--yes")
    call("rotate", north)
    new, join = SiteKeys.open(north).next.public, read_paper(Join, enrol(home, north))
    old, done, seen = SiteKeys.open(north).public, 0, set()
    for stop in range(100):
        steps = iter(range(stop))

        class PowerCutError(Exception):
            pass

        def counted(real, steps=steps, cut=PowerCutError):
            def step(*arguments, **options):
                if next(steps, None) is None:
                    raise cut
                return real(*arguments, **options)

            return step

        with monkeypatch.context() as patch:
            for name in ("erase", "sync_folder", "write_atomically"):
                patch.setattr(f"client.keys.{name}", counted(getattr(sys.modules["client.keys"], name)))
            patch.setattr("client.keys.Path.replace", counted(Path.replace))
            patch.setattr("client.keys.shutil.rmtree", counted(shutil.rmtree))
            patch.setattr("client.keys.Path.unlink", counted(Path.unlink))
            folder = Path(str(north) + f"-{stop}")
            shutil.copytree(north, folder)
            try:
                SiteKeys.open(folder).adopt_next(join)
                done = stop
            except PowerCutError:
                pass
        found = SiteKeys(folder)
        assert found.public in (old, new)
        assert (found.joined() == join) == (found.public == new)
        seen.add(found.public)
        if done:
            break
    assert done > 8
    assert seen == {old, new}


def test_rotate_and_leave_want_a_site_that_has_joined(call, north, tmp_path):
    for command in ("rotate", "leave"):
        assert "has not joined" in call(command, north, expect=2)
    (tmp_path / "bare").mkdir()
    assert "mumc-site init" in call("rotate", tmp_path / "bare", expect=2)


def test_leave_destroys_the_keys_and_keeps_everything_else(call, home, north):
    call("join", north, enrol(home, north), "--yes")
    call("rotate", north)
    (north / "state" / "ledger.jsonl").write_text("{}")
    (north / "keys" / "officer.pub").write_text("x")
    public = SiteKeys.open(north).public
    said = call("leave", north, "--reason", "end of study", "--yes")
    note = read_paper(Leave, north / "leave-north.json")
    note.verify(public_hex(home.signer()), public[1])
    assert str(north / "leave-north.json") in said
    assert keys_of(north) == {"officer.pub"}
    assert set(contents(north)) == {"site.yaml", "state/ledger.jsonl", "keys/officer.pub", "leave-north.json"}
    with pytest.raises(SigningError, match="mumc-site init"):
        SiteKeys.open(north)
    assert yaml.safe_load((north / "site.yaml").read_text())["name"] == "north"


def test_leave_asks_and_a_no_keeps_the_keys(call, home, north, monkeypatch):
    call("join", north, enrol(home, north), "--yes")
    before = contents(north)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    call("leave", north, expect=1)
    assert contents(north) == before


def test_a_reason_of_two_lines_is_refused_before_anything_is_destroyed(call, home, north):
    call("join", north, enrol(home, north), "--yes")
    before = contents(north)
    assert "one line" in call("leave", north, "--reason", "a\nb", "--yes", expect=2)
    assert contents(north) == before


def test_a_site_that_left_can_enrol_anew(call, home, north):
    call("join", north, enrol(home, north), "--yes")
    call("leave", north, "--yes")
    revoke(home, "north", "left")
    call("init", north)
    call("join", north, enrol(home, north), "--yes")
    assert SiteKeys.open(north).joined().serial == 3
