"""A module again, with other parameters: what `copy.deepcopy` does, without looking at every object on the way."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def duplicate(module: Module, parameter: Callable[[nn.Parameter], nn.Parameter]) -> Module:
    """A module of the same structure, each parameter replaced by what `parameter` makes of it; tied ones stay tied.

    Buffers are copied. Everything else that a module holds, such as its configuration, is shared with the original, so
    a module that changes an object of its own in place has no business here.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}

    def again(old: nn.Parameter) -> nn.Parameter:
        if old not in made:
            made[old] = parameter(old)
        return made[old]

    return _again(module, again, {})


def _again(
    module: Module, parameter: Callable[[nn.Parameter], nn.Parameter], done: dict[nn.Module, nn.Module]
) -> Module:
    if module not in done:
        copy = done[module] = type(module).__new__(type(module))
        # As `nn.Module.__setattr__` files them; hooks lie in dictionaries too, and are the copy's own to change.
        copy.__dict__ = {key: value.copy() if isinstance(value, dict) else value for key, value in vars(module).items()}
        copy._parameters = {name: None if old is None else parameter(old) for name, old in module._parameters.items()}
        copy._buffers = {name: None if old is None else old.clone() for name, old in module._buffers.items()}
        copy._modules = {
            name: None if old is None else _again(old, parameter, done) for name, old in module._modules.items()
        }
    found = done[module]
    assert isinstance(found, type(module))
    return found
