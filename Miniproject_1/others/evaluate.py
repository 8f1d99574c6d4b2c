"""A model beside the denoisers that a user would otherwise reach for."""

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from skimage import restoration
from torch import Tensor

from ..model import atomic_write, tqdm
from .course import load_images
from .demo import Example, before_and_after
from .machine import PHOTOGRAPHS, load_model, refuse_unwritable, write_json
from .metrics import noise_sigma, psnr, ssim

TUNED_ON = 100  # images on which each tool's setting is chosen
SHOWN = 10  # worst and best pictures


def _bm3d(picture: np.ndarray) -> np.ndarray:
    """BM3D (Dabov et al. 2007) at the noise that scikit-image estimates."""
    from bm3d import bm3d_rgb

    sigma = noise_sigma(torch.from_numpy(picture).permute(2, 0, 1))
    return bm3d_rgb(picture, sigma) if sigma else picture


# scikit-image's, and BM3D where it is installed.
# A picture H×W×3 in [0, 1] and a setting -> the picture denoised; and the settings tried.
TOOLS: dict[str, tuple[Callable, dict[str, tuple[float, ...]]]] = {
    "non-local means": (
        partial(restoration.denoise_nl_means, patch_distance=7, channel_axis=2),
        {"patch_size": (3, 5), "sigma": (0, 0.05, 0.1, 0.2), "h": (0.02, 0.04, 0.06, 0.08, 0.12, 0.16)},
    ),
    "total variation": (
        partial(restoration.denoise_tv_chambolle, channel_axis=2),
        {"weight": (0.03, 0.05, 0.07, 0.1, 0.14, 0.2)},
    ),
    "wavelet": (
        partial(restoration.denoise_wavelet, channel_axis=2, convert2ycbcr=True, rescale_sigma=True),
        {"sigma": (0.03, 0.05, 0.07, 0.1, 0.14, 0.2)},
    ),
    "bilateral": (
        partial(restoration.denoise_bilateral, channel_axis=2),
        {"sigma_color": (0.05, 0.1, 0.2, 0.4), "sigma_spatial": (0.7, 1, 1.5, 2.5)},
    ),
    "BM3D": (_bm3d, {}),
}


class Row(NamedTuple):
    """What one denoiser makes of all images: PSNR in dB and SSIM of each, and the seconds for all."""

    psnr: Tensor
    ssim: Tensor
    seconds: float

    def __str__(self) -> str:
        numbers = (f"{x.mean():8.2f} {x.quantile(0.5):7.2f}" for x in (self.psnr, self.ssim))
        return f"{'  '.join(numbers)} {self.seconds:8.1f}"


def evaluate(
    data: Path,
    *,
    out: Path,
    numbers: Path | None = None,
    weights: Path | None = None,
    device: str | None = None,
) -> dict[str, Row]:
    """Print PSNR and SSIM, mean and median, on noisy and clean pictures; draw the worst and best into `out`.

    numbers: a file for the means, as JSON.

    data: a file of both, as `load_images` takes it, or a folder with such a `val_data.pkl`.
    The noisy input; the model, and beside weights that are given `photographs.pth`; scikit-image's non-local
    means, total variation, wavelet and bilateral denoisers, each at the setting that has the highest mean
    PSNR on the first hundred images; and BM3D, which is given the estimated noise.
    """
    noisy, clean = load_images(data if data.is_file() else data / "val_data.pkl")
    for place in (out, numbers) if numbers else (out,):
        refuse_unwritable(place)
    models = {"this model": load_model(weights, device)}
    if weights and weights.resolve() != PHOTOGRAPHS.resolve():
        models["photographs.pth"] = load_model(PHOTOGRAPHS, device)
    print(f"{len(noisy):,} images{'PSNR, dB':>33s}{'SSIM':>18s}{'seconds':>10s}")
    print(f"{'':28s}{'mean  median':>16s}{'mean  median':>18s}", flush=True)
    rows = {"noisy": Row(psnr(noisy, clean), ssim(noisy, clean), 0)}
    print(f"{'noisy':28s}{rows['noisy']}", flush=True)
    answers = {}
    for name, model in models.items():
        answers[name], rows[name] = _scored(model.predict, noisy, clean)
        print(f"{name:28s}{rows[name]}", flush=True)
    chosen: dict[str, str] = {}
    for name, (tool, grid) in TOOLS.items():
        if name == "BM3D" and (find_spec("bm3d") is None or min(noisy.shape[2:]) < 8):
            print(f"{name:28s} left out: it needs pictures of 8×8 pixels, and python -m pip install bm3d")
            continue
        settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        few = noisy[:TUNED_ON]
        bar = tqdm(settings, name, unit="setting") if tqdm and grid else settings
        best, *others = settings
        if others:
            scores = [
                psnr(apply_tool(partial(tool, **each), few), clean[:TUNED_ON]).mean().item() for each in bar
            ]
            best = settings[scores.index(max(scores))]
        _, rows[name] = _scored(partial(apply_tool, partial(tool, **best)), noisy, clean)
        chosen[name] = ", ".join(f"{key} {value:g}" for key, value in best.items())
        print(f"{name:28s}{rows[name]}  {chosen[name]}".rstrip(), flush=True)
    if numbers:
        _write(rows, chosen, numbers)
    before, after = rows["noisy"].psnr.tolist(), rows["this model"].psnr.tolist()
    order = sorted(range(len(noisy)), key=after.__getitem__)
    shown = order[:SHOWN] + order[-SHOWN:] if len(order) > 2 * SHOWN else order
    denoised = answers["this model"]
    pictures = [Example(f"number {i}", noisy[i], denoised[i], clean[i], before[i], after[i]) for i in shown]
    with atomic_write(out) as file:
        before_and_after(pictures, width=1.1 * len(pictures)).savefig(file, format="png", dpi=100)
    print(f"worst and best pictures: {out.resolve()}")
    return rows


def _scored(denoiser: Callable[[Tensor], Tensor], noisy: Tensor, clean: Tensor) -> tuple[Tensor, Row]:
    start = time.perf_counter()
    made = denoiser(noisy)
    seconds = time.perf_counter() - start
    return made, Row(psnr(made, clean), ssim(made, clean), seconds)


def _write(rows: dict[str, Row], chosen: dict[str, str], path: Path) -> None:
    means = {
        name: {
            "psnr": round(row.psnr.mean().item(), 4),
            "ssim": round(row.ssim.mean().item(), 5),
            "seconds": round(row.seconds, 2),
            "setting": chosen.get(name, ""),
        }
        for name, row in rows.items()
    }
    write_json(means, path)


def apply_tool(tool: Callable, images: Tensor) -> Tensor:
    """N×3×H×W in [0, 255], one image after the other."""
    pictures = (image.permute(1, 2, 0).numpy() / np.float32(255) for image in images)
    made = [torch.from_numpy(np.asarray(tool(each), np.float32)) for each in pictures]
    return torch.stack(made).permute(0, 3, 1, 2).clamp(0, 1) * 255
