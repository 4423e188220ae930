"""What is asked on the page's first tab: the fields, the request that they make, and the same as a command."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from client.errors import PageError
from client.privacy.errors import PrivacyError
from client.privacy.ledger import Ledger
from client.privacy.plan import PlanRequest
from client.ui.handling import number, whole

NOISE, TARGET = "noise", "target epsilon"
DEFAULT = PlanRequest(patients=5000, batch=64, steps=50, rounds=40, noise_multiplier=1.2, delta=1e-6, cap=6.0)


@dataclass(frozen=True)
class Fields:
    """The fields, in the order of `values`."""

    patients: gr.Number
    batch: gr.Slider
    rounds: gr.Slider
    steps: gr.Slider
    given: gr.Radio
    noise: gr.Slider
    target: gr.Slider
    cap: gr.Slider
    delta: gr.Textbox

    def all(self) -> list[gr.Component]:
        """For Gradio, as inputs."""
        return [
            self.patients,
            self.batch,
            self.rounds,
            self.steps,
            self.given,
            self.noise,
            self.target,
            self.cap,
            self.delta,
        ]


def fields(start: PlanRequest, *, at_site: bool) -> Fields:
    """The fields, filled with the request to start with."""
    noise, cap = start.noise_multiplier or 1.0, start.cap or 0.0
    patients = gr.Number(start.patients, label="Patients", info="A public, rounded number.", precision=0, minimum=1)
    batch = gr.Slider(1, max(512, start.batch), start.batch, step=1, label="Batch", info="Patients a step, on average.")
    rounds = gr.Slider(1, 300, start.rounds, step=1, label="Rounds")
    steps = gr.Slider(1, 500, start.steps, step=1, label="Steps a round")
    given = gr.Radio([NOISE, TARGET], value=NOISE, label="Given")
    with_noise = gr.Slider(0.3, max(10.0, noise), noise, step=0.05, label="Noise multiplier")
    target = gr.Slider(0.1, 20, 4.0, step=0.1, label="Target epsilon", info="The noise follows.", visible=False)
    none = "0: the policy's." if at_site else "0: none."
    cap_field = gr.Slider(0, max(20.0, cap), cap, step=0.1, label="Cap", info=f"Epsilon of the life-time. {none}")
    delta = gr.Textbox(f"{start.delta:g}", label="Delta", info="At most 1 / (10 patients).", max_lines=1)
    return Fields(patients, batch, rounds, steps, given, with_noise, target, cap_field, delta)


def request_of(values: Sequence[Any]) -> PlanRequest:
    """The request that the fields' values make.

    Raises:
        PageError: a field is empty or no number.
        PlanError: it cannot be planned.
    """
    patients, batch, rounds, steps, given, noise, target, cap, delta = values
    limit = number(cap, "cap", least=0)
    return PlanRequest(
        patients=whole(patients, "patients"),
        batch=whole(batch, "batch"),
        rounds=whole(rounds, "rounds"),
        steps=whole(steps, "steps a round"),
        noise_multiplier=number(noise, "noise") if given == NOISE else None,
        epsilon=number(target, "target epsilon") if given != NOISE else None,
        delta=typed_number(delta, "delta"),
        cap=limit or None,
    )


def typed_number(text: str, name: str, example: str = "1e-6") -> float:
    """A number from a field of text, in which 1e-6 stays what was typed.

    Raises:
        PageError: it is none.
    """
    try:
        return number(float(text), name)
    except (TypeError, ValueError):
        raise PageError(f"{name} is {str(text)[:40]!r}; type a number, as {example}") from None


def command_of(request: PlanRequest, site: Path | None, runs: Path | None) -> str:
    """The request as it is typed at a terminal."""
    words = {
        "patients": request.patients,
        "batch": request.batch,
        "rounds": request.rounds,
        "steps": request.steps,
        "noise": request.noise_multiplier,
        "epsilon": request.epsilon,
        "delta": request.delta,
        "cap": request.cap,
        "site": site,
        "runs": runs,
    }
    typed = [word for name, value in words.items() if value is not None for word in (f"--{name}", _word(value))]
    return shlex.join(["mumc-privacy", "plan", *typed])


def start_of(site: Path | None) -> PlanRequest:
    """The request to start with: of the site's policy where one is in force."""
    if site is None:
        return DEFAULT
    try:
        policy = Ledger.open(site).policy()
    except PrivacyError:
        return DEFAULT
    return replace(
        DEFAULT,
        patients=policy.units,
        batch=min(DEFAULT.batch, policy.units),
        noise_multiplier=max(DEFAULT.noise_multiplier or 0.0, policy.noise_multiplier),
        delta=policy.delta,
        cap=policy.epsilon,
    )


def _word(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
