"""Signals and gradients by depth: hand-computed, in order, and without traces in the model."""

import torch
from torch import nn

from cnnlib.analysis import signals


def test_signals_of_a_hand_computed_network():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(3.0)
        model[1].weight.zero_()
    first, second = signals(model, torch.tensor([[2.0]]), torch.tensor([0]))
    assert (first.name, first.input, first.gradient) == ("0", 2.0, 0.0)  # the weights above are zero
    # logits 0 and 0: the gradient for the logits is (-1/2, 1/2), for the weights times the input 6
    assert (second.name, second.input, second.gradient) == ("1", 6.0, 3.0)


def test_signals_leave_the_model_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3), nn.Flatten(),
                          nn.Linear(2, 2))
    state = {key: tensor.clone() for key, tensor in model.state_dict().items() if "running" not in key and "num" not in key}
    found = signals(model, torch.randn(8, 3, 5, 5), torch.randint(2, (8,)))
    assert [row.name for row in found] == ["0", "3", "5"]
    assert 0.5 < found[1].input < 1  # normalized, then rectified: half of the square is left
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in state.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
