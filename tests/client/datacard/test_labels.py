"""A site's own spellings, on the lists that everyone may know."""

import pytest

from client.datacard.labels import FIXED, fixed_label, labels_of


@pytest.mark.parametrize(
    ("of", "by", "written", "label"),
    [
        ("images", "modality", "CR", "x-ray"),
        ("images", "modality", "X-Ray", "x-ray"),
        ("images", "modality", "xray", "x-ray"),
        ("images", "modality", "MRI", "mr"),
        ("images", "modality", "CT", "ct"),
        ("images", "modality", "Dr. Octavia", "other"),
        ("images", "organ", "Brain_Tissue", "head"),
        ("images", "organ", "ABD", "abdomen"),
        ("images", "organ", "Pelvic Cavity", "pelvis"),
        ("images", "organ", "Chest_heart", "chest"),
        ("questions", "question type", "yes/no", "presence"),
        ("questions", "question type", "ABN", "abnormality"),
        ("questions", "question type", "Quantity", "count"),
        ("questions", "answer type", "OPEN", "open"),
        ("images", "organ", "not given", "not given"),
    ],
)
def test_a_sites_own_spelling_is_mapped_onto_the_list(of, by, written, label):
    assert fixed_label(of, by, written) == label
    assert label in labels_of(of, by)


def test_every_label_of_the_lists_means_itself():
    for of, by in FIXED:
        for label in labels_of(of, by):
            assert fixed_label(of, by, label) == label


def test_every_label_that_is_not_the_rest_has_a_spelling():
    for of, by in FIXED:
        assert [label for label in labels_of(of, by) if label not in ("other", "not given")] == list(FIXED[of, by])
