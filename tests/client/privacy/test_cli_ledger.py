import json
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from client.privacy import cli
from client.privacy.errors import PolicyError
from client.privacy.ledger import Ledger, excluded_units
from client.privacy.policy import read_policy
from mumc_model.data.site_writer import SiteWriter
from protocol.signing import fingerprint, public_hex, read_private_key
from tests.client.privacy.officer import charge

PASSWORD = "correct horse"
FACTS = ["--officer", "Ada Lovelace", "--reason", "a study"]


def run(*words, input=None):
    result = CliRunner().invoke(cli.app, [str(word) for word in words], input=input)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def password(tmp_path):
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


@pytest.fixture
def key(tmp_path, password):
    assert run("keygen", tmp_path / "officer.pem", "--password-file", password).exit_code == 0
    return tmp_path / "officer.pem"


@pytest.fixture
def site(tmp_path):
    root = tmp_path / "site"
    with SiteWriter(root, "north") as writer:
        for number in range(12):
            name = writer.add_image(Image.new("L", (8, 8), number), f"image {number}")
            writer.add_caption(name, "a square", patient_id=f"p{number // 2}")
    return root


@pytest.fixture
def approve(site, key, password):
    def approve(*words, yes=True):
        words = [*words, "--yes"] if yes else words
        return run("approve", site, "--key", key, "--password-file", password, *FACTS, *words)

    return approve


def test_keygen_writes_a_key_that_only_its_password_opens_and_prints_what_to_compare(tmp_path, password):
    printed = run("keygen", tmp_path / "key", "--password-file", password).stdout
    public = public_hex(read_private_key(tmp_path / "key", PASSWORD.encode()))
    assert (tmp_path / "key.pub").read_text() == public + "\n"
    assert fingerprint(public) in printed
    assert PASSWORD not in printed


def test_keygen_asks_for_the_password_twice_and_does_not_show_it(tmp_path):
    printed = run("keygen", tmp_path / "key", input=f"{PASSWORD}\n{PASSWORD}\n")
    read_private_key(tmp_path / "key", PASSWORD.encode())
    assert PASSWORD not in printed.output
    run("keygen", tmp_path / "other", input="one\ntwo\n")
    assert not (tmp_path / "other").exists()


def test_approve_shows_what_is_signed_and_puts_it_in_force(site, approve):
    printed = approve("--epsilon", 8, "--units", 10, "--noise-multiplier", 0.8).stdout
    policy = read_policy(site)
    assert (policy.epsilon, policy.units, policy.noise_multiplier, policy.officer) == (8, 10, 0.8, "Ada Lovelace")
    assert Ledger.open(site).policy() == policy
    for shown in ("epsilon          8", "units            10", "Ada Lovelace", "a study", "6 patients"):
        assert shown in printed


def test_nothing_is_signed_without_a_yes(site, key, password):
    words = ["approve", site, "--key", key, "--password-file", password, *FACTS, "--epsilon", 8, "--units", 10]
    assert run(*words, input="n\n").exit_code == 1
    assert read_policy(site) is None
    assert run(*words, input="y\n").exit_code == 0
    assert read_policy(site) is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--units", 10], "epsilon is 0.0"),
        (["--epsilon", 8], "units is 0"),
        (["--epsilon", 8, "--units", 10, "--delta", 0.011], "10 patients"),
        (["--epsilon", 8, "--units", 1, "--delta", 0.02], "6 patients"),
        (["--epsilon", 8, "--units", 10, "--unit", "record", "--delta", 0.009], "12 records"),
        (["--epsilon", 8, "--units", 10, "--expires", "soon"], "expires"),
    ],
)
def test_a_policy_that_contradicts_itself_or_the_sites_records_is_refused(site, approve, words, message):
    with pytest.raises(PolicyError, match=message):
        approve(*words)
    assert read_policy(site) is None


def test_patients_cannot_be_promised_where_only_images_are_known(tmp_path, key, password):
    with SiteWriter(tmp_path / "images", "south", "image") as writer:
        writer.add_caption(writer.add_image(Image.new("L", (8, 8)), "one"), "a square")
    words = ["approve", tmp_path / "images", "--key", key, "--password-file", password, "--yes", *FACTS]
    with pytest.raises(PolicyError, match="unit: image"):
        run(*words, "--epsilon", 8, "--units", 10)
    assert run(*words, "--epsilon", 8, "--units", 10, "--unit", "record").exit_code == 0


def test_a_cap_below_what_was_spent_is_refused(site, approve):
    approve("--epsilon", 8, "--units", 10)
    Ledger.open(site).reserve(charge(), units=["p1"])
    with pytest.raises(PolicyError, match=r"is spent or reserved already, above the new limit 0\.100"):
        approve("--epsilon", 0.1, "--units", 10)


def test_another_key_approves_after_a_handover_only(tmp_path, site, approve, password):
    approve("--epsilon", 8, "--units", 10)
    run("keygen", tmp_path / "new.pem", "--password-file", password)
    words = ["approve", site, "--key", tmp_path / "new.pem", "--password-file", password, "--yes", *FACTS]
    with pytest.raises(PolicyError, match="hand over first"):
        run(*words, "--epsilon", 9, "--units", 10)
    public = (tmp_path / "new.pem.pub").read_text().strip()
    assert fingerprint(public) in approve("--handover", tmp_path / "new.pem.pub").stdout
    run(*words, "--epsilon", 9, "--units", 10)
    assert read_policy(site).epsilon == 9
    assert Ledger.open(site).officer == public


def test_the_ledger_is_shown_by_run_and_round_with_both_accountants(site, approve, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    approve("--epsilon", 8, "--units", 10)
    ledger = Ledger.open(site)
    ledger.reconcile(ledger.reserve(charge(round=1), units=["p1"]), 11)
    ledger.reserve(charge(round=2), units=["p1"])
    printed = run("ledger", site).stdout
    for shown in ("cap", "spent", "remaining", "RDP (dp-accounting", "PLD (dp-accounting", "trial", "reserved"):
        assert shown in printed
    values = json.loads(run("ledger", site, "--json").stdout)
    assert [(row["round"], row["event"]["steps"], row["steps_done"]) for row in values["charges"]] == [
        (1, 20, 11),
        (2, 20, None),
    ]
    epsilon = values["epsilon"]
    assert 0 < epsilon["spent"] < epsilon["spent_and_reserved"] == ledger.epsilon()
    assert epsilon["cap"] == epsilon["spent_and_reserved"] + epsilon["remaining"]
    assert f"{ledger.remaining():.3f}" in printed
    assert f"{ledger.head.count} rows" in run("ledger", site, "--verify").stdout


def test_a_ledger_without_a_policy_says_so(site):
    assert "no signed privacy policy" in " ".join(run("ledger", site).stdout.split())
    assert json.loads(run("ledger", site, "--json").stdout)["policy"] is None


@pytest.mark.parametrize(("words", "typed"), [(["p3"], None), (["-"], "p3\n")], ids=["as a word", "as input"])
def test_a_patient_is_withdrawn_by_id_and_the_id_is_not_repeated(site, words, typed):
    assert "p3" not in run("exclude", site, *words, input=typed).stdout
    assert excluded_units(site, ["p3", "p4"]) == {"p3"}


def test_a_patient_id_that_no_record_has_is_kept_and_questioned_since_it_may_be_misspelt(site):
    assert run("exclude", site, "p3").stderr == ""
    assert "check how it is spelt" in run("exclude", site, "p33").stderr
    (site / "captions.jsonl").write_text("{}\n" * 12)
    assert "no record that can be read" in run("exclude", site, "p4").stderr
    assert excluded_units(site, ["p3", "p33", "p4", "p5"]) == {"p3", "p33", "p4"}


def test_a_fault_is_one_line_and_exit_code_2(site, monkeypatch, capsys):
    (site / "state/privacy").mkdir(parents=True)
    (site / "state/privacy/ledger.jsonl").write_text("{}\n")
    monkeypatch.setattr(sys, "argv", ["mumc-privacy", "ledger", str(site), "--verify"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    shown = capsys.readouterr()
    assert (stopped.value.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert shown.err.startswith("mumc-privacy: ")


def test_help_is_shown_without_loading_a_model_or_an_accountant():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom client.privacy import cli\n"
        "assert 'approve' in CliRunner().invoke(cli.app, ['--help']).stdout\n"
        "sys.exit(bool({'torch', 'dp_accounting', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
