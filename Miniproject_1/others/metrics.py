"""How good denoised pictures are: PSNR, SSIM, and an estimate of PSNR where nobody has a clean picture."""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLIPPED = 0.05  # of the values, from which on noise that is clipped spoils the estimate
BRIGHTNESS = 0.02  # of the noise's variance, from which on a difference in brightness spoils it
SHARED, VISIBLE = 0.3, 5  # correlation of two shots' noise that shows, where it is of so many grey levels
BLOCK = 8  # pixels a side over which noise averages out
UNEQUAL = 0.2  # difference of two shots' noise variances, of their sum, from which on they count as unequal


def psnr(images: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB: N×3×H×W twice, values in [0, 255] -> N.

    The course's measure: −10·log10 of the mean squared error of [0, 1] values over channels and
    pixels. A data set's PSNR is the mean of this over its images, not the PSNR of the mean error.
    Equal images give 80 dB rather than infinity, so that one flat patch of sky cannot decide a mean.
    """
    error = (images.to(torch.float32) - clean.to(torch.float32)) / 255
    return -10 * torch.log10(error.square().mean(dim=(1, 2, 3)).clamp_min(1e-8))


def ssim(images: Tensor, clean: Tensor) -> Tensor:
    """Structural similarity of each image, as scikit-image has it: N×3×H×W twice, values in [0, 255] -> N.

    NaN for images under 7×7 pixels, the size of its window.
    """
    from skimage.metrics import structural_similarity

    if min(images.shape[2:]) < 7:
        return torch.full((len(images),), math.nan)
    pairs = zip(*(each.float().permute(0, 2, 3, 1).numpy() for each in (images, clean)), strict=True)
    return torch.tensor([structural_similarity(*pair, channel_axis=2, data_range=255) for pair in pairs])


def noise_sigma(image: Tensor) -> float:
    """The standard deviation of the noise of C×H×W, as Donoho and Johnstone (1994) estimate it, in its units.

    The mean over the channels in which something shows; 0 where none does, or the image is a line.
    """
    from skimage.restoration import estimate_sigma

    if min(image.shape[1:]) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what is flat has no median of its details
        sigmas = torch.tensor(estimate_sigma(image.numpy(), channel_axis=0)).float()
    seen = sigmas[sigmas.isfinite()]
    return seen.mean().item() if len(seen) else 0.0


def noise_to_noise(
    denoise: Callable[[Tensor], Tensor], scenes: Sequence[tuple[Tensor, ...]]
) -> tuple[float, float]:
    """(PSNR of denoised shots against the mean of their scene's others, what it says of the clean), in dB.

    scenes: the k shots of each, two or more, each N×3×H×W.

    Let b = x + n be the mean of the k − 1 shots other than a, where x is clean and n has zero mean and is
    independent of a. Then

        E|f(a) − b|² = E|f(a) − x|² + E|n|²

    since the cross term 2·E⟨f(a) − x, n⟩ vanishes: it is why Noise2Noise works at all (Lehtinen et al.
    2018, section 2). The more shots there are, the less is n, and the nearer is the first number to the clean
    PSNR. Where all shots have the same noise, E|a − b|² = k·E|n|². So the error against
    the clean picture, which nobody has, is the measured one less a k-th of what the two differ by.
    Both errors are means over all pixels of all shots of all scenes. What is left of independent noise in
    their difference is, of N values with a noise of variance σ², as large as σ² / √N: an error below twice
    that cannot be told from none, and counts as that. Without any noise the estimate is NaN. It is too high
    where noise is clipped at black or white, which takes its zero mean, where the shots differ by more than
    noise: shifted, or exposed differently, and where they share some of it.
    """
    error = noise = count = values = 0.0
    for shots in scenes:
        values += shots[0].numel()
        for i, shot in enumerate(shots):
            others = torch.stack(shots[:i] + shots[i + 1 :]).mean(0)
            error += (denoise(shot) - others).square().sum().item()
            noise += (shot - others).square().sum().item() / len(shots)
            count += shot.numel()
    left = max(error - noise, 2 * noise / math.sqrt(values)) if noise else math.nan
    measured, clean = (-10 * math.log10(max(each / count / 255**2, 1e-8)) for each in (error, left))
    return measured, clean


def doubts(scenes: Sequence[tuple[Tensor, ...]]) -> list[str]:
    """Why the estimate of `noise_to_noise` is not to be relied on there; empty where nothing shows."""
    found = []
    values = torch.cat([shot.flatten() for shots in scenes for shot in shots])
    clipped = ((values <= 0) | (values >= 255)).float().mean().item()
    if clipped > CLIPPED:
        found.append(f"{clipped:.0%} of the values are black or white, where noise is clipped")
    one, other, both = (
        sum(step(shots).square().sum().item() for shots in scenes)
        for step in (
            lambda shots: shots[0].diff(dim=-1),
            lambda shots: shots[-1].diff(dim=-1),
            lambda shots: (shots[0] - shots[-1]).diff(dim=-1),
        )
    )
    # What neighbours differ by is the scene, which both shots have, and the noise.
    if abs(one - other) > UNEQUAL * both:
        found.append("the shots are not equally noisy")
    large = [(shots[0], shots[-1]) for shots in scenes if min(shots[0].shape[2:]) > BLOCK]
    if large and _differ_in_brightness(large):
        found.append("the shots differ in brightness or contrast")
    if large and _share_noise(large):
        found.append("both shots have the same fine grain, which counts as the scene")
    return found


def _differ_in_brightness(pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether what two shots differ by depends on how bright the scene is, or is not zero on average."""
    differs = noise = 0.0
    for a, b in pairs:
        noise += (a - b).square().sum().item() / 2
        # In blocks most of the noise averages out.
        for one, other in zip(*(F.avg_pool2d(each, BLOCK).flatten(2) for each in (a, b)), strict=True):
            for x, y in zip((one + other).double() / 510, (other - one).double(), strict=True):
                powers = torch.stack([x**0, x, x**2], dim=1)  # a tone curve, to second order
                fitted = powers @ torch.linalg.lstsq(powers, y).solution
                by_chance = 3 * (y - fitted).square().mean()
                differs += BLOCK**2 * (fitted.square().sum() - by_chance).item()
    return differs > BRIGHTNESS * noise


def _share_noise(pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether the finest detail is alike in both shots even where the scene has least of it.

    What both have is in their sum alone, what is independent in their difference as well.
    """
    both, own = (
        torch.cat([F.avg_pool2d(_detail(step(*pair)), BLOCK).flatten() for pair in pairs])
        for step in (torch.add, torch.sub)
    )
    flattest = both.argsort()[: max(1, len(both) // 10)]
    shared, noise = both[flattest].mean(), own[flattest].mean()
    # Under so little noise, it could as well be the scene's own texture.
    return bool(noise > 2 * VISIBLE**2 and shared - noise > SHARED * (shared + noise))


def _detail(images: Tensor) -> Tensor:
    """The squares of the diagonal detail, meant over channels: of white noise, its variance."""
    detail = images.diff(dim=-1).diff(dim=-2) / 2
    return detail.square().mean(1, keepdim=True)


@torch.no_grad()
def mean_psnr(network: nn.Module, noisy: Tensor, clean: Tensor, *, ensemble: bool = False) -> float:
    """Mean PSNR in dB of any network that takes and returns N×3×H×W in [0, 255], as it stands.

    ensemble: of the mean of two answers, to a picture and to the same turned by 180°; else of a single one.
    """
    device = next(network.parameters()).device
    answer = partial(_self_ensemble, network) if ensemble else network
    network.eval()
    scores = [
        psnr(answer(images.to(device, torch.float32)).clamp(0, 255).cpu(), target)
        for images, target in zip(noisy.split(100), clean.split(100), strict=True)
    ]
    network.train()
    return torch.cat(scores).mean().item()


def _self_ensemble(network: nn.Module, images: Tensor) -> Tensor:
    one, other = network(images), network(images.flip(-2, -1))
    return (one + other.flip(-2, -1)) / 2
