"""A site's folder with a signed policy, and work to charge to it."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

from client.privacy.event import Event
from client.privacy.ledger import Ledger
from client.privacy.ledger_rows import Charge
from client.privacy.policy import PrivacyPolicy, sign_policy
from protocol.signing import new_key

NAME = "north"
PATIENTS = ("p1", "p2", "p3")
STEPS = 20
POLICY = PrivacyPolicy(
    units=1000,
    epsilon=6.0,
    officer="Ada Lovelace",
    role="data protection officer",
    reason="a study of chest images",
    approved="2020-01-01T10:00:00+00:00",
)
CHARGE = Charge(
    run="trial",
    round=1,
    attempt=1,
    purpose="pretrain",
    unit="patient",
    event=Event(sample_rate=0.064, noise_multiplier=2.0, steps=STEPS),
    clipping_norm=1.0,
    expected_batch=64,
    operator="server",
)


def write_site(root: Path, name: str = NAME) -> Path:
    root.mkdir(parents=True)
    (root / "site.yaml").write_text(f"# of the hospital\nname: {name}\nunit: patient\ndevice: cpu\n")
    return root


def policy(days: int = 0, **changes: object) -> PrivacyPolicy:
    """The policy as it is approved so many days later."""
    moment = datetime(2020, 1, 1, 10, tzinfo=UTC) + timedelta(days=days)
    return dataclasses.replace(POLICY, approved=moment.isoformat(), **changes)


def approved_site(root: Path, key=None, **changes: object) -> Path:
    write_site(root)
    Ledger.open(root).approve(sign_policy(policy(**changes), NAME, key or new_key()))
    return root


def charge(steps: int = STEPS, **changes: object) -> Charge:
    event = dataclasses.replace(CHARGE.event, steps=steps)
    return dataclasses.replace(CHARGE, event=event, **changes)


def steps_of(ledger: Ledger) -> int:
    """How many steps count."""
    return sum(event.steps for event in ledger.events())
