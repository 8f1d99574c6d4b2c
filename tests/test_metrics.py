"""The measures of quality."""

import pytest
import torch

from Miniproject_1.others.metrics import doubts, psnr


def test_psnr_is_the_mean_squared_error_of_values_in_0_1():
    clean = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images = clean.clone()
    images[1] = 51  # a fifth of the range: 10·log10(25)
    assert psnr(images, clean).tolist() == pytest.approx([80, 13.9794], abs=1e-3)


def test_doubts_name_clipped_and_unequal_shots():
    torch.manual_seed(0)
    scene = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16) * 200 + 30, scale_factor=8)

    def shot(sigma):
        return scene + sigma * torch.randn(scene.shape)

    assert doubts([(shot(10), shot(10))]) == []
    assert "not equally noisy" in doubts([(shot(10), shot(15))])[0]
    dark = scene / 8
    clipped = [tuple((dark + 25 * torch.randn(dark.shape)).clamp(0, 255) for _ in range(2))]
    assert len(doubts(clipped)) == 1 and "clipped" in doubts(clipped)[0]
