"""What waits for a person: images that may show a name, reports that may hold one. Nothing of it is trained on."""

import base64
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw

from client.intake.outcome import Picture, Text
from client.intake.provenance import released
from client.intake.publish import IMAGES, publish
from client.intake.store import Store
from client.keys import SiteKeys
from client.log import acting_user, site_log_file
from mumc_model.data.files import write_atomically
from mumc_model.errors import DataError
from protocol.errors import SigningError

FOLDER = "quarantine"
SHEET, GRID = "sheet.html", "sheet-{}.png"
THUMBNAIL = 256
"""Pixels of the longer side: enough to read what is burned in."""
_COLUMNS, _ROWS = 5, 4
_LABEL = 32

Decision = Literal["released", "rejected"]

CSS = """
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1b1f24; }
.items { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1.2rem; padding: 0;
  align-items: start; }
.items li { list-style: none; border: 1px solid #d0d6db; border-radius: .4rem; padding: .7rem; }
img { width: 100%; height: 16rem; object-fit: contain; background: #000; }
code { user-select: all; } p { margin: .3rem 0; overflow-wrap: anywhere; }
.why { color: #a33a00; }
"""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image or report that waits."""

    name: str
    """By which a person names it: `image-...` or `report-...`."""
    record: Picture | Text

    @property
    def reason(self) -> str:
        """Why it waits."""
        return self.record.reason


def waiting(root: Path) -> list[Item]:
    """All that waits, images before reports."""
    with Store(root) as store:
        return _waiting(store)


def write_sheet(root: Path) -> Path:
    """The contact sheet: one HTML page with every image and report that waits, and the images as grids beside it."""
    items, folder = waiting(root), root / FOLDER
    for old in folder.glob(GRID.format("*")):
        old.unlink()
    pictures = [item for item in items if isinstance(item.record, Picture)]
    step = _COLUMNS * _ROWS
    for number, first in enumerate(range(0, len(pictures), step), start=1):
        write_atomically(folder / GRID.format(number), _grid(root, pictures[first : first + step]), durable=False)
    write_atomically(folder / SHEET, _page(root, items).encode(), durable=False)
    return folder / SHEET


def decide(root: Path, names: Iterable[str], verdict: Decision, *, reason: str = "", person: str = "") -> int:
    """Release or reject what waits under these names; how many captions the site has of the archive then.

    Released images and reports become records. Rejected images are deleted. Each decision is noted with who took it,
    and is a line of the site's log where the site has keys.

    Raises:
        DataError: nothing waits under a name; nothing is decided then.
    """
    person = person or acting_user()
    with Store(root) as store:
        items = {item.name: item for item in _waiting(store)}
        wanted = list(dict.fromkeys(names))
        unknown = [name for name in wanted if name not in items]
        if unknown:
            raise DataError(
                f"nothing waits under {', '.join(unknown[:5])}; `mumc-site quarantine list` shows what does"
            )
        for name in wanted:
            _settle(root, store, items[name].record, verdict, reason, person)
        _log(root, wanted, verdict, reason, person)
        return publish(root, store, store.config())


def _waiting(store: Store) -> list[Item]:
    pictures = [Item(name=_name("image", found.name), record=found) for found in store.pictures(("waiting",))]
    return pictures + [Item(name=_name("report", found.uid), record=found) for found in store.texts(("waiting",))]


def _name(kind: str, identifier: str) -> str:
    """Short enough to be typed, and never that of another among millions."""
    return f"{kind}-{sha256(identifier.encode()).hexdigest()[:12]}"


def _settle(root: Path, store: Store, record: Picture | Text, verdict: Decision, reason: str, person: str) -> None:
    file = ""
    if isinstance(record, Picture):
        here, file = root / record.file, f"{IMAGES}/{record.name}.png"
        if verdict == "rejected":
            here.unlink(missing_ok=True)
        elif here.is_file():
            (root / IMAGES).mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(root / file, released(here))
            here.unlink()
        elif not (root / file).is_file():
            raise DataError(f"{here.name} is gone from {FOLDER}; import the export again")
    store.decide(record, verdict, file, reason, person)


def _log(root: Path, names: Sequence[str], verdict: Decision, reason: str, person: str) -> None:
    """Into the site's log; a site that has joined no federation has neither keys nor log."""
    with suppress(SigningError):
        line = {"kind": "quarantine", "verdict": verdict, "items": list(names), "reason": reason, "user": person}
        site_log_file(root).append(SiteKeys.open(root).signing(), line)


def _thumbnail(root: Path, picture: Picture) -> Image.Image:
    with Image.open(root / picture.file, formats=("PNG",)) as image:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        return image.convert("RGB")


def _grid(root: Path, items: Sequence[Item]) -> bytes:
    cell = THUMBNAIL + _LABEL
    sheet = Image.new("RGB", (_COLUMNS * THUMBNAIL, -(-len(items) // _COLUMNS) * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for index, item in enumerate(items):
        left, top = index % _COLUMNS * THUMBNAIL, index // _COLUMNS * cell
        if isinstance(item.record, Picture):
            sheet.paste(_thumbnail(root, item.record), (left, top))
        draw.text((left + 4, top + THUMBNAIL + 2), f"{item.name}\n{item.reason[:42]}", fill="black")
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _page(root: Path, items: Sequence[Item]) -> str:
    entries = "\n".join(f"<li>{_entry(root, item)}</li>" for item in items)
    said = f"{len(items)} wait" if items else "Nothing waits"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Quarantine</title><style>{CSS}</style>'
        f"<h1>{said} for a person</h1><p>Look for names, numbers and dates of people. Then, with the names below:</p>"
        "<p><code>mumc-site quarantine release SITE NAME ...</code></p>"
        "<p><code>mumc-site quarantine reject SITE NAME ... --reason WHY</code></p>"
        f'<ul class="items">{entries}</ul></html>\n'
    )


def _entry(root: Path, item: Item) -> str:
    if isinstance(item.record, Picture):
        buffer = BytesIO()
        _thumbnail(root, item.record).save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        image = f'<img alt="{escape(item.name)}" src="data:image/png;base64,{data}">'
        shown = f'<a href="{escape(Path(item.record.file).name)}">{image}</a>'
        about = " ".join(part for part in (item.record.modality, item.record.organ, item.record.view) if part)
    else:
        shown, about = f"<p>{escape(item.record.text)}</p>", "report"
    why = f'<p class="why">{escape(item.reason)}</p>'
    return f"{shown}<p><code>{escape(item.name)}</code></p><p>{escape(about)}</p>{why}"
