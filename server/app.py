"""The ServerApp: resolves the run once and plays it."""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from configs.compose import compose
from configs.loader import ConfigurationError, load
from mumc_model.errors import ConfigError
from server import federation
from server.config import RunConfig
from server.errors import ServerError
from server.home import HOME, Home
from server.seal import Post
from server.statistics_run import run_statistics

RESUME = "resume"
"""Key of Flower's run configuration that says: go on with the run that lies in the output folder."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Play the run that `run-json` or `hydra-overrides` describes; a deployment sees a line a round."""
    config = run_config(context.run_config)
    try:
        play(grid, config, context)
    except ServerError:
        # Flower prints what ends a run; what was foreseen is a line there, not a traceback.
        sys.tracebacklimit = 0
        raise


def play(grid: Grid, config: RunConfig, context: Context) -> None:
    """The run, with signed orders where it belongs to a federation that has a folder."""
    if home := os.environ.get(HOME):
        run = run_statistics if config.federation.final == "statistics" else federation.run
        run(
            grid,
            config,
            on_round=partial(print, flush=True),
            post=Post(Home.open(Path(home)), config.federation.only),
            resume=bool(context.run_config.get(RESUME)),
        )
    elif config.federation.final == "statistics":
        raise ConfigError("statistics are summed over enrolled sites, and there is no federation's folder")
    elif config.federation.only:
        raise ConfigError("federation.only names enrolled sites, and there is no federation's folder; leave it empty")
    elif context.run_config.get("run-json"):
        federation.run(grid, config)
    else:
        federation.run(grid, config, on_round=partial(print, flush=True))


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """The run: `run-json` as a simulation has resolved it, else composed from the `hydra-overrides`.

    Raises:
        ConfigurationError: neither can be read, or a key is unknown.
    """
    text = str(values.get("run-json", ""))
    if not text:
        return load(RunConfig, compose("run", shlex.split(str(values.get("hydra-overrides", "")))))
    try:
        node = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"run-json is not JSON: {error}") from error
    return load(RunConfig, node)
