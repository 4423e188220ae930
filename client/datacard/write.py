"""Writing a card: the JSON that the gate reads, and the page beside it."""

import json
from pathlib import Path

from client.datacard.facts import DataCard, to_plain
from client.datacard.page import to_html
from client.datacard.stamp import CARD, FOLDER, PAGE
from mumc_model.data.files import write_atomically


def write_card(root: Path, card: DataCard) -> tuple[Path, Path]:
    """Write `datacard.html` and then `datacard.json` into `state/card`; their paths, the JSON's first."""
    folder = root / FOLDER
    write_atomically(folder / PAGE, to_html(card).encode())
    write_atomically(folder / CARD, (json.dumps(to_plain(card), indent=1, ensure_ascii=False) + "\n").encode())
    return folder / CARD, folder / PAGE
