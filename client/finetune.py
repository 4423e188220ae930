"""Fine-tuning and evaluation at a site: its own questions, its own answer decoder; only metrics go back.

Where metrics are to leave under differential privacy, `client/privacy/finetune.py` takes the place of both.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from client.gate import check_records
from client.privacy.policy import check_run, read_policy
from client.rounds import kept_answerer, merged_model, report
from client.site import Site
from configs.loader import load
from mumc_model.answerer import Answerer
from mumc_model.answering import answer_questions
from mumc_model.config import Recipe
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import DataError
from mumc_model.evaluate import AnswerRow, score
from mumc_model.finetune import VqaData
from mumc_model.finetuned import Finetuned, finetune_answerer
from mumc_model.model import MumcModel
from mumc_model.sharing import load_private
from protocol.messages import Order, Report
from protocol.score_curve import curve_metrics

SMALLEST_GROUP = 10
"""Accuracies over fewer questions stay at the site, because they tell of single patients, unless its limits say
otherwise (policy.runs.smallest_count)."""

Arrays = Mapping[str, np.ndarray[Any, Any]]


def finetune_site(order: Order, base: Arrays, site: Site) -> Report:
    """Fine-tune on the merged encoders, keep the best step by the validation split, look once at the test split.

    The model, its answers and every answered question stay in the site's state folder.

    Raises:
        ProtocolError: the weights are not those that the order names, or do not fit its model.
        PrivacyError: policy, budget, ledger or provenance do not allow what the run asks for.
        GateError: the site has too few training questions by its own limit.
        DataError: the site has no training questions.
    """
    recipe, state = load(Recipe, order.recipe, "order.recipe"), site.state(order.run_id)
    policy = read_policy(site.root)
    questions = sum(row.split == "train" for row in site.data.vqa)
    check_records(site.config.policy.runs, policy.units if policy else questions)
    if recipe.privacy.releases_metrics:
        # Opacus takes seconds to import, and a run that releases nothing does without.
        from client.privacy.finetune import finetune_privately

        return finetune_privately(order, recipe, base, site)
    data = _vqa_data(site, recipe, order.vocabulary)
    found = finetune_answerer(
        _encoders(order, base, recipe, site),
        data,
        Tokenizer(order.vocabulary),
        recipe,
        device=site.device,
        precision=site.config.precision,
        seed=site.seed(order.seed),
    )
    found.answerer.save(state.vqa_folder, facts={"run": order.run_id, "selection": found.result.selection})
    rows = _test_rows(found.answerer, data, site)
    state.keep_rows("test", rows)
    smallest, examples = _smallest(site), found.result.examples
    metrics = _validated(found, len(data.val), smallest) | accuracies(rows, smallest)
    return _report(order, site, recipe, examples if examples >= smallest else 0, metrics)


def _encoders(order: Order, base: Arrays, recipe: Recipe, site: Site) -> MumcModel:
    """The merged encoders, with the heads that the site kept to itself; noted where they learned without a charge."""
    model, _ = merged_model(order, base, recipe, site)
    state = site.state(order.run_id)
    if state.is_uncharged(order):
        state.note_uncharged(order)
    private = state.private_weights(before_round=order.round, charged=recipe.privacy.on)
    if private:
        load_private(model, private)
    return model


def _validated(found: Finetuned, questions: int, smallest: int) -> dict[str, float]:
    """The loss, and of so many validation questions the accuracy and the curve, as far as they are enough to tell."""
    metrics, accuracy, sets = {"loss": found.result.loss}, found.result.validation_accuracy, found.answerer.trust.sets
    if accuracy is None or questions < smallest:
        return metrics
    return metrics | {"validation_accuracy": accuracy} | curve_metrics(sets.own_curve(), sets.questions, smallest)


def evaluate_vqa(order: Order, site: Site) -> Report:
    """Answer the test questions again with the model that this run's fine-tuning left here, encoders and all.

    Raises:
        DataError: this run has fine-tuned nothing here, or there are no test questions.
        CheckpointError: the kept model is of another recipe or vocabulary.
    """
    recipe, state = load(Recipe, order.recipe, "order.recipe"), site.state(order.run_id)
    if recipe.privacy.releases_metrics:
        from client.privacy.finetune import evaluate_privately

        return evaluate_privately(order, recipe, site)
    data = _vqa_data(site, recipe, order.vocabulary)
    if not len(data.test):
        raise DataError("there are no test questions to answer; import some with split: test")
    rows = _test_rows(kept_answerer(state.vqa_folder, recipe, order.vocabulary), data, site)
    state.keep_rows("test", rows)
    smallest = _smallest(site)
    return _report(order, site, recipe, len(rows) if len(rows) >= smallest else 0, accuracies(rows, smallest))


def accuracies(rows: Sequence[AnswerRow], smallest: int = SMALLEST_GROUP) -> dict[str, float]:
    """Accuracy and number of questions, overall and by open and closed, as far as no group is too small to tell.

    Where one of the two kinds is too small both are left out, since the rest of a sum tells the missing part.
    """
    if len(rows) < max(1, smallest):
        return {}
    scores = score(rows)
    metrics = {"accuracy": scores["overall"]["accuracy"], "tested": float(len(rows))}
    kinds = {kind: scores[kind] for kind in ("open", "closed") if kind in scores}
    if all(group["n"] >= smallest for group in kinds.values()):
        for kind, group in kinds.items():
            metrics |= {f"accuracy_{kind}": group["accuracy"], f"tested_{kind}": float(group["n"])}
    return metrics


def _report(order: Order, site: Site, recipe: Recipe, examples: int, metrics: Mapping[str, float]) -> Report:
    """The answer to an order; where a privacy policy is in force, metrics and counts stay at the site.

    They were not charged. What stays in `state/` and what `mumc-site evaluate` shows is complete all the same.
    """
    policy = read_policy(site.root)
    if policy is None and not recipe.privacy.on:
        return report(order, site, examples, metrics)
    check_run(policy, recipe.privacy)
    assert policy is not None
    return report(order, site, policy.units, {})


def _smallest(site: Site) -> int:
    limits = site.config.policy.runs
    return limits.smallest_count if limits else SMALLEST_GROUP


def _test_rows(answerer: Answerer, data: VqaData, site: Site) -> list[AnswerRow]:
    return answer_questions(
        answerer.model,
        answerer.candidates,
        data.test,
        device=site.device,
        precision=site.config.precision,
        calibration=answerer.calibration,
        types=[answerer.trust.types.guess(question) for question in data.test.questions],
    )


def _vqa_data(site: Site, recipe: Recipe, vocabulary: tuple[str, ...]) -> VqaData:
    """The site's questions as the recipe reads them, decoded once a process."""
    settings = recipe.finetune
    return _cached(site, vocabulary, settings.image_size or recipe.model.vision.image_size, settings.question_tokens)


@lru_cache(maxsize=4)
def _cached(site: Site, vocabulary: tuple[str, ...], image_size: int, tokens: int) -> VqaData:
    return VqaData.read(site.data, Tokenizer(vocabulary), image_size, tokens)
