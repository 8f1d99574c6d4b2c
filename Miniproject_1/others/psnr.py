"""The project's one measure of quality."""

import torch
from torch import Tensor


def psnr(images: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB: N×3×H×W twice, values in [0, 255] -> N.

    The course's measure: −10·log10 of the mean squared error of [0, 1] values over channels and
    pixels. A data set's PSNR is the mean of this over its images, not the PSNR of the mean error.
    Equal images give 80 dB rather than infinity, so that one flat patch of sky cannot decide a mean.
    """
    error = (images.to(torch.float32) - clean.to(torch.float32)) / 255
    return -10 * torch.log10(error.square().mean(dim=(1, 2, 3)).clamp_min(1e-8))
