"""Other sets that a card compares a site with: the public bank, and public sets whose test images must stay unseen."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.datacard.copies import BIT, Images, near_those
from client.datacard.facts import Overlap
from client.datacard.texts import shared_captions
from mumc_model.data.fingerprints import Fingerprint, folder_fingerprints, site_fingerprints
from mumc_model.data.records import SiteData, read_site
from mumc_model.data.schema import CaptionRecord, VqaRecord
from mumc_model.errors import DataError

ALL = "all"
"""Stands for the splits of a set that has none."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_ALL_BIT = 1 << len(BIT)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Other:
    """Another set, as far as it is compared."""

    name: str
    prints: Sequence[Fingerprint]
    """Of its images."""
    sides: Sequence[int]
    """Bits of the splits that each image serves."""
    captions: Sequence[str]


def side(row: CaptionRecord | VqaRecord) -> int:
    """The bit of the split that a row serves; captions are learnt from, as training questions are."""
    return BIT[row.split if isinstance(row, VqaRecord) else "train"]


def sides_of(data: SiteData) -> dict[str, int]:
    """Bits of the splits that each image serves, by key."""
    found: Counter[str] = Counter()
    for rows in (data.captions, data.vqa):
        for row in rows:
            found[data.key(row)] |= side(row)
    return dict(found)


def read_other(folder: Path, on_progress: Progress | None = None) -> Other:
    """A site folder with its splits, or any folder of images without any.

    Raises:
        DataError: there is no folder, or no image in it.
    """
    if (folder / "site.yaml").is_file():
        return _of_site(read_site(folder, bad_share=1.0), on_progress)
    prints = folder_fingerprints(folder, _image_files(folder), on_progress) if folder.is_dir() else {}
    if not prints:
        raise DataError(
            f"{folder.name} has no images to compare with; give a site folder (mumc-site import makes one) or a folder "
            "of images"
        )
    return Other(name=folder.name, prints=[*prints.values()], sides=[_ALL_BIT] * len(prints), captions=())


def overlap(data: SiteData, images: Images, prints: Sequence[Fingerprint], other: Other) -> Overlap:
    """What the site has in common with another set; `prints` are those of its images, in their order."""
    theirs_hash, own_hash = [one.hash for one in other.prints], [one.hash for one in prints]
    digests = {one.digest for one in other.prints}
    exact_N = np.array([one.digest in digests for one in prints], dtype=bool)
    near_N = exact_N | (near_those(own_hash, theirs_hash, other.sides) > 0)
    own_digests = {one.digest for one in prints}
    reached = near_those(theirs_hash, own_hash, [1] * len(own_hash))
    here = [mark > 0 or one.digest in own_digests for mark, one in zip(reached, other.prints, strict=True)]
    return Overlap(
        name=other.name,
        theirs=_by_split(other.sides),
        exact=images.cell(exact_N),
        near=images.cell(near_N),
        learnt=images.cell(near_N & (images.sides_N & BIT["train"] > 0)),
        theirs_here=_by_split(sides if found else 0 for sides, found in zip(other.sides, here, strict=True)),
        captions=shared_captions(data, other.captions),
    )


def _of_site(data: SiteData, on_progress: Progress | None) -> Other:
    sides: Mapping[str, int] = sides_of(data)
    prints = site_fingerprints(data.root, sides, on_progress)
    return Other(
        name=data.name,
        prints=[*prints.values()],
        sides=[sides[key] for key in prints],
        captions=[row.caption for row in data.captions],
    )


def _by_split(sides: "Iterator[int] | Sequence[int]") -> dict[str, int]:
    """How many images serve each split, or are in a set without splits."""
    found = list(sides)
    names = {**BIT, ALL: _ALL_BIT}
    return {name: count for name, bit in names.items() if (count := sum(value & bit > 0 for value in found))}


def _image_files(folder: Path) -> list[str]:
    """Paths inside the folder; links to elsewhere are not followed."""
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink()
    ]
