"""`mumc-site finetune --private`: an answer decoder that may leave, from the command line to its folder."""

import json

import pytest

from client.privacy.budget import rounded_up
from client.privacy.decoder import public_answers
from client.privacy.ledger import Ledger
from client.state import UNCHARGED
from mumc_model.errors import ConfigError
from mumc_model.pretrained import read_config
from tests.client.privacy.private_rounds import UNITS, approve

STEPS, BATCH = 3, 4
SETTINGS = (f"finetune.steps={STEPS}", "finetune.freeze=encoders", f"privacy.finetune.expected_batch={BATCH}")


@pytest.fixture
def private(called, encoders, tmp_path):
    """Private fine-tuning of a site into `tmp_path / "decoder"`."""

    def call(site, *more):
        return called(
            "finetune", site, *SETTINGS, "--model", encoders, "--out", tmp_path / "decoder", "--private", *more
        )

    return call


def test_a_private_decoder_is_charged_and_says_that_it_may_leave(private, folder, tmp_path):
    ledger = approve(folder)
    code, out, err = private(folder)
    assert (code, err) == (0, "")
    (found,) = Ledger.open(folder).reservations
    charge = found.charge
    assert (charge.purpose, charge.unit, charge.operator) == ("finetune", "patient", "mumc-site finetune")
    assert (charge.event.sample_rate, charge.event.noise_multiplier) == (BATCH / UNITS, 1.0)
    assert (charge.event.steps, found.steps_done) == (STEPS, STEPS)
    epsilon = rounded_up(Ledger.open(folder).epsilon())
    facts = read_config(tmp_path / "decoder")["facts"]
    assert (facts["privacy unit"], facts["epsilon"], facts["delta"]) == ("patient", epsilon, ledger.policy().delta)
    assert (facts["may leave the site"], facts["started from"]) == ("yes", "merged")
    card = (tmp_path / "decoder" / "README.md").read_text()
    assert f"one patient is bounded by epsilon {epsilon} at delta 1e-06" in card
    assert "keep this folder at the site" not in card
    assert f"epsilon {epsilon:.3f} at delta 1e-06" in out


def test_nothing_in_the_folder_is_of_the_site_s_answers_counts_or_patients(private, folder, tmp_path):
    path = folder / "vqa.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"answer": row["answer"] + " zbigniew"}) + "\n" for row in rows))
    approve(folder)
    private(folder)
    out = tmp_path / "decoder"
    written = json.loads((out / "answers.json").read_text())
    assert (written["answers"], "trust" in written) == ([], False)
    assert not (out / "familiarity.safetensors").exists()
    assert not {"training questions", "answers"} & read_config(out)["facts"].keys()
    assert not [file.name for file in out.iterdir() if b"zbigniew" in file.read_bytes()]


def test_a_decoder_without_a_list_writes_its_answers(called, private, folder, tmp_path):
    approve(folder)
    private(folder)
    image = sorted((folder / "images").rglob("*.*"))[0]
    code, out, _ = called("ask", image, "is there a mass", "--model", tmp_path / "decoder")
    assert (code, out.count("%")) == (0, 1)
    called("evaluate", folder, "--model", tmp_path / "decoder", "--out", tmp_path / "evaluation")
    card = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert (card["method"], card["out_of_list"]) == ("generate", None)


def test_a_public_list_goes_with_the_decoder_and_is_ranked(called, private, folder, tmp_path):
    approve(folder)
    (tmp_path / "public.txt").write_text("yes\n\nno \nyes\n")
    assert private(folder, "--answers", tmp_path / "public.txt")[0] == 0
    assert json.loads((tmp_path / "decoder" / "answers.json").read_text())["answers"] == ["yes", "no"]
    image = sorted((folder / "images").rglob("*.*"))[0]
    assert called("ask", image, "is there a mass", "--model", tmp_path / "decoder")[1].count("%") == 2


def test_without_a_signed_policy_it_is_refused_with_the_remedy(private, folder, tmp_path):
    code, _, err = private(folder)
    assert code == 2
    assert err == ("mumc-site: this site has no signed privacy policy; let its officer run `mumc-privacy approve`\n")
    assert not (tmp_path / "decoder").exists()


def test_less_noise_than_the_policy_asks_is_refused_before_any_charge(private, folder):
    approve(folder, noise_multiplier=1.5)
    code, _, err = private(folder)
    assert (code, "privacy.finetune.noise_multiplier is 1, and this site's policy asks" in err) == (2, True)
    assert Ledger.open(folder).reservations == ()


def test_a_cap_that_does_not_suffice_is_refused_and_writes_nothing(private, folder, tmp_path):
    approve(folder, epsilon=0.1)
    code, _, err = private(folder)
    assert (code, "above this site's limit 0.100" in err) == (2, True)
    assert Ledger.open(folder).reservations == ()
    assert not (tmp_path / "decoder").exists()


@pytest.mark.parametrize("place", ["file", "file/decoder", "kept"])
def test_a_place_where_no_new_model_can_be_kept_is_refused_before_any_charge(called, folder, encoders, tmp_path, place):
    approve(folder)
    (tmp_path / "file").touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "model.safetensors").write_bytes(b"paid for")
    out = tmp_path / place
    code, _, err = called("finetune", folder, *SETTINGS, "--model", encoders, "--out", out, "--private")
    assert (code, "choose another" in err, err.count("\n")) == (2, True, 1)
    assert Ledger.open(folder).reservations == ()
    assert (tmp_path / "kept" / "model.safetensors").read_bytes() == b"paid for"


def test_a_batch_of_more_patients_than_the_policy_declares_is_refused_with_both_numbers(private, folder, tmp_path):
    approve(folder)
    code, _, err = private(folder, f"privacy.finetune.expected_batch={UNITS + 1}")
    assert code == 2
    assert f"privacy.finetune.expected_batch is {UNITS + 1}, and this site's policy declares {UNITS:,} patients" in err
    assert not (tmp_path / "decoder").exists()


@pytest.mark.parametrize("row", ["run", "base"])
def test_encoders_that_trained_here_uncharged_are_refused(private, folder, encoders, monkeypatch, row):
    from client.privacy import decoder
    from mumc_model.model import MumcModel

    digest = decoder._digest(MumcModel.from_pretrained(encoders))
    rows = {"run": {"run": "merged", "base": ""}, "base": {"run": "another", "base": digest}}
    (folder / "state").mkdir(exist_ok=True)
    (folder / "state" / UNCHARGED).write_text(json.dumps(rows[row]) + "\n")
    approve(folder)
    code, _, err = private(folder)
    assert (code, "were trained on the same patients without differential privacy" in err) == (2, True)
    assert Ledger.open(folder).reservations == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--private"], "say where it goes with --out"),
        (["--answers", "list.txt"], "--answers is for --private"),
    ],
)
def test_options_that_make_no_sense_alone_are_refused(called, folder, encoders, arguments, message):
    code, _, err = called("finetune", folder, "--model", encoders, *arguments)
    assert code == 2
    assert message in err


def test_a_list_of_answers_is_lines_or_json(tmp_path):
    (tmp_path / "list.json").write_text('["yes", "no", "yes"]')
    assert public_answers(tmp_path / "list.json") == ("yes", "no")
    for name, text in {"empty.txt": "\n \n", "object.json": "{}", "broken.json": "["}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match="one public answer a line"):
            public_answers(tmp_path / name)
    with pytest.raises(ConfigError, match=r"cannot be read \(FileNotFoundError\)"):
        public_answers(tmp_path / "absent.txt")


def test_plain_fine_tuning_under_a_policy_is_charged_nothing_and_stays(called, folder, encoders):
    approve(folder)
    assert called("finetune", folder, "finetune.steps=2", "--model", encoders)[0] == 0
    assert Ledger.open(folder).reservations == ()
    assert "keep this folder at the site" in (folder / "state" / "vqa" / "README.md").read_text()
