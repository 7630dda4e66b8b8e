"""The other device of the tests is played truly: what a GPU refuses is refused, what it allows goes through."""

import copy

import pytest
import torch
from other_device import MixedDevices, OtherDevice
from torch import nn


@pytest.fixture
def other():
    with OtherDevice() as mode:
        yield mode


@pytest.mark.parametrize("mix", [
    lambda here, there: here + there,
    lambda here, there: torch.where(here > 0, there, there),
    lambda here, there: torch.stack([there, here]),
    lambda here, there: torch.arange(4)[(there > 0).long()],
    lambda here, there: there.index_select(0, torch.tensor([1])),
    lambda here, there: here.add_(there),
    lambda here, there: torch.zeros(()).add_(there.sum()),
    lambda here, there: there.__setitem__(torch.tensor([0, 1]), here[:2]),
    lambda here, there: nn.functional.cross_entropy(there[None], torch.tensor([1])),
    lambda here, there: nn.Linear(4, 2)(there),
    lambda here, there: nn.BatchNorm1d(4)(there[None].expand(3, 4)),
    lambda here, there: torch._foreach_lerp_([there], [here], 0.5),
    lambda here, there: there.numpy(),
], ids=range(13))
def test_mixtures_are_refused(other, mix):
    here = torch.ones(4)
    with pytest.raises(MixedDevices):
        mix(here, here.to(other.device))


def test_what_a_device_allows(other):
    here = torch.arange(4.0)
    there = here.to(other.device)
    assert other.has(there) and not other.has(here) and there.device == other.device and here.device.type == "cpu"
    assert other.has([there + 1, there * torch.tensor(2.0), there[torch.tensor([1, 2])], there[there > 0], there.clone()])
    assert other.has([torch.ones(2, device=other.device), torch.zeros_like(there), there.new_ones(3), there.view(2, 2)])
    assert there.cpu().device.type == "cpu" and (there.cpu() + here).tolist() == [0, 2, 4, 6]
    there.copy_(here)
    there[:2] = here[:2]
    here.copy_(there)
    assert other.has(there) and not other.has(here) and here.numpy().sum() == 6
    there.add_(1)
    assert here.tolist() == [0, 1, 2, 3], "moving copies"


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_network_trains_there(other, optimizer):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).to(other.device)
    twin = copy.deepcopy(model)
    assert other.has(model) and other.has(twin)
    updates = optimizer(model.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        loss = model(torch.ones(2, 3, 8, 8, device=other.device)).square().sum()
        updates.zero_grad()
        loss.backward()
        updates.step()
    assert other.has([parameter.grad for parameter in model.parameters()]) and other.has(model)
    with pytest.raises(MixedDevices):
        model(torch.ones(2, 3, 8, 8))
    twin.load_state_dict({name: tensor.cpu() for name, tensor in model.state_dict().items()})
    assert other.has(twin) and not other.has(model.to("cpu")) and other.has(twin)
    assert torch.nn.Parameter(torch.ones(2, device=other.device)).device == other.device
