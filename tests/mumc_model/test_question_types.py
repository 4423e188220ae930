import pytest

from mumc_model.errors import CheckpointError
from mumc_model.question_types import QuestionTypes

TYPES = QuestionTypes.of(
    ["Where is the mass?", "where is the cyst", "Is there a mass?", "Is there a mass?", "is there a mass"],
    ["place", "place", "presence", "presence", "place"],
)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("WHERE IS THE MASS", "place"),
        ("is there a mass", "presence"),
        ("is there a fracture", "presence"),
        ("where is the fracture", "place"),
        ("colourless green ideas", ""),
        ("", ""),
    ],
)
def test_a_question_is_of_the_type_of_the_training_question_that_shares_the_most_words(question, kind):
    assert TYPES.guess(question) == kind


def test_where_all_questions_are_of_one_type_nothing_is_kept():
    assert QuestionTypes.of(["a b", "c d"], ["", ""]).type_of == {}


def test_types_come_back_from_plain_values_and_damaged_ones_are_refused():
    assert QuestionTypes.from_dict(TYPES.to_dict()) == TYPES
    for damaged in ([], {"a": 1}, None):
        with pytest.raises(CheckpointError, match="types"):
            QuestionTypes.from_dict(damaged)
