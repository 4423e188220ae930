"""The machine: where the site computes, and the room it has."""

import os
import shutil
from pathlib import Path

import torch

from client.gate import approximate_parameters
from client.preflight.case import Case
from client.preflight.finding import Finding, failed, passed, size, warned
from client.preflight.run import with_vocabulary
from mumc_model.device import autocast, choose_devices

LEAST_MEMORY = 1 << 30
LEAST_DISK = 1 << 30
KEPT_COPIES = 12
"""Copies of a model's weights that a run keeps at a site: weights and Adam's moments after the last two rounds, what
was sent, the answering model and what replaces it while it is written."""
ACCELERATORS = ("/dev/nvidia0", "/dev/kfd")


def device(case: Case) -> Finding:
    """The device that site.yaml names, and the memory that is free on it."""
    config = case.config
    found = choose_devices(config.device, config.processes)[0]
    autocast(found, config.precision)
    each = f"{config.processes} processes, " if config.processes > 1 else ""
    if found.type == "cuda":
        free, total = torch.cuda.mem_get_info(found)
        shown = f"{each}{torch.cuda.get_device_name(found)} in {config.precision}, {size(free)} of {size(total)} free"
        if free < total / 2:
            return warned(
                shown, "see with nvidia-smi what else uses it", numbers={"free_bytes": free, "total_bytes": total}
            )
        return passed(shown, numbers={"free_bytes": free, "total_bytes": total})
    shown = f"{each}{found.type} in {config.precision}, {os.cpu_count()} cores"
    if config.device != "auto" or found.type != "cpu":
        return passed(f"{shown}, as site.yaml says", numbers={"cores": os.cpu_count() or 1})
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    if any(Path(path).exists() for path in ACCELERATORS):
        return warned(
            f"{shown}: there is an accelerator, and torch {torch.__version__} cannot use it",
            "update its driver" if built else "install a torch that is built for it",
        )
    return warned(f"{shown}: no accelerator", "if this is meant, say device: cpu in site.yaml")


def memory(case: Case) -> Finding:
    """Main memory, and the limit that the site sets on an order."""
    available, total = _main_memory()
    limits = case.config.policy.runs
    limit = limits.memory_gib * 2**30 if limits else 0
    numbers = {"available_bytes": available, "total_bytes": total}
    shown = f"{size(available)} of {size(total)} available" + (f", {size(limit)} for an order" if limit else "")
    if limit > available:
        return warned(shown, "end what else uses memory, or lower policy.runs.memory_gib in site.yaml", numbers=numbers)
    if available < LEAST_MEMORY:
        return warned(shown, "end what else uses memory", numbers=numbers)
    return passed(shown, numbers=numbers)


def disk(case: Case) -> Finding:
    """The room where the site keeps a run's models and its decoded images."""
    recipe = with_vocabulary(case.run.recipe, case.vocabulary_size)
    models = KEPT_COPIES * 4 * approximate_parameters(recipe)
    images = sum(3 * side**2 * _images(case) for side in {recipe.model.vision.image_size, recipe.finetune.image_size})
    free, needed = shutil.disk_usage(case.root).free, models + images + LEAST_DISK
    shown = f"{size(free)} free; {case.run.name} needs up to {size(needed)}"
    if free < needed:
        return failed(
            shown,
            "make room, or keep the site's folder on another disk",
            numbers={"free_bytes": free, "needed_bytes": needed},
        )
    return passed(shown, numbers={"free_bytes": free, "needed_bytes": needed})


def _images(case: Case) -> int:
    """Images that a record names; none where the records cannot be read, which another check says."""
    try:
        return len(case.data.image_keys)
    except Exception:
        return 0


def _main_memory() -> tuple[int, int]:
    """Available and all, in bytes."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        return tuple(int(rows[name].split()[0]) << 10 for name in ("MemAvailable", "MemTotal"))  # type: ignore[return-value]
    except (OSError, KeyError, ValueError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total, total
