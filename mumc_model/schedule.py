"""What changes from step to step of a run by its number alone: the learning rate, and the teacher's weight."""

import math

from mumc_model.config import ObjectiveConfig, OptimizerConfig
from mumc_model.errors import ConfigError


def learning_rate(step: int, config: OptimizerConfig, total_steps: int, round_first_step: int) -> float:
    """The rate at a step of the whole run: linear warm-up, then one schedule over all rounds.

    A later round warms up again over `rewarm_steps`, because the merged weights are new to the optimiser.

    Raises:
        ConfigError: an exponential schedule has no end to fall to.
    """
    progress = min(1.0, max(0, step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    share, end = 1.0, config.final_lr_share
    if config.schedule == "cosine":
        share = end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2
    elif config.schedule == "exponential":
        if end <= 0:
            raise ConfigError("an exponential schedule needs optimizer.final_lr_share above 0; set it, say to 0.01")
        share = end**progress
    if step < config.warmup_steps:
        share *= (step + 1) / config.warmup_steps
    if round_first_step and step < round_first_step + config.rewarm_steps:
        share *= (step - round_first_step + 1) / config.rewarm_steps
    return config.lr * share


def ramped(objective: ObjectiveConfig, step: int) -> float:
    """Weight alpha of the teacher's soft targets at a step of the whole run."""
    ramp = objective.distill_ramp_steps
    return objective.distill * (min(1.0, step / ramp) if ramp else 1.0)
