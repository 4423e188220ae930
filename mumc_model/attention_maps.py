"""The weights of every attention that runs, with gradient: what fused attention never writes down.

Dimensions: X batch, H heads, Q queries, S sources, C channels of a head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class AttentionMaps(TorchFunctionMode):
    """While it is entered, attention in this thread is computed in the open, and `maps` keeps its weights XHQS.

    They stand in the order in which the attentions ran, and each has a gradient, also where no weight of the model
    learns. Outside of it nothing is changed or paid: the modules know nothing of it. Results are equal to rounding.
    """

    def __init__(self) -> None:
        """Nothing has run yet."""
        super().__init__()
        self.maps: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """What `func` gives, and for attention its weights kept."""
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attend(*args, **(kwargs or {}))

    def _attend(
        self,
        query_XHQC: Tensor,
        key_XHSC: Tensor,
        value_XHSC: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
    ) -> Tensor:
        # The model's attentions pass masks, and explanations are of models that answer, which drop nothing.
        assert not dropout_p
        assert not is_causal
        score_XHQS = query_XHQC * query_XHQC.shape[-1] ** -0.5 @ key_XHSC.transpose(-1, -2)
        if attn_mask is not None:
            score_XHQS = score_XHQS.masked_fill(~attn_mask, -torch.inf)
        weight_XHQS = score_XHQS.softmax(-1)
        if not weight_XHQS.requires_grad:
            weight_XHQS.requires_grad_()
        self.maps.append(weight_XHQS)
        mixed_XHQC: Tensor = weight_XHQS @ value_XHSC
        return mixed_XHQC
