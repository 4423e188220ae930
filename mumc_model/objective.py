"""From a batch to MUMC's losses: masked views, teacher, contrast, one fusion pass for matching and masked tokens.

The order of events is the reference's unless configured: features of student and teacher, then the teacher moves, then
the losses, then the queue fills. A loss of weight 0 has no forward pass of its own. One of several ranks encodes its
share of the batch, contrasts it with the whole batch, and counts its share of each mean.

Dimensions: B records of this rank's share, W of the whole batch (B where there is one rank), K image tokens, D width,
L tokens, T texts, X pairs, E embedding, N keys (the W of the batch, then the queue), M masked tokens, Q asked-for
positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mumc_model import losses
from mumc_model.config import ObjectiveConfig
from mumc_model.contrast import Contrast, Tensors
from mumc_model.data.collate import PretrainBatch
from mumc_model.device import sent
from mumc_model.errors import ConfigError
from mumc_model.masking import IGNORED, Draws, dropped_patches, negative_weights
from mumc_model.model import MumcModel, at_least_single
from mumc_model.momentum import FeatureQueue, Teacher
from mumc_model.ranks import ALONE, Ranks
from mumc_model.text import Pairs
from mumc_model.vision import MimDecoder, blank_patches, patchify


@dataclass(frozen=True, kw_only=True)
class PretrainOutput:
    """The losses of one batch, or this rank's share of them: over all ranks they add up to those of the batch."""

    total: Tensor
    """Sum of the terms times their weights, to be differentiated."""
    terms: Mapping[str, Tensor]
    """Each active loss before weighting, detached: nats, and for mim squared units."""
    trace: Mapping[str, Tensor]
    """What the losses were made of, detached, by the names in the reference's recordings."""


@dataclass(frozen=True, kw_only=True)
class MaskedTexts:
    """Texts with masked tokens and where those are, padded to the largest number of them in a text."""

    ids_BL: Tensor
    at_BQ: Tensor
    chosen_M: Tensor
    """Places of the masked tokens in `at_BQ` read row by row."""
    labels_M: Tensor
    share: float
    """Of all masked tokens of the batch, so many are in these texts."""

    @staticmethod
    def of(ids_WL: Tensor, labels_WL: Tensor, device: torch.device, own: slice = slice(None)) -> "MaskedTexts":
        """Find the positions on the CPU and move them to `device` at once, so that an accelerator need not wait."""
        ids_BL, labels_BL = ids_WL[own], labels_WL[own]
        masked_BL = labels_BL != IGNORED
        most = max(1, int(masked_BL.sum(dim=1).max()))
        at_BQ = (~masked_BL).int().argsort(dim=1, stable=True)[:, :most]
        labels = labels_BL.gather(1, at_BQ).flatten()
        chosen_M = (labels != IGNORED).nonzero()[:, 0]
        share = len(chosen_M) / max(1, int((labels_WL != IGNORED).sum()))
        tensors = {"ids_BL": ids_BL, "at_BQ": at_BQ, "chosen_M": chosen_M, "labels_M": labels[chosen_M]}
        return MaskedTexts(**{name: sent(tensor, device) for name, tensor in tensors.items()}, share=share)

    def take(self, hidden_BQD: Tensor) -> Tensor:
        """The states MD of the masked tokens, in the order of the labels."""
        return hidden_BQD.flatten(0, 1).index_select(0, self.chosen_M)


@dataclass(frozen=True, kw_only=True)
class DealtBatch:
    """A batch as one of several ranks has it: all texts, and the images of its own share."""

    own: slice
    """Its rows of the batch."""
    ids_BL: Tensor
    mask_BL: Tensor
    caption_id_B: Tensor
    image_BCHW: Tensor
    texts: PretrainBatch
    """Those of all ranks, W."""

    @staticmethod
    def of(batch: PretrainBatch, ranks: Ranks) -> "DealtBatch":
        """What `ranks` deals to this rank; the batch has no images but those."""
        own = ranks.share(len(batch))
        texts = {name: getattr(batch, name)[own] for name in ("ids_BL", "mask_BL", "caption_id_B")}
        return DealtBatch(own=own, image_BCHW=batch.image_BCHW, texts=batch, **texts)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.image_BCHW.device

    @property
    def share(self) -> float:
        """Of the whole batch."""
        return len(self.ids_BL) / len(self.texts)


@dataclass(frozen=True, kw_only=True)
class View:
    """What the student or the teacher made of a batch. Texts stay out where no active loss reads them."""

    keep_BK: Tensor
    token_BKD: Tensor
    image_BE: Tensor
    text_BE: Tensor | None


class PretrainObjective:
    """MUMC's objective for one model. It owns no weights but those of the painting head."""

    def __init__(
        self,
        model: MumcModel,
        teacher: Teacher | None,
        queue: FeatureQueue | None,
        config: ObjectiveConfig,
        mim_decoder: MimDecoder | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """`teacher` may be left out where no active loss looks at one, `mim_decoder` where `config.mim` is 0.

        Each of several `ranks` has such an objective, with the same weights, and is called at the same time.

        Raises:
            ConfigError: an active loss lacks its part.
        """
        if needs_teacher(config) and teacher is None:
            raise ConfigError("mcl, ucl and distilled mlm learn from a teacher; build one or set their weights to 0")
        if config.mim and mim_decoder is None:
            raise ConfigError("objective.mim needs its decoder; build a MimDecoder or set mim to 0")
        if (config.itm or config.mlm) and not model.text_encoder.fusion:
            raise ConfigError("itm and mlm need fusion layers; set text.fusion_layers above 0 or their weights to 0")
        self.model, self.teacher, self.queue = model, teacher, queue
        self.config, self.mim_decoder, self.ranks = config, mim_decoder, ranks
        # Masked tokens give the whole vocabulary a gradient, to which looking words up need only add some rows. Torch
        # finds those that are no padding by asking the device, so an accelerator adds them all.
        words, scores = model.text_encoder.bert.embeddings.word_embeddings, model.text_encoder.cls.predictions.decoder
        words.sparse = bool(config.mlm) and scores.weight is words.weight and words.weight.device.type == "cpu"
        self._contrasts = bool(config.mcl or config.ucl)
        self._reads_texts = self._contrasts or bool(config.itm)

    def __call__(
        self, batch: PretrainBatch, draws: Draws, alpha: float, *, move_teacher: bool = True
    ) -> PretrainOutput:
        """Losses of one batch. `alpha` is the weight of the teacher's soft targets.

        The batch may lie on the CPU, where the draws are made, and is moved to the model's device; what is on an
        accelerator already is waited for.

        One of several ranks is given all texts, but of the images only its share, and makes the draws of all. Moves
        the teacher (unless told not to, as for a later part of an accumulated step) and fills the queue.
        """
        self.model.clamp_temperature()
        masked = self._mask_tokens(batch, draws) if self.config.mlm else None
        dealt = DealtBatch.of(batch.to(self.model.temp.device), self.ranks)
        student, state_TLD = self._student(dealt, draws, masked)
        moving = self.teacher if move_teacher and self._asks_teacher(alpha) else None
        if moving is not None and self.config.teacher_order == "albef":
            moving.update(self.config.momentum)
        teacher = self._teacher(dealt, draws, alpha)
        if moving is not None and self.config.teacher_order == "mumc":
            moving.update(self.config.momentum)
        terms: Tensors = {}
        trace: Tensors = {"image_embeds": student.token_BKD, "image_feat": student.image_BE}
        if teacher is not None and self._contrasts:
            terms |= self._contrast(dealt, student, teacher, alpha, trace)
        asked = self._fuse(dealt, student, state_TLD, masked, draws, trace)
        if self.config.itm:
            terms["itm"] = self._match(asked.pop(0), trace)
        if masked is not None:
            terms["mlm"] = self._predict(dealt, masked, asked.pop(0), teacher, alpha, trace)
        if self.mim_decoder is not None and self.config.mim:
            terms["mim"] = self._paint(dealt, student, self.mim_decoder)
        shares = {"mlm": masked.share} if masked else {}
        terms = {name: _part(term, shares.get(name, dealt.share)) for name, term in terms.items()}
        total = torch.stack([getattr(self.config, name) * term for name, term in terms.items()]).sum()
        detached = [{name: part.detach() for name, part in parts.items()} for parts in (terms, trace)]
        return PretrainOutput(total=total, terms=detached[0], trace=detached[1])

    def _mask_tokens(self, batch: PretrainBatch, draws: Draws) -> MaskedTexts:
        probability, vocab_size = self.config.mlm_probability, self.model.config.text.vocab_size
        ids_WL, labels_WL = draws.mask_tokens(batch.ids_BL, batch.mask_BL, probability, vocab_size)
        return MaskedTexts.of(ids_WL, labels_WL, self.model.temp.device, self.ranks.share(len(batch)))

    def _keep_patches(self, batch: DealtBatch, draws: Draws) -> Tensor:
        patches = self.model.config.vision.patches
        keep_WK = draws.keep_patches(len(batch.texts), patches, self.config.patch_drop)
        return sent(keep_WK[batch.own], batch.device)

    def _student(self, batch: DealtBatch, draws: Draws, masked: MaskedTexts | None) -> tuple[View, Tensor | None]:
        """The student's view, and the states TLD of the texts (plain ones first, then masked ones) from one pass."""
        model, image = self.model, batch.image_BCHW
        keep_BK = self._keep_patches(batch, draws)
        if self.config.mim and model.config.vision.stem == "conv":
            drop_BD = dropped_patches(keep_BK, model.config.vision.patches)
            image = blank_patches(image, drop_BD, model.config.vision.patch_size)
        token_BKD, image_BE = model.image_features(image, keep_BK)
        texts = [batch.ids_BL] * self._reads_texts + ([] if masked is None else [masked.ids_BL])
        state_TLD = model.text_encoder.encode(torch.cat(texts), _repeat(batch.mask_BL, len(texts))) if texts else None
        text_BE = None
        if state_TLD is not None and self._reads_texts:
            text_BE = model.text_feature(state_TLD[: len(batch.ids_BL)])
        return View(keep_BK=keep_BK, token_BKD=token_BKD, image_BE=image_BE, text_BE=text_BE), state_TLD

    def _asks_teacher(self, alpha: float) -> bool:
        return self.teacher is not None and bool(self._contrasts or (self.config.mlm and alpha))

    @torch.no_grad()
    def _teacher(self, batch: DealtBatch, draws: Draws, alpha: float) -> View | None:
        """The teacher's view with its weights of before this step; none where no active loss looks at it."""
        if self.teacher is None or not self._asks_teacher(alpha):
            return None
        keep_BK, model = self._keep_patches(batch, draws), self.teacher.model
        token_BKD, image_BE = model.image_features(batch.image_BCHW, keep_BK)
        text_BE = model.text_features(batch.ids_BL, batch.mask_BL)[1] if self._contrasts else None
        return View(keep_BK=keep_BK, token_BKD=token_BKD, image_BE=image_BE, text_BE=text_BE)

    def _contrast(self, batch: DealtBatch, student: View, teacher: View, alpha: float, trace: Tensors) -> Tensors:
        """Student against teacher, across and within the modalities; then the queue takes the teacher's features."""
        assert student.text_BE is not None
        assert teacher.text_BE is not None
        image_WE, text_WE = (
            self.ranks.gather(own_BE, len(batch.texts)) for own_BE in (teacher.image_BE, teacher.text_BE)
        )
        keys = {"i": [image_WE], "t": [text_WE]}
        caption_ids = [batch.texts.caption_id_B]
        if self.queue is not None:
            image_QE, text_QE, caption_id_Q = self.queue.features()
            keys["i"].append(image_QE)
            keys["t"].append(text_QE)
            caption_ids.append(caption_id_Q)
        hidden_BN = None
        if self.config.mask_equal_captions:
            hidden_BN = equal_captions(batch.caption_id_B, torch.cat(caption_ids), batch.own.start)
        contrast = Contrast(keys, hidden_BN, self.model.temp, batch.own.start)
        student_BE = {"i": student.image_BE, "t": student.text_BE}
        teacher_BE = {"i": teacher.image_BE, "t": teacher.text_BE}
        trace |= {"text_feat": student.text_BE, "image_feat_m": teacher.image_BE, "text_feat_m": teacher.text_BE}
        terms: Tensors = {}
        with torch.autocast(batch.device.type, enabled=False):
            if self.config.mcl:
                parts = contrast.across(student_BE, teacher_BE, alpha)
                terms["mcl"] = (parts["loss_i2t"] + parts["loss_t2i"]) / 2
                trace |= parts
            if self.config.ucl:
                parts = contrast.within(student_BE)
                terms["ucl"] = (parts["loss_i2i"] + parts["loss_t2t"]) / 4
                trace |= parts
        if self.queue is not None:
            self.queue.enqueue(image_WE, text_WE, batch.texts.caption_id_B)
        return terms

    def _fuse(
        self,
        batch: DealtBatch,
        student: View,
        state_TLD: Tensor | None,
        masked: MaskedTexts | None,
        draws: Draws,
        trace: Tensors,
    ) -> list[Tensor]:
        """Fused states at [CLS] of 3B pairs where itm is on, then at the masked tokens where mlm is on, in one pass."""
        if state_TLD is None or not (self.config.itm or self.config.mlm):
            return []
        own_B, token_BKD = torch.arange(len(batch.ids_BL), device=batch.device), student.token_BKD
        mask_TL = _repeat(batch.mask_BL, len(state_TLD) // len(own_B))
        groups: list[Pairs] = []
        if self.config.itm:
            image_for_text_B, text_for_image_B = self._hard_negatives(batch, student, draws, trace)
            sizes = {"own": len(own_B), "total": len(batch.texts)}
            token_BKD, image_for_text_B = self.ranks.extend(token_BKD, image_for_text_B, **sizes)
            mask_TL, _ = self.ranks.extend(mask_TL, text_for_image_B, **sizes)
            state_TLD, text_for_image_B = self.ranks.extend(state_TLD, text_for_image_B, **sizes)
            cls_B1 = torch.zeros_like(own_B)[:, None]
            groups = [
                Pairs(text_X=own_B, image_X=None, at_XQ=cls_B1),
                Pairs(text_X=own_B, image_X=image_for_text_B, at_XQ=cls_B1),
                Pairs(text_X=text_for_image_B, image_X=None, at_XQ=cls_B1),
            ]
        if masked is not None:
            groups.append(Pairs(text_X=own_B + len(own_B) * self._reads_texts, image_X=None, at_XQ=masked.at_BQ))
        found = self.model.text_encoder.fuse_pairs(state_TLD, mask_TL, token_BKD, groups)
        return [torch.cat(found[:3]), *found[3:]] if self.config.itm else found

    @torch.no_grad()
    def _hard_negatives(self, batch: DealtBatch, student: View, draws: Draws, trace: Tensors) -> tuple[Tensor, Tensor]:
        """An image for each text and a text for each image, drawn by how alike the student finds them.

        They are rows of the whole batch. All ranks draw for it all, and each looks at its own.
        """
        assert student.text_BE is not None
        image_WE, text_WE = (
            self.ranks.gather(own_BE, len(batch.texts)) for own_BE in (student.image_BE, student.text_BE)
        )
        with torch.autocast(batch.device.type, enabled=False):
            logits_WW = image_WE @ text_WE.T / self.model.temp
        caption_id_W = batch.texts.caption_id_B
        equal_WW = equal_captions(caption_id_W, caption_id_W) if self.config.mask_equal_captions else None
        trace["itm_weights_t2i"] = negative_weights(logits_WW.T, equal_WW)
        trace["itm_weights_i2t"] = negative_weights(logits_WW, equal_WW)
        image_for_text_W = draws.negatives(trace["itm_weights_t2i"])
        text_for_image_W = draws.negatives(trace["itm_weights_i2t"])
        return sent(image_for_text_W[batch.own], batch.device), sent(text_for_image_W[batch.own], batch.device)

    def _match(self, fused_XQD: Tensor, trace: Tensors) -> Tensor:
        trace["itm_cls"] = fused_XQD[:, 0]
        trace["itm_logits"] = at_least_single(self.model.match_logits(fused_XQD[:, 0]))
        return losses.matching(trace["itm_logits"], matched=len(fused_XQD) // 3)

    def _predict(
        self,
        batch: DealtBatch,
        masked: MaskedTexts,
        fused_BQD: Tensor,
        teacher: View | None,
        alpha: float,
        trace: Tensors,
    ) -> Tensor:
        """(1 - alpha) of the masked tokens' cross-entropy and alpha of that against the teacher's distribution."""
        logits_MV = at_least_single(self.model.text_encoder.mlm_logits(masked.take(fused_BQD)))
        loss = losses.masked_tokens(logits_MV, masked.labels_M)
        trace |= {"mlm_logits": logits_MV, "loss_mlm_ce": loss}
        if self.teacher is None or teacher is None or not alpha:
            return loss
        with torch.no_grad():
            text_encoder = self.teacher.model.text_encoder
            state_BLD = text_encoder.encode(masked.ids_BL, batch.mask_BL)
            own_B = torch.arange(len(state_BLD), device=state_BLD.device)
            asked = [Pairs(text_X=own_B, image_X=None, at_XQ=masked.at_BQ)]
            (fused_BQD,) = text_encoder.fuse_pairs(state_BLD, batch.mask_BL, teacher.token_BKD, asked)
            teacher_MV = at_least_single(text_encoder.mlm_logits(masked.take(fused_BQD)))
        distilled = losses.distilled_tokens(logits_MV, teacher_MV)
        trace |= {"image_embeds_m": teacher.token_BKD, "mlm_logits_m": teacher_MV, "loss_mlm_distill": distilled}
        return (1 - alpha) * loss + alpha * distilled

    def _paint(self, batch: DealtBatch, student: View, decoder: MimDecoder) -> Tensor:
        drop_BD = dropped_patches(student.keep_BK, self.model.config.vision.patches)
        painted_BDP = at_least_single(decoder(student.token_BKD, student.keep_BK, drop_BD))
        pixel_BNP = patchify(batch.image_BCHW, self.model.config.vision.patch_size)
        pixel_BDP = pixel_BNP.gather(1, drop_BD[:, :, None].expand(-1, -1, pixel_BNP.shape[2]))
        return losses.painted_patches(painted_BDP, pixel_BDP)


def needs_teacher(config: ObjectiveConfig) -> bool:
    """Whether an active loss learns from the teacher."""
    return bool(config.mcl or config.ucl or (config.mlm and config.distill))


def equal_captions(caption_id_B: Tensor, caption_id_N: Tensor, first: int = 0) -> Tensor:
    """Mask BN of the keys whose caption reads as the query's own, without the own pair, which is key `first` + row."""
    equal_BN = caption_id_B[:, None] == caption_id_N[None, :]
    equal_BN.diagonal(first).fill_(False)
    return equal_BN


def _part(mean: Tensor, share: float) -> Tensor:
    """What a mean over this rank's share adds to the mean over all."""
    return mean if share == 1 else mean * share


def _repeat(mask_BL: Tensor, times: int) -> Tensor:
    return mask_BL if times == 1 else mask_BL.repeat(times, 1)
