import hypothesis
import torch
from hypothesis import strategies as st

from mumc_model.relevance import Stream, mean_positive, normalised


def stream(name, tokens):
    return Stream.start(name, 1, tokens, like=torch.zeros(1, dtype=torch.float64))


def matrix(*rows):
    return torch.tensor([rows], dtype=torch.float64)


def test_two_looks_at_two_patches_are_followed_as_by_hand():
    """The image's second patch takes from its first, and the one word looks at the second: half of it is the first's.

    Rows of what patches took are (0, 0) and (3, 1), scaled (0, 0) and (3/4, 1/4); with themselves (1, 0) and
    (3/4, 5/4). The word's weight (0, 2) makes (3/2, 5/2) of them.
    """
    image = stream("image", 2).after_self_attention(matrix([0.0, 0.0], [3.0, 1.0]))
    word = stream("question", 1).after_cross_attention(matrix([0.0, 2.0]), image)
    torch.testing.assert_close(word.others["image"], matrix([1.5, 2.5]))


def test_an_answer_takes_from_the_image_what_the_words_it_looks_at_took():
    image = stream("image", 2)
    words = stream("question", 2).after_cross_attention(matrix([1.0, 0.0], [0.0, 4.0]), image)
    answer = stream("answer", 1).after_cross_attention(matrix([0.5, 0.25]), words)
    torch.testing.assert_close(answer.others["image"], matrix([0.5, 1.0]))
    torch.testing.assert_close(answer.others["question"], matrix([0.5, 0.25]))


def test_a_token_that_took_nothing_keeps_itself():
    torch.testing.assert_close(normalised(torch.zeros(1, 3, 3)), torch.eye(3)[None])


def test_only_what_speaks_for_the_score_counts_head_by_head():
    maps = torch.tensor([[[[0.5, 0.5]], [[0.2, 0.8]]]])
    gradients = torch.tensor([[[[-4.0, 2.0]], [[1.0, 1.0]]]])
    torch.testing.assert_close(mean_positive(maps, gradients), torch.tensor([[[0.1, 0.9]]]))


sizes = st.integers(1, 4)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(sizes, sizes, st.integers(0, 1000), st.data())
def test_what_nothing_attends_to_is_owed_nothing_and_nothing_owed_is_negative(patches, words, seed, data):
    generator = torch.Generator().manual_seed(seed)
    hidden = data.draw(st.integers(0, patches - 1))

    def weights(rows, columns, blind=None):
        drawn = mean_positive(
            torch.rand(1, 2, rows, columns, generator=generator), torch.randn(1, 2, rows, columns, generator=generator)
        )
        assert (drawn >= 0).all()
        if blind is not None:
            drawn[:, :, blind] = 0
        return drawn

    image = Stream.start("image", 1, patches, like=torch.zeros(1))
    for _ in range(2):
        image = image.after_self_attention(weights(patches, patches, hidden))
    question = Stream.start("question", 1, words, like=torch.zeros(1))
    for _ in range(2):
        question = question.after_self_attention(weights(words, words))
        question = question.after_cross_attention(weights(words, patches, hidden), image)
    answer = Stream.start("answer", 1, 2, like=torch.zeros(1))
    answer = answer.after_self_attention(weights(2, 2)).after_cross_attention(weights(2, words), question)
    for owed in (*answer.others.values(), answer.taken_BQQ, question.taken_BQQ):
        assert (owed >= 0).all()
    assert (answer.others["image"][:, :, hidden] == 0).all()
