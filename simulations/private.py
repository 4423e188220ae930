"""What differentially private arms need beside the others: hospitals with signed policies, noise for a target epsilon.

Private arms run at copies of the hospitals, since a policy forbids the arms without differential privacy. Arms are
alternatives, not a history, so each has copies of its own, with a cap that its own plan just fills.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from client.privacy import metrics
from client.privacy.accounting import epsilon_pld, epsilon_rdp, noise_for
from client.privacy.budget import cap_for
from client.privacy.errors import PlanError
from client.privacy.event import Event
from client.privacy.ledger import Ledger
from client.privacy.ledger_rows import now
from client.privacy.policy import PrivacyPolicy, sign_policy
from mumc_model.config import Recipe
from mumc_model.data.records import read_site
from protocol.signing import new_key, public_hex
from server.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one private arm costs, by the plan that was fixed before it."""

    epsilon: float
    """Of all that is charged, by PLD, at its full length."""
    epsilon_rdp: float
    delta: float
    noise_multiplier: float
    """Of pre-training."""
    sample_rate: float
    """The largest of all hospitals'."""
    steps: int
    cap: float
    """What a policy must allow."""

    def facts(self) -> Mapping[str, float]:
        """For reports."""
        return {name: value for name, value in vars(self).items() if name != "cap"}


def public_units(hospitals: Sequence[Path]) -> int:
    """What policies declare as every hospital's size: the smallest one's patients with captions, rounded to tens."""
    patients = [len({record.patient_id for record in read_site(path).captions}) for path in hospitals]
    return max(10, min(patients) // 10 * 10)


def private_hospitals(
    hospitals: Sequence[Path], out: Path, units: int, budget: Budget, name: str, bank: Path | None = None
) -> list[Path]:
    """Copies of the hospitals under `out`, with policies that an officer of their own has signed for this budget.

    `name` keeps the patients of one arm and seed apart from those of others in the registry. `bank` is the site folder
    of public pairs for hospitals whose site.yaml names none.
    """
    officer = new_key()
    copies = []
    for path in hospitals:
        copy = Path(shutil.copytree(path, out / path.name, ignore=shutil.ignore_patterns("state")))
        unsigned = PrivacyPolicy(
            units=units,
            epsilon=budget.cap,
            delta=budget.delta,
            officer="simulation",
            role="none",
            reason="an arm of a comparison",
            approved=now(),
            public_key=public_hex(officer),
        )
        _rename_patients(copy, f"{name}/")
        if bank:
            _name_bank(copy, bank)
        Ledger.open(copy).approve(sign_policy(unsigned, path.name, officer))
        copies.append(copy)
    return copies


def use_registry(out: Path) -> None:
    """Keep simulated patients out of the registry of this machine; called before any worker starts."""
    os.environ["MUMC_REGISTRY"] = str(out / "registry")


def _rename_patients(root: Path, prefix: str) -> None:
    """Arms and seeds number their patients alike, and the registry would take the next one's for copies."""
    for name in ("captions.jsonl", "vqa.jsonl"):
        rows = [json.loads(line) for line in (root / name).read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps(row | {"patient_id": prefix + row["patient_id"]}, ensure_ascii=False) for row in rows]
        (root / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _name_bank(root: Path, bank: Path) -> None:
    path = root / "site.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["bank"] = settings.get("bank") or str(bank)
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")


def with_noise(run: RunConfig, epsilon: float, units: int, delta: float) -> tuple[RunConfig, Budget]:
    """The run with the noise that makes its pre-training cost this epsilon (for 0 its own noise), and its cost.

    Raises:
        PlanError: a step would take more patients than the hospitals declare.
    """
    privacy = run.recipe.privacy
    steps, rate = run.federation.rounds * run.federation.local_steps, _rate("privacy", privacy.expected_batch, units)
    noise = privacy.noise_multiplier
    if epsilon:
        noise = noise_for(epsilon=epsilon, delta=delta, sample_rate=rate, steps=steps)
        recipe: Recipe = replace(run.recipe, privacy=replace(privacy, noise_multiplier=noise))
        run = replace(run, recipe=recipe)
    events = [Event(sample_rate=rate, noise_multiplier=noise, steps=steps)] if steps else []
    events += _of_finetuning(run.recipe, units) if privacy.releases_metrics else []
    return run, Budget(
        epsilon=epsilon_pld(events, delta),
        epsilon_rdp=epsilon_rdp(events, delta),
        delta=delta,
        noise_multiplier=noise,
        sample_rate=rate,
        steps=steps,
        # Where nothing is charged any cap will do.
        cap=cap_for(events, delta) if events else 1.0,
    )


def _of_finetuning(recipe: Recipe, units: int) -> list[Event]:
    """The private steps and the one release of an order to fine-tune."""
    privacy = recipe.privacy.finetune
    rate = _rate("privacy.finetune", privacy.expected_batch, units)
    steps = Event(sample_rate=rate, noise_multiplier=privacy.noise_multiplier, steps=recipe.finetune.steps)
    return [steps, metrics.event(privacy.metrics_noise)]


def _rate(settings: str, expected_batch: int, units: int) -> float:
    if expected_batch > units:
        raise PlanError(
            f"{settings}.expected_batch is {expected_batch}, and every hospital here declares {units} patients, as "
            "many as the smallest one has, rounded; choose at most that many"
        )
    return expected_batch / units
