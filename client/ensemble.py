"""Fine-tuning one answering model from each of several encoders, and keeping them as one that answers by their mean."""

from collections.abc import Callable, Sequence
from pathlib import Path

from client.site import Site
from client.vqa import curve_beside, learn_here
from mumc_model.ensemble import join
from mumc_model.errors import ConfigError
from mumc_model.finetune import FinetuneResult, OnStep
from mumc_model.pretrained import load_tokenizer


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
    members, before = [], [0]

    def begins(steps: int) -> None:
        before.append(before[-1] + steps)
        if len(before) == 2:
            on_start(steps * len(model_folders))

    def stepped(done: int, loss: float) -> None:
        if on_step:
            on_step(before[-2] + done, loss)

    for place, folder in enumerate(model_folders):
        members.append(learn_here(site, folder, overrides, seed + place, on_start=begins, on_step=stepped))
    first, count = members[0], len(members)
    answerer = join(
        [member.answerer for member in members],
        [member.result.validated_NK for member in members],
        train=first.data.train,
        validation=first.data.val,
        device=site.device,
        curve=curve_beside(model_folders[0]),
    )
    facts = dict(first.facts)
    if count > 1:
        facts |= {"members": count, "selection": f"the mean of {count} members, each {first.result.selection}"}
    answerer.save(out, facts, [member.facts for member in members[1:]])
    return [member.result for member in members]
