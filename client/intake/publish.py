"""From the store to the site's records: usable images with their reports become captions, and only these."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from client.intake.config import IntakeConfig
from client.intake.outcome import Picture
from client.intake.store import Store
from mumc_model.data.site_writer import SiteWriter

SOURCE = "dicom"
IMAGES = f"images/{SOURCE}"


def publish(root: Path, store: Store, config: IntakeConfig) -> int:
    """Write captions.jsonl anew for the images of the archive; the rows of other sources stay. How many there are."""
    writer = SiteWriter(root, root.resolve().name, "patient", source=SOURCE, max_side=config.max_side)
    captions = 0
    for picture in store.pictures():
        writer.adopt(picture.file)
    for picture in chosen(store.pictures(), config.images_a_series):
        caption = store.text_for(picture) or (description(picture) if config.describe else "")
        if caption:
            captions += 1
            writer.add_caption(picture.file, caption, patient_id=picture.patient, labels=labels(picture))
    writer.close()
    return captions


def chosen(pictures: Iterator[Picture], most: int) -> Iterator[Picture]:
    """Of each series, in its order, at most so many images, spread evenly; all with 0."""
    for _, group in groupby(pictures, key=lambda picture: picture.series):
        series = list(group)
        if not most or len(series) <= most:
            yield from series
        else:
            yield from (series[(2 * index + 1) * len(series) // (2 * most)] for index in range(most))


def labels(picture: Picture) -> dict[str, str]:
    """What the header says of the image, as partitions and data cards read it."""
    found = {"modality": picture.modality, "organ": picture.organ, "view": picture.view}
    return {name: value for name, value in found.items() if value}


def description(picture: Picture) -> str:
    """A sentence made of the header, for images without a report: "CT, chest, AP"; empty where it says nothing."""
    return ", ".join(labels(picture).values())
