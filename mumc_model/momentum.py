"""The teacher, a slow copy of the student, and the queue of its recent features.

Dimensions: B records, Q filled rows of the queue, E embedding.
"""

import torch
from torch import Tensor, nn

from mumc_model.duplicate import duplicate
from mumc_model.model import MumcModel


class Teacher(nn.Module):
    """Moving average of a student's encoders, projections and masked-token head. Takes no gradient."""

    def __init__(self, student: MumcModel) -> None:
        """Start as a copy of the student, on its device; matching head and temperature have no use here."""
        super().__init__()
        self.model = duplicate(student, lambda weight: nn.Parameter(weight.detach().clone(), requires_grad=False))
        del self.model.itm_head, self.model.temp
        averages = dict(self.model.named_parameters())
        self._averages: list[Tensor] = list(averages.values())
        weights = dict(student.named_parameters())
        self._weights: list[Tensor] = [weights[name] for name in averages]

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Keep the share `momentum` of the teacher and take the rest from the student; tied weights move once."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - momentum)

    @torch.no_grad()
    def restart(self) -> None:
        """Become the student, as at the start of a round."""
        torch._foreach_copy_(self._averages, self._weights)


class FeatureQueue(nn.Module):
    """The last `size` teacher features of images and texts, with their captions' ids; the oldest makes room."""

    def __init__(self, size: int, width: int) -> None:
        """Start empty; `size` is at least 1."""
        super().__init__()
        self.size = size
        self.pointer = 0
        self.filled = 0
        self._waiting: tuple[Tensor, Tensor, Tensor] | None = None
        self.register_buffer("image_QE", torch.zeros(size, width), persistent=False)
        self.register_buffer("text_QE", torch.zeros(size, width), persistent=False)
        self.register_buffer("caption_id_Q", torch.zeros(size, dtype=torch.int64), persistent=False)
        self.image_QE: Tensor
        self.text_QE: Tensor
        self.caption_id_Q: Tensor

    @torch.no_grad()
    def features(self) -> tuple[Tensor, Tensor, Tensor]:
        """Image features QE, text features QE and caption ids Q of the filled part, to be read before `enqueue`."""
        if self._waiting is not None:
            self._write(*self._waiting)
            self._waiting = None
        return self.image_QE[: self.filled], self.text_QE[: self.filled], self.caption_id_Q[: self.filled]

    def enqueue(self, image_BE: Tensor, text_BE: Tensor, caption_id_B: Tensor) -> None:
        """Put a batch in, over the oldest entries; of a batch larger than the queue its last part stays.

        It is written when the queue is next read: until then a backward pass may still need the old entries, and
        copying the queue for its sake is what makes the reference slow.
        """
        if self._waiting is not None:
            self._write(*self._waiting)
        self._waiting = (image_BE, text_BE, caption_id_B)

    @torch.no_grad()
    def _write(self, image_BE: Tensor, text_BE: Tensor, caption_id_B: Tensor) -> None:
        kept = min(len(image_BE), self.size)
        place = (torch.arange(kept, device=self.image_QE.device) + self.pointer) % self.size
        self.image_QE[place] = image_BE[-kept:]
        self.text_QE[place] = text_BE[-kept:]
        self.caption_id_Q[place] = caption_id_B[-kept:]
        self.pointer = (self.pointer + kept) % self.size
        self.filled = min(self.filled + kept, self.size)

    def reset(self) -> None:
        """Forget everything, as at the start of a round: features of an older model are stale."""
        self.pointer = self.filled = 0
        self._waiting = None
