"""The teacher and the queue."""

import pytest
import torch

from mumc_model.model import build_model
from mumc_model.momentum import FeatureQueue, Teacher


def test_the_teacher_keeps_its_share_and_takes_the_rest_from_the_student(small_config):
    student = build_model(small_config, 0)
    teacher = Teacher(student)
    before = {name: weight.clone() for name, weight in teacher.model.named_parameters()}
    with torch.no_grad():
        for weight in student.parameters():
            weight += 1.0
    teacher.update(0.9)
    for name, weight in teacher.model.named_parameters():
        torch.testing.assert_close(weight, before[name] + 0.1, atol=1e-6, rtol=1e-5)
    teacher.restart()
    states = teacher.model.state_dict(), student.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_teacher_takes_no_gradient_and_has_no_matching_head(small_config):
    teacher = Teacher(build_model(small_config, 0))
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not any(name.startswith(("itm_head", "temp")) for name in teacher.model.state_dict())
    head = teacher.model.text_encoder.cls.predictions.decoder.weight
    assert head is teacher.model.text_encoder.bert.embeddings.word_embeddings.weight


def rows(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)[:, None].repeat(1, 2)


def test_the_queue_shows_only_what_was_put_in_and_forgets_the_oldest():
    queue, seen = FeatureQueue(5, 2), []
    assert [len(part) for part in queue.features()] == [0, 0, 0]
    for first in (1, 3, 5, 7):
        queue.enqueue(rows(first, first + 1), -rows(first, first + 1), torch.tensor([first, first + 1]))
        image_QE, text_QE, caption_id_Q = queue.features()
        torch.testing.assert_close(image_QE, -text_QE)
        assert image_QE[:, 0].tolist() == caption_id_Q.tolist()
        seen.append(sorted(caption_id_Q.tolist()))
    assert seen == [[1, 2], [1, 2, 3, 4], [2, 3, 4, 5, 6], [4, 5, 6, 7, 8]]


def test_of_a_batch_larger_than_the_queue_the_last_part_stays():
    queue = FeatureQueue(2, 2)
    queue.enqueue(rows(1, 2, 3), rows(1, 2, 3), torch.tensor([1, 2, 3]))
    assert sorted(queue.features()[2].tolist()) == [2, 3]


def test_no_entry_is_lost_when_batches_come_faster_than_they_are_read():
    queue = FeatureQueue(4, 2)
    for number in (1, 2, 3):
        queue.enqueue(rows(number), rows(number), torch.tensor([number]))
    assert queue.features()[2].tolist() == [1, 2, 3]


def test_gradients_see_the_entries_that_the_loss_saw():
    queue = FeatureQueue(2, 2)
    queue.enqueue(rows(1, 2), rows(1, 2), torch.tensor([1, 2]))
    query = torch.ones(1, 2, requires_grad=True)
    loss = (query @ queue.features()[0].T).sum()
    queue.enqueue(rows(50, 60), rows(50, 60), torch.tensor([5, 6]))
    loss.backward()
    assert query.grad.tolist() == [[3.0, 3.0]]


def test_a_reset_queue_is_empty():
    queue = FeatureQueue(2, 2)
    queue.enqueue(rows(1, 2), rows(1, 2), torch.tensor([1, 2]))
    queue.features()
    queue.enqueue(rows(3), rows(3), torch.tensor([3]))
    queue.reset()
    assert len(queue.features()[0]) == 0
    assert queue.pointer == pytest.approx(0)
