"""One site as its client sees it: its folder, its configuration, its records and its place for state."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context

from client.config import SiteConfig, read_site_config
from client.privacy.ledger import Ledger, excluded_units
from mumc_model.data.records import SiteData, read_site
from mumc_model.data.splits import with_validation
from mumc_model.errors import DataError

if TYPE_CHECKING:
    import torch

    from client.state import RunState

SITE_KEY = "site"
"""Key of the node's configuration that names the site folder; the environment variable MUMC_SITE serves as well."""
TRIAL_KEY = "trial"
"""Key of the node's configuration that says: a trial on one machine, whose sites need neither keys nor limits."""
REHEARSAL_KEY = "rehearsal"
"""Key of the node's configuration that says: only orders to rehearse are followed."""
LOG_BYTES = 5_000_000


@dataclass(frozen=True, eq=False)
class Site:
    """An opened site folder."""

    root: Path
    config: SiteConfig
    data: SiteData

    @property
    def device(self) -> "torch.device":
        """Where the site computes.

        Raises:
            DeviceError: there is no such device here.
        """
        # Torch takes seconds to load, and most of what asks for a site does without.
        from mumc_model.device import choose_device

        return choose_device(self.config.device)

    def state(self, run_id: str) -> "RunState":
        """Where this site keeps what one run must find again."""
        from client.state import RunState

        return RunState.of(self.root, run_id)

    def seed(self, *parts: int) -> int:
        """A seed of this site's own, from the run's numbers: sites draw differently, the same run draws the same."""
        text = "/".join([self.config.name, *map(str, parts)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def site_root(context: Context) -> Path:
    """The folder of the site that this node serves.

    Raises:
        DataError: the node names none.
    """
    place = str(context.node_config.get(SITE_KEY) or os.environ.get("MUMC_SITE", ""))
    if not place:
        raise DataError(
            "this node names no site folder; start the SuperNode with --node-config 'site=\"/path/to/folder\"' "
            "or set MUMC_SITE"
        )
    return Path(place)


def is_trial(context: Context) -> bool:
    """Whether this node takes part in a trial on one machine. Whoever starts the node says so, never a run."""
    return bool(context.node_config.get(TRIAL_KEY))


def open_site(context: Context) -> Site:
    """The site that this node serves, opened once a process for as long as its files stay as they are.

    Raises:
        DataError: the node names no site folder, or the folder cannot be used.
        ConfigurationError: its `site.yaml` is missing or has an unknown key.
    """
    root = site_root(context)
    stamps = tuple(_stamp(root / name) for name in ("site.yaml", "captions.jsonl", "vqa.jsonl"))
    return _open(root, (*stamps, Ledger.open(root).excluded_count))


def site_log(context: Context) -> logging.Logger:
    """The site's own log, `state/site.log`; a node that cannot write one logs to its terminal."""
    try:
        return folder_log(site_root(context))
    except DataError:
        return logging.getLogger("fedmumc")


def folder_log(root: Path) -> logging.Logger:
    """The same of the site in a folder."""
    folder = root / "state"
    log = logging.getLogger(f"fedmumc.site.{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}")
    if not log.handlers:
        try:
            folder.mkdir(exist_ok=True)
            handler = RotatingFileHandler(folder / "site.log", maxBytes=LOG_BYTES, backupCount=2, encoding="utf-8")
        except OSError:
            return logging.getLogger("fedmumc")
        handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log


class _Lines(logging.Formatter):
    """A fault may quote what the server sent: none of it reaches a terminal as a command or begins a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, every line but its first indented, without control characters."""
        lines = super().format(record).split("\n")
        return "\n    ".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


def open_folder(root: Path) -> Site:
    """The site in a folder, without the patients that were withdrawn (`mumc-privacy exclude`).

    Where it has no validation questions, some of its training questions become that.

    Raises:
        LedgerError: the ledger that names withdrawn patients is not to be trusted.
        DataError: the folder cannot be used.
        ConfigurationError: its `site.yaml` is missing or has an unknown key.
    """
    config = read_site_config(root)
    data = _without_withdrawn(read_site(root, bad_share=config.bad_share))
    return Site(root=root, config=config, data=with_validation(data))


def _without_withdrawn(data: SiteData) -> SiteData:
    withdrawn = excluded_units(
        data.root, {caption.patient_id for caption in data.captions} | {row.patient_id for row in data.vqa}
    )
    if not withdrawn:
        return data
    return replace(
        data,
        captions=tuple(record for record in data.captions if record.patient_id not in withdrawn),
        vqa=tuple(record for record in data.vqa if record.patient_id not in withdrawn),
    )


@lru_cache(maxsize=4)
def _open(root: Path, stamps: Sequence[int]) -> Site:
    return open_folder(root)


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0
