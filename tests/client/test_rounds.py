"""What a site does before its first step: the weights that came are its model, and only what is missing is drawn."""

import torch

from client.rounds import merged_model
from client.site import open_folder
from mumc_model.model import HEAD
from mumc_model.sharing import shared_weights
from protocol.codec import unpack


def test_the_weights_that_came_are_copied_once_and_one_matrix_is_drawn(server, folder, monkeypatch):
    drawn = []
    draw = torch.nn.init.trunc_normal_

    def counted(weight, **keywords):
        drawn.append(tuple(weight.shape))
        return draw(weight, **keywords)

    monkeypatch.setattr(torch.nn.init, "trunc_normal_", counted)
    model, schema = merged_model(server.pretrain(), server.base, server.recipe, open_folder(folder))
    width = server.recipe.model.text.width
    assert drawn == [(width, width)], "the masked-token head's; it never travels"
    assert schema == server.schema
    weights, shared = unpack(server.base, schema), shared_weights(model)
    assert all((shared[name].numpy() == weights[name]).all() for name in schema.names)
    with torch.no_grad():
        model.vision_proj.bias.add_(1)
    assert not weights["vision_proj.bias"].any(), "training leaves what came as it was"


def test_a_head_that_was_kept_is_taken_up_and_then_nothing_is_drawn(server, folder, monkeypatch):
    site, order = open_folder(folder), server.pretrain(round=2)
    first, _ = merged_model(order, server.base, server.recipe, site)
    kept = {name: weight + 1 for name, weight in first.weights().items() if name.startswith(HEAD)}
    monkeypatch.setattr("mumc_model.model._Start.draw", None)
    left = kept | {"optimizer.step.temp": torch.ones(())}
    model, _ = merged_model(order, server.base, server.recipe, site, lambda: left)
    found = model.weights()
    assert all(torch.equal(found[name], weight) for name, weight in kept.items())
