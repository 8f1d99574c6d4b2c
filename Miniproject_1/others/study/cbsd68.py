"""The table that papers share: CBSD68 under Gaussian noise, blind, with BM3D beside."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...model import tqdm
from ..evaluate import apply_tool
from ..machine import PHOTOGRAPHS, describe_machine, load_model, refuse_unwritable, write_json
from ..metrics import psnr
from ..photographs import find_photographs, open_photograph, pixels_of

SIGMAS = (0, 15, 25, 50)


def cbsd68(
    photos: Path, *, out: Path, bm3d: bool = False, weights: Path | None = None, device: str | None = None
) -> None:
    """Print the mean PSNR in dB, noisy and denoised, of photographs under Gaussian noise; keep it in `out`.

    As published: the noise is neither rounded nor clipped, answers are clipped to [0, 255], and PSNR is the
    mean over pictures. The i-th in the order of names has the noise of `numpy.random.default_rng(i)`. The
    model is not given σ.

    photos: folder of the originals of CBSD68. out: written after each σ, since BM3D takes an hour.
    bm3d: also measure BM3D (Dabov et al. 2007), which is given σ; what `out` has of it stays until then.
    """
    refuse_unwritable(out)
    model = load_model(weights or PHOTOGRAPHS, device)
    clean = [pixels_of(open_photograph(path)).float().unsqueeze(0) for path in find_photographs(photos)]
    if not clean:
        raise ValueError(f"PHOTOS: no photograph in {photos}")
    kept = json.loads(out.read_text()) if out.exists() else {}
    machine = describe_machine(model.device)
    result: dict[str, dict] = {"noisy": {}, "model": {}, "bm3d": kept.get("bm3d", {})}
    print(machine, flush=True)
    for sigma in SIGMAS:
        noisy = [_noisy(each, sigma, number) for number, each in enumerate(clean)]
        rows: dict[str, Callable[[Tensor], Tensor]] = {
            "noisy": lambda x: x.clamp(0, 255),
            "model": model.predict,
        }
        if bm3d and sigma:
            rows["bm3d"] = partial(_bm3d, sigma=sigma)
        for name, tool in rows.items():
            start = time.perf_counter()
            # One after the other: BM3D has threads of its own, and aborts the process where two calls meet.
            made = [tool(each) for each in (tqdm(noisy, name, leave=False) if tqdm else noisy)]
            seconds = time.perf_counter() - start
            scores = [psnr(*both).item() for both in zip(made, clean, strict=True)]
            score = round(sum(scores) / len(scores), 3)
            result[name][str(sigma)] = {"psnr": score, "seconds": round(seconds, 1)}
            print(f"σ {sigma:2d}  {name:6s} {score:7.3f} dB {seconds:7.1f} s", flush=True)
        write_json({"machine": machine, "pictures": len(clean), **result}, out)


def _noisy(clean: Tensor, sigma: float, number: int) -> Tensor:
    height, width = clean.shape[2:]
    noise = np.random.default_rng(number).standard_normal((height, width, 3))
    return (clean + sigma * torch.from_numpy(noise).permute(2, 0, 1)).float()


def _bm3d(noisy: Tensor, sigma: float) -> Tensor:
    from bm3d import bm3d_rgb

    return apply_tool(partial(bm3d_rgb, sigma_psd=sigma / 255), noisy)
