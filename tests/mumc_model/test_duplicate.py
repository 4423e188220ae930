"""A module again with other parameters: as a deep copy is, and nothing that one changes is the other's too."""

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import nn

from mumc_model.adapters import Adapters
from mumc_model.config import AdapterConfig
from mumc_model.duplicate import duplicate
from mumc_model.model import build_model
from mumc_model.momentum import Teacher


def copied(weight):
    return nn.Parameter(weight.detach().clone(), weight.requires_grad)


def held(value):
    """What a module's attribute leads to, one level of containers down."""
    yield value
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, Iterable) and not isinstance(value, (str, torch.Tensor, nn.Module)):
        yield from value


@pytest.fixture(params=["plain", "adapters"])
def model(request, small_config):
    model = build_model(small_config, 0)
    if request.param == "adapters":
        Adapters(model, AdapterConfig(rank=2))
    return model


def test_it_computes_what_a_deep_copy_computes(model, captioned):
    batch = captioned()
    expected, found = copy.deepcopy(model).eval(), duplicate(model, copied).eval()
    assert list(found.state_dict()) == list(expected.state_dict())
    for one, other in zip(
        (*expected.image_features(batch.image_BCHW), *expected.text_features(batch.ids_BL, batch.mask_BL)),
        (*found.image_features(batch.image_BCHW), *found.text_features(batch.ids_BL, batch.mask_BL)),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_no_weight_and_no_module_is_shared_and_tied_weights_stay_tied(model):
    again = duplicate(model, copied)
    assert not {id(part) for part in model.modules()} & {id(part) for part in again.modules()}
    addresses = [{weight.data_ptr() for weight in one.state_dict().values()} for one in (model, again)]
    assert not addresses[0] & addresses[1]
    assert (
        again.text_encoder.cls.predictions.decoder.weight is again.text_encoder.bert.embeddings.word_embeddings.weight
    )
    again.vision_proj.register_forward_hook(lambda *_: None)
    again.train(not model.training)
    assert not model.vision_proj._forward_hooks
    assert model.training != again.training


def test_no_attribute_of_ours_leads_back_to_the_original(model):
    """What would make the copy call the original: a module kept in a list, or a bound method of one."""
    filed = ("_parameters", "_buffers", "_modules")
    strays = [
        (name, key)
        for name, part in model.named_modules()
        for key, value in vars(part).items()
        if key not in filed
        for one in held(value)
        if isinstance(one, (nn.Module, torch.Tensor)) or isinstance(getattr(one, "__self__", None), nn.Module)
    ]
    assert strays == []


def test_a_teacher_takes_no_gradient_and_leaves_its_student_as_it_was(small_config):
    student = build_model(small_config, 0)
    before = student.weights()
    teacher = Teacher(student)
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert student.itm_head is not None
    teacher.model.vision_proj.weight.add_(1)
    assert all(torch.equal(weight, before[name]) for name, weight in student.weights().items())
