import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.privacy import cli
from client.privacy.ledger import Ledger
from client.privacy.report_files import PAGE, VALUES
from protocol.errors import SigningError
from protocol.signing import new_key, public_hex, write_private_key
from tests.client.privacy.officer import approved_site, charge, write_site

PASSWORD = "correct horse"
ROOT = Path(__file__).resolve().parents[3]


def run(*words):
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def officer(tmp_path):
    key = new_key()
    write_private_key(tmp_path / "officer.pem", key, PASSWORD.encode())
    (tmp_path / "officer.pem.pub").write_text(public_hex(key) + "\n")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return key


@pytest.fixture
def site(tmp_path, officer):
    root = approved_site(tmp_path / "site", officer)
    Ledger.open(root).reserve(charge(), units=["p1"])
    return root


def test_a_key_that_is_not_there_is_said_before_its_password_is_asked_for(tmp_path, site):
    with pytest.raises(SigningError, match=r"there is no key .*absent\.pem; give the file that `mumc-privacy keygen`"):
        run("report", site, "--key", tmp_path / "absent.pem")


def test_a_report_of_site_and_officer_is_written_and_verified(tmp_path, site, officer):
    keys = ["--key", tmp_path / "officer.pem", "--password-file", tmp_path / "password"]
    printed = run("report", site, *keys, "--out", tmp_path / "out").stdout
    verified = run("verify-report", tmp_path / "out", "--officer", tmp_path / "officer.pem.pub").stdout
    assert printed.splitlines()[1:] == verified.splitlines()[1:]
    assert "signed by the privacy officer" in verified
    assert PASSWORD not in printed


def test_without_a_place_it_lies_beside_the_ledger_and_json_prints_its_values(site):
    printed = json.loads(run("report", site, "--json").stdout)
    assert printed == json.loads((site / "state/privacy/report" / VALUES).read_text())
    Ledger.open(site)


def test_an_empty_site_has_a_report_too(tmp_path):
    run("report", write_site(tmp_path / "empty"), "--out", tmp_path / "out")
    assert "no signed privacy policy" in (tmp_path / "out" / PAGE).read_text()
    run("verify-report", tmp_path / "out")


def test_verifying_draws_nothing(tmp_path, site):
    run("report", site, "--out", tmp_path / "out")
    code = (
        "import sys\nfrom client.privacy.cli import app\n"
        "try:\n    app(['verify-report', sys.argv[1]])\n"
        "except SystemExit:\n    print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "verified: no byte was changed" in found.stdout
    assert found.stdout.splitlines()[-1] == "False False"


def test_an_edited_report_is_one_line_and_exit_code_2(tmp_path, site, monkeypatch, capsys):
    run("report", site, "--out", tmp_path / "out")
    page = tmp_path / "out" / PAGE
    page.write_text(page.read_text().replace("spent", "saved", 1))
    monkeypatch.setattr(sys, "argv", ["mumc-privacy", "verify-report", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    shown = capsys.readouterr()
    assert (stopped.value.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert "was changed after signing" in shown.err
