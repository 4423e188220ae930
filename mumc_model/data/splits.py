"""Splits that are the same on every machine: whose share of a hash decides, and a validation split where none is."""

import hashlib
from dataclasses import replace

from mumc_model.data.records import SiteData

VAL_SHARE = 0.1


def share_of(key: str) -> float:
    """A number in [0, 1) that the key alone decides."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def with_validation(site: SiteData) -> SiteData:
    """The site with a tenth of its training units as validation, where it has no validation questions of its own.

    Whole units move (patients, or images where the site's unit is the image), so that none is on both sides. A site
    with training questions about fewer than two units stays as it is.
    """
    trained = {row.patient_id for row in site.vqa if row.split == "train"}
    units = sorted(trained, key=lambda unit: share_of(f"val/{unit}"))
    if any(row.split == "val" for row in site.vqa) or len(units) < 2:
        return site
    chosen = set(units[: max(1, round(VAL_SHARE * len(units)))])
    moved = (
        replace(row, split="val") if row.split == "train" and row.patient_id in chosen else row for row in site.vqa
    )
    return replace(site, vqa=tuple(moved))
