"""The masks that stand in a sum of masked vectors, rebuilt from the shares that the sites reveal.

Source: Bonawitz et al., CCS 2017, figure 4, round 4 (server).
"""

from collections.abc import Mapping

from protocol.secagg.errors import ShareError
from protocol.secagg.keys import commitment, pair_mask_key, public_of, self_mask_key
from protocol.secagg.masks import Mask, subtracts
from protocol.secagg.messages import Keys, Reveal, Shares
from protocol.secagg.session import Session
from protocol.secagg.shares import combine


def opening_masks(
    session: Session,
    *,
    keys: Mapping[str, Keys],
    shares: Mapping[str, Shares],
    survivors: tuple[str, ...],
    reveals: Mapping[str, Reveal],
) -> list[Mask]:
    """What added to the sum of the survivors' masked vectors leaves the sum of their updates.

    A survivor's own mask is in the sum, and those it shares with sites that dropped out after sharing. All other masks
    of pairs have cancelled.

    Raises:
        ShareError: shares do not combine to the secret that was announced.
    """
    masks = []
    for site in survivors:
        seed = _combine(session, {peer: reveal.self_seeds[site] for peer, reveal in reveals.items()})
        if commitment(session, seed, site) != shares[site].commitment:
            raise ShareError(_WRONG.format(what="self-mask", site=site))
        masks.append(Mask(self_mask_key(session, seed, site), subtract=True))
    for site in sorted(shares.keys() - set(survivors)):
        private = _combine(session, {peer: reveal.mask_keys[site] for peer, reveal in reveals.items()})
        if public_of(private) != keys[site].masking:
            raise ShareError(_WRONG.format(what="mask key", site=site))
        for peer in survivors:
            key = pair_mask_key(session, private, site, keys[peer].masking, peer)
            masks.append(Mask(key, subtract=not subtracts(peer, site)))
    return masks


_WRONG = (
    "the shares of the {what} of {site} do not combine to what it announced: it dealt wrong shares, or a site revealed "
    "a wrong one; the sum stays closed, go on with the next round"
)


def _combine(session: Session, shares: Mapping[str, str]) -> bytes:
    return combine({session.index(site): bytes.fromhex(share) for site, share in shares.items()}, session.threshold)
