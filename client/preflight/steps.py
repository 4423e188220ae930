"""The training steps that are timed: the installed trainers, on copies of the site's records, and all is thrown away.

Nothing is charged to the privacy ledger, because nothing is released: weights, losses and scratch folder go.
"""

import itertools
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from client.gate import check_weights
from client.preflight.finding import Finding, failed, of_error
from client.site import Site, open_folder
from client.task import limit_memory
from configs.loader import ConfigurationError
from mumc_model.config import Recipe
from mumc_model.data.collate import CaptionDataset
from mumc_model.data.records import SiteData
from mumc_model.data.tokenizer import Tokenizer, vocabulary
from mumc_model.errors import MumcError
from mumc_model.model import MumcModel, build_model
from mumc_model.sharing import is_shared
from mumc_model.train import Pretrainer
from protocol.errors import ProtocolError

STEPS = 3
"""The first warms up, and the others are timed."""
NO_MEMORY = ("memory", "could not create a primitive")
"""How torch and the libraries under it put it."""
OnStep = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be timed."""

    root: Path
    recipe: Recipe
    """With its vocabulary's size."""
    vocabulary: tuple[str, ...] | None
    """None where it is not here; the shipped one then stands for it."""
    memory_gib: float
    """Most memory, as the site's limits set it for an order; 0 for no limit."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What steps took."""

    seconds: float
    """Of one step."""
    pairs: int
    """In a step."""
    peak_bytes: int
    """Of the whole process."""
    device_bytes: int
    """Peak on the accelerator; 0 without one."""
    device_total_bytes: int
    parameters: int


def take_steps(pipe: Connection, job: Job, scratch: Path) -> None:
    """Send the timing of a few steps down the pipe, or the finding that there can be none."""
    try:
        limit_memory(job.memory_gib)
        pipe.send(_timing(job, scratch.resolve()))
    except (MumcError, ConfigurationError, ProtocolError) as error:
        pipe.send(of_error(error))
    except (MemoryError, RuntimeError) as error:
        pipe.send(_out_of_memory(error, job.memory_gib))
    except Exception as error:
        pipe.send(_fault(error))


def _timing(job: Job, scratch: Path) -> Timing:
    site, recipe = open_folder(job.root), job.recipe
    model = build_model(recipe.model, site.seed())
    names = [name for name, _ in model.named_parameters()]
    check_weights(site.config.policy.runs, sorted(filter(is_shared, names)))
    tokenizer = Tokenizer(job.vocabulary) if job.vocabulary else vocabulary("phantom")
    wanted = 2 * recipe.privacy.expected_batch if recipe.privacy.on else recipe.pretrain.batch_size
    records = _records(site.data, tokenizer, recipe, wanted, scratch)
    moments: list[float] = []

    def on_step(step: int, losses: Mapping[str, float]) -> None:
        moments.append(time.perf_counter())

    train = _train_privately if recipe.privacy.on else _train
    pairs = train(model, recipe, site, records, scratch, on_step)
    accelerated = site.device.type == "cuda"
    return Timing(
        seconds=statistics.median(later - earlier for earlier, later in itertools.pairwise(moments)),
        pairs=pairs,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        device_bytes=torch.cuda.max_memory_allocated(site.device) if accelerated else 0,
        device_total_bytes=torch.cuda.mem_get_info(site.device)[1] if accelerated else 0,
        parameters=sum(weight.numel() for weight in model.parameters()),
    )


def _records(data: SiteData, tokenizer: Tokenizer, recipe: Recipe, images: int, scratch: Path) -> CaptionDataset:
    """So many captioned images in a folder of their own: decoding them leaves the site's cache as it is."""
    keys = sorted({data.key(record) for record in data.captions})[:images]
    for key in keys:
        (scratch / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data.root / key, scratch / key)
    captions = tuple(
        replace(record, image=scratch / data.key(record)) for record in data.captions if data.key(record) in set(keys)
    )
    settings = recipe.pretrain
    return CaptionDataset(
        replace(data, root=scratch, captions=captions, vqa=()),
        tokenizer,
        recipe.model.vision.image_size,
        settings.caption_tokens,
        settings.crop_scale,
    )


def _train(
    model: MumcModel, recipe: Recipe, site: Site, records: CaptionDataset, scratch: Path, on_step: OnStep
) -> int:
    trainer = Pretrainer(model, recipe, site.device, site.config.precision, kernels=site.config.kernels)
    # A GPU's second step records what the later ones replay.
    steps = STEPS if site.device.type == "cpu" else 2 * STEPS
    trainer.run(records, first_step=0, steps=steps, total_steps=steps, seed=site.seed(), on_step=on_step)
    return min(recipe.pretrain.batch_size, len(records))


def _train_privately(
    model: MumcModel, recipe: Recipe, site: Site, records: CaptionDataset, scratch: Path, on_step: OnStep
) -> int:
    # Opacus takes seconds to import, and a run without differential privacy does without.
    from client.privacy.bank import open_bank
    from client.privacy.train import PrivatePretrainer, PrivateSite

    bank = open_bank(recipe.privacy.bank, recipe, records.tokenizer, scratch, site.config.bank, site.device)
    trainer = PrivatePretrainer(model, recipe, bank, site.device, site.config.precision)
    rows = bank.new_rows(records)
    keys = records.patient_ids if recipe.privacy.unit == "patient" else records.keys
    units = tuple(keys[row] for row in rows.tolist())
    rate = min(1.0, recipe.privacy.expected_batch / max(1, len(set(units))))
    sampled = PrivateSite(records=records, rows=rows, units=units, patients=frozenset(), sample_rate=rate)
    trainer.run(sampled, first_step=0, steps=STEPS, total_steps=STEPS, on_step=on_step)
    return round(rate * len(set(units)))


def _out_of_memory(error: Exception, memory_gib: float) -> Finding:
    """What torch says in many ways when there is no more memory, in one; any other fault of its is one of ours."""
    said = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)
    if not said:
        return _fault(error)
    limit = f" within the {memory_gib:g} GiB of policy.runs.memory_gib" if memory_gib else ""
    return failed(
        f"the memory{limit} does not suffice for a step",
        "lower pretrain.batch_size or raise pretrain.accumulation in the run, set kernels: eager in a GPU's site.yaml, "
        "or give the site more memory",
    )


def _fault(error: Exception) -> Finding:
    return failed(f"the step failed with {type(error).__name__}", "run mumc-site rehearse, and tell the developers")
