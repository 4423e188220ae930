"""Nothing that could name a patient is in a byte that leaves, whatever happens."""

import json
import shutil

import pytest
from PIL import Image

from client import app as client_app
from mumc_model.data.site_writer import SiteWriter
from protocol.messages import Refusal, Report

MARKER = "zyxmarker"
TYPES = ("OPEN", "CLOSED")


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A site whose paths, patients, texts, labels and images all bear the marker."""
    folder = tmp_path_factory.mktemp(f"archive-{MARKER}") / MARKER
    with SiteWriter(folder, "north") as writer:
        for number in range(6):
            texts = {"patient_id": f"{MARKER}^{number}", "labels": {MARKER: MARKER}}
            picture = Image.effect_noise((32, 32), 40.0 + number)
            key = writer.add_image(picture, f"{MARKER}-{number}")
            writer.add_caption(key, f"{MARKER} of a chest film {number}", **texts)
            for split in ("train", "val", "test"):
                for index in range(2):
                    writer.add_question(
                        key,
                        f"which {MARKER} {index}?",
                        f"{MARKER} {number}",
                        answer_type=TYPES[number % 2],
                        question_type=MARKER,
                        split=split,
                        **texts,
                    )
    return folder


@pytest.fixture
def place(marked, tmp_path):
    """A copy whose own path bears the marker too."""
    return shutil.copytree(marked, tmp_path / f"site-{MARKER}")


def leaks(answer):
    return MARKER.encode() in answer.sent.lower()


def every_action(server):
    return [server.pretrain(1), server.pretrain(2), server.finetune(), server.evaluate()]


def spoil_images(place):
    for path in (place / "images").iterdir():
        path.write_bytes(path.read_bytes()[:40])


def spoil_rows(place):
    for name in ("captions.jsonl", "vqa.jsonl"):
        lines = (place / name).read_text().splitlines()
        rows = [json.loads(line) | {"image": f"../{MARKER}.png"} for line in lines]
        (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def spoil_settings(place):
    with (place / "site.yaml").open("a") as file:
        file.write(f"{MARKER}: 1\n")


def spoil_name(place):
    (place / "site.yaml").write_text(f"name: '{MARKER} general'\n")


def spoil_device(place):
    with (place / "site.yaml").open("a") as file:
        file.write(f"device: {MARKER}\n")


def take_away_the_folder(place):
    shutil.rmtree(place)


def block_the_state(place):
    shutil.rmtree(place / "state", ignore_errors=True)
    (place / "state" / "runs").mkdir(parents=True)
    (place / "state" / "runs" / "trial").write_text(MARKER)


def block_the_log(place):
    spoil_settings(place)
    shutil.rmtree(place / "state", ignore_errors=True)
    (place / "state" / "site.log").mkdir(parents=True)


def test_no_report_of_any_action_bears_what_the_records_and_paths_bear(server, place):
    for order in every_action(server):
        answer = server.ask(place, order)
        assert isinstance(answer.message, Report)
        assert not leaks(answer)
    kept = (place / "state" / "runs" / "trial" / "answers-test.jsonl").read_text()
    assert MARKER in kept


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_images,
        spoil_rows,
        spoil_settings,
        spoil_name,
        spoil_device,
        take_away_the_folder,
        block_the_state,
        block_the_log,
    ],
)
def test_no_refusal_bears_what_the_fault_quotes(server, place, spoil):
    spoil(place)
    for order in every_action(server):
        answer = server.ask(place, order)
        assert isinstance(answer.message, Refusal)
        assert answer.arrays == {}
        assert not leaks(answer)


def test_images_that_go_bad_after_they_were_checked_are_refused_without_their_names(server, place, monkeypatch):
    opened = client_app.open_site

    def open_then_spoil(context):
        site = opened(context)
        spoil_images(place)
        return site

    monkeypatch.setattr(client_app, "open_site", open_then_spoil)
    answer = server.ask(place, server.pretrain())
    assert answer.message.code == "data"
    assert not leaks(answer)


@pytest.mark.parametrize("handler", ["pretrain.pretrain_site", "finetune.finetune_site", "finetune.evaluate_vqa"])
def test_a_handler_that_fails_with_a_record_s_text_sends_a_code_and_logs_the_text(server, place, monkeypatch, handler):
    def fail(order, *rest, **settings):
        site = rest[-1]
        raise RuntimeError(f"cannot read {site.data.captions[0].image} of {site.data.captions[0].patient_id}")

    monkeypatch.setattr(f"client.{handler}", fail)
    orders = (server.pretrain, server.finetune, server.evaluate)
    asked = next(order for order in orders if order.__name__ in handler.partition(".")[2])
    answer = server.ask(place, asked())
    assert (answer.message.code, answer.arrays) == ("internal", {})
    assert not leaks(answer)
    assert f"{MARKER}^0" in (place / "state" / "site.log").read_text()


def test_a_log_that_cannot_be_written_changes_no_code_of_a_refusal(server, place):
    block_the_log(place)
    assert server.ask(place, server.pretrain()).message.code == "configuration"


def test_a_name_that_no_report_may_carry_is_refused_before_any_work(server, place):
    spoil_name(place)
    assert server.ask(place, server.pretrain()).message.code == "configuration"
    assert not (place / "state" / "runs").exists()


def test_an_order_in_a_message_of_another_type_is_refused(server, place):
    answer = server.ask(place, server.finetune(), message_type="train.pretrain")
    assert (answer.message.code, answer.arrays) == ("bad_message", {})


def test_a_site_folder_that_is_not_there_is_not_made(server, tmp_path):
    assert server.ask(tmp_path / "mistyped", server.pretrain()).message.code == "configuration"
    assert not (tmp_path / "mistyped").exists()
