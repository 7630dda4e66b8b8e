"""Hand-made features; the linear classifier on top of them is tested in test_transfer.py."""

import pytest
import torch

from cnnlib.features import gradient_histograms


def test_a_vertical_edge_votes_for_the_horizontal_gradient():
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8:] = 1
    cells = gradient_histograms(image, cell=4, directions=9).view(4, 9, 3, 3)
    # direction 0, in the cells beside the edge
    assert cells[0, 0, :, 1].min() > 0.2 and cells[0, 1:8].abs().max() < 1e-6


def test_turned_by_a_right_angle_the_votes_move_by_half_a_circle():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    straight = gradient_histograms(image, directions=8).view(4, 8, 3, 3)
    turned = gradient_histograms(image.rot90(1, (2, 3)), directions=8).view(4, 8, 3, 3)
    assert torch.allclose(straight.sum((0, 2, 3)).roll(4), turned.sum((0, 2, 3)), atol=1e-4)


def test_contrast_and_brightness_do_not_count():
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(gradient_histograms(image), gradient_histograms(0.5 * image + 0.2), atol=1e-3)


def test_too_small_an_image_is_named():
    with pytest.raises(ValueError, match="7x7 hold fewer than 2x2 cells of 4x4"):
        gradient_histograms(torch.zeros(1, 1, 7, 7))
