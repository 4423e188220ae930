"""A site's five stages: what it answers to what the server forwards, and what it keeps between.

    advertise -> share -> mask -> agree -> unmask

Each takes the state of the stage before and gives the next; none reads a clock, a disk or a network. A stage is done
once: the same input gives the stored reply, another input an error. An error changes no state; the site answers with a
refusal, and so drops out unless it is asked rightly.
Source: Bonawitz et al., CCS 2017, figure 4, with the consistency check of its rounds 3 and 4.
"""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.secagg.errors import ConsistencyError, PinError, ShareOfSumError, ThresholdError
from protocol.secagg.keys import (
    SECRET_BYTES,
    Entropy,
    commitment,
    pair_mask_key,
    public_of,
    sealing_key,
    self_mask_key,
)
from protocol.secagg.masks import Mask, add_masks, subtracts, vector_digest
from protocol.secagg.messages import (
    Accord,
    Agreement,
    Inbox,
    Keys,
    Masked,
    Reveal,
    Roster,
    Shares,
    Survivors,
    check_session,
    signed,
    verify_message,
)
from protocol.secagg.packed import encode_packed
from protocol.secagg.session import Session
from protocol.secagg.shares import open_sealed, seal, split
from protocol.secagg.state import State, Step, advanced, begun, check_follows, session_of, stored
from protocol.signing import public_hex

Array = np.ndarray[Any, Any]

MOST_SHARE = 0.9
"""Of a sum's weight, for a site that sets no limit of its own."""


def advertise(
    session: Session,
    *,
    site: str,
    key: Ed25519PrivateKey,
    pinned: Mapping[str, str],
    before: State | None = None,
    most_share: float = MOST_SHARE,
    entropy: Entropy = os.urandom,
) -> Step[Keys]:
    """Stage 1: fresh X25519 keys, signed.

    `pinned` holds the fingerprint or the key of every site by name; `before` is the last state of the same run, erased
    or not; `most_share` bounds this site's weight among the sites of a sum (`Session.worst_share`). The caller has
    checked that the run, the base, the schema, `colluding` and the weights are those that it knows.

    Raises:
        PinError: the session names a site or a key that is not pinned, or another key for this site.
        ShareOfSumError: the weights leave this site's update hardly covered.
        RevealedError, StaleError: the session may not follow the last one.
    """
    if before is not None:
        same = before.get("session") == session.to_dict()
        if same and (step := stored(before, "advertise", session, Keys)):
            return step
        check_follows(session, before)
    session.check_pinned(pinned)
    if session.keys.get(site) != public_hex(key):
        raise PinError(f"the session does not name this site, {site}, with its own key; enrol it at the server again")
    if (share := session.worst_share(site)) > most_share:
        raise ShareOfSumError(
            f"this site could have {float(share):.1%} of the weight of a sum, above its limit of {most_share:.1%}, and "
            "the sum would show its update; agree on weights that are closer to one another, or on a higher threshold"
        )
    private = {"sealing": entropy(SECRET_BYTES), "masking": entropy(SECRET_BYTES)}
    message = signed(Keys, session, site, key, **{name: public_of(secret) for name, secret in private.items()})
    state = begun(session, site, {name: secret.hex() for name, secret in private.items()}, message)
    return Step(message=message, state=state)


def share(state: State, roster: Roster, *, key: Ed25519PrivateKey, entropy: Entropy = os.urandom) -> Step[Shares]:
    """Stage 2: shares of the private mask key and of the self-mask's seed, sealed for each peer of the roster.

    Raises:
        SignatureError: a peer's keys are not signed with the peer's pinned key.
        ThresholdError: the roster has fewer sites than the threshold.
        ConsistencyError: the roster repeats a site, or has not this site's own keys.
    """
    session, site = session_of(state), state["site"]
    if step := stored(state, "share", roster, Shares):
        return step
    check_session(roster, session)
    names = [keys.site for keys in roster.keys]
    for keys in roster.keys:
        verify_message(keys, session)
    if names != sorted(set(names)) or state["replies"]["advertise"] not in [keys.to_dict() for keys in roster.keys]:
        raise ConsistencyError("the roster repeats a site or lacks this site's own keys; start the round anew")
    _require_enough(session, names, "advertised keys")

    secret, seed = state["secrets"], entropy(SECRET_BYTES)
    parts = [split(bytes.fromhex(secret["masking"]), session.threshold, len(session.sites))]
    parts.append(split(seed, session.threshold, len(session.sites)))
    content = {name: b"".join(part[session.index(name) - 1] for part in parts) for name in names}
    sealed = {}
    for keys in roster.keys:
        if (peer := keys.site) != site:
            sealing = bytes.fromhex(secret["sealing"])
            shared = sealing_key(session, sealing, keys.sealing, sender=site, receiver=peer, own=site)
            sealed[peer] = seal(session, shared, content[peer], site, peer, entropy)
    message = signed(Shares, session, site, key, sealed=sealed, commitment=commitment(session, seed, site))
    secrets = {**secret, "seed": seed.hex(), "shares": {site: content[site].hex()}}
    public = {"roster": {keys.site: keys.to_dict() for keys in roster.keys}}
    return Step(message=message, state=advanced(state, "share", roster, message, secrets=secrets, public=public))


def mask(
    state: State,
    inbox: Inbox,
    *,
    key: Ed25519PrivateKey,
    update: Callable[[], Mapping[str, Array]],
    generator: np.random.Generator | None = None,
) -> Step[Masked]:
    """Stage 3: the update (flat arrays by type) as masked words. Afterwards no key of the masks is left at the site.

    The input of the stage is what the server forwarded. `update` is called once that is found right: nobody trains for
    an inbox that does not open, nor for a repetition.

    Raises:
        ShareError: shares were changed on their way.
        ThresholdError: fewer sites than the threshold have shared.
        ConsistencyError: shares come from a site that is not on the roster.
        UpdateError: the update is not finite or not of the agreed size.
    """
    session, site = session_of(state), state["site"]
    if step := stored(state, "mask", inbox, Masked):
        return step
    check_session(inbox, session)
    roster = {name: Keys.from_dict(keys) for name, keys in state["public"]["roster"].items()}
    _require_within(inbox.sealed, roster.keys() - {site}, "sealed shares come")
    sharers = sorted({*inbox.sealed, site})
    _require_enough(session, sharers, "shared")

    secrets = state["secrets"]
    sealing, masking = bytes.fromhex(secrets["sealing"]), bytes.fromhex(secrets["masking"])
    shares = dict(secrets["shares"])
    masks = [Mask(self_mask_key(session, bytes.fromhex(secrets["seed"]), site))]
    for peer, sealed in inbox.sealed.items():
        shared = sealing_key(session, sealing, roster[peer].sealing, sender=peer, receiver=site, own=site)
        shares[peer] = open_sealed(session, shared, sealed, peer, site).hex()
        pair = pair_mask_key(session, masking, site, roster[peer].masking, peer)
        masks.append(Mask(pair, subtract=subtracts(site, peer)))

    words, clipped = encode_packed(update(), session.values, session.fixed_point, session.share(site), generator)
    add_masks(words, masks)
    message = signed(Masked, session, site, key, vector=vector_digest(words))
    after = advanced(state, "mask", inbox, message, secrets={"shares": shares}, public={"sharers": sharers})
    return Step(message=message, state=after, vector=words, clipped=clipped)


def agree(state: State, survivors: Survivors, *, key: Ed25519PrivateKey) -> Step[Agreement]:
    """Stage 4: this site's one word on whose vectors are in the sum.

    Raises:
        ThresholdError: fewer than the threshold are.
        ConsistencyError: a vector is of a site that has not shared, or this site's own is missing.
    """
    session, site = session_of(state), state["site"]
    if step := stored(state, "agree", survivors, Agreement):
        return step
    check_session(survivors, session)
    sharers = state["public"]["sharers"]
    _require_within(survivors.sites, sharers, "vectors are counted")
    _require_enough(session, survivors.sites, "sent a vector")
    if site not in survivors.sites:
        raise ConsistencyError("this site's vector is said to be missing; it helps to open no sum that it is not in")
    message = signed(Agreement, session, site, key, sharers=tuple(sharers), survivors=survivors.sites)
    after = advanced(
        state, "agree", survivors, message, secrets=state["secrets"], public={"survivors": list(survivors.sites)}
    )
    return Step(message=message, state=after)


def unmask(state: State, accord: Accord, *, key: Ed25519PrivateKey) -> Step[Reveal]:
    """Stage 5: the shares of the survivors' self-masks, and of the mask keys of those that dropped out between.

    Afterwards no secret is left in the state but the reply itself.

    Raises:
        ThresholdError: fewer sites than the threshold have agreed.
        ConsistencyError: they have not all agreed on the same, or a site counts twice.
        SignatureError: an agreement is not signed by the site that it names.
    """
    session, site = session_of(state), state["site"]
    if step := stored(state, "unmask", accord, Reveal):
        return step
    check_session(accord, session)
    sharers, survivors = tuple(state["public"]["sharers"]), tuple(state["public"]["survivors"])
    check_accord(session, accord, sharers, survivors)
    shares = {name: bytes.fromhex(both) for name, both in state["secrets"]["shares"].items()}
    # A survivor's update is behind its self-mask alone, a missing one's behind its pairs': one of the two stays.
    seeds = {name: shares[name][SECRET_BYTES:].hex() for name in survivors}
    keys = {name: shares[name][:SECRET_BYTES].hex() for name in sharers if name not in survivors}
    message = signed(Reveal, session, site, key, self_seeds=seeds, mask_keys=keys)
    return Step(message=message, state=advanced(state, "unmask", accord, message, secrets={}, revealed=True))


def check_accord(session: Session, accord: Accord, sharers: tuple[str, ...], survivors: tuple[str, ...]) -> None:
    """Return only if at least `threshold` survivors have signed exactly these two lists.

    Raises:
        ThresholdError, ConsistencyError, SignatureError: see `unmask`.
    """
    signers = [agreement.site for agreement in accord.agreements]
    for agreement in accord.agreements:
        verify_message(agreement, session)
        if (agreement.sharers, agreement.survivors) != (sharers, survivors):
            raise ConsistencyError(
                f"{agreement.site} was told of {len(agreement.survivors)} survivors of {len(agreement.sharers)} sites, "
                f"and this site of {len(survivors)} of {len(sharers)}, or of others; nothing is revealed, and the "
                "server must explain itself"
            )
    if len(set(signers)) != len(signers):
        raise ConsistencyError("a site's agreement is counted twice; nothing is revealed")
    _require_within(signers, survivors, "agreements come")
    _require_enough(session, signers, "agreed")


def _require_enough(session: Session, sites: Collection[str], did: str) -> None:
    if len(sites) < session.threshold:
        raise ThresholdError(
            f"{len(sites)} of {len(session.sites)} sites {did}, and {session.threshold} are needed; repeat the round "
            "when more sites are there"
        )


def _require_within(sites: Collection[str], known: Collection[str], what: str) -> None:
    if strange := sorted(set(sites) - set(known)):
        raise ConsistencyError(f"{what} from {strange[0]}, which is not among the sites of the stage before")
