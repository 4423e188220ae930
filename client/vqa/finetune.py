"""Fine-tuning an answering model from each of one or several encoders, kept as one that answers by their mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.site import Site
from configs.compose import compose
from configs.loader import load
from mumc_model.answerer import Answerer
from mumc_model.config import FinetuneConfig, Recipe
from mumc_model.ensemble import join
from mumc_model.errors import ConfigError
from mumc_model.finetune import FinetuneResult, OnStep, VqaData
from mumc_model.finetuned import finetune_answerer
from mumc_model.model import MumcModel
from mumc_model.model_card import Facts
from mumc_model.pretrained import load_tokenizer, read_config
from protocol.score_curve import SCORES_FILE, from_json


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What fine-tuning came to, before it is kept anywhere."""

    answerer: Answerer
    result: FinetuneResult
    data: VqaData
    facts: Facts


def learn_here(
    site: Site,
    model_folder: Path,
    overrides: Sequence[str],
    seed: int,
    *,
    on_start: Callable[[int], None] = lambda steps: None,
    on_step: OnStep | None = None,
) -> Learned:
    """The answering model that pre-trained encoders become at the site, as `finetune_members` says; nothing is kept."""
    settings = load(FinetuneConfig, compose("run", overrides)["recipe"]["finetune"], "finetune")
    model, tokenizer = MumcModel.from_pretrained(model_folder), load_tokenizer(model_folder)
    size = settings.image_size or model.config.vision.image_size
    on_start(settings.steps)
    data = VqaData.read(site.data, tokenizer, size, settings.question_tokens)
    found = finetune_answerer(
        model,
        data,
        tokenizer,
        Recipe(model=model.config, finetune=settings),
        device=site.device,
        precision=site.config.precision,
        seed=seed,
        curve=curve_beside(model_folder),
        on_step=on_step,
    )
    facts = {
        "started from": read_config(model_folder).get("facts", {}).get("run", "a model folder"),
        "training questions": found.result.examples,
        "answers": len(found.answerer.texts),
        "selection": found.result.selection,
    }
    return Learned(answerer=found.answerer, result=found.result, data=data, facts=facts)


def finetune_members(
    site: Site,
    model_folders: Sequence[Path],
    out: Path,
    overrides: Sequence[str],
    seed: int,
    *,
    on_start: Callable[[int], None] = lambda steps: None,
    on_step: OnStep | None = None,
) -> list[FinetuneResult]:
    """What fine-tuning came to from each folder of encoders; `out` holds the ensemble, or the one model of one folder.

    The first member is the model that its folder alone would give with this seed; each further one draws its batches
    with the next seed. Nothing is written before all have learned.

    Args:
        site: The site.
        model_folders: Encoders as `mumc-server export` or `mumc-site import-checkpoint` write them.
        out: Where the answering model goes.
        overrides: As in `finetune=mumc finetune.steps=500`.
        seed: Of the first member's batches and dropout.
        on_start: Called with the number of steps of all members before the first.
        on_step: Called after each step with the number of steps done by then.

    Raises:
        CheckpointError: a folder holds no encoders.
        ConfigError: the encoders' vocabularies or image sizes differ.
        DataError: the site has no training questions.
    """
    if len({tuple(load_tokenizer(folder).vocab) for folder in model_folders}) > 1:
        raise ConfigError("the encoders were trained with different vocabularies; give encoders of one run")
    count = _StepsOfAll(len(model_folders), on_start, on_step)
    members = [
        learn_here(site, folder, overrides, seed + place, on_start=count.begin, on_step=count.step)
        for place, folder in enumerate(model_folders)
    ]
    _keep(members, out, site, curve_beside(model_folders[0]))
    return [member.result for member in members]


class _StepsOfAll:
    """Steps of members that learn one after the other, told as those of one fine-tuning."""

    def __init__(self, members: int, on_start: Callable[[int], None], on_step: OnStep | None) -> None:
        self._members, self._on_start, self._on_step = members, on_start, on_step
        self._begun: list[int] = []

    def begin(self, steps: int) -> None:
        """A member begins, which takes so many steps."""
        if not self._begun:
            self._on_start(steps * self._members)
        self._begun.append(steps)

    def step(self, done: int, loss: float) -> None:
        """The member has done so many of its steps."""
        if self._on_step:
            self._on_step(sum(self._begun[:-1]) + done, loss)


def _keep(members: Sequence[Learned], out: Path, site: Site, curve: Sequence[float]) -> None:
    """Write what answers by the mean of all members, or as the one that there is."""
    first, count = members[0], len(members)
    answerer = join(
        [member.answerer for member in members],
        [member.result.validated_NK for member in members],
        train=first.data.train,
        validation=first.data.val,
        device=site.device,
        curve=curve,
    )
    facts = dict(first.facts)
    if count > 1:
        facts |= {"members": count, "selection": f"the mean of {count} members, each {first.result.selection}"}
    answerer.save(out, facts, [member.facts for member in members[1:]])


def curve_beside(model_folder: Path) -> tuple[float, ...]:
    """What all sites' models scored on their questions, if it stands beside the encoders."""
    path = model_folder / SCORES_FILE
    return from_json(path.read_text(encoding="utf-8")).share if path.is_file() else ()
