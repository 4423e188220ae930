"""Three sites that have joined, and a server's masked rounds with them: every message through JSON, every site's state
through its disk. Training is a number a site, unless a test takes the whole ClientApp."""

import dataclasses
import functools
import logging
import zlib
from pathlib import Path

import numpy as np

from client.errors import GateError
from client.faults import refusal
from client.secagg import Masking
from configs.compose import compose
from configs.loader import load
from protocol.errors import ProtocolError
from protocol.messages import STAGE_ACTIONS, Report, from_json, to_json
from server.config import RunConfig
from server.home import Home, SecaggFile
from server.seal import Post
from server.secagg import MaskedRound, Terms
from server.tally import RefusedError, Tally
from tests import federation
from tests.client import conftest
from tests.federation import join

NODES = {"ash": 101, "birch": 102, "cedar": 103}
UNITS = {"ash": 10, "birch": 20, "cedar": 30}
STAGES = tuple(STAGE_ACTIONS)


class KilledError(BaseException):
    """The site's process ends here."""


def join_three(place: Path, data: Path) -> None:
    """The federation's folder and those of its sites, which do without colluding ones."""
    join(place, data, NODES, UNITS, secagg=SecaggFile(colluding=0))
    for name in NODES:
        limit(place / name)


def limit(root: Path, **limits):
    """Set limits of the site; those that are not named are as at first."""
    federation.limit(root, **{"colluding": 0, "min_records": 1} | limits)


@functools.cache
def config(*overrides) -> RunConfig:
    return load(RunConfig, compose("run", [*conftest.TINY, "federation.sites=3", "federation.min_sites=2", *overrides]))


class Trio:
    """Rounds of one run with three sites."""

    def __init__(self, folder: Path, server) -> None:
        self.home, self.sites = Home.open(folder / "hub"), {name: folder / name for name in NODES}
        self.server = server
        self.terms = Terms.of(config(), Post(self.home))
        self.lost: set[tuple[str, str]] = set()
        """Site and stage of the orders that nobody answers."""
        self.lies = {}
        """By stage: what the server forwards to a site in the place of the truth."""
        self.trained: list[str] = []
        self.sent: dict[tuple[str, str], tuple[Report, dict]] = {}

    def update(self, site: str, round: int = 1):
        rng = np.random.default_rng([zlib.crc32(site.encode()), round])
        return {
            name: rng.normal(0, 0.05, flat.size).astype(flat.dtype) for name, flat in sorted(self.server.base.items())
        }

    def mean(self, *sites, round=1):
        """The exact weighted mean of these sites' updates."""
        weight = sum(UNITS[site] for site in sites)
        flat = [UNITS[s] * np.concatenate([a.astype(float) for a in self.update(s, round).values()]) for s in sites]
        return sum(flat) / weight

    def order(self, round=1, attempt=1):
        return dataclasses.replace(self.server.pretrain(round), attempt=attempt)

    def round(self, round=1, attempt=1, online=tuple(NODES)) -> MaskedRound:
        order = self.order(round, attempt)
        return MaskedRound(
            session=self.terms.session(order, self.server.schema, list(online)),
            order=order,
            nodes={name: NODES[name] for name in online},
            ask=self.ask,
            stage_timeout_s=60.0,
            mask_timeout_s=60.0,
        )

    def answer(self, site, order):
        """What a fresh process of the site answers."""

        def train(order):
            self.trained.append(site)
            metrics = {"total": 1.0}
            report = Report(
                run_id=order.run_id,
                round=order.round,
                attempt=order.attempt,
                site=site,
                examples=6,
                metrics=metrics,
                base_digest=order.base_digest,
            )
            return report, self.update(site, order.round)

        masking = Masking(self.sites[site], from_json(to_json(order)), logging.getLogger("test"))
        if order.stage == "mask":
            return masking.mask(self.server.base, train)
        return getattr(masking, order.stage)(), {}

    def ask(self, order, nodes, take, *, each, timeout_s):
        names, tally = {node: name for name, node in NODES.items()}, Tally()
        for node in nodes:
            site, asked = names[node], each(node)
            if lie := self.lies.get(asked.stage):
                asked = dataclasses.replace(asked, masking=lie(site, asked.masking))
            try:
                if (site, asked.stage) in self.lost:
                    raise RefusedError("no_answer")
                try:
                    report, arrays = self.answer(site, asked)
                except (GateError, ProtocolError) as error:
                    said = refusal(error)
                    raise RefusedError(said.code, said.text) from None
                except KilledError:
                    raise RefusedError("flower_2") from None
                self.sent[site, asked.stage] = report, arrays
                take(from_json(to_json(report)), arrays)
            except ProtocolError as error:
                tally.refuse(site, error)
            else:
                tally.reports[site] = report
        return tally


def check_sum(trio: Trio, round: MaskedRound, sites) -> None:
    """The round opens exactly the mean of these sites, within its own bound."""
    merged = round.play()
    assert merged.survivors == tuple(sites)
    error = np.abs(merged.mean - trio.mean(*sites, round=round.order.round)).max()
    assert error <= merged.error_bound <= 1e-6
