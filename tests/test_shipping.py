"""Folding and 8-bit whole numbers: equal answers where they must be equal, near ones where they may differ."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from cnnlib import create_model, list_models
from cnnlib.classify import export
from cnnlib.registry import find_variant
from cnnlib.shipping import foldable, fold_batch_norm, quantized
from zoo import size_of, smallest_input, smallest_of_each_kind

SMALL = (3, 32, 32)


def lived(model):
    """Batch norms with statistics and weights as after some training."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.track_running_stats:
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
    return model.eval()


def norms(model):
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("name, left", [("resnet20", 0), ("mobilenet_v2_cifar", 0), ("preresnet20", 9), ("densenet_cifar", 17),
                                        ("seresnet20", 0), ("shufflenet_v2_cifar", 0), ("vgg11_cifar_bn", 0),
                                        ("efficientnet_lite0", 0)])
def test_folded_networks_answer_alike(name, left):
    model = lived(create_model(name, num_classes=10))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded, images = fold_batch_norm(model, SMALL), torch.randn(3, *SMALL)
    assert norms(folded) == left
    torch.testing.assert_close(folded(images), model(images), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not folded.training


def test_a_training_network_is_folded_for_evaluation_and_left_training():
    model = lived(create_model("resnet20", num_classes=10)).train()
    folded = fold_batch_norm(model, SMALL)
    assert model.training and norms(folded) == 0


class Padding(nn.Conv2d):
    """A convolution with a forward of its own that reads weight and bias."""

    def forward(self, x):
        return nn.functional.conv2d(nn.functional.pad(x, (0, 2, 0, 2)), self.weight, self.bias)


class Biasless(nn.Conv2d):
    """One that would not read a bias."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight)


class Standardizing(nn.Conv2d):
    def forward(self, x):
        return nn.functional.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Odd(nn.Module):
    """What must not be folded: a map that two read, a layer that runs twice, computed weights, statistics of the batch."""

    def __init__(self):
        super().__init__()
        self.shared, self.shared_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.twice_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.computed, self.computed_norm = parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)
        with warnings.catch_warnings(action="ignore"):  # the older way, by a hook before the pass
            self.hooked, self.hooked_norm = nn.utils.weight_norm(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)
        self.moving, self.moving_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
        self.biasless, self.biasless_norm = Biasless(3, 3, 1, bias=False), nn.BatchNorm2d(3)
        self.standard, self.standard_norm = Standardizing(3, 3, 1), nn.BatchNorm2d(3)
        self.padding, self.padding_norm = Padding(3, 3, 3, bias=False), nn.BatchNorm2d(3)
        self.plain, self.plain_norm = nn.Conv2d(3, 3, 3, groups=3, bias=False), nn.BatchNorm2d(3, affine=False)
        self.flat, self.flat_norm = nn.Linear(3 * 36, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        seen = self.shared(x)
        x = self.shared_norm(seen) + seen
        x = self.twice_norm(self.twice(self.twice(x)))
        x = self.computed_norm(self.computed(x))
        x = self.hooked_norm(self.hooked(x))
        x = self.moving_norm(self.moving(x))
        x = self.biasless_norm(self.biasless(x))
        x = self.standard_norm(self.standard(x))
        x = self.padding_norm(self.padding(x))
        x = self.plain_norm(self.plain(x))
        return self.flat_norm(self.flat(x.flatten(1)))


@torch.no_grad()
def test_only_what_may_be_folded_is():
    model = lived(Odd())
    assert foldable(model, (3, 8, 8)) == [("padding", "padding_norm"), ("plain", "plain_norm"), ("flat", "flat_norm")]
    assert model.padding.bias is model.biasless.bias is None
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(fold_batch_norm(model, (3, 8, 8))(images), model(images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_eight_bits_answer_nearly_alike_at_any_batch_size():
    pytest.importorskip("torchao")
    model = fold_batch_norm(lived(create_model("resnet20", num_classes=10)), SMALL)
    small = quantized(model, [torch.randn(16, *SMALL) for _ in range(2)])
    images = torch.randn(12, *SMALL)
    exact, near = model(images), small(images)
    assert 0 < (near - exact).abs().mean() < 0.1 * exact.std()
    assert small(images[:1]).shape == (1, 10)  # rounding may fall to the other side, so values are not compared
    values = [node for node in small.graph.nodes if "quantize_per_tensor" in str(node.target)]
    assert len(values) >= 2 * 20  # maps in and out of every convolution
    assert all(tensor.dtype == torch.int8 for name, tensor in small.named_buffers() if name.startswith("_frozen"))


def test_quantization_needs_images():
    pytest.importorskip("torchao")
    for nothing in ([], [torch.randn(1, *SMALL)]):
        with pytest.raises(ValueError, match="two images"):
            quantized(create_model("resnet20", num_classes=10), nothing)


def test_a_network_that_cannot_be_followed_is_not_quantized():
    pytest.importorskip("torchao")
    with pytest.raises(ValueError, match=r"LeNet5 cannot be exported from images of shape \(2, 3, 32, 32\): "):
        quantized(create_model("lenet5"), [torch.randn(2, *SMALL)])


@torch.no_grad()
def test_all_batches_set_the_scales():
    """A map that only the second batch makes large has room for it: nothing is cut off."""
    pytest.importorskip("torchao")
    model, small = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval(), torch.rand(4, 3, 6, 6)
    whole = quantized(model, [small, 20 * small])
    assert (whole(20 * small) - model(20 * small)).abs().max() < 0.03 * model(20 * small).abs().max()


@torch.no_grad()
def test_a_network_in_training_is_quantized_for_evaluation():
    pytest.importorskip("torchao")
    model = lived(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.9), nn.Flatten(), nn.Linear(8 * 16, 4))).train()
    images = torch.randn(16, 3, 6, 6)
    from_training = quantized(model, [images])(images)
    assert model.training
    assert torch.equal(from_training, quantized(model.eval(), [images])(images))  # dropout would have widened the ranges


# every kind of network

KINDS = smallest_of_each_kind(list_models())
QUICK = [name for name in KINDS if size_of(name)[0] < 5e5 and size_of(name)[1] < 300]
CLASSES = {find_variant(name).network: name for name in sorted(KINDS, key=lambda name: size_of(name)[1], reverse=True)}.values()


def network_and_images(name):
    """The network as after some training, and three square images of the smallest size that it takes."""
    channels, *size = smallest_input(name)
    return lived(create_model(name)), torch.randn(3, channels, max(size), max(size))


def assert_near(logits, expected, tolerance=1e-5):
    assert logits.shape == expected.shape and expected.isfinite().all() and expected.any()
    assert (logits - expected).abs().max() <= tolerance * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in KINDS])
def test_every_network_is_folded(name):
    model, images = network_and_images(name)
    assert_near(fold_batch_norm(model, images.shape[1:])(images), model(images))


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("ending", ["onnx", "pt2"])
@pytest.mark.parametrize("name", CLASSES)
def test_every_network_is_exported_or_refused_by_name(tmp_path, name, ending):
    model, images = network_and_images(name)
    expected = model(images)
    known = {"image_size": images.shape[2], "classes": list(map(str, range(expected.shape[1]))), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    if images.shape[1] != 3:
        with pytest.raises(ValueError, match=f"{type(model).__name__} does not take images of shape"):
            export(model, tmp_path / f"network.{ending}", **known)
        return
    if ending == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    file = export(model, tmp_path / f"network.{ending}", **known)
    if ending == "onnx":
        logits, = runtime.InferenceSession(file).run(None, {"images": images.numpy()})
        assert_near(torch.from_numpy(logits), expected, 1e-4)  # BiT's standardized weights magnify rounding: 3e-5
    else:
        assert_near(torch.export.load(file).module()(images), expected)


UNQUANTIZED = {"hrnet_cifar"}  # torchao: "Input partition has more than one output node"


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_every_network_is_quantized(name):
    pytest.importorskip("torchao")
    model, images = network_and_images(name)
    expected, folded = model(images), fold_batch_norm(model, images.shape[1:])
    calibration = [torch.randn(8, *images.shape[1:])]
    if name in UNQUANTIZED:
        with pytest.raises(ValueError, match=f"{type(model).__name__} cannot be quantized from images of shape"):
            quantized(folded, calibration)
        return
    small = quantized(folded, calibration)
    near = small(images)
    assert near.isfinite().all() and near.shape == expected.shape
    assert torch.corrcoef(torch.stack([near.flatten(), expected.flatten()]))[0, 1] > 0.99
