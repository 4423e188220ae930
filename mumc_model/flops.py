"""Useful work of a pre-training step: the floating-point operations of its matrix products, in closed form.

Counted is what MUMC's mathematics asks for and no more: 2 for each multiplication with its addition, once forward and
twice backward where the student learns, forward alone for the teacher. Not counted: norms, activations, softmax,
dropout, optimiser, and whatever a program computes in vain, as padding or a second time. A program's share of the
machine is this number over its seconds and over the rate of a plain matrix product.

Dimensions in the comments: B pairs, S image tokens, L text tokens, D width, V vocabulary, E embedding, N keys.
"""

from dataclasses import dataclass

from mumc_model.config import ModelConfig, ObjectiveConfig, TextConfig, VisionConfig
from mumc_model.masking import kept_patches
from mumc_model.vision import mim_width, stem_channels

_LEARNED = 3
"""A product's own cost, and that of the gradients of both of its factors."""
_HALF_LEARNED = 2
"""One factor asks for no gradient: pixels, or the teacher's features."""


@dataclass(frozen=True, kw_only=True)
class StepWork:
    """What one step is made of."""

    batch: int
    tokens: int
    """Of each caption, [CLS] included; captions of unequal length count with the longest."""
    masked: int
    """Tokens that are predicted, in the whole batch."""
    keys: int
    """Features that each one is compared with: the batch's own and those in the queue."""
    distills: bool = True
    """Whether the teacher's soft targets have a weight."""


def step_flops(model: ModelConfig, objective: ObjectiveConfig, work: StepWork) -> dict[str, int]:
    """Operations by part of a step; their sum is the step's."""
    contrasts = bool(objective.mcl or objective.ucl)
    soft = work.distills and bool(objective.distill)
    return {
        "vision": _vision(model.vision, objective, work.batch, _LEARNED),
        "text": _student_texts(model.text, objective, work),
        "fusion": _student_fusion(model, objective, work),
        "heads": _heads(model, objective, work),
        "contrast": _contrast(model, objective, work, soft=soft),
        "paint": _paint(model.vision, objective, work.batch) if objective.mim else 0,
        "teacher": _teacher(model, objective, work, contrasts=contrasts, soft=soft),
    }


def _linear(rows: int, inner: int, outer: int) -> int:
    return 2 * rows * inner * outer


def _attention(queries: int, keys: int, width: int) -> int:
    """Scores and their mix, all heads together; projections apart."""
    return 4 * queries * keys * width


def image_tokens(vision: VisionConfig, objective: ObjectiveConfig) -> int:
    """Tokens of a masked view: [CLS] and the patches that are kept."""
    return 1 + kept_patches(vision.patches, objective.patch_drop)


def _vision(vision: VisionConfig, objective: ObjectiveConfig, images: int, passes: int) -> int:
    """An encoder of images; what reads the pixels has no gradient to hand on."""
    seen, width = image_tokens(vision, objective), vision.width
    first, *further = _stem(vision)
    blocks = vision.depth * _block(seen, width, vision.mlp_ratio)
    return images * (min(passes, _HALF_LEARNED) * first + passes * (sum(further) + blocks))


def _stem(vision: VisionConfig) -> list[int]:
    """All patches become tokens before some are dropped: one product for each, or overlapping 3 x 3 convolutions."""
    if vision.stem == "linear":
        return [_linear(vision.patches, 3 * vision.patch_size**2, vision.width)]
    side, inner, costs = vision.image_size, 3, []
    for outer in stem_channels(vision):
        side //= 2
        costs.append(_linear(side**2, 9 * inner, outer))
        inner = outer
    return costs


def _block(tokens: int, width: int, mlp_ratio: float) -> int:
    inner = round(width * mlp_ratio)
    return _linear(tokens, width, 4 * width + 2 * inner) + _attention(tokens, tokens, width)


def _texts(text: TextConfig, texts: int, tokens: int) -> int:
    return texts * text.text_layers * _block(tokens, text.width, 4.0)


def _student_texts(text: TextConfig, objective: ObjectiveConfig, work: StepWork) -> int:
    """The captions as they are where features or matching read them, and masked where masked tokens are predicted."""
    plain = bool(objective.mcl or objective.ucl or objective.itm)
    return _LEARNED * _texts(text, work.batch * (plain + bool(objective.mlm)), work.tokens)


def _student_fusion(model: ModelConfig, objective: ObjectiveConfig, work: StepWork) -> int:
    """Three pairs a caption for matching, of which [CLS] is asked for, and one for the masked tokens."""
    matches, predicts = bool(objective.itm), bool(objective.mlm)
    texts, pairs = work.batch * (matches + predicts), work.batch * (3 * matches + predicts)
    asked = 3 * work.batch * matches + work.masked * predicts
    return _LEARNED * _fusion(model, objective, work, texts, pairs, asked)


def _fusion(model: ModelConfig, objective: ObjectiveConfig, work: StepWork, texts: int, pairs: int, asked: int) -> int:
    """Pairs of a text and an image through the fusion layers, to the rows that are asked for.

    Images offer their keys and values once, texts attend to themselves once before they meet an image, and the last
    layer computes what is asked for.
    """
    layers, tokens, seen = model.text.fusion_layers, work.tokens, image_tokens(model.vision, objective)
    all_rows = pairs * tokens
    rows = [(all_rows, all_rows, all_rows)] * layers
    if pairs and layers > 1:
        rows[0] = (texts * tokens, texts * tokens, all_rows)
    if pairs and layers:
        rows[-1] = (all_rows, asked, asked)
    images = _linear(work.batch * seen, model.text.width, 2 * model.text.width) if pairs else 0
    return sum(images + _fusion_layer(model.text.width, tokens, seen, *counts) for counts in rows)


def _fusion_layer(width: int, tokens: int, seen: int, keyed: int, alone: int, paired: int) -> int:
    """`keyed` rows offer keys, `alone` rows ask their own text, `paired` rows ask an image and are fed forward."""
    own = _linear(keyed + alone, width, 2 * width) + _attention(alone, tokens, width)
    cross = _linear(paired, width, 2 * width) + _attention(paired, seen, width)
    return own + cross + _linear(paired, width, 8 * width)


def _heads(model: ModelConfig, objective: ObjectiveConfig, work: StepWork) -> int:
    width, pairs = model.text.width, 3 * work.batch * bool(objective.itm)
    matching = _linear(pairs, width, 2 * width) + _linear(pairs, 2 * width, 2)
    return _LEARNED * (matching + _words(model.text, work.masked * bool(objective.mlm)))


def _words(text: TextConfig, masked: int) -> int:
    return _linear(masked, text.width, text.width + text.vocab_size)


def _contrast(model: ModelConfig, objective: ObjectiveConfig, work: StepWork, *, soft: bool) -> int:
    """Projections, similarities across and within the modalities, and those that choose hard negatives."""
    width, batch = model.projection, work.batch
    texts = bool(objective.mcl or objective.ucl or objective.itm)
    projections = _linear(batch, model.vision.width, width) + texts * _linear(batch, model.text.width, width)
    against_keys = 2 * _linear(batch, width, work.keys)
    passes = _LEARNED if objective.mcl or objective.ucl else 1
    learned = _HALF_LEARNED * (bool(objective.mcl) + bool(objective.ucl)) * against_keys
    targets = soft * bool(objective.mcl) * against_keys
    negatives = bool(objective.itm) * _linear(batch, width, batch)
    return passes * projections + learned + targets + negatives


def _paint(vision: VisionConfig, objective: ObjectiveConfig, images: int) -> int:
    """The decoder that paints the dropped patches from the seen ones."""
    seen, width = image_tokens(vision, objective), mim_width(vision)
    dropped = 1 + vision.patches - seen
    blocks = objective.mim_depth * _block(seen + dropped, width, 4.0)
    ends = _linear(seen, vision.width, width) + _linear(dropped, width, 3 * vision.patch_size**2)
    return _LEARNED * images * (ends + blocks)


def _teacher(model: ModelConfig, objective: ObjectiveConfig, work: StepWork, *, contrasts: bool, soft: bool) -> int:
    """Features of the batch, and the distribution over each masked token where soft targets count."""
    batch, distils = work.batch, soft and bool(objective.mlm)
    if not (contrasts or distils):
        return 0
    features = _linear(batch, model.vision.width, model.projection)
    features += contrasts * (
        _texts(model.text, batch, work.tokens) + _linear(batch, model.text.width, model.projection)
    )
    words = 0
    if distils:
        words = _texts(model.text, batch, work.tokens) + _words(model.text, work.masked)
        words += _fusion(model, objective, work, batch, batch, work.masked)
    return _vision(model.vision, objective, batch, 1) + features + words
