"""What a site tells of its data, as a card that a server takes."""

from protocol.labels import TABLES
from protocol.suppression import WITHHELD

FEW = "fewer than 10"
LABELS = {name: dict.fromkeys(labels, 0) for name, labels in TABLES.items()}


def facts(**changes):
    """Those of a site with 120 images of 50 patients, 110 captions and 200 questions."""
    said = {
        "unit": "patient",
        "smallest": 10,
        "counts": {
            **{"patients": 50, "images": 120, "captions": 110, "questions": 200},
            **{"rows left out": FEW, "waiting": "not measured"},
        },
        "tables": {
            "images by modality": LABELS["images by modality"] | {"ct": 80, "mr": WITHHELD, "x-ray": WITHHELD},
            "images by organ": LABELS["images by organ"] | {"head": 120},
            "questions by answer type": {"open": 80, "closed": 110},
            "questions by question type": LABELS["questions by question type"] | {"other": 200},
            "questions by split": {"train": 150, "val": WITHHELD, "test": WITHHELD},
        },
        "words": {"captions": [5, 9, 14], "questions": [6, 7, 7], "answers": FEW},
        "near copies": {
            **{"images": 20, "across patients": FEW},
            **{"val in train": FEW, "test in train": 10, "test in val": FEW},
        },
        "overlaps": [{"set": "vqa_rad", "images here": 20, "learnt from": 10, "of its test split": 0}],
    }
    return said | changes
