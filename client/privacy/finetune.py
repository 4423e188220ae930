"""Fine-tuning and evaluation whose metrics leave a site: charged steps, and one charged release with noise.

What leaves is an accuracy with noise, the standard error of that noise, the policy's public number of units in the
place of a count, and what the budget has come to. An order that was answered before is answered with the same numbers
at no charge; one that is done again is charged again.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from client.privacy import metrics
from client.privacy.budget import rounded_up
from client.privacy.charging import Charges, reserved
from client.privacy.finetune_train import PrivateFinetuner
from client.privacy.ledger import Ledger
from client.privacy.policy import PrivacyPolicy, check_run, read_policy
from client.privacy.pretrain import check_provenance, spent
from client.privacy.questions import PrivateQuestions, learning_questions, unit_names
from client.privacy.randomness import SecureSource
from client.rounds import kept_answerer, merged_model, report
from client.site import Site
from mumc_model.answerer import Answerer
from mumc_model.answering import answer_questions, generate_answers
from mumc_model.config import Recipe
from mumc_model.data.samples import VqaSamples
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import DataError
from mumc_model.evaluate import AnswerRow
from mumc_model.model_card import MAY_LEAVE
from mumc_model.pretrained import read_config
from mumc_model.sharing import load_private
from protocol.messages import Order, Report


def finetune_privately(order: Order, recipe: Recipe, base: Mapping[str, np.ndarray[Any, Any]], site: Site) -> Report:
    """The report of private steps on the site's questions and of one release about its test split.

    Raises:
        PrivacyError: policy, budget, ledger, provenance or the model do not allow it; its code says which.
        ProtocolError: the weights are not those that the order names, or do not fit its model.
        DataError: the site has no training questions.
    """
    check_run(read_policy(site.root), recipe.privacy)
    ledger, state = Ledger.open(site.root), site.state(order.run_id)
    policy = ledger.policy()
    released = state.released(order)
    if released is None:
        released = _finetune(order, recipe, base, site, ledger)
    return report(order, site, policy.units, released | spent(ledger))


def evaluate_privately(order: Order, recipe: Recipe, site: Site) -> Report:
    """The report of one more release, about the model that this run's private fine-tuning left here.

    Raises:
        PrivacyError: policy, budget or ledger do not allow it; its code says which.
        DataError: this run has fine-tuned nothing privately here.
        CheckpointError: the kept model is of another recipe or vocabulary.
    """
    check_run(read_policy(site.root), recipe.privacy)
    ledger, state = Ledger.open(site.root), site.state(order.run_id)
    policy, folder = ledger.policy(), state.private_vqa_folder
    answerer = kept_answerer(folder, recipe, order.vocabulary)
    model = str(read_config(folder)["weights_sha256"])
    released = state.released(order, model)
    if released is None:
        about = _Release(order, recipe, site, policy)
        with reserved(ledger, about.charges.metrics(), patients_asked(site), about.done):
            released = about.of(answerer)
            state.keep_released(order, released, model)
    return report(order, site, policy.units, released | spent(ledger))


def _finetune(
    order: Order, recipe: Recipe, base: Mapping[str, np.ndarray[Any, Any]], site: Site, ledger: Ledger
) -> dict[str, float]:
    state, tokenizer = site.state(order.run_id), Tokenizer(order.vocabulary)
    check_provenance(site.root, order.run_id, order.base_digest)
    model, _ = merged_model(order, base, recipe, site)
    if heads := state.private_weights(before_round=order.round, charged=True):
        load_private(model, heads)
    trainer = PrivateFinetuner(model, recipe, site.device, site.config.precision)
    questions = private_questions(trainer, site, tokenizer)
    about = _Release(order, recipe, site, ledger.policy())
    patients, charges = patients_asked(site), about.charges
    with (
        reserved(ledger, charges.steps(), patients, lambda: trainer.steps_done),
        reserved(ledger, charges.metrics(), patients, about.done),
    ):
        answering = trainer.run(questions, charges.sample_rate)
        answerer = Answerer(model=answering, tokenizer=tokenizer, texts=recipe.privacy.finetune.answers)
        answerer.save(state.private_vqa_folder, leaving_facts(order.run_id, recipe, ledger))
        released = about.of(answerer)
        state.keep_released(order, released)
    return released


class _Release:
    """One release about the test split."""

    def __init__(self, order: Order, recipe: Recipe, site: Site, policy: PrivacyPolicy) -> None:
        self._order, self._recipe, self._site = order, recipe, site
        self._steps = 0
        self.charges = Charges(
            run=order.run_id,
            round=order.round,
            attempt=order.attempt,
            operator="server",
            recipe=recipe,
            policy=policy,
        )

    def done(self) -> int:
        """Whether it was made, 0 or 1."""
        return self._steps

    def of(self, answerer: Answerer) -> dict[str, float]:
        """What may leave about this model's answers; the answers themselves stay in the run's folder."""
        privacy, finetune = self._recipe.privacy, answerer.model.finetune
        size = answerer.model.vision_config.image_size
        samples = VqaSamples(self._site.data, "test", answerer.tokenizer, size, finetune.question_tokens)
        units = unit_names(samples, privacy.unit)
        rows = _rows(answerer, samples, units, self._site)
        self._site.state(self._order.run_id).keep_rows("test", rows)
        correct_U = metrics.correctness((row.correct for row in rows), units)
        self._steps = 1
        return metrics.release(correct_U, privacy.finetune.metrics_noise, SecureSource()).metrics()


def private_questions(trainer: PrivateFinetuner, site: Site, tokenizer: Tokenizer) -> PrivateQuestions:
    """The site's questions as this trainer takes them.

    Raises:
        DataError: the site has none to learn from.
    """
    model, unit = trainer.model, trainer.recipe.privacy.unit
    size = model.vision_config.image_size
    samples = learning_questions(site.data, tokenizer, size, model.finetune.question_tokens)
    return PrivateQuestions(model, samples, tokenizer, unit, trainer.device, trainer.precision)


def leaving_facts(source: str, recipe: Recipe, ledger: Ledger) -> dict[str, Any]:
    """What a privately trained model's card says: public numbers only. The last charge is that of its training."""
    policy, privacy = ledger.policy(), recipe.privacy
    return {
        "started from": source,
        "selection": f"the last of {recipe.finetune.steps} steps, as nothing is chosen by private questions",
        MAY_LEAVE: "yes",
        "privacy unit": privacy.unit,
        "epsilon": rounded_up(ledger.epsilon()),
        "delta": policy.delta,
        "epsilon covers": "everything charged at this site so far, by an RDP filter",
        "noise multiplier": privacy.finetune.noise_multiplier,
        "clipping norm": privacy.finetune.clipping_norm,
        "sample rate": privacy.finetune.expected_batch / policy.units,
    }


def _rows(answerer: Answerer, samples: VqaSamples, units: tuple[str, ...], site: Site) -> list[AnswerRow]:
    """Each unit's questions answered by themselves: written, or ranked over a public list."""
    device, precision = site.device, site.config.precision
    if answerer.texts:
        return answer_questions(
            answerer.model, answerer.candidates, samples, device=device, precision=precision, apart=units
        )
    return generate_answers(
        answerer.model, answerer.tokenizer, samples, device=device, precision=precision, apart=units
    )


def patients_asked(site: Site) -> frozenset[str]:
    """All who have questions: a charge names them whether or not they are in a split."""
    patients = frozenset(row.patient_id for row in site.data.vqa)
    if not patients:
        raise DataError("there are no questions at this site; import some with mumc-site import")
    return patients
