"""Other noises than the course's: what a denoiser may meet, and what its training may mix in.

Each takes clean pictures, N×3×H×W or 3×H×W `uint8`, and returns noisy ones of the same shape and type,
rounded and clipped to [0, 255].
"""

import torch
from torch import Generator, Tensor


def gaussian(clean: Tensor, sigma: float, generator: Generator) -> Tensor:
    """Additive Gaussian noise with a standard deviation of `sigma` grey levels."""
    return _to_uint8(clean + sigma * torch.randn(clean.shape, generator=generator))


def poisson(clean: Tensor, counts: float, generator: Generator) -> Tensor:
    """Shot noise: a value v arrives as a Poisson count with mean counts · v / 255, scaled back."""
    return _to_uint8(photons(clean, counts, generator))


def photons(clean: Tensor, counts: float, generator: Generator) -> Tensor:
    """The same, neither rounded nor clipped."""
    return torch.poisson(clean * (counts / 255), generator=generator) * (255 / counts)


def salt_and_pepper(
    clean: Tensor, share: float, generator: Generator, *, whole_pixels: bool = True
) -> Tensor:
    """A share of the pixels become black or white, one as often as the other; or of the single values."""
    shape = clean[..., :1, :, :].shape if whole_pixels else clean.shape
    draw = torch.rand(shape, generator=generator)
    return clean.masked_fill(draw < share / 2, 0).masked_fill(draw > 1 - share / 2, 255)


def _to_uint8(images: Tensor) -> Tensor:
    return images.round_().clamp_(0, 255).to(torch.uint8)
