"""The measures of quality."""

import pytest
import torch

from Miniproject_1.others.metrics import psnr


def test_psnr_is_the_mean_squared_error_of_values_in_0_1():
    clean = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images = clean.clone()
    images[1] = 51  # a fifth of the range: 10·log10(25)
    assert psnr(images, clean).tolist() == pytest.approx([80, 13.9794], abs=1e-3)
