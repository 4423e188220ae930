"""Does an explanation speak of the model? Its weights are drawn anew, from the decoder down, and the heat must change.

An explanation that stays as it is shows the image's edges, or the network's shape, and not what was learned.

Dimensions: B questions, N patches.

Source: Adebayo et al., "Sanity checks for saliency maps", arXiv 1810.03292, section 3.
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from mumc_model.model import initialise
from mumc_model.statistics import Interval, bootstrap_mean
from mumc_model.vqa import VqaModel

MOST_ALIKE = 0.5
"""The largest mean rank correlation, once every weight is random, of an explanation that depends on the weights."""

HeatOf = Callable[[VqaModel], Tensor]
"""Heat BN that an explanation finds for the same questions with a model's weights."""


@dataclass(frozen=True)
class Randomised:
    """How alike the heat still is once this part, and every part before it, has random weights."""

    part: str
    alike: Interval
    """Spearman's rank correlation with the trained model's heat, mean over the questions."""


def cascade(
    model: VqaModel,
    heat_of: HeatOf,
    *,
    generator: torch.Generator,
    clusters: Sequence[Hashable] | None = None,
    rng: np.random.Generator | None = None,
) -> list[Randomised]:
    """The curve of rank correlations as the model's parts lose what they learned; the model itself is left alone.

    Args:
        model: A trained answering model.
        heat_of: The explanation to be checked.
        generator: Draws the random weights, on the CPU.
        clusters: Which questions belong together, for the intervals: the image of each; each its own if left out.
        rng: Draws the resamples of the intervals.
    """
    trained_BN = heat_of(model)
    clusters = range(len(trained_BN)) if clusters is None else clusters
    rng = np.random.default_rng(0) if rng is None else rng
    device = next(model.parameters()).device
    changed, curve = copy.deepcopy(model).cpu(), []
    for name, part in parts(changed):
        initialise(part, generator, model.config.text.width)
        alike_B = rank_correlation(trained_BN, heat_of(changed.to(device)))
        curve.append(Randomised(name, bootstrap_mean(alike_B, clusters, rng)))
        changed.cpu()
    return curve


def depends_on_weights(curve: Sequence[Randomised], most_alike: float = MOST_ALIKE) -> bool:
    """Whether the heat of a wholly random model is another one: its correlation is below `most_alike` for certain."""
    return curve[-1].alike.high < most_alike


def parts(model: VqaModel) -> list[tuple[str, nn.Module]]:
    """The model's parts from the answer's words down to the patches; the last one of each encoder is all of it."""
    decoder, text, vision = model.text_decoder, model.text_encoder, model.visual_encoder
    found: list[tuple[str, nn.Module]] = [("answer head", decoder.cls)]
    found += _last_first("decoder layer", decoder.fusion)
    found += [("decoder words", decoder)]
    found += _last_first("fusion layer", text.fusion)
    found += _last_first("text layer", text.layers)
    found += [("question words", text)]
    found += _last_first("vision block", list(vision.blocks))
    return [*found, ("patches", vision)]


def rank_correlation(one_BN: Tensor, other_BN: Tensor) -> NDArray[np.float64]:
    """Spearman's correlation of each row of the two, B; 0 where a row says nothing, as all its values are equal."""
    ranks = [rankdata(part.detach().cpu().numpy(), axis=1) for part in (one_BN, other_BN)]
    centred = [rank - rank.mean(1, keepdims=True) for rank in ranks]
    lengths = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    products = (centred[0] * centred[1]).sum(1)
    alike_B: NDArray[np.float64] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return alike_B


def _last_first(name: str, layers: Sequence[nn.Module]) -> list[tuple[str, nn.Module]]:
    return [(f"{name} {number}", layers[number - 1]) for number in range(len(layers), 0, -1)]
