"""The site's keys, and the federation that it has joined, as far as its own folder tells."""

import stat

from client.preflight.case import Case
from client.preflight.finding import Finding, failed, passed, warned
from protocol.certificates import read_certificate
from protocol.enrolment import check_is_for
from protocol.node_keys import node_fingerprint
from protocol.signing import fingerprint


def keys(case: Case) -> Finding:
    """Whether both private keys are there, whole, and readable by their owner alone."""
    auth, signing = case.keys.public
    mode = stat.S_IMODE(case.keys.folder.stat().st_mode)
    if mode & 0o077:
        return failed(
            f"{case.keys.folder} has mode {mode:o}, so that others can look into it",
            f"run: chmod 700 {case.keys.folder}",
        )
    return passed(f"signing key {fingerprint(signing)}, node key {node_fingerprint(auth)}; their owner's alone")


def enrolment(case: Case) -> Finding:
    """Whether what is pinned is whole, and for this site and its keys."""
    join = case.join
    check_is_for(join, case.config.name, *case.keys.public)
    ca = read_certificate(join.ca, "CA certificate in the pinned join file")
    shown = (
        f"{join.site} takes part in {join.federation}, answer {join.serial} of {join.issued[:10]}, sites: "
        f"{1 + len(join.peers)}, CA until {ca.not_valid_after_utc:%Y-%m-%d}"
    )
    if case.keys.next.exists:
        return warned(
            f"{shown}; new keys wait for the operator's answer",
            "send the enrolment file, and take the answer in with mumc-site join",
        )
    return passed(shown)
