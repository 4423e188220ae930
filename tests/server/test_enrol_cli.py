import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from client.joining import leave, prepare
from protocol.certificates import check_certificate, names_of, read_certificate
from protocol.enrolment import Enrolment, Join, enrolment_of
from protocol.node_keys import new_node_key, read_node_key
from protocol.papers import read_paper, to_json
from protocol.signing import fingerprint, new_key, public_hex, read_private_key
from server.certificates import now_utc
from server.home import Home
from server.roster import SiteRegister

ROOT = Path(__file__).resolve().parents[2]
CREATED = "2026-11-25T05:06:18+00:00"


@pytest.fixture
def home(call, tmp_path) -> Home:
    call("init", tmp_path / "fed", "--name", "lung", "--address", "hub.example.org:9092")
    return Home.open(tmp_path / "fed")


def site(tmp_path, name="north", units=100) -> Path:
    return prepare(tmp_path / name, name, units)[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def private_texts(*folders: Path) -> list[bytes]:
    """Every private key in these folders: the lines of its file, and its number in hex."""
    keys = [path for folder in folders for path in folder.rglob("*.key")]
    lines = [line for path in keys for line in path.read_bytes().splitlines() if not line.startswith(b"-----")]
    signers = [read_private_key(path) for path in keys if path.name == "signing.key"]
    nodes = [read_node_key(path.read_bytes()) for path in keys if path.name == "auth.key"]
    assert (len(signers), len(nodes)) == (3, 2)
    numbers = [key.private_bytes_raw().hex() for key in signers]
    numbers += [f"{key.private_numbers().private_value:x}" for key in nodes]
    return [*lines, *(number.encode() for number in numbers)]


def test_init_makes_a_folder_whose_secrets_are_its_owners_alone(call, tmp_path):
    old = os.umask(0)
    try:
        said = call(
            "init", tmp_path / "fed", "--name", "lung", "--address", "hub.example.org:9092", "--san", "10.0.0.7"
        )
    finally:
        os.umask(old)
    home = Home.open(tmp_path / "fed")
    assert stat.S_IMODE(home.keys.stat().st_mode) == 0o700
    private = {home.ca_key, home.server_key, home.signing_key, home.superexec_secret}
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert {path.name for path in home.keys.iterdir()} == {p.name for p in private} | {"ca.crt", "server.crt"}
    assert fingerprint(public_hex(home.signer())) in said
    names = ("hub.example.org", "localhost", "10.0.0.7", "127.0.0.1")
    assert names_of(read_certificate(home.server_cert.read_bytes())) == names
    assert (home.config().name, home.config().port, home.config().health_port) == ("lung", 9092, 9093)
    assert (home.config().secagg.required, home.config().secagg.colluding) == (False, 1)
    assert all(folder.is_dir() for folder in (home.state, home.runs, home.sites))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--address", "hub.example.org"], "HOST:PORT"),
        (["--address", "hub:9092", "--san", "a b"], "neither a DNS name"),
        (["--address", "hub:9092", "--days", "0"], "at least 1"),
        (["--address", "hub:9092", "--days", "9999"], "outlive"),
        (["--address", "hub:9092", "--port", "70000"], "65535"),
        (["--address", "hub:9092", "--health-port", "9092"], "choose two"),
        (["--address", "hub:9092", "--name", "a/b"], "letters"),
    ],
)
def test_an_init_that_is_refused_leaves_nothing(call, tmp_path, options, says):
    error = call("init", tmp_path / "fed", "--name", "lung", *options, expect=2)
    assert error.startswith("mumc-server: ")
    assert says in error
    assert error.count("\n") == 1
    assert [path for path in tmp_path.iterdir() if "fed" in path.name] == []


def test_init_overwrites_no_federation(call, home):
    before = contents(home.root)
    error = call("init", home.root, "--name", "heart", "--address", "a:1", expect=2)
    assert "not empty" in error
    assert contents(home.root) == before


def test_enroll_shows_both_fingerprints_and_answers_every_site(call, home, tmp_path):
    for name in ("north", "south"):
        said = call("enroll", home.root, site(tmp_path, name), "--yes")
        sent = read_paper(Enrolment, tmp_path / name / f"enrolment-{name}.json")
        assert fingerprint(sent.signing_key) in said
        assert f"send to {name}: {home.join_file(name)}" in said
    assert f"send to north: {home.join_file('north')}" in said
    answers = {name: read_paper(Join, home.join_file(name)) for name in ("north", "south")}
    for name, join in answers.items():
        join.verify()
        assert (join.site, join.serial, join.units, join.server_key) == (name, 2, 100, public_hex(home.signer()))
        assert join.ca.encode() == home.ca_cert.read_bytes()
    assert answers["north"].peers == {"south": answers["south"].signing_key}
    assert answers["south"].peers == {"north": answers["north"].signing_key}


def test_enroll_asks_and_a_no_changes_nothing(call, home, tmp_path, monkeypatch):
    import io

    before = contents(home.root)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    call("enroll", home.root, site(tmp_path), expect=1)
    after = contents(home.root)
    after.pop("keys/.lock")
    assert after == before


def test_no_private_key_is_in_what_travels(call, home, tmp_path):
    files = [site(tmp_path, name) for name in ("north", "south")]
    for file in files:
        call("enroll", home.root, file, "--yes")
    texts = [path.read_bytes() for path in (*files, *home.sites.iterdir(), home.roster)]
    texts.append(leave(*joined(home, tmp_path, "north"))[0].read_bytes())
    secrets = [*private_texts(home.keys, tmp_path / "north", tmp_path / "south"), home.superexec_secret.read_bytes()]
    for text in texts:
        assert b"PRIVATE" not in text
        assert [secret for secret in secrets if secret in text.replace(b"\\n", b"\n")] == []


def joined(home: Home, tmp_path: Path, name: str) -> tuple[Path, str]:
    """The site has taken its answer in; what `leave` is called with."""
    from client.joining import check_answer

    check_answer(tmp_path / name, read_paper(Join, home.join_file(name)), replace=False).take_in()
    return tmp_path / name, "end of study"


def test_an_edited_enrolment_is_refused_and_nothing_is_written(call, home, tmp_path):
    file = site(tmp_path)
    before = contents(home.root)
    for edit in ({"units": 10**6}, {"site": "west"}, {"signing_key": public_hex(new_key())}, {"auth_proof": ""}):
        file.with_name("edited.json").write_text(json.dumps({**json.loads(file.read_text()), **edit}))
        assert "mumc-server: " in call("enroll", home.root, file.with_name("edited.json"), "--yes", expect=2)
    after = contents(home.root)
    after.pop("keys/.lock")
    assert after == before


def test_the_same_enrolment_twice_is_one_site(call, home, tmp_path):
    file = site(tmp_path)
    for _ in range(2):
        call("enroll", home.root, file, "--yes")
    register = SiteRegister.read(home)
    assert (len(register.sites), register.serial, register.retired) == (1, 2, ())


def enrol_error(call, home, tmp_path, enrolment) -> str:
    before = home.roster.read_bytes()
    (tmp_path / "x.json").write_text(to_json(enrolment))
    error = call("enroll", home.root, tmp_path / "x.json", "--yes", expect=2)
    assert home.roster.read_bytes() == before
    return error


def made(name, auth=None, signing=None, **values) -> Enrolment:
    return enrolment_of(
        name, auth or new_node_key(), signing or new_key(), **{"units": 100, "created": CREATED, **values}
    )


def test_a_name_is_taken_once_and_a_key_is_one_sites(call, home, tmp_path):
    auth, signing = new_node_key(), new_key()
    (tmp_path / "n.json").write_text(to_json(made("north", auth, signing)))
    call("enroll", home.root, tmp_path / "n.json", "--yes")
    cases = [
        (made("north"), "enrolled already"),
        (made("north", auth, signing, units=9), "another number of units"),
        (made("NORTH"), "by capitals alone"),
        (made("west", auth=auth), "is north's; every site makes its own"),
        (made("west", signing=signing), "is north's; every site makes its own"),
        (made("north", previous=new_key()), "not signed by the key with which north is enrolled"),
        (made("west", previous=signing), "not enrolled here with earlier keys"),
        (made("north", auth=auth, previous=signing), "keeps its key for authentication"),
    ]
    for enrolment, says in cases:
        assert says in enrol_error(call, home, tmp_path, enrolment)


def test_rotated_keys_retire_the_old_ones_for_good(call, home, tmp_path):
    auth, signing, new = new_node_key(), new_key(), new_key()
    first, second = made("north", auth, signing), made("north", signing=new, previous=signing, units=200)
    for number, enrolment in enumerate((first, second, second)):
        (tmp_path / f"{number}.json").write_text(to_json(enrolment))
        call("enroll", home.root, tmp_path / f"{number}.json", "--yes")
    row = SiteRegister.read(home).site("north")
    assert (row.signing_key, row.units) == (public_hex(new), 200)
    for replayed in (first, made("north", auth=auth, previous=new), made("west", signing=signing)):
        assert "no key comes back" in enrol_error(call, home, tmp_path, replayed)


def test_a_revoked_site_comes_back_with_new_keys_only(call, home, tmp_path):
    for name in ("north", "south"):
        call("enroll", home.root, site(tmp_path, name), "--yes")
    said = call("revoke", home.root, "north", "--reason", "laptop stolen")
    assert f"send to south: {home.join_file('south')}" in said
    assert not home.join_file("north").exists()
    assert read_paper(Join, home.join_file("south")).peers == {}
    old = read_paper(Enrolment, tmp_path / "north" / "enrolment-north.json")
    assert "was revoked" in enrol_error(call, home, tmp_path, old)
    (tmp_path / "again.json").write_text(to_json(made("north")))
    call("enroll", home.root, tmp_path / "again.json", "--yes")
    assert SiteRegister.read(home).site("north").revoked == ""
    assert "no key comes back" in enrol_error(call, home, tmp_path, old)
    assert list(read_paper(Join, home.join_file("south")).peers) == ["north"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["west", "--reason", "x"], "no site is called 'west'; enrolled are north"),
        (["north"], "give it with --reason"),
        (["north", "--reason", "a\nb"], "one line"),
        ([], "nobody is named"),
    ],
)
def test_revoke_wants_a_site_and_a_reason(call, home, tmp_path, arguments, says):
    call("enroll", home.root, site(tmp_path), "--yes")
    assert says in call("revoke", home.root, *arguments, expect=2)


def test_a_site_is_revoked_once(call, home, tmp_path):
    call("enroll", home.root, site(tmp_path), "--yes")
    call("revoke", home.root, "north", "--reason", "x")
    assert "already: x" in call("revoke", home.root, "north", "--reason", "y", expect=2)


def test_a_note_of_leave_revokes_its_writer_and_nobody_else(call, home, tmp_path):
    for name in ("north", "south"):
        call("enroll", home.root, site(tmp_path, name), "--yes")
    note, _ = leave(*joined(home, tmp_path, "north"))
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps({**json.loads(note.read_text()), "site": "south"}))
    assert "not signed by the key" in call("revoke", home.root, "--note", forged, expect=2)
    forged.write_text(json.dumps({**json.loads(note.read_text()), "reason": "other"}))
    assert "signature of this leave" in call("revoke", home.root, "--note", forged, expect=2)
    assert "north's, not south's" in call("revoke", home.root, "south", "--note", note, expect=2)
    call("revoke", home.root, "--note", note)
    register = SiteRegister.read(home)
    assert register.site("north").reason == "left: end of study"
    assert [row.name for row in register.active] == ["south"]


def test_renew_makes_a_new_key_from_the_same_ca_and_touches_no_sites_kit(call, home, tmp_path):
    call("enroll", home.root, site(tmp_path), "--yes")
    home.settings.write_text(home.settings.read_text() + "# the operator's own remark\n")
    before = contents(home.root)
    said = call("renew", home.root, "--san", "hub2.example.org", "--days", "90")
    after = contents(home.root)
    assert {name for name in before if before[name] != after[name]} == {
        "keys/server.crt",
        "keys/server.key",
        "federation.yaml",
    }
    assert stat.S_IMODE(home.server_key.stat().st_mode) == 0o600
    certificate, ca = read_certificate(home.server_cert.read_bytes()), read_certificate(home.ca_cert.read_bytes())
    for name in ("hub.example.org", "hub2.example.org", "127.0.0.1"):
        check_certificate(certificate, ca, name, now_utc())
    assert "hub2.example.org" in said
    assert home.config().sans == ("hub2.example.org",)
    assert "# the operator's own remark" in home.settings.read_text()
    call("renew", home.root)
    assert "hub2.example.org" in names_of(read_certificate(home.server_cert.read_bytes()))


@pytest.mark.parametrize("breaks", ["ca", "name", "days", "settings"])
def test_a_renewal_that_is_refused_leaves_the_old_certificate(call, home, breaks):
    options = {"name": ["--san", "a b"], "days": ["--days", "9999"], "settings": ["--san", "b.org"]}.get(breaks, [])
    if breaks == "ca":
        home.ca_key.write_bytes(home.server_key.read_bytes())
    if breaks == "settings":
        home.settings.write_text(yaml.safe_dump({"name": "lung", "address": "hub:1", "sans": ["a.org"]}))
    before = contents(home.root)
    says = {"ca": "no pair", "name": "neither", "days": "outlive", "settings": "no line `sans"}[breaks]
    assert says in call("renew", home.root, *options, expect=2)
    after = contents(home.root)
    after.pop("keys/.lock")
    assert after == before


def test_sites_shows_a_table_and_json(call, home, tmp_path):
    assert "no site yet" in call("sites", home.root)
    for name in ("north", "south"):
        call("enroll", home.root, site(tmp_path, name), "--yes")
    call("revoke", home.root, "south", "--reason", "moved away")
    table, values = call("sites", home.root), json.loads(call("sites", home.root, "--json"))
    assert "moved away" in table
    assert [(row["name"], row["units"], bool(row["revoked"])) for row in values["sites"]] == [
        ("north", 100, False),
        ("south", 100, True),
    ]
    for row in values["sites"]:
        assert row["signing_fingerprint"] in table
        assert row["node_fingerprint"] in table


def test_a_folder_that_is_none_or_damaged_is_named(call, home, tmp_path):
    assert "mumc-server init" in call("sites", tmp_path, expect=2)
    home.roster.write_text("{}x")
    assert "not a register of sites" in call("sites", home.root, expect=2)
    home.roster.write_text('{"version": 2}')
    assert "version 2" in call("sites", home.root, expect=2)


def test_an_unknown_key_of_federation_yaml_is_an_error_with_the_nearest(call, home, tmp_path):
    file = site(tmp_path)
    home.settings.write_text(home.settings.read_text().replace("health_port:", "health_prot:"))
    assert "did you mean 'health_port'" in call("enroll", home.root, file, "--yes", expect=2)
    assert SiteRegister.read(home).sites == ()


def test_two_commands_do_not_change_the_folder_at_once(call, home, tmp_path):
    file = site(tmp_path)
    with home.locked():
        assert "another command" in call("enroll", home.root, file, "--yes", expect=2)


@pytest.mark.parametrize(
    ("program", "commands"),
    [
        ("client", ["init", "join", "leave", "rotate"]),
        ("server", ["enroll", "init", "renew", "revoke", "sites"]),
    ],
    ids=["client", "server"],
)
def test_help_needs_neither_torch_nor_flower(program, commands):
    code = (
        f"import sys\nfrom {program}.cli import app\n"
        "for command in sys.argv[1:]:\n"
        "    try: app([command, '--help'])\n"
        "    except SystemExit as ended: assert not ended.code, command\n"
        "    print('heavy:', sorted({'torch', 'flwr'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *commands], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.split("heavy: []")
    assert len(shown) == len(commands) + 1, "a command's help has loaded torch or flwr"
    assert all(command in text for command, text in zip(commands, shown, strict=False))
