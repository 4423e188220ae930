"""A simulation in words: what its numbers are for, how weights were chosen, what else a reader must know."""

from simulations.config import SimulationConfig


def case(config: SimulationConfig) -> str:
    """One sentence on what the numbers are for, since federating pays in some cases and not in others."""
    source, split, sites = config.source, config.partition, config.run.federation.sites
    if source.kind == "phantom":
        hospitals = f"{sites} synthetic hospitals of unlikeness {source.phantom.unlike:g}"
        uniform = source.phantom.question_mix == "uniform"
        asked = "asked about alike" if uniform else "each asked about its own kind of images"
        apart = f"; the last one sees {source.phantom.apart} only, and no other sees it" if source.phantom.apart else ""
        return f"{hospitals}, {source.phantom.images} captioned images each, {asked}{apart}{_newcomers(config)}"
    names = (
        f"{source.captions} captions and {source.questions} questions" if source.kind == "public" else "site folders"
    )
    return (
        f"{names} over {sites} hospitals, patients split by {split.scheme} ({split.label}), questions {split.questions}"
        f"{_newcomers(config)}"
    )


def _newcomers(config: SimulationConfig) -> str:
    if not config.newcomers:
        return ""
    which = "the last one" if config.newcomers == 1 else f"the last {config.newcomers}"
    return f"; {which} took no part in pre-training, and only there is anything asked"


def selection(config: SimulationConfig) -> str:
    """How each site chose the weights that answer, in one sentence."""
    finetune = config.run.recipe.finetune
    looks = -(-finetune.steps // finetune.select_every)
    if finetune.select_on == "test":
        return f"the best of {looks} looks ON THE TEST QUESTIONS, so every accuracy here is too good"
    return f"the best of {looks} looks at the site's own validation questions; the test questions are asked once"


def caveats(config: SimulationConfig) -> list[str]:
    """What the run adds to what a report says of itself, the experiment's own sentences first."""
    notes = [
        *config.caveats,
        f"pre-training: {config.run.federation.rounds} rounds of {config.run.federation.local_steps} steps of "
        f"{config.run.recipe.pretrain.batch_size} records at each site; centralised takes as many as all together",
    ]
    if len(config.pairs) > 1:
        notes.append(f"{len(config.pairs)} pairs are compared, so about one in twenty parts from zero by chance alone")
    if "scratch" in config.arms and config.scratch_freeze != config.run.recipe.finetune.freeze:
        notes.append(
            f"fine-tuning freezes '{config.run.recipe.finetune.freeze}' in the pre-trained arms and "
            f"'{config.scratch_freeze}' in scratch, whose encoders are random"
        )
    return notes
