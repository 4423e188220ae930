"""One seed of a simulation: its hospitals, every arm on them, and what came of each."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, RecordDict

from client.state import RunState
from configs.loader import ConfigurationError, dump
from mumc_model.data.records import SiteData, read_site
from server.app import app as server_app
from server.federation import run as server_run
from server.seal import Post
from simulations.arms import Federation, Stage, plan, weights_of
from simulations.config import Arm, SimulationConfig
from simulations.engine import Engine
from simulations.grid import LocalGrid
from simulations.hospitals import pool, prepare
from simulations.masked import copied, join_all
from simulations.measures import matched_rows, retrieval_facts, write_bank, write_held_out, write_public
from simulations.private import Budget, private_hospitals, public_units, with_noise
from simulations.progress import Watch
from simulations.report_study import ArmFacts, ArmResult, SiteQuestions, Training

FIRST_NODE = 101


class Seed:
    """All arms on one seed's hospitals; arms run side by side and share the engine's workers."""

    def __init__(self, config: SimulationConfig, seed: int, out: Path, engine: Engine, watch: Watch) -> None:
        """`out` becomes the folder of everything that this seed makes."""
        self._config, self._seed, self._out = config, seed, out
        self._engine, self._watch = engine, watch
        self.results: list[ArmResult] = []
        self.questions: list[SiteQuestions] = []
        self.training: list[Training] = []
        self.facts: list[ArmFacts] = []
        self._budgets: dict[Arm, Budget] = {}

    def run(self) -> None:
        """Hospitals, every arm, and what came of them."""
        hospitals = prepare(self._config, self._seed, self._out, self._watch.note)
        pooled = self._out / "pool"
        if any(self._config.kind(arm) == "centralised" for arm in self._config.arms):
            pool(self._members(hospitals), pooled, self._config)
        self._note_questions(hospitals)
        plans = self._plan(hospitals, pooled)
        self._run_arms(plans)
        held_out = write_held_out(self._config, self._seed, self._out) if self._config.variants else None
        for arm in self._config.arms:
            if self._config.matches(arm):
                self._match(arm, hospitals)
            else:
                self._collect(arm, plans[arm])
                self._measure(arm, plans[arm], held_out)

    def _run_arms(self, plans: dict[Arm, list[Stage]]) -> None:
        """All arms side by side, each once the arm that it starts from is done."""
        # The longest chain of work starts first: a pooled archive trains on one worker only.
        ordered = sorted(plans, key=lambda arm: (self._config.kind(arm) != "centralised", arm))
        running: dict[Arm, Future[None]] = {}
        with ThreadPoolExecutor(len(ordered)) as threads:

            def start(arm: Arm) -> Future[None]:
                before = self._config.after(arm)
                if arm not in running:
                    running[arm] = threads.submit(self._run_arm, arm, plans[arm], start(before) if before else None)
                return running[arm]

            try:
                for future in as_completed([start(arm) for arm in ordered]):
                    future.result()
            except BaseException:
                # An arm failed, or somebody pressed Ctrl-C: the others would go on for as long as their runs take.
                self._engine.abandon()
                raise

    def _members(self, hospitals: Sequence[Path]) -> Sequence[Path]:
        """The hospitals that pre-train together."""
        return hospitals[: len(hospitals) - self._config.newcomers]

    def _match(self, arm: Arm, hospitals: Sequence[Path]) -> None:
        """The answers of an arm that trains nothing, at the hospitals that are asked."""
        after = self._config.after(arm)
        weights = weights_of(after, self._out / "runs") if after else None
        run = replace(self._config.run, seed=self._seed)
        for path in self._asked(hospitals):
            rows = matched_rows(run, weights, read_site(path), self._config.device)
            self.results.append(ArmResult(arm=arm, seed=self._seed, site=path.name, rows=rows))

    def _asked(self, hospitals: Sequence[Path]) -> Sequence[Path]:
        """The hospitals that fine-tune and answer."""
        return hospitals[-self._config.newcomers :]

    def _plan(self, hospitals: list[Path], pooled: Path) -> dict[Arm, list[Stage]]:
        """The stages of every arm; private arms have hospitals with policies of their own, and their noise."""
        config, runs, plans = self._config, self._out / "runs", {}
        public = write_public(config, self._seed, self._out) if "public" in config.arms else pooled
        for arm in config.arms:
            stages = plan(arm, config, self._seed, hospitals, public if arm == "public" else pooled, runs)
            plans[arm] = stages
            if len(stages) != 1 or len(stages[0]) != 1:
                _refuse_unguarded(arm, stages)
                continue
            ((federation,),) = stages
            if federation.run.recipe.privacy.on and arm in (*config.variants, "federated"):
                units, name = public_units(hospitals), f"seed-{self._seed}/{arm}"
                epsilon = config.variants[arm].epsilon if arm in config.variants else 0.0
                run, budget = with_noise(federation.run, epsilon, units, config.delta)
                bank = write_bank(config, run.recipe.privacy.bank, self._seed, self._out)
                copies = private_hospitals(hospitals, self._out / "private" / arm, units, budget, name, bank)
                stages, self._budgets[arm] = [[replace(federation, run=run, sites=tuple(copies))]], budget
            if federation.masked and stages[0][0] is federation:
                copies = copied(federation.sites, self._out / "masked" / arm)
                stages = [[replace(federation, sites=tuple(copies))]]
            plans[arm] = stages
        return plans

    def _measure(self, arm: Arm, stages: list[Stage], held_out: SiteData | None) -> None:
        """What is known of an arm beside its answers: its budget, and retrieval by its encoders."""
        last = stages[-1][0]
        values = dict(self._budgets[arm].facts()) if arm in self._budgets else {}
        trained = stages[0][0].run.federation.rounds > 0 or arm not in self._config.variants
        if held_out is not None and self._config.kind(arm) != "local" and trained:
            values |= retrieval_facts(last.run, held_out)
        self.facts.append(ArmFacts(arm=arm, seed=self._seed, values=values))

    def _run_arm(self, arm: Arm, stages: list[Stage], before: Future[None] | None = None) -> None:
        """All stages, once the arm that this one starts from is done."""
        if before:
            before.result()
        if not stages:
            return
        total = sum(federation.replies for stage in stages for federation in stage)
        advance = self._watch.task(f"seed {self._seed} {arm}", total)
        with ThreadPoolExecutor(max(len(stage) for stage in stages)) as threads:
            for stage in stages:
                list(threads.map(lambda federation: self._run_federation(federation, advance), stage))

    def _run_federation(self, federation: Federation, on_reply: Callable[[], None]) -> None:
        if federation.after:
            _hand_over_heads(federation.after, federation)
        sites = {FIRST_NODE + index: path for index, path in enumerate(federation.sites)}
        grid = LocalGrid(sites, self._engine, on_reply)
        if federation.masked:
            home = join_all(sites, self._out / "masked" / f"{federation.arm}-server")
            server_run(grid, federation.run, post=Post(home))
            return
        context = Context(
            run_id=grid.run.run_id,
            node_id=0,
            node_config={},
            state=RecordDict(),
            run_config={"run-json": json.dumps(dump(federation.run)), "hydra-overrides": ""},
        )
        server_app(grid, context)

    def _note_questions(self, hospitals: Sequence[Path]) -> None:
        asked = self._asked(hospitals)
        for path in hospitals:
            site = read_site(path)
            rows = site.vqa if path in asked else ()
            by_split = {split: [row for row in rows if row.split == split] for split in ("train", "test")}
            self.questions.append(
                SiteQuestions(
                    seed=self._seed,
                    site=path.name,
                    train=by_split["train"],
                    test=by_split["test"],
                    captions=len({record.image for record in site.captions}),
                )
            )

    def _collect(self, arm: Arm, stages: list[Stage]) -> None:
        for federation in (f for stage in stages for f in stage):
            folder = Path(federation.run.output_dir)
            lines = [json.loads(line) for line in _lines(folder / "journal.jsonl")]
            vqa = json.loads((folder / "result.json").read_text(encoding="utf-8"))["vqa"]
            crosses = self._config.kind(arm) == "federated"
            moved = [*lines, vqa] if crosses else []  # the other arms cross no network
            self.training.append(
                Training(
                    arm=arm,
                    seed=self._seed,
                    site=federation.sites[0].name if self._config.kind(arm) == "local" else "",
                    losses=[line["losses"] for line in lines],
                    bytes_up=sum(part["bytes_up"] for part in moved),
                    bytes_down=sum(part["bytes_down"] for part in moved),
                    wall_s=sum(line["seconds"] for line in lines),
                )
            )
            if federation.run.federation.final == "finetune":
                for path in federation.sites:
                    rows = RunState.of(path, federation.run.run_id).rows("test")
                    self.results.append(ArmResult(arm=arm, seed=self._seed, site=path.name, rows=rows))


def _refuse_unguarded(arm: Arm, stages: list[Stage]) -> None:
    """Newcomers have neither policies nor keys in a simulation."""
    if any(f.masked or f.run.recipe.privacy.on for stage in stages for f in stage):
        raise ConfigurationError(
            f"{arm} pre-trains without its newcomers, which is simulated neither with differential privacy nor with "
            "secure aggregation; set newcomers=0, or privacy=none and secagg.mode=off"
        )


def _hand_over_heads(pooled: Federation, federation: Federation) -> None:
    """Give each hospital the heads that the pool's site kept to itself: the upper bound withholds nothing."""
    heads = RunState.of(pooled.sites[0], pooled.run.run_id).private_weights(pooled.run.federation.rounds + 1)
    for path in federation.sites:
        RunState.of(path, federation.run.run_id).keep_private_weights(0, heads or {})


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
