"""How the encoders' work is given to a GPU: one operation after another, or as CUDA graphs, compiled before or not.

A step launches some thousand operations, and a processor needs longer for that than a GPU for a batch of ordinary
size. Shapes are the same from step to step but for the longest caption of a batch, so a part of the model is recorded
once for each form, forward and backward, and then replayed by one launch each. What differs from step to step (the
places of masked tokens, the queue while it fills, the teacher's weight) stays outside the parts. On a CPU nothing of
this applies.

A replay writes to the memory of the one before, gradients too: an optimiser must have read them before the next
forward pass, so steps of several backward passes are none of its business.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Kernels = Literal["eager", "graphs", "compiled"]
WARMUP = 3
"""Runs before a recording: libraries choose their kernels in them. As `torch.cuda.make_graphed_callables` has it."""
MOST_RECORDINGS = 12
"""More are not made: each keeps memory of its own. A model has three parts, and a form for each length of captions."""
_RECOMPILE_LIMIT = 64
"""Forms in which a block is compiled: with and without gradient, for texts, pairs and what is asked for."""


class RunPart(Protocol):
    """Runs a part of a model."""

    def __call__(
        self, modules: Sequence[nn.Module], run: Callable[..., Tensor], *tensors: Tensor, form: Hashable = ()
    ) -> Tensor:
        """What `run` makes of the tensors; it reads the weights of `modules`, and whatever else it reads is `form`."""


def eagerly(modules: Sequence[nn.Module], run: Callable[..., Tensor], *tensors: Tensor, form: Hashable = ()) -> Tensor:
    """Runs a part as it stands."""
    return run(*tensors)


class Graphs:
    """Parts of one model as CUDA graphs, each recorded when its shapes come the second time."""

    def __init__(self) -> None:
        """Nothing is recorded yet."""
        self._known: set[Hashable] = set()
        self._recorded: dict[Hashable, _Recording] = {}
        self._full = False

    def __call__(
        self, modules: Sequence[nn.Module], run: Callable[..., Tensor], *tensors: Tensor, form: Hashable = ()
    ) -> Tensor:
        """What `run` makes of the tensors. What learns shares its memory with the next step's, all else is a copy."""
        shapes = tuple((tensor.shape, tensor.dtype, tensor.requires_grad) for tensor in tensors)
        state = torch.is_grad_enabled(), torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        key = (run.__qualname__, form, shapes, state, modules[0].training)
        with _uncached_autocast():
            recording = self._recorded.get(key)
            if recording is None:
                recording = self._record(key, modules, run, tensors)
            if recording is None or recording.pending:
                # The tensors of a pending one are still needed for the gradient of the call before.
                return run(*tensors)
            return recording(tensors)

    def settle(self) -> None:
        """No gradient is on its way any more, as after an error."""
        for recording in self._recorded.values():
            recording.pending = False

    def _record(
        self, key: Hashable, modules: Sequence[nn.Module], run: Callable[..., Tensor], tensors: Sequence[Tensor]
    ) -> "_Recording | None":
        """A recording for a form that comes again, where there is room for one."""
        if key not in self._known or self._full or len(self._recorded) == MOST_RECORDINGS:
            self._known.add(key)
            return None
        try:
            self._recorded[key] = _Recording(modules, run, tensors)
        except torch.OutOfMemoryError:
            # What is recorded already stays; a step without a recording needs less.
            self._full = True
            return None
        return self._recorded[key]


class _Recording:
    """One part for one form of its inputs, as a graph forward and, where it learns, another one backward."""

    def __init__(self, modules: Sequence[nn.Module], run: Callable[..., Tensor], tensors: Sequence[Tensor]) -> None:
        weights = dict.fromkeys(weight for module in modules for weight in module.parameters())
        # Leaves of their own: of the model's a gradient may be on its way at this moment, on another stream.
        leaves = {weight: nn.Parameter(weight.detach(), weight.requires_grad) for weight in weights}
        self.pending = False
        self.learns = torch.is_grad_enabled() and any(weight.requires_grad for weight in (*weights, *tensors))
        self._inputs = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors]
        self._weights = [weight for weight in weights if weight.requires_grad and self.learns]
        learning = [tensor for tensor in self._inputs if tensor.requires_grad] + [leaves[w] for w in self._weights]
        with _standing_in(modules, leaves):
            self._record(run, learning, tensors[0].device)

    def _record(self, run: Callable[..., Tensor], learning: Sequence[Tensor], device: torch.device) -> None:
        stream, outside = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        stream.wait_stream(outside)
        with torch.cuda.stream(stream):
            for _ in range(WARMUP):
                output = run(*self._inputs)
                if self.learns:
                    _gradients(output, learning, torch.zeros_like(output))
        self._forward = torch.cuda.CUDAGraph()
        with _recorded(self._forward, stream):
            output = run(*self._inputs)
        self._output, self._gradients = output.detach(), list[Tensor | None]()
        if self.learns:
            self._given, self._backward = torch.empty_like(output), torch.cuda.CUDAGraph()
            with _recorded(self._backward, stream, pool=self._forward.pool()):
                self._gradients += _gradients(output, learning, self._given)
        outside.wait_stream(stream)

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        if not self.learns:
            return self.forward(tensors).clone()
        output: Tensor = _Replay.apply(self, len(tensors), *tensors, *self._weights)
        self.pending = True
        return output

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        for place, tensor in zip(self._inputs, tensors, strict=True):
            place.detach().copy_(tensor)
        self._forward.replay()
        return self._output.detach()

    def backward(self, gradient: Tensor) -> list[Tensor | None]:
        """Gradients of the inputs, then of the weights, where they have one."""
        self.pending = False
        self._given.copy_(gradient)
        self._backward.replay()
        found = iter(self._gradients)
        of_inputs = [next(found) if tensor.requires_grad else None for tensor in self._inputs]
        return [None if tensor is None else tensor.detach() for tensor in (*of_inputs, *found)]


class _Replay(torch.autograd.Function):
    """A recording as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, recording: _Recording, inputs: int, *tensors: Tensor) -> Tensor:
        ctx.recording = recording
        return recording.forward(tensors[:inputs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        return None, None, *ctx.recording.backward(gradient)


@contextmanager
def run_by(parts: Iterable[tuple[nn.Module, RunPart]]) -> Iterator[None]:
    """Have the encoders of each model run their parts by what is given, until the end of the block."""
    encoders: list[tuple[Any, RunPart]] = [
        (module, part) for model, part in parts for module in model.modules() if hasattr(module, "run_part")
    ]
    for module, part in encoders:
        module.run_part = part
    try:
        yield
    finally:
        for module, part in encoders:
            module.run_part = eagerly
            if isinstance(part, Graphs):
                part.settle()


def compile_blocks(models: Iterable[nn.Module], kinds: tuple[type[nn.Module], ...]) -> None:
    """Have torch compile the models' modules of these kinds when they are first called; alike ones once for all."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILE_LIMIT)
    for model in models:
        for block in model.modules():
            if isinstance(block, kinds):
                block.compile(fullgraph=True)


@contextmanager
def _standing_in(modules: Iterable[nn.Module], leaves: Mapping[nn.Parameter, nn.Parameter]) -> Iterator[None]:
    """Put other parameters in the places of the modules' own until the end of the block."""
    places = [(part, name, weight) for top in modules for part in top.modules() for name, weight in _own(part)]
    for part, name, weight in places:
        part._parameters[name] = leaves[weight]
    try:
        yield
    finally:
        for part, name, weight in places:
            part._parameters[name] = weight


def _gradients(output: Tensor, learning: Sequence[Tensor], given: Tensor) -> tuple[Tensor | None, ...]:
    """As a training step has them: its backward pass is outside of autocast."""
    with torch.autocast("cuda", enabled=False):
        return torch.autograd.grad(output, learning, given, allow_unused=True)


def _own(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, weight) for name, weight in module._parameters.items() if weight is not None]


def _uncached_autocast() -> AbstractContextManager[object]:
    """The autocast that is in force, but one that keeps no half-precision weights: a graph must cast them each time."""
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    return torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False)


def _recorded(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream, pool: Any = None) -> AbstractContextManager[None]:
    """Other threads may go on: one makes the next batches, and pins their memory."""
    return torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")
