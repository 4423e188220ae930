"""What is asked on the page's third tab: the fields of a policy, and the policy that they make."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from client.privacy.approving import numbers_for
from client.privacy.ledger_rows import now
from client.privacy.plan import Sketch
from client.privacy.policy import PrivacyPolicy
from client.ui.handling import Updates, number, whole
from client.ui.officer.plan_fields import typed_number


@dataclass(frozen=True)
class PolicyFields:
    """The fields, in the order of `all`."""

    epsilon: gr.Number
    units: gr.Number
    noise: gr.Number
    delta: gr.Textbox
    unit: gr.Radio
    expires: gr.Textbox
    who: gr.Textbox
    role: gr.Textbox
    reason: gr.Textbox

    @classmethod
    def build(cls) -> "PolicyFields":
        """The fields, in rows one below the other."""
        with gr.Row():
            epsilon = gr.Number(None, label="Cap", info="Epsilon of the site's life-time, by an RDP filter.")
            units = gr.Number(None, label="Patients", info="Public and rounded.", precision=0)
            noise = gr.Number(0, label="Least noise multiplier", info="0 leaves it to the cap.")
            delta = gr.Textbox("1e-6", label="Delta of the policy", info="At most 1 / (10 patients).", max_lines=1)
        with gr.Row():
            unit = gr.Radio(["patient", "record"], value="patient", label="What is protected")
            expires = gr.Textbox("", label="Last day", info="As 2027-12-31; empty for none.", max_lines=1)
        with gr.Row():
            who = gr.Textbox("", label="Name of who signs", max_lines=1)
            role = gr.Textbox("privacy officer", label="Role", max_lines=1)
        reason = gr.Textbox("", label="Reason", info="Why this budget is right.", max_lines=1)
        return cls(epsilon, units, noise, delta, unit, expires, who, role, reason)

    def all(self) -> list[gr.Component]:
        """For Gradio, as inputs."""
        return [*self.numbers(), self.unit, self.expires, self.who, self.role, self.reason]

    def numbers(self) -> list[gr.Component]:
        """Those that a plan can fill."""
        return [self.epsilon, self.units, self.noise, self.delta]

    def filled(self, plan: Sketch) -> Updates:
        """Their values as the plan needs them."""
        found = numbers_for(plan)
        values = (found["epsilon"], found["units"], found["noise_multiplier"], f"{found['delta']:g}")
        return dict(zip(self.numbers(), values, strict=True))


def policy_of(values: tuple[Any, ...]) -> PrivacyPolicy:
    """The policy that the fields' values make, as of now.

    Raises:
        PageError: a field is empty or no number.
        PolicyError: there can be no such policy.
    """
    epsilon, units, noise, delta, unit, expires, who, role, reason = values
    return PrivacyPolicy(
        unit=unit,
        units=whole(units, "patients", least=1),
        epsilon=number(epsilon, "cap"),
        delta=typed_number(delta, "delta"),
        noise_multiplier=number(noise, "least noise multiplier", least=0),
        expires=(expires or "").strip(),
        officer=(who or "").strip(),
        role=(role or "").strip(),
        reason=(reason or "").strip(),
        approved=now(),
    )
