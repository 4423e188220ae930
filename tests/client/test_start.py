"""What a site's client is started with, and what keeps it from starting."""

import stat
import sys

import pytest

from client.cli import main
from client.errors import SiteError
from client.keys import SiteKeys
from client.start import client, supernode
from protocol.errors import EnrolmentError, ProcessError, SigningError
from protocol.flower import alone


@pytest.fixture
def north(federation):
    return federation.sites["north"]


def test_the_supernode_believes_the_pinned_ca_alone_and_runs_no_task_itself(north):
    keys = SiteKeys.open(north)
    program = supernode(north, keys, keys.joined(), north / "keys" / "superexec.secret", 4711)
    line = program.line()
    for part in (
        f"--superlink localhost:9092 --root-certificates {north}/keys/ca.crt",
        f"--auth-supernode-private-key {north}/keys/auth.key",
        "--isolation process --host 127.0.0.1 --port 4711",
        f"--superexec-auth-secret-file {north}/keys/superexec.secret",
    ):
        assert part in line
    assert "--insecure" not in line
    assert program.environment["FLWR_HOME"] == str(north / "state" / "flower")


def test_the_secret_between_supernode_and_runner_is_new_each_time_and_the_owner_s_alone(north):
    secrets = []
    for _ in range(2):
        with client(north, supervise=False, say=lambda line: None):
            path = north / "keys" / "superexec.secret"
            secrets.append(path.read_bytes())
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with pytest.raises(ProcessError, match=r"mumc-site start is at work for .* already"):
                client(north, supervise=False).__enter__()
    assert secrets[0] != secrets[1]


def test_without_limits_nothing_starts(north):
    (north / "site.yaml").write_text("name: north\n")
    with pytest.raises(SiteError, match=r"sets no limits \(policy\.runs\), and without them this site trains nothing"):
        client(north, supervise=False).__enter__()


def test_without_a_federation_or_with_an_open_key_nothing_starts(north):
    (north / "keys" / "auth.key").chmod(0o644)
    with pytest.raises(SigningError, match="has mode 644, so that others can use the key; run: chmod 600"):
        client(north, supervise=False).__enter__()
    (north / "keys" / "federation.json").unlink()
    with pytest.raises(EnrolmentError, match="has not joined a federation"):
        client(north, supervise=False).__enter__()


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mumc-site", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_limits_are_shown_and_written_once(north, monkeypatch, capsys):
    (north / "site.yaml").write_text("name: north\n")
    assert call(monkeypatch, "limits", north) == 1
    assert "the usual ones: mumc-site limits DIR --write" in capsys.readouterr().err
    assert call(monkeypatch, "limits", north, "--write") == 0
    assert "max_steps: 2000" in capsys.readouterr().out
    assert call(monkeypatch, "limits", north, "--write") == 2
    assert "sets limits already" in capsys.readouterr().err


def test_the_command_says_what_is_missing_in_one_line(north, monkeypatch, capsys):
    with alone(north, "mumc-site start"):
        assert call(monkeypatch, "start", north) == 2
    assert capsys.readouterr().err == (
        f"mumc-site: mumc-site start is at work for {north} already; stop that one first\n"
    )
