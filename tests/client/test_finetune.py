import itertools
import json
import shutil
from dataclasses import replace

import pytest

from client.finetune import SMALLEST_GROUP, accuracies
from client.state import RunState
from mumc_model.answerer import Answerer
from mumc_model.checkpoint import load_weights, save_weights
from mumc_model.data.files import write_atomically
from mumc_model.evaluate import AnswerRow
from mumc_model.sharing import is_shared
from mumc_model.vqa import VqaModel
from protocol.messages import Refusal, Report
from protocol.score_curve import SHARE_METRICS, VALIDATED, fewest_questions
from tests.federation import LIMITS, limit

KINDS = {"accuracy", "accuracy_open", "accuracy_closed", "tested", "tested_open", "tested_closed"}


def rows(open_=0, closed=0):
    kinds = ["OPEN"] * open_ + ["CLOSED"] * closed
    texts = {"image": "images/a.png", "question_type": "kind", "truth": "cyst", "prediction": "cyst"}
    return [
        AnswerRow(answer_type=kind, correct=number % 3 > 0, confidence=0.5, **texts)
        for number, kind in enumerate(kinds)
    ]


def keep_questions(folder, **counts):
    """Leave only so many questions of each named split."""
    left = dict(counts)
    kept = []
    for line in (folder / "vqa.jsonl").read_text().splitlines(keepends=True):
        split = json.loads(line)["split"]
        left[split] = left.get(split, 10**6) - 1
        if left[split] >= 0:
            kept.append(line)
    write_atomically(folder / "vqa.jsonl", "".join(kept).encode())


@pytest.fixture(scope="module")
def finetuned(server, untouched, tmp_path_factory):
    """A folder whose site has fine-tuned, and what it answered; tests only read it."""
    folder = shutil.copytree(untouched, tmp_path_factory.mktemp("finetuned") / "site")
    return folder, server.ask(folder, server.finetune())


def test_only_metrics_leave_after_fine_tuning(finetuned):
    _, answer = finetuned
    assert isinstance(answer.message, Report)
    assert answer.arrays == {}
    assert set(answer.message.metrics) == KINDS | {"loss", "validation_accuracy"}


def test_the_curve_of_scores_leaves_only_where_each_of_its_values_could_be_of_a_group_that_may_be_told(server, folder):
    questions = folder / "vqa.jsonl"
    rows = [line for line in questions.read_text().splitlines() if json.loads(line)["split"] == "val"]
    questions.write_text(questions.read_text() + "\n".join(rows) + "\n")
    assert 2 * len(rows) == fewest_questions(1)
    limit(folder, **LIMITS, smallest_count=1)
    metrics = server.ask(folder, server.finetune()).message.metrics
    assert {VALIDATED, *SHARE_METRICS} < set(metrics)
    assert metrics[VALIDATED] == 20


def test_the_accuracies_are_those_of_the_answers_kept_at_the_site(finetuned):
    folder, answer = finetuned
    kept = RunState.of(folder, "trial").rows("test")
    assert len(kept) == answer.message.metrics["tested"] == 24
    assert accuracies(kept).items() <= answer.message.metrics.items()
    assert answer.message.metrics["accuracy"] == sum(row.correct for row in kept) / 24


def test_the_model_stays_in_the_state_folder_with_its_decoder_and_answers(finetuned):
    folder, _ = finetuned
    answerer = Answerer.open(RunState.of(folder, "trial").vqa_folder)
    assert {name.split(".")[0] for name in answerer.model.weights()} == {
        "visual_encoder",
        "text_encoder",
        "text_decoder",
    }
    trained_on = {json.loads(line)["answer"] for line in (folder / "vqa.jsonl").read_text().splitlines()}
    assert answerer.texts
    assert set(answerer.texts) <= trained_on


def test_evaluating_again_gives_the_same_accuracies_from_what_was_kept(server, finetuned):
    folder, answer = finetuned
    again = server.ask(folder, server.evaluate())
    assert again.arrays == {}
    assert again.message.metrics == {name: answer.message.metrics[name] for name in KINDS}


def test_fine_tuning_again_gives_the_same_report(server, finetuned, folder):
    assert server.ask(folder, server.finetune()).message == finetuned[1].message


def test_fine_tuning_begins_with_the_heads_of_the_last_round(server, folder, finetuned):
    server.ask(folder, server.pretrain(1))
    server.ask(folder, server.pretrain(2))
    kept = folder / "state" / "runs" / "trial" / "pretrain-after-round-00002.safetensors"
    heads = {name: weight for name, weight in load_weights(kept).items() if name.endswith("cls.predictions.bias")}
    assert not any(map(is_shared, heads))
    save_weights(kept, load_weights(kept) | {name: weight * 0 + 5 for name, weight in heads.items()})
    server.ask(folder, server.finetune())
    weights = load_weights(RunState.of(folder, "trial").vqa_folder / "model.safetensors")
    assert (weights["text_decoder.cls.predictions.bias"] - 5).abs().max() < 0.1
    fresh = load_weights(RunState.of(finetuned[0], "trial").vqa_folder / "model.safetensors")
    assert fresh["text_decoder.cls.predictions.bias"].abs().max() < 0.1


def test_weights_that_are_not_those_of_the_order_are_refused(server, folder):
    other = {dtype: flat + 1 for dtype, flat in server.base.items()}
    assert server.ask(folder, server.finetune(), other).message.code == "stale"


def test_weights_beside_an_order_to_evaluate_are_refused(server, folder):
    assert server.ask(folder, server.evaluate(), server.base).message.code == "bad_message"


def test_evaluating_before_fine_tuning_is_refused_with_the_code_of_the_data(server, folder):
    answer = server.ask(folder, server.evaluate())
    assert isinstance(answer.message, Refusal)
    assert (answer.message.code, answer.arrays) == ("data", {})


def test_a_site_without_test_questions_cannot_be_evaluated(server, folder):
    keep_questions(folder, test=0)
    assert server.ask(folder, server.evaluate()).message.code == "data"


def test_a_site_without_training_questions_refuses_to_fine_tune(server, folder):
    keep_questions(folder, train=0)
    assert server.ask(folder, server.finetune()).message.code == "data"


def test_a_kept_model_of_another_recipe_is_refused(server, folder, finetuned):
    answerer = Answerer.open(RunState.of(finetuned[0], "trial").vqa_folder)
    config = replace(answerer.model.config, temperature=0.1)
    other = VqaModel(config, answerer.model.finetune)
    replace(answerer, model=other).save(RunState.of(folder, "trial").vqa_folder)
    assert server.ask(folder, server.evaluate()).message.code == "weights"


def test_a_kept_model_that_was_damaged_is_refused(server, folder, finetuned):
    shutil.copytree(RunState.of(finetuned[0], "trial").vqa_folder, RunState.of(folder, "trial").vqa_folder)
    (RunState.of(folder, "trial").vqa_folder / "model.safetensors").write_bytes(b"")
    assert server.ask(folder, server.evaluate()).message.code == "weights"


def test_splits_of_fewer_than_ten_questions_report_no_accuracy_and_no_count(server, folder):
    keep_questions(folder, val=SMALLEST_GROUP - 1, test=SMALLEST_GROUP - 1)
    assert set(server.ask(folder, server.finetune()).message.metrics) == {"loss"}
    assert len(RunState.of(folder, "trial").rows("test")) == SMALLEST_GROUP - 1
    again = server.ask(folder, server.evaluate()).message
    assert (again.metrics, again.examples) == ({}, 0)


@pytest.mark.parametrize(
    ("open_", "closed", "told"),
    [
        (0, 0, set()),
        (9, 0, set()),
        (4, 5, set()),
        (5, 5, {"accuracy", "tested"}),
        (40, 9, {"accuracy", "tested"}),
        (1, 40, {"accuracy", "tested"}),
        (10, 0, {"accuracy", "tested", "accuracy_open", "tested_open"}),
        (0, 10, {"accuracy", "tested", "accuracy_closed", "tested_closed"}),
        (10, 10, KINDS),
    ],
)
def test_a_group_that_is_too_small_is_left_out_with_the_one_that_would_tell_it(open_, closed, told):
    assert set(accuracies(rows(open_, closed))) == told


def test_no_group_that_a_report_counts_or_that_its_counts_leave_over_is_small():
    for open_, closed in itertools.product(range(25), repeat=2):
        metrics = accuracies(rows(open_, closed))
        groups = [metrics[name] for name in ("tested_open", "tested_closed") if name in metrics]
        left_over = [metrics["tested"] - group for group in groups]
        assert all(n >= SMALLEST_GROUP for n in [*groups, *(metrics[name] for name in metrics if name == "tested")])
        assert all(n == 0 or n >= SMALLEST_GROUP for n in left_over)
