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

from client.privacy.accounting import epsilon_pld, epsilon_rdp, noise_for
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
    """By PLD, at its full length."""
    epsilon_rdp: float
    delta: float
    noise_multiplier: float
    sample_rate: float
    """The largest of all hospitals'."""
    steps: int

    def facts(self) -> Mapping[str, float]:
        """For reports."""
        return dict(vars(self))


def public_units(hospitals: Sequence[Path]) -> int:
    """What policies declare as every hospital's size: the smallest one's patients with captions, rounded to tens."""
    patients = [len({record.patient_id for record in read_site(path).captions}) for path in hospitals]
    return max(10, min(patients) // 10 * 10)


def private_hospitals(hospitals: Sequence[Path], out: Path, units: int, budget: Budget, name: str) -> list[Path]:
    """Copies of the hospitals under `out`, with policies that an officer of their own has signed for this budget.

    `name` keeps the patients of one arm and seed apart from those of others in the registry.
    """
    officer = new_key()
    copies = []
    for path in hospitals:
        copy = Path(shutil.copytree(path, out / path.name, ignore=shutil.ignore_patterns("state")))
        unsigned = PrivacyPolicy(
            units=units,
            epsilon=budget.epsilon_rdp * 1.001,
            delta=budget.delta,
            officer="simulation",
            role="none",
            reason="an arm of a comparison",
            approved=now(),
            public_key=public_hex(officer),
        )
        _rename_patients(copy, f"{name}/")
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


def with_noise(run: RunConfig, epsilon: float, units: int, delta: float) -> tuple[RunConfig, Budget]:
    """The run with the noise that makes its pre-training cost this epsilon (for 0 its own noise), and its cost."""
    privacy = run.recipe.privacy
    steps, rate = run.federation.rounds * run.federation.local_steps, min(1.0, privacy.expected_batch / units)
    noise = privacy.noise_multiplier
    if epsilon:
        noise = noise_for(epsilon=epsilon, delta=delta, sample_rate=rate, steps=steps)
        recipe: Recipe = replace(run.recipe, privacy=replace(privacy, noise_multiplier=noise))
        run = replace(run, recipe=recipe)
    event = Event(sample_rate=rate, noise_multiplier=noise, steps=steps)
    return run, Budget(
        epsilon=epsilon_pld([event], delta),
        epsilon_rdp=epsilon_rdp([event], delta),
        delta=delta,
        noise_multiplier=noise,
        sample_rate=rate,
        steps=steps,
    )
