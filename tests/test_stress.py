"""Spoilt images, an adversarial step, and what probabilities are worth: by hand and by properties."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from cnnlib import stress
from cnnlib.data import book_file


@pytest.fixture(scope="module")
def images():
    with Image.open(book_file("images/chelsea.jpg")) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((48, 40)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)


@pytest.mark.parametrize("change, values", [(stress.noise, (1, 20, 60)), (stress.blur, (0.5, 1, 3)), (stress.coarse, (1.5, 3, 8)),
                                            (stress.jpeg, (90, 30, 5)), (stress.contrast, (0.9, 0.5, 0.1)),
                                            (stress.brightness, (5, 40, 120))])
def test_more_is_worse_and_shapes_stay(images, change, values):
    errors = []
    for value in values:
        spoilt = change(images, value)
        assert spoilt.shape == images.shape and spoilt.dtype == torch.uint8 and spoilt.is_contiguous()
        errors.append((spoilt.float() - images.float()).square().mean().item())
    assert 0 < errors[0] < errors[1] < errors[2]


def test_noise_has_its_deviation_and_its_seed():
    grey = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    noisy = stress.noise(grey, 20)
    assert (noisy.float() - 128).std().item() == pytest.approx(20, rel=0.02)
    assert torch.equal(noisy, stress.noise(grey, 20)) and not torch.equal(noisy, stress.noise(grey, 20, seed=1))


def test_blur_spreads_a_point_as_a_bell():
    point = torch.zeros(1, 1, 41, 41, dtype=torch.uint8)
    point[0, 0, 20, 20] = 255
    x = torch.arange(-20, 21).double()
    bell = torch.exp(-(x**2) / (2 * 1.5**2))
    bell = bell / bell.sum()
    expected = 255 * bell[:, None] * bell
    assert (stress.blur(point, 1.5)[0, 0] - expected).abs().max() < 0.6  # rounded, and cut at three deviations
    level = torch.full((1, 3, 9, 9), 77, dtype=torch.uint8)
    assert torch.equal(stress.blur(level, 2.0), level)


def test_contrast_and_brightness_by_hand():
    image = torch.tensor([10, 30], dtype=torch.uint8).view(1, 1, 1, 2)
    assert stress.contrast(image, 0.5).flatten().tolist() == [15, 25]
    assert stress.contrast(image, 3).flatten().tolist() == [0, 50]
    colour = torch.tensor([100, 150, 200], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert stress.contrast(colour, 0.5)[0, :, 0, 0].tolist() == [125, 150, 175]  # towards grey: one mean for all colours
    assert stress.brightness(image, -20).flatten().tolist() == [0, 10]


def test_fewer_pixels_are_means_of_many():
    """Stripes of one pixel, black and white, become grey, where every third pixel alone would be black or white."""
    fine = (255 * (torch.arange(33) % 2)).to(torch.uint8).expand(1, 1, 33, 33)
    assert (stress.coarse(fine, 3).float() - 127.5).abs()[..., 6:-6].max() < 20
    large = (255 * (torch.arange(32) // 16)).to(torch.uint8).expand(1, 1, 32, 32)
    assert stress.coarse(large, 2)[..., [0, -1]].unique().tolist() == [0, 255]


def test_jpeg_is_pillows(images):
    file = io.BytesIO()
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=20)
    expected = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)
    assert torch.equal(stress.jpeg(images, 20)[1], expected)
    assert stress.jpeg(images[:, :1], 20).shape == images[:, :1].shape


@pytest.mark.parametrize("call, words", [
    (lambda x: stress.noise(x, -1), "std=-1"), (lambda x: stress.blur(x, 0), "sigma=0"), (lambda x: stress.coarse(x, 0.5), "factor=0.5"),
    (lambda x: stress.jpeg(x, 0), "quality=0"), (lambda x: stress.jpeg(x[:, :2], 50), "2 channels"),
    (lambda x: stress.contrast(x, float("nan")), "factor=nan"), (lambda x: stress.brightness(x, float("inf")), "shift=inf"),
    (lambda x: stress.noise(x.float(), 1), "torch.float32"), (lambda x: stress.blur(x[0], 1), r"\(3, 40, 48\)"),
    (lambda x: stress.jpeg(x, 50.5), r"quality=50\.5 must be a whole number"), (lambda x: stress.jpeg(x[:0], 50), "at least one")])
def test_refused_by_name(images, call, words):
    with pytest.raises(ValueError, match=words):
        call(images)


def test_an_adversarial_step_by_hand():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).train()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    pixels = torch.tensor([[100, 100], [255, 0]], dtype=torch.uint8).view(2, 2, 1, 1)
    # class 0 has the score (x0 - x1): its loss rises where x0 falls and x1 rises; for class 1 the other way
    fooled = stress.adversarial(model, pixels, torch.tensor([0, 1]), epsilon=3, mean=torch.tensor([0.5, 0.5]), std=torch.tensor([1.0, 2.0]))
    assert fooled.flatten(1).tolist() == [[97, 103], [255, 0]]
    assert model.training and model[1].weight.grad is None


def test_an_adversarial_step_is_taken_where_the_network_stands_in_use(images):
    """The direction is that of the normalized images, in evaluation mode, whatever the mode given."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 5, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 4, 5, 3), nn.GELU(), nn.Flatten(), nn.LazyLinear(5))
    mean, std, labels = torch.tensor([0.2, 0.5, 0.8]), torch.tensor([0.05, 0.1, 0.2]), torch.tensor([1, 3])
    model.eval()(images.float())
    nn.init.uniform_(model[1].running_mean), nn.init.uniform_(model[1].running_var, 0.1, 9.0)
    pixels = images.float().requires_grad_()
    F.cross_entropy(model((pixels / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)), labels).backward()
    fooled = stress.adversarial(model.train(), images, labels, epsilon=2, mean=mean, std=std)
    inside = (images > 2) & (images < 253) & (pixels.grad != 0)
    agree = (fooled.int() - images.int() == 2 * pixels.grad.sign())[inside].double().mean()
    assert inside.double().mean() > 0.5 and agree > 0.99 and model.training


def test_an_adversarial_step_raises_the_loss(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    labels = torch.tensor([1, 3])

    def loss(pixels):
        return F.cross_entropy(model((pixels.float() / 255 - 0.5) / 0.25), labels).item()

    with torch.no_grad():  # gradients are asked for inside
        fooled = stress.adversarial(model, images, labels, epsilon=4, mean=torch.full((3,), 0.5), std=torch.full((3,), 0.25))
    assert loss(fooled) > loss(images)
    assert (fooled.int() - images.int()).abs().max() <= 4


def test_calibration_by_hand():
    probabilities = torch.tensor([[0.9, 0.1], [0.95, 0.05], [0.58, 0.42], [0.44, 0.56]])
    labels = torch.tensor([0, 1, 0, 1])
    table = stress.calibration(probabilities, labels, bins=10)
    assert [(round(sure, 3), right, count) for sure, right, count in table] == [(0.57, 1.0, 2), (0.9, 1.0, 1), (0.95, 0.0, 1)]
    assert stress.calibration_error(probabilities, labels, bins=10) == pytest.approx((2 * 0.43 + 0.1 + 0.95) / 4, abs=1e-6)
    with pytest.raises(ValueError, match="softmax"):
        stress.calibration(torch.randn(4, 2), labels)


SCORES, LABELS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize("labels, words", [
    (LABELS[:, None], r"labels are of shape \(6, 1\); they must be whole numbers, one for each of 6 images"),
    (LABELS[:1], r"shape \(1,\)"), (LABELS.float(), "torch.float32"), (LABELS.tolist(), "labels are a list"),
    (LABELS + 1, "labels go from 1 to 4, but there are 4 classes"), (LABELS - 1, "from -1 to 2")])
def test_labels_that_do_not_fit_are_refused(labels, words):
    for call in (stress.temperature, lambda scores, labels: stress.calibration(scores.softmax(1), labels),
                 lambda scores, labels: stress.calibration_error(scores.softmax(1), labels)):
        with pytest.raises(ValueError, match=words):
            call(SCORES, labels)
    images, half = torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.tensor([0.5])
    with pytest.raises(ValueError, match=words):
        stress.adversarial(nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), images, labels, epsilon=1, mean=half, std=half)


def test_what_would_give_a_number_that_means_nothing_is_refused():
    probabilities = SCORES.softmax(1)
    for bins in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"bins={bins}"):
            stress.calibration_error(probabilities, LABELS, bins=bins)
    with pytest.raises(ValueError, match="no image"):
        stress.calibration_error(probabilities[:0], LABELS[:0])
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), torch.zeros(6, 3, 2, 2, dtype=torch.uint8)
    for mean, std in ((torch.rand(2), torch.ones(3)), (torch.rand(3), torch.tensor([1.0, 0.0, 1.0]))):
        with pytest.raises(ValueError, match="must be one number for each of 3 channels, std above 0"):
            stress.adversarial(model, images, LABELS, epsilon=1, mean=mean, std=std)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_undoes_what_was_multiplied(factor):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(scores.softmax(1), 1, generator=generator).squeeze(1)
    found = stress.temperature(factor * scores, labels)
    assert found == pytest.approx(factor, rel=0.05)
    grid = torch.linspace(0.5 * factor, 2 * factor, 301)
    losses = torch.stack([F.cross_entropy(factor * scores / t, labels) for t in grid])
    assert F.cross_entropy(factor * scores / found, labels) <= losses.min() + 1e-6
    honest = stress.calibration_error((factor * scores / found).softmax(1), labels)
    assert honest < 0.02


def test_no_temperature_for_perfect_answers():
    scores = 5 * torch.eye(4)
    with pytest.raises(ValueError, match="no temperature"):
        stress.temperature(scores, torch.arange(4))
