"""How well a model denoises what it may meet: the course's noise, and others."""

from pathlib import Path

import torch
from torch import Tensor

from .course import SIZE, load_images, noisy_views
from .machine import describe_machine, load_model, refuse_unwritable, write_json
from .metrics import psnr
from .noises import gaussian, poisson, salt_and_pepper
from .photographs import centre_square, find_photographs, open_photograph, split_photographs


def robustness(
    data: Path,
    *,
    photos: Path | None,
    val: int,
    seed: int,
    weights: Path | None = None,
    device: str | None = None,
    out: Path | None = None,
) -> None:
    """Print the mean PSNR in dB, noisy and denoised, for each noise, and write it to `out` as JSON.

    The course's noise is that of `data/val_data.pkl`; Gaussian, Poisson and salt and pepper are put on
    its clean images.

    photos: folder of photographs, for blocks of other sizes, which are left out without it.
    val: only those photographs are taken that `pairs`, with the same `val` and `seed`, holds out.
    """
    photographs = split_photographs(find_photographs(photos), val=val, seed=seed)[1] if photos else []
    noisy, clean = load_images(data / "val_data.pkl")
    if out:
        refuse_unwritable(out)
    model = load_model(weights, device)
    generator = torch.Generator().manual_seed(seed)
    cases = {
        "the course's, blocks of 8×8": (noisy, clean),
        **{f"Gaussian, σ {sigma}": (gaussian(clean, sigma, generator), clean) for sigma in (10, 25, 50)},
        "Poisson, 30 counts": (poisson(clean, 30, generator), clean),
        "salt and pepper, 10 %": (salt_and_pepper(clean, 0.1, generator), clean),
    }
    if photographs:
        for block in (2, 4, 16):
            cases[f"blocks of {block}×{block}"] = blocks(photographs, block, generator)
    rows = {}
    print(f"{'mean PSNR in dB':30s} images   noisy  denoised")
    for name, (images, targets) in cases.items():
        before, after = (psnr(each, targets).mean().item() for each in (images, model.predict(images)))
        rows[name] = {"images": len(images), "noisy": round(before, 4), "denoised": round(after, 4)}
        print(f"{name:30s} {len(images):6,} {before:7.2f} {after:9.2f}", flush=True)
    black = psnr(torch.zeros_like(clean), clean).mean().item()
    print(f"{'a black image':30s} {len(clean):6,} {black:17.2f}")
    others = [row["denoised"] for row in list(rows.values())[1:]]
    print(f"{f'mean of the {len(others)} others':45s} {sum(others) / len(others):9.2f}")
    if out:
        result = {
            "machine": describe_machine(model.device),
            "seed": seed,
            "black": round(black, 4),
            "psnr": rows,
        }
        write_json(result, out)


def blocks(photographs: list[Path], block: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The photographs under the course's noise with blocks of this many pixels a side: noisy, clean.

    A photograph's centre square is reduced until 32×32 blocks cover it; where it is too small for that,
    it stays as it is, and fewer blocks make a smaller picture. All are cut to the smallest one's size.
    """
    views = []
    for path in photographs:
        square = centre_square(open_photograph(path))
        side = min(SIZE, square.size[0] // block) * block
        smaller = square.resize((side, side)) if side == SIZE * block else square.crop((0, 0, side, side))
        noisy, _, clean = noisy_views(smaller, side // block, generator)
        views.append((noisy, clean))
    size = min(clean.shape[-1] for _, clean in views)
    noisy, clean = (torch.stack([view[i][:, :size, :size] for view in views]) for i in (0, 1))
    return noisy, clean
