"""What one layer keeps of a pass: how long each unit's gradient of it is, and their sum, each times a factor.

All calls of a layer in the pass count, cross terms included, and rounding can only lengthen a norm, never shorten it.

Dimensions: B units, T tokens over all calls of a layer, I inputs, O outputs, K values under a kernel.
"""

from typing import Any

import torch
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer
from opacus.grad_sample.grad_sample_module import GradSampleModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from client.privacy.errors import CouplingError
from client.privacy.gradients import add_to_sum

_ROUNDING = 16.0
"""Rounding errors that a squared length may hold, in units of machine precision times the size of all its terms."""


class Watcher:
    """One layer's calls in a pass: what went in, and the gradient of what came out."""

    def __init__(self, layer: nn.Module, trained: set[int]) -> None:
        """`trained` are the ids of the weights that learn; the layer may have others."""
        self.layer: Any = layer
        self.own = {name: weight for name, weight in layer.named_parameters(recurse=False) if id(weight) in trained}
        self.calls: list[list[Tensor]] = []
        self.input: list[Tensor] = []
        self.gradient: list[Tensor] = []

    def watch(self) -> RemovableHandle:
        """Keep what the next calls see, until the handle is removed."""
        return self.layer.register_forward_hook(self._keep)  # type: ignore[no-any-return]

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        kept = [inputs[0].detach()]
        self.calls.append(kept)
        replaced = None if output.requires_grad else output.detach().requires_grad_()
        (output if replaced is None else replaced).register_hook(lambda gradient: self.receive(kept, gradient.detach()))
        return replaced

    def receive(self, call: list[Tensor], gradient: Tensor) -> None:
        """Take the gradient of a call's output; the call is complete then."""
        call.append(gradient)

    def forget(self) -> None:
        """Let go of what the pass left."""
        self.calls, self.input, self.gradient = [], [], []

    def take(self, units: int) -> bool:
        """Whether the pass reached this layer; its calls are ready then.

        Raises:
            CouplingError: a call's rows are not the units.
        """
        calls = [call for call in self.calls if len(call) == 2]
        if any(len(call[0]) != units or len(call[1]) != units for call in calls):
            raise CouplingError(_rows_are_no_units(self.layer, [len(call[0]) for call in calls], units))
        self.input, self.gradient = [call[0] for call in calls], [call[1] for call in calls]
        return bool(calls)

    def blank(self, bad_B: Tensor) -> None:
        """Forget units whose gradients are not finite: zero times infinity would reach the sum."""
        for tensors in (self.input, self.gradient):
            tensors[:] = [tensor.masked_fill(_like(bad_B, tensor), 0) for tensor in tensors]

    def squares(self) -> Tensor:
        """Squared length B of each unit's gradient of this layer."""
        raise NotImplementedError

    def add(self, factor_B: Tensor) -> None:
        """Add the units' gradients, each times its factor."""
        raise NotImplementedError


class Matrix(Watcher):
    """A linear layer."""

    def take(self, units: int) -> bool:
        """Whether the pass reached this layer; inputs BTI and gradients BTO are in single precision or better then."""
        found = super().take(units)
        self.input = [_single(self.inputs(tensor)) for tensor in self.input]
        self.gradient = [_single(self.gradients(tensor)) for tensor in self.gradient]
        return found

    def inputs(self, input: Tensor) -> Tensor:
        """What the matrix is multiplied with, BTI."""
        return _tokens(input)

    def gradients(self, gradient: Tensor) -> Tensor:
        """The gradients of the products, BTO."""
        return _tokens(gradient)

    def squares(self) -> Tensor:
        """Squared length B of each unit's gradient of weight and bias."""
        input_BTI, gradient_BTO = _joined(self.input), _joined(self.gradient)
        square_B = gradient_BTO.new_zeros(len(gradient_BTO))
        if "weight" in self.own:
            square_B = square_B + squares_of_product(input_BTI, gradient_BTO)
        if "bias" in self.own:
            square_B = square_B + gradient_BTO.sum(dim=1).square().sum(dim=1)
        return square_B

    def add(self, factor_B: Tensor) -> None:
        """Add the units' gradients, each times its factor."""
        for input_BTI, gradient_BTO in zip(self.input, self.gradient, strict=True):
            gradient_NO = (gradient_BTO * factor_B.to(gradient_BTO.dtype)[:, None, None]).flatten(0, 1)
            if "weight" in self.own:
                add_to_sum(self.own["weight"], gradient_NO.T @ input_BTI.flatten(0, 1))
            if "bias" in self.own:
                add_to_sum(self.own["bias"], gradient_NO.sum(dim=0))


class Convolution(Matrix):
    """A convolution, which is a linear layer on unfolded patches."""

    def inputs(self, input: Tensor) -> Tensor:
        """The pixels under the kernel at each place, BTK."""
        layer = self.layer
        patch_BKT = F.unfold(input, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        return patch_BKT.transpose(1, 2)

    def gradients(self, gradient: Tensor) -> Tensor:
        """The gradients at each place, BTO."""
        return gradient.flatten(2).transpose(1, 2)


class Embedding(Watcher):
    """A table of rows: one-hot inputs, so tokens belong together where they are equal."""

    def squares(self) -> Tensor:
        """Squared length B of each unit's gradient of the table."""
        token_BT = torch.cat([tokens.flatten(1) for tokens in self.input], dim=1)
        gradient_BTO = _joined([self._rows(*pair) for pair in self._pairs()])
        equal_BTT = token_BT[:, :, None] == token_BT[:, None, :]
        square_B = (torch.bmm(gradient_BTO, gradient_BTO.mT) * equal_BTT).sum(dim=(1, 2))
        size_B = torch.linalg.vector_norm(gradient_BTO, dim=2).sum(dim=1)
        return square_B.clamp(min=0) + _slack(size_B)

    def add(self, factor_B: Tensor) -> None:
        """Add the units' gradients, each times its factor."""
        for tokens, gradient in self._pairs():
            row_BTO = self._rows(tokens, gradient)
            row_NO = (row_BTO * factor_B.to(row_BTO.dtype)[:, None, None]).flatten(0, 1)
            table_VO = torch.zeros_like(self.own["weight"]).index_add_(0, tokens.flatten(), row_NO)
            add_to_sum(self.own["weight"], table_VO)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.input, self.gradient, strict=True))

    def _rows(self, tokens: Tensor, gradient: Tensor) -> Tensor:
        """Gradients BTO of the rows looked up; the padding row learns nothing."""
        gradient_BTO = _single(gradient).flatten(1, -2)
        padding = self.layer.padding_idx
        return gradient_BTO if padding is None else gradient_BTO * (tokens.flatten(1) != padding)[:, :, None]


class Small(Watcher):
    """A layer of few weights: each unit's gradient is written down, by Opacus's sampler for it."""

    def __init__(self, layer: nn.Module, trained: set[int]) -> None:
        super().__init__(layer, trained)
        self._sampler = GradSampleModule.GRAD_SAMPLERS.get(type(layer))
        if self._sampler is None:
            prepare_layer(layer)
            self._sampler = ft_compute_per_sample_gradient
        self._received: list[list[Tensor]] = []
        self._samples: dict[str, Tensor] = {}

    def receive(self, call: list[Tensor], gradient: Tensor) -> None:
        """Write down the units' gradients at once, so that neither input nor gradient is held any longer."""
        input = call.pop()
        # The samplers skip weights that do not learn, and during the pass none does.
        for weight in self.own.values():
            weight.requires_grad_(True)
        with torch.no_grad():
            samples = self._sampler(self.layer, [_single(input)], _single(gradient))
        for weight in self.own.values():
            weight.requires_grad_(False)
        self._received.append([samples[weight] for weight in self.own.values()])

    def forget(self) -> None:
        """Let go of what the pass left."""
        super().forget()
        self._received, self._samples = [], {}

    def take(self, units: int) -> bool:
        """Whether the pass reached this layer; its units' gradients are summed over the calls then."""
        calls = self._received
        if any(len(call[0]) != units for call in calls):
            raise CouplingError(_rows_are_no_units(self.layer, [len(call[0]) for call in calls], units))
        for place, name in enumerate(self.own if calls else ()):
            self._samples[name] = torch.stack([call[place] for call in calls]).sum(dim=0)
        return bool(calls)

    def blank(self, bad_B: Tensor) -> None:
        """Forget units whose gradients are not finite."""
        self._samples = {n: sample.masked_fill(_like(bad_B, sample), 0) for n, sample in self._samples.items()}

    def squares(self) -> Tensor:
        """Squared length B of each unit's gradient."""
        return torch.stack([sample.flatten(1).square().sum(dim=1) for sample in self._samples.values()]).sum(dim=0)

    def add(self, factor_B: Tensor) -> None:
        """Add the units' gradients, each times its factor."""
        for name, sample in self._samples.items():
            add_to_sum(self.own[name], torch.einsum("b,b...->...", factor_B.to(sample.dtype), sample))


WATCHED = (nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm, nn.GroupNorm)
"""Layers whose gradients are known by unit."""


def watcher(layer: nn.Module) -> type[Watcher]:
    """The rule for a layer's kind."""
    if isinstance(layer, nn.Linear):
        return Matrix
    if isinstance(layer, nn.Conv2d):
        plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return Convolution if plain else Small
    return Embedding if isinstance(layer, nn.Embedding) else Small


def squares_of_product(input_BTI: Tensor, gradient_BTO: Tensor) -> Tensor:
    """Squared length B of G^T A for each unit, never shorter than it is, by whichever way multiplies less."""
    tokens, inputs, outputs = input_BTI.shape[1], input_BTI.shape[2], gradient_BTO.shape[2]
    size_B = (torch.linalg.vector_norm(input_BTI, dim=2) * torch.linalg.vector_norm(gradient_BTO, dim=2)).sum(dim=1)
    if tokens * (inputs + outputs) <= inputs * outputs:
        square_B = (torch.bmm(input_BTI, input_BTI.mT) * torch.bmm(gradient_BTO, gradient_BTO.mT)).sum(dim=(1, 2))
    else:
        square_B = torch.bmm(gradient_BTO.mT, input_BTI).square().sum(dim=(1, 2))
    return square_B.clamp(min=0) + _slack(size_B)


def _slack(size_B: Tensor) -> Tensor:
    """By how much rounding may have shortened a squared length whose terms have this size, squared."""
    return _ROUNDING * torch.finfo(size_B.dtype).eps * size_B.square()


def _rows_are_no_units(layer: nn.Module, rows: list[int], units: int) -> str:
    return (
        f"a {type(layer).__name__} was called with {rows} rows for {units} units; every layer must see one row a unit"
    )


def _tokens(tensor: Tensor) -> Tensor:
    """The tensor as BT and a last dimension; a row of one vector is one token."""
    return tensor[:, None] if tensor.dim() == 2 else tensor.flatten(1, -2)


def _joined(calls: list[Tensor]) -> Tensor:
    return calls[0] if len(calls) == 1 else torch.cat(calls, dim=1)


def _single(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _like(bad_B: Tensor, tensor: Tensor) -> Tensor:
    return bad_B.view(-1, *[1] * (tensor.dim() - 1))
