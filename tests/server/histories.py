"""Histories of runs made up for tests, and a strategy that makes up any."""

from hypothesis import strategies as st

from server.history import History
from server.journal import RoundRecord

CODES = ("no_answer", "not_finite", "norm_too_large", "policy_hours")


def record(round, *, merged=(), refused=None, attempt=1, expected=3, **changes):
    """A round in which these sites were merged; without any, an attempt that came to nothing."""
    values = {
        "losses": {"total": 2.0 / round} if merged else {},
        "update_norm": 0.5 if merged else 0.0,
        "examples": 10 * len(merged),
        "bytes_up": 1_000_000,
        "bytes_down": 2_000_000,
        "seconds": 3.0,
        "lr": 1.0,
        "ended": f"2026-11-26T12:{round:02d}:00+00:00",
        "norms": dict.fromkeys(merged, 1.0),
    }
    return RoundRecord(
        run_id="trial",
        round=round,
        attempt=attempt,
        sites_expected=expected,
        sites_merged=len(merged),
        merged=list(merged),
        refused=dict(refused or {}),
        **values | changes,
    )


def config(rounds, final="none"):
    """As much of a run's configuration as a history asks for."""
    return {"federation": {"rounds": rounds, "final": final}}


@st.composite
def histories(draw):
    """Up to six sites in up to twelve rounds, some attempts of which are void."""
    sites = [f"site-{n}" for n in range(draw(st.integers(1, 6)))]
    records = []
    for round in range(1, draw(st.integers(1, 12)) + 1):
        if draw(st.booleans()) and draw(st.booleans()):
            lost = {site: "no_answer" for site in sites if draw(st.booleans())}
            records.append(record(round, refused=lost, expected=len(sites)))
        states = {site: draw(st.sampled_from(("in", "in", "in", "late", "away", *CODES))) for site in sites}
        merged = [site for site, state in states.items() if state in ("in", "late")] or sites
        refused = {site: state for site, state in states.items() if state in CODES and site not in merged}
        late = {site: 1 for site in merged if states[site] == "late"}
        records.append(
            record(round, merged=merged, refused=refused, late=late, expected=len(sites), attempt=len(records) + 1)
        )
    rounds = records[-1].round + draw(st.integers(0, 1))
    return History(run_id="trial", records=records, config=config(rounds), enrolled=sites)
