"""The speed run's ingredients, each by what it does."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnlib import data
from cnnlib.train import speedrun as run
from cnnlib.train.speedrun import Convolution, Images, Norm, SlowWeights, SpeedNet, make_optimizers, speedrun, triangle
from other_device import OtherDevice

CPU = torch.device("cpu")
NARROW = (8, 16, 16)


@pytest.fixture(scope="module")
def small():
    return data.shapes(256, 40)


@pytest.fixture
def images(small):
    return Images(small[0], *small[0].statistics(), CPU, seed=0)


def test_first_layer_whitens_patches(images):
    layer = nn.Conv2d(3, 24, 2)
    nn.init.zeros_(layer.bias)
    run.whiten(layer, images.plain(slice(256)), eps=0.0)
    with torch.no_grad():
        out = layer(images.plain(slice(256))).transpose(0, 1).flatten(1)
    torch.testing.assert_close(out[:12] @ out[:12].T / out.shape[1], torch.eye(12), atol=2e-2, rtol=0)
    torch.testing.assert_close(out[12:], -out[:12])
    lengths = layer.weight[:12].flatten(1).norm(dim=1)
    assert (lengths.diff() > 0).all(), "the strongest component first, with the smallest filter"


def test_convolutions_start_as_the_identity():
    x = torch.randn(2, 5, 6, 6)
    for width in (5, 9):
        layer = Convolution(5, width)
        torch.testing.assert_close(layer(x)[:, :5], x)
        assert layer.weight.dim() == 2 and layer.weight.shape == (width, 45)
    layer = Convolution(3, 4)
    with torch.no_grad():
        layer.weight.normal_()
        kernel = torch.stack([layer.weight[:, k::3].view(4, 3, 3) for k in range(3)], dim=1)
        torch.testing.assert_close(layer(x[:, :3]), F.conv2d(x[:, :3], kernel, padding=1), atol=1e-5, rtol=1e-5)


def test_network():
    model = SpeedNet(10)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "whiten.weight" not in trained and "whiten.bias" in trained and model.head.bias is None
    norms = [module for module in model.modules() if isinstance(module, Norm)]
    assert len(norms) == 6 and not any(norm.weight.requires_grad for norm in norms) and norms[0].momentum == 0.4
    assert model.blocks[0](torch.randn(1, 24, 31, 31)).shape == (1, 64, 15, 15)
    head = SpeedNet(10)
    with torch.no_grad():
        maps = head.blocks(F.gelu(head.whiten(torch.ones(2, 3, 32, 32))))
        torch.testing.assert_close(head(torch.ones(2, 3, 32, 32)).shape, torch.Size([2, 10]))
        assert maps.shape[2:] == (3, 3)


def test_every_image_is_mirrored_in_every_second_epoch(images, monkeypatch):
    monkeypatch.setattr(run, "SHIFT", 0)
    still = Images(data.shapes(64, 10)[0], torch.zeros(3), torch.ones(3), CPU, seed=0)
    still.padded = still.padded[:, :, 2:-2, 2:-2] if still.padded.shape[-1] == 36 else still.padded
    originals, seen = still.padded.float() / 255, []
    for epoch in range(4):
        batch = torch.cat([images for images, _ in still.epoch(epoch, 16)])
        flags = torch.empty(64, dtype=torch.bool)
        for image in batch:
            same, turned = ((originals - other).flatten(1).abs().sum(1) for other in (image, image.flip(2)))
            row = int(torch.minimum(same, turned).argmin())
            flags[row] = turned[row] < same[row]
        seen.append(flags)
    assert 10 < seen[0].sum() < 54 and torch.equal(seen[1], ~seen[0]) and torch.equal(seen[2], seen[0]) and torch.equal(seen[3], seen[1])


def test_shifts_reach_two_pixels_each_way_and_mirror_the_border(images):
    original, found = images.padded[:, :, 2:-2, 2:-2], set()
    assert torch.equal(images.padded[:, :, 0], images.padded[:, :, 4]) and original.shape[-1] == 32
    images.mirrored[:] = False
    batch, labels = next(images.epoch(0, 256))
    windows = {(dy, dx): images.normalized(images.padded[:, :, dy:dy + 32, dx:dx + 32]) for dy in range(5) for dx in range(5)}
    for image in batch[:128]:
        for place, window in windows.items():  # whose middle agrees, which is soon found out, and then all of it
            alike = window[(window[:, :, 14:18, 14:18] - image[:, 14:18, 14:18]).flatten(1).abs().max(1).values < 1e-5]
            found |= {place} if len(alike) and (alike - image).flatten(1).abs().max(1).values.min() < 1e-5 else set()
    assert len(found) == 25 and batch.dtype == torch.float32
    torch.testing.assert_close(images.plain(slice(4)), windows[2, 2][:4])


def test_rate():
    assert [triangle(done) for done in (0, 0.115, 0.23, 1)] == pytest.approx([0.2, 0.6, 1.0, 0.07])


def test_optimizer_in_the_units_of_its_author():
    model = SpeedNet(10, NARROW)
    [optimizer] = make_optimizers(model, 1024, muon=False)
    biases, others = optimizer.param_groups
    rate = 11.5 / (1024 * (1 + 1 / 0.15))
    assert (others["lr"], biases["lr"], others["momentum"], others["nesterov"]) == (pytest.approx(rate), pytest.approx(64 * rate), 0.85, True)
    for group in (biases, others):  # decoupled: the same pull for all
        assert group["lr"] * group["weight_decay"] == pytest.approx(0.0153 * 1024 / (1024 * (1 + 1 / 0.15)))
    assert len(biases["params"]) == 6 and len(others["params"]) == 8
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert given == {id(p) for p in model.parameters() if p.requires_grad}
    if hasattr(torch.optim, "Muon"):
        sgd, muon = make_optimizers(model, 2000, muon=True)
        assert len(muon.param_groups[0]["params"]) == 6 and all(p.dim() == 2 for p in muon.param_groups[0]["params"])
        assert muon.param_groups[0]["lr"] == pytest.approx(0.24) and sgd.param_groups[0]["lr"] == pytest.approx(0.053)
        both = {id(p) for optimizer in (sgd, muon) for group in optimizer.param_groups for p in group["params"]}
        assert both == given


def test_slow_weights():
    model = nn.BatchNorm1d(1)
    slow = SlowWeights(model)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(1.0)
    slow.update(0.75)
    assert model.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 3) and model.running_mean.item() == pytest.approx(0.25)
    with torch.no_grad():
        model.weight.fill_(9.0)
    slow.update(1.0)
    assert model.weight.item() == pytest.approx(1.5)


def test_slow_weights_come_at_their_times(small, monkeypatch):
    kept = []
    monkeypatch.setattr(SlowWeights, "update", lambda self, keep: kept.append(keep))
    list(speedrun(*small, epochs=5, batch_size=32, widths=(4, 4, 4)))
    assert [keep for keep in kept if keep < 1] == pytest.approx([0.95**5 * (step / 40) ** 3 for step in (15, 20, 25, 30, 35, 40)])
    assert kept.count(1.0) == 4, "at the end of every epoch since: the second to the fifth"


def test_six_views(small, images):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.layer = [], nn.Linear(3 * 32 * 32, 10)

        def forward(self, x):
            self.seen.append(x)
            return self.layer(x.flatten(1))

    model = Counting()
    found = run.test(model, images, "float32")
    x = images.plain(slice(256))
    assert len(model.seen) == 6 and torch.equal(model.seen[0], x) and torch.equal(model.seen[1], x.flip(3))
    up = F.pad(x, (1, 1, 1, 1), mode="reflect")[:, :, :32, :32]
    assert torch.equal(model.seen[2], up) and torch.equal(model.seen[3], up.flip(3))
    with torch.no_grad():
        one, *others = [model.layer(view.flatten(1)) for view in model.seen]
        scores = 0.25 * (one + others[0]) + 0.125 * sum(others[1:])
    labels = small[0].labels
    assert found["test_accuracy"] == pytest.approx(100 * (one.argmax(1) == labels).float().mean().item())
    assert found["views_accuracy"] == pytest.approx(100 * (scores.argmax(1) == labels).float().mean().item())


@pytest.fixture(scope="module")
def easy():
    """Stripes that lie and stripes that stand."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(160) % 2
    stripes = (torch.arange(32) // 2 % 2 * 100).expand(32, 32)
    images = torch.stack([stripes if label else stripes.T for label in labels])[:, None] + torch.randint(
        100, (160, 3, 32, 32), generator=draw)
    whole = data.ImageSet(images.byte(), labels, ("lying", "standing"), "stripes")
    return whole.first(128), data.ImageSet(whole.images[128:], labels[128:], whole.classes, "stripes")


def test_it_learns_and_repeats_itself(easy):
    options = dict(epochs=6, batch_size=16, widths=NARROW, precision="float32")
    rows, again, other = (list(speedrun(*easy, seed=seed, **options)) for seed in (0, 0, 1))
    assert rows[-1]["train_accuracy"] > 90 and rows[-1]["views_accuracy"] > 90 and rows[-1]["test_accuracy"] > 90
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in again] != [row["train_loss"] for row in other]
    assert [row["epoch"] for row in rows] == list(range(1, 7)) and "views_accuracy" in rows[-1] and "test_accuracy" not in rows[0]


def test_part_of_an_epoch(small):
    rows = list(speedrun(*small, epochs=1.5, batch_size=64, widths=(4, 4, 4)))
    assert len(rows) == 2 and "test_accuracy" in rows[1]
    assert rows[1]["lr"] == pytest.approx(11.5 / (1024 * (1 + 1 / 0.15)) * triangle(5 / 6))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs PyTorch 2.9")
def test_muon_learns(easy):
    rows = list(speedrun(*easy, epochs=6, batch_size=16, widths=NARROW, muon=True))
    assert rows[-1]["train_accuracy"] > 90 and rows[-1]["views_accuracy"] > 90 and rows[-1]["lr"] < rows[0]["lr"]


def test_it_runs_elsewhere(small):
    with OtherDevice() as other:
        [row] = speedrun(small[0].first(32), small[1].first(4), epochs=1, batch_size=16, widths=(4, 4, 4), device=other.device)
        assert math.isfinite(row["train_loss"])


def test_errors_are_named(small, monkeypatch):
    for options, message in (({"batch_size": 300}, "batch_size=300 1 to 256"), ({"epochs": 0}, "epochs=0 must be positive")):
        with pytest.raises(ValueError, match=message):
            next(speedrun(*small, **options))
    with pytest.raises(ValueError, match="images must be 3 x 32 x 32, not 3 x 16 x 16"):
        next(speedrun(*data.shapes(20, 20, image_size=16), batch_size=4))
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match="torch.optim.Muon, of PyTorch 2.9"):
        next(speedrun(*small, batch_size=32, muon=True))


def test_command(capsys, monkeypatch, small):
    load = run.load
    monkeypatch.setattr(run, "load", lambda name: small if name == "shapes" else load(name))
    run.main(["--data", "shapes", "--train-images", "64", "--epochs", "1", "--batch-size", "32", "--widths", "4", "4", "4"])
    shown = capsys.readouterr().out
    assert "views_accuracy" in shown and "train_loss" in shown
    with pytest.raises(SystemExit, match="error: unknown data set 'cifar'"):
        run.main(["--data", "cifar"])
