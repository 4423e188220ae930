"""Where a model runs, and in which precision."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from mumc_model.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes an NVIDIA or AMD accelerator where there is one, else the CPU.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f"the device {name!r} is not here; set device to auto or cpu, or install a torch that knows it"
        ) from error
    if device.type not in ("cpu", "cuda"):
        # Fused AdamW takes the factor of clipped gradients on these two alone; on a Mac's it is lost without a word.
        raise DeviceError(f"nothing has been tried on the device {name!r}; set device to auto, cpu or cuda")
    return device


def choose_devices(name: str, processes: int) -> tuple[torch.device, ...]:
    """A device for each process: one GPU after another from the first on, or the CPU for all.

    Raises:
        DeviceError: there is no such device here, or there are fewer than processes.
    """
    device = choose_device(name)
    if processes == 1 or device.type == "cpu":
        return (device,) * processes
    if device.index is not None:
        raise DeviceError(
            f"{processes} processes cannot train on {name!r}, which is one device; set device to cuda, and choose "
            "among several GPUs by the environment variable CUDA_VISIBLE_DEVICES"
        )
    if torch.cuda.device_count() < processes:
        raise DeviceError(
            f"processes is {processes}, but there are {torch.cuda.device_count()} GPUs here; set processes to at most "
            "as many"
        )
    return tuple(torch.device("cuda", index) for index in range(processes))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context that runs encoders in `fp32` or `bf16`; losses are in single precision either way.

    Raises:
        DeviceError: the precision has another name, or the device cannot do it.
    """
    if precision not in ("fp32", "bf16"):
        raise DeviceError(f"precision {precision!r} is not known; choose fp32 or bf16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError("this accelerator cannot compute in bf16; set precision to fp32")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. What a CPU sends to an accelerator it sends from pinned memory, and does not wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@contextmanager
def own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Give what has no generator of its own, as dropout, this seed, and hide that from the process around."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
