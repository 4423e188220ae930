"""MUMC's losses in the form that differential privacy allows: each a function of one unit, public pairs and weights.

Where MUMC looks at other records of the batch or at the queue, a unit looks at the public bank: its negatives in both
contrasts, the wrong image and the wrong text of the matching loss. The positives stay its own. Nothing else changes, so
with the bank in the place of the queue the losses are those of `mumc_model.objective`.

Every layer is called once, with one row a unit (fused.py): so a row's gradient is a unit's.

Dimensions: B units, N pairs of the bank, L tokens of a text, T tokens of a row of texts, S image tokens, D width,
E embedding, Q masked positions, Z keys (own, then the bank).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from client.privacy.bank import Encoded
from client.privacy.fused import apart, attend, masked_positions
from mumc_model.config import ObjectiveConfig
from mumc_model.data.collate import PretrainBatch
from mumc_model.losses import hide
from mumc_model.masking import IGNORED, Draws, dropped_patches
from mumc_model.model import MumcModel, at_least_single
from mumc_model.momentum import Teacher
from mumc_model.vision import MimDecoder, blank_patches, patchify


@dataclass(frozen=True)
class UnitBatch:
    """One record of each unit and every random choice about it; row i of everything is unit i's."""

    image_BCHW: Tensor
    ids_BL: Tensor
    mask_BL: Tensor
    caption_id_B: Tensor
    keep_BK: Tensor
    """Patches that the student sees."""
    teacher_keep_BK: Tensor
    masked_BL: Tensor
    """Ids with masked tokens."""
    labels_BL: Tensor
    chance_B2: Tensor
    """In [0, 1): which image and which text of the bank become hard negatives."""

    def __len__(self) -> int:
        """Units."""
        return len(self.ids_BL)

    def part(self, first: int, last: int) -> "UnitBatch":
        """The units from `first` to before `last`."""
        return UnitBatch(*(getattr(self, field.name)[first:last] for field in fields(self)))

    def to(self, device: torch.device | str) -> "UnitBatch":
        """The same on a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


def draw_units(pairs: PretrainBatch, draws: Draws, config: ObjectiveConfig, patches: int, vocabulary: int) -> UnitBatch:
    """The pairs with views, masked tokens and chances of their own."""
    keep_BK, teacher_keep_BK = (draws.keep_patches(len(pairs), patches, config.patch_drop) for _ in range(2))
    masked_BL, labels_BL = draws.mask_tokens(pairs.ids_BL, pairs.mask_BL, config.mlm_probability, vocabulary)
    chance_B2 = torch.rand(len(pairs), 2, generator=draws.generator)
    return UnitBatch(
        image_BCHW=pairs.image_BCHW,
        ids_BL=pairs.ids_BL,
        mask_BL=pairs.mask_BL,
        caption_id_B=pairs.caption_id_B,
        keep_BK=keep_BK,
        teacher_keep_BK=teacher_keep_BK,
        masked_BL=masked_BL,
        labels_BL=labels_BL,
        chance_B2=chance_B2,
    )


class BankObjective:
    """MUMC's objective for single units. It owns no weights but those of the painting head."""

    def __init__(
        self, model: MumcModel, teacher: Teacher, config: ObjectiveConfig, mim_decoder: MimDecoder | None = None
    ) -> None:
        """`bank` is set before the first call, and again whenever the bank has been encoded anew."""
        self.model, self.teacher, self.config, self.mim_decoder = model, teacher, config, mim_decoder
        self.bank: Encoded
        self._contrasts = bool(config.mcl or config.ucl)

    def __call__(self, batch: UnitBatch, alpha: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Each unit's loss B, and its active terms before weighting, detached.

        `alpha` is the weight of the teacher's soft targets.
        """
        config = self.config
        terms: dict[str, Tensor] = {}
        token_BSD, image_BE = self._see(batch)
        plain_BLD, masked_BLD = self._read(batch)
        text_BE = None if plain_BLD is None else self.model.text_feature(plain_BLD)
        teacher = _Taught.of(self.teacher.model, batch) if self._contrasts or (config.mlm and alpha) else None
        if teacher is not None and text_BE is not None and self._contrasts:
            terms |= self._contrast(batch, image_BE, text_BE, teacher, alpha)
        if config.itm or config.mlm:
            matching, predicted = self._fuse(batch, token_BSD, image_BE, text_BE, plain_BLD, masked_BLD)
            if matching is not None:
                terms["itm"] = matching
            if predicted is not None:
                terms["mlm"] = self._predict(batch, predicted, teacher if alpha else None, alpha)
        if self.mim_decoder is not None and config.mim:
            terms["mim"] = self._paint(batch, token_BSD, self.mim_decoder)
        loss_B = torch.stack([getattr(config, name) * term for name, term in terms.items()]).sum(dim=0)
        return loss_B, {name: term.detach() for name, term in terms.items()}

    def _see(self, batch: UnitBatch) -> tuple[Tensor, Tensor]:
        image, vision = batch.image_BCHW, self.model.config.vision
        if self.config.mim and vision.stem == "conv":
            image = blank_patches(image, dropped_patches(batch.keep_BK, vision.patches), vision.patch_size)
        return self.model.image_features(image, batch.keep_BK)

    def _read(self, batch: UnitBatch) -> tuple[Tensor | None, Tensor | None]:
        """States BLD after the text layers of the plain and of the masked text, of those that a loss reads."""
        reads = self._contrasts or bool(self.config.itm)
        texts = [batch.ids_BL] * reads + [batch.masked_BL] * bool(self.config.mlm)
        if not texts:
            return None, None
        encoder, count = self.model.text_encoder, len(texts)
        place_L = torch.arange(batch.ids_BL.shape[1], device=batch.ids_BL.device)
        place_BT = place_L.repeat(count).expand(len(batch), -1)
        state_BTD = encoder.bert.embeddings.at(torch.cat(texts, dim=1), place_BT)
        mask_B1TT = apart([batch.mask_BL] * count)
        for layer in encoder.layers:
            state_BTD = layer(state_BTD, mask_B1TT)
        parts = list(state_BTD.chunk(count, dim=1))
        return parts[0] if reads else None, parts[-1] if self.config.mlm else None

    def _contrast(
        self, batch: UnitBatch, image_BE: Tensor, text_BE: Tensor, teacher: "_Taught", alpha: float
    ) -> dict[str, Tensor]:
        """Student against the own teacher's features and the bank's, across and within the modalities."""
        assert teacher.text_BE is not None
        own = {"i": teacher.image_BE, "t": teacher.text_BE}
        bank = {"i": self.bank.image_NE, "t": self.bank.text_NE}
        hidden_BZ = F.pad(self._equal(batch), (1, 0)) if self.config.mask_equal_captions else None

        def logits(query_BE: Tensor, kind: str) -> Tensor:
            own_B1 = (query_BE * own[kind]).sum(dim=1, keepdim=True)
            logits_BZ = torch.cat([own_B1, query_BE @ bank[kind].T], dim=1) / self.model.temp.detach()
            return hide(logits_BZ, hidden_BZ)

        terms: dict[str, Tensor] = {}
        with torch.autocast(image_BE.device.type, enabled=False):
            if self.config.mcl:
                i2t_B = _soft_contrast(logits(image_BE, "t"), logits(own["i"], "t"), alpha)
                t2i_B = _soft_contrast(logits(text_BE, "i"), logits(own["t"], "i"), alpha)
                terms["mcl"] = (i2t_B + t2i_B) / 2
            if self.config.ucl:
                terms["ucl"] = -(_own_log(logits(image_BE, "i")) + _own_log(logits(text_BE, "t"))) / 4
        return terms

    def _equal(self, batch: UnitBatch) -> Tensor:
        """Mask BN of the bank's pairs whose caption reads as the unit's own."""
        return batch.caption_id_B[:, None] == self.bank.caption_id_N[None, :]

    @torch.no_grad()
    def _hard_negatives(self, batch: UnitBatch, image_BE: Tensor, text_BE: Tensor) -> tuple[Tensor, Tensor]:
        """For each unit an image and a text of the bank, by how alike the student finds them."""
        equal_BN = self._equal(batch) if self.config.mask_equal_captions else None
        drawn = []
        for query_BE, key_NE, chance_B in (
            (text_BE, self.bank.image_NE, batch.chance_B2[:, 0]),
            (image_BE, self.bank.text_NE, batch.chance_B2[:, 1]),
        ):
            weight_BN = (query_BE.float() @ key_NE.T.float() / self.model.temp).softmax(dim=1) + 1e-4
            if equal_BN is not None:
                weight_BN = torch.where(
                    equal_BN.all(dim=1, keepdim=True), weight_BN, weight_BN.masked_fill(equal_BN, 0)
                )
            drawn.append(_inverse(weight_BN.nan_to_num(1.0), chance_B))
        return drawn[0], drawn[1]

    def _fuse(
        self,
        batch: UnitBatch,
        token_BSD: Tensor,
        image_BE: Tensor,
        text_BE: Tensor | None,
        plain_BLD: Tensor | None,
        masked_BLD: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The matching loss B, and the fused states BQD at the masked tokens; None for what is switched off."""
        texts, masks, sources, asked = [], [], [token_BSD], []
        length, own, other = batch.mask_BL.shape[1], 0, 1
        looks: list[int] = []
        if self.config.itm and plain_BLD is not None and text_BE is not None:
            image_B, text_B = self._hard_negatives(batch, image_BE, text_BE)
            sources.append(self.bank.token_NSD[image_B].to(token_BSD.dtype))
            texts += [plain_BLD, plain_BLD, self.bank.state_NLD[text_B].to(plain_BLD.dtype)]
            masks += [batch.mask_BL, batch.mask_BL, self.bank.mask_NL[text_B]]
            looks += [own, other, own]
            asked.append(length * torch.arange(3, device=batch.ids_BL.device).expand(len(batch), -1))
        at_BQ = masked_positions(batch.labels_BL)
        if masked_BLD is not None:
            asked.append(at_BQ + length * len(texts))
            texts, masks, looks = [*texts, masked_BLD], [*masks, batch.mask_BL], [*looks, own]
        fused_BRD = attend(
            self.model.text_encoder.fusion, torch.cat(texts, dim=1), masks, sources, looks, torch.cat(asked, dim=1)
        )
        matching = None
        if self.config.itm:
            logits_B32 = at_least_single(self.model.match_logits(fused_BRD[:, :3]))
            matching = -(logits_B32.log_softmax(dim=2) * _MATCHES.to(logits_B32)).sum(dim=2).mean(dim=1)
        return matching, fused_BRD[:, -at_BQ.shape[1] :] if masked_BLD is not None else None

    def _predict(self, batch: UnitBatch, fused_BQD: Tensor, teacher: "_Taught | None", alpha: float) -> Tensor:
        """(1 - alpha) of the masked tokens' cross-entropy and alpha of that against the teacher's distribution."""
        at_BQ = masked_positions(batch.labels_BL)
        label_BQ = batch.labels_BL.gather(1, at_BQ)
        chosen_BQ = label_BQ != IGNORED
        log_BQV = at_least_single(self.model.text_encoder.mlm_logits(fused_BQD)).log_softmax(dim=2)
        count_B = chosen_BQ.sum(dim=1).clamp(min=1)
        hard_BQ = -log_BQV.gather(2, label_BQ.clamp(min=0)[:, :, None])[:, :, 0]
        hard_B = hard_BQ.masked_fill(~chosen_BQ, 0).sum(dim=1) / count_B
        if teacher is None:
            return hard_B
        target_BQV = teacher.tokens(batch, at_BQ)
        soft_B = -(target_BQV * log_BQV).sum(dim=2).masked_fill(~chosen_BQ, 0).sum(dim=1) / count_B
        return (1 - alpha) * hard_B + alpha * soft_B

    def _paint(self, batch: UnitBatch, token_BSD: Tensor, decoder: MimDecoder) -> Tensor:
        vision = self.model.config.vision
        drop_BM = dropped_patches(batch.keep_BK, vision.patches)
        painted_BMP = at_least_single(decoder(token_BSD, batch.keep_BK, drop_BM))
        pixel_BNP = patchify(batch.image_BCHW, vision.patch_size)
        pixel_BMP = pixel_BNP.gather(1, drop_BM[:, :, None].expand(-1, -1, pixel_BNP.shape[2]))
        mean, variance = pixel_BMP.mean(dim=-1, keepdim=True), pixel_BMP.var(dim=-1, keepdim=True)
        return (painted_BMP - (pixel_BMP - mean) / (variance + 1e-6).sqrt()).square().mean(dim=(1, 2))


@dataclass(frozen=True)
class _Taught:
    """What the teacher makes of the units, each by itself."""

    model: MumcModel
    token_BSD: Tensor
    image_BE: Tensor
    text_BE: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, model: MumcModel, batch: UnitBatch) -> "_Taught":
        token_BSD, image_BE = model.image_features(batch.image_BCHW, batch.teacher_keep_BK)
        return cls(model, token_BSD, image_BE, model.text_features(batch.ids_BL, batch.mask_BL)[1])

    @torch.no_grad()
    def tokens(self, batch: UnitBatch, at_BQ: Tensor) -> Tensor:
        """The teacher's distributions BQV of the masked tokens."""
        encoder = self.model.text_encoder
        fused_BLD = encoder.fuse(encoder.encode(batch.masked_BL, batch.mask_BL), batch.mask_BL, self.token_BSD)
        fused_BQD = fused_BLD.gather(1, at_BQ[:, :, None].expand(-1, -1, fused_BLD.shape[2]))
        return at_least_single(encoder.mlm_logits(fused_BQD)).softmax(dim=2)


_MATCHES = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
"""Own pair, own text with an image of the bank, own image with a text of the bank: (not matched, matched)."""


def _own_log(logits_BZ: Tensor) -> Tensor:
    return logits_BZ.log_softmax(dim=1)[:, 0]


def _soft_contrast(logits_BZ: Tensor, teacher_BZ: Tensor, alpha: float) -> Tensor:
    """Cross-entropy B against (1 - alpha) the own key + alpha the teacher's distribution over own and bank."""
    log_BZ = logits_BZ.log_softmax(dim=1)
    if not alpha:
        return -log_BZ[:, 0]
    soft_B = (teacher_BZ.detach().softmax(dim=1) * log_BZ).sum(dim=1)
    return -(1 - alpha) * log_BZ[:, 0] - alpha * soft_B


def _inverse(weight_BN: Tensor, chance_B: Tensor) -> Tensor:
    """For each row the column that the chance falls on, in proportion to the weights."""
    edge_BN = weight_BN.double().cumsum(dim=1)
    found_B = torch.searchsorted(edge_BN, chance_B.double()[:, None] * edge_BN[:, -1:], right=True)[:, 0]
    return found_B.clamp(max=weight_BN.shape[1] - 1)
