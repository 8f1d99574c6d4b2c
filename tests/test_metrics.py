"""The measures of quality."""

import pytest
import skimage.data
import torch
import torch.nn.functional as F

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


def shots_of(name, sigma=10):
    """A photograph in the middle of the grey levels, and what makes noise for it."""
    torch.manual_seed(0)
    picture = torch.from_numpy(getattr(skimage.data, name)().copy())[:300, :400, None].flatten(2)
    scene = 40 + 0.7 * picture.permute(2, 0, 1)[None].expand(1, 3, -1, -1).float()
    return scene, lambda: sigma * torch.randn(scene.shape)


PHOTOGRAPHS = ["astronaut", "camera", "chelsea", "coffee", "rocket", "immunohistochemistry"]


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_doubts_name_another_brightness_and_noise_that_both_shots_have(name):
    for sigma in (6, 25):
        scene, noise = shots_of(name, sigma)
        assert doubts([(scene + noise(), scene + noise())]) == []
        blurred = [3 * F.avg_pool2d(noise(), 3, 1, 1) for _ in "ab"]  # of neighbours, but not of shots
        assert doubts([tuple(scene + each for each in blurred)]) == []
    scene, noise = shots_of(name)
    for other in (scene * 1.08, scene + 5, 255 * (scene / 255) ** 1.15):
        (found,) = doubts([(scene + noise(), other + noise())])
        assert "brightness" in found
    pattern = scene + noise()
    (found,) = doubts([(pattern + noise(), pattern + noise())])
    assert "grain" in found
