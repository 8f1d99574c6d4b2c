"""What the original report claims of its choices, and what the study's runs say of each claim."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .statistics import difference, seeds_to_decide, verdict

Runs = Sequence[Mapping[str, Any]]
NEGLIGIBLE = 0.1  # dB: settings that differ by less count as alike
ABOVE = 0.0, math.inf  # in a claim's text: >
NO_BETTER = -math.inf, NEGLIGIBLE  # ≤
ALIKE = -NEGLIGIBLE, NEGLIGIBLE  # ≈


class Claim(NamedTuple):
    """That the PSNR of setting `first` less that of `second` lies between two bounds, in dB."""

    text: str
    study: str
    first: str
    second: str
    bounds: tuple[float, float] = ABOVE
    epoch: int = 0  # after which; 0: the last


CLAIMS = (
    Claim("U-Net > benchmark 1", "models", "U-Net, 5 levels", "Benchmark 1"),
    Claim("U-Net > benchmark 2", "models", "U-Net, 5 levels", "Benchmark 2"),
    Claim("5 levels > 4", "models", "U-Net, 5 levels", "U-Net, 4 levels"),
    Claim("5 levels > 3", "models", "U-Net, 5 levels", "U-Net, 3 levels"),
    Claim("4 levels > 3", "models", "U-Net, 4 levels", "U-Net, 3 levels"),
    Claim("rate 0.001 > 0.01", "learning_rate", "0.001", "0.01"),
    Claim("rate 0.001 > 0.0001", "learning_rate", "0.001", "0.0001"),
    Claim("batch 40 ≈ 100", "batch_size", "40", "100", ALIKE),
    Claim("batch 50 ≈ 100", "batch_size", "50", "100", ALIKE),
    Claim("batch 80 ≈ 100", "batch_size", "80", "100", ALIKE),
    Claim("batch 100 > 200, epoch 1", "batch_size", "100", "200", epoch=1),
    Claim("batch 100 > 200", "batch_size", "100", "200"),
    Claim("LeakyReLU ≤ ReLU", "activation", "LeakyReLU", "ReLU", NO_BETTER),
    Claim("L2 > L1", "loss", "L2", "L1"),
    Claim("Xavier > Kaiming, epoch 1", "initialisation", "Xavier", "Kaiming", epoch=1),
    Claim("Xavier > default, epoch 1", "initialisation", "Xavier", "PyTorch's default", epoch=1),
    Claim("Xavier > default", "initialisation", "Xavier", "PyTorch's default"),
    Claim("Xavier > Kaiming", "initialisation", "Xavier", "Kaiming"),
    Claim("Kaiming > default", "initialisation", "Kaiming", "PyTorch's default"),
)


def judged(claim: Claim, settings: Mapping[str, Runs]) -> dict[str, Any]:
    """The claim's text and study, what `difference` finds between its settings' runs, and the verdict.

    needed: how many seeds would decide where these do not; None where they do, or no number up to a thousand
    would.
    """
    found = between(settings[claim.first], settings[claim.second], claim.epoch)
    word = verdict(found, *claim.bounds)
    needed = seeds_to_decide(found, *claim.bounds) if word == "undecided" else None
    return {"text": claim.text, "study": claim.study, "verdict": word, "needed": needed, **found}


def between(first: Runs, second: Runs, epoch: int = 0) -> dict[str, Any]:
    """The `difference` of two settings' PSNR, seed by seed, after an epoch or, at 0, the last."""
    return difference(*([run["psnr"][epoch - 1] for run in runs] for runs in (first, second)))
