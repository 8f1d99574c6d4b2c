"""The study: tables of settings, each run through the one training loop, over several seeds."""

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model import LEARNING_RATE, Model, Training, UNet, atomic_write, muon_and_adamw, tqdm
from ..course import load_images
from ..machine import describe_machine
from ..metrics import mean_psnr
from ..noises import photons
from .networks import (
    AppendixUNet,
    Averaged,
    PooledUNet,
    ResidualCNN,
    benchmark_1,
    benchmark_2,
    he_normal,
    initialised,
    normalised_unet,
    plain_unet,
    untied,
)

ENOUGH = 3  # seeds from which on a larger budget counts for more than further seeds
COUNTS = 5  # photons at white: so few that their number is far from symmetric about its mean


class Setting(NamedTuple):
    """One line of a study: a network, and the options of `Training`."""

    network: Callable[[], nn.Module] = UNet
    options: dict[str, Any] = {}  # noqa: RUF012, never changed
    part: float = 1  # of the pairs, each used so much more often
    file: str = "train_data.pkl"  # in DATA
    # Puts noise on clean pictures, by a seed; both pictures of a pair are then made of the file's second.
    noise: Callable[[Tensor, int], Tensor] | None = None


def adam(network: nn.Module, learning_rate: float) -> list[torch.optim.Optimizer]:
    return [torch.optim.Adam(network.parameters(), learning_rate)]


def adamw(network: nn.Module, learning_rate: float) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(network.parameters(), learning_rate, betas=(0.9, 0.95), weight_decay=0)]


def few_photons(clean: Tensor, seed: int) -> Tensor:
    """Poisson noise of `COUNTS` at white: N×3×H×W `uint8` -> `int16`, neither clipped nor rounded.

    Its mean is the clean picture, its median is not.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([photons(part, COUNTS, generator).to(torch.int16) for part in clean.split(1_000)])


# How the original report trained: Adam 1e-3 throughout, the plain mean squared error, float32.
ORIGINAL = {
    "learning_rate": 1e-3,
    "batch_size": 100,
    "loss": F.mse_loss,
    "optimizers": adam,
    "schedule": lambda done: 1,
    "augment": False,
    "swap": False,
    "channels_last": False,
    "mixed_precision": False,
    "shares": 1,
}
LOW_PRECISION = ORIGINAL | {"channels_last": True, "mixed_precision": True}
BATCH_64 = {"batch_size": 64}
AUGMENTED = BATCH_64 | {"loss": F.mse_loss, "optimizers": adamw}
COSINE = AUGMENTED | {"augment": False, "swap": False}
# The network of the studies: half of `Model`'s, which came after them.
one_block = partial(UNet, blocks=1)
UNSWAPPED = Setting(one_block, {"swap": False})


def ordinary(network: Callable[[], nn.Module] = untied, **options: Any) -> Setting:
    """This project before its last two steps: ordinary convolutions, batches of 64; `options` change it."""
    return Setting(network, BATCH_64 | options)


STUDIES: dict[str, dict[str, Setting]] = {
    # The original report's questions, asked of its own network and way of training.
    "models": {
        "Benchmark 1": Setting(benchmark_1, LOW_PRECISION),
        "Benchmark 2": Setting(benchmark_2, LOW_PRECISION),
        "U-Net, 3 levels": Setting(partial(AppendixUNet, 3), LOW_PRECISION),
        "U-Net, 4 levels": Setting(partial(AppendixUNet, 4), LOW_PRECISION),
        "U-Net, 5 levels": Setting(AppendixUNet, LOW_PRECISION),
        "this project": Setting(one_block),
    },
    "learning_rate": {
        f"{rate:g}": Setting(AppendixUNet, LOW_PRECISION | {"learning_rate": rate})
        for rate in (0.01, 0.001, 0.0001)
    },
    "batch_size": {
        str(size): Setting(AppendixUNet, LOW_PRECISION | {"batch_size": size})
        for size in (40, 50, 80, 100, 200)
    },
    "activation": {
        "ReLU": Setting(AppendixUNet, LOW_PRECISION),
        "LeakyReLU": Setting(partial(AppendixUNet, activation=partial(nn.LeakyReLU, 0.1)), LOW_PRECISION),
    },
    "loss": {
        "L2": Setting(AppendixUNet, LOW_PRECISION),
        "L1": Setting(AppendixUNet, LOW_PRECISION | {"loss": F.l1_loss}),
    },
    "initialisation": {
        "PyTorch's default": Setting(AppendixUNet, LOW_PRECISION),
        "Xavier": Setting(partial(initialised, nn.init.xavier_uniform_), LOW_PRECISION),
        "Kaiming": Setting(partial(initialised, he_normal), LOW_PRECISION),
    },
    # The two losses where theory says that they part: the noise's median is not its mean.
    "skewed_loss": {
        "L2": Setting(AppendixUNet, LOW_PRECISION, file="oracle_data.pkl", noise=few_photons),
        "L1": Setting(
            AppendixUNet, LOW_PRECISION | {"loss": F.l1_loss}, file="oracle_data.pkl", noise=few_photons
        ),
    },
    # From the original way to this project's, one step a line.
    "path": {
        "original": Setting(AppendixUNet, ORIGINAL),
        "bfloat16, channels-last": Setting(AppendixUNet, LOW_PRECISION),
        "batch 64, AdamW 2e-3, cosine": Setting(AppendixUNet, COSINE),
        "turned, mirrored, swapped": Setting(AppendixUNet, AUGMENTED),
        "residual U-Net": Setting(untied, AUGMENTED),
        "Muon": ordinary(loss=F.mse_loss),
        "logarithmic loss": ordinary(),
        "equivariant": Setting(one_block, BATCH_64),
        "batches of 32": Setting(one_block),
        # No Noise2Noise, but what it leaves on the table: "logarithmic loss" with clean targets.
        "clean targets": ordinary(swap=False)._replace(file="oracle_data.pkl"),
    },
    # Steps of the path in their parts: from its "bfloat16, channels-last" to its "residual U-Net".
    "parts": {
        "bfloat16, channels-last": Setting(AppendixUNet, LOW_PRECISION),
        "batches of 64": Setting(AppendixUNet, LOW_PRECISION | BATCH_64),
        "Adam's β₂ 0.95, not 0.999": Setting(AppendixUNet, LOW_PRECISION | BATCH_64 | {"optimizers": adamw}),
        "rate 2e-3": Setting(AppendixUNet, LOW_PRECISION | COSINE | {"learning_rate": LEARNING_RATE}),
        "warm-up, cosine": Setting(AppendixUNet, COSINE),
        "turned, mirrored, swapped": Setting(AppendixUNet, AUGMENTED),
        "input added to the output": Setting(partial(AppendixUNet, residual=True), AUGMENTED),
        "Kaiming initialisation": Setting(
            partial(initialised, he_normal, partial(AppendixUNet, residual=True)), AUGMENTED
        ),
        "two levels, 48 and 96 channels": Setting(PooledUNet, AUGMENTED),
        "strided, transposed convolutions": Setting(partial(PooledUNet, strided=True), AUGMENTED),
        "features added": Setting(plain_unet, AUGMENTED),
        "residual blocks": Setting(untied, AUGMENTED),
    },
    # What a new `Model` learns from as many pairs as the course gave, in as many epochs as one cares to wait.
    "new_model": {"as it comes": Setting()},
    # What it costs on the course's noise that some inputs carry another, as `bestmodel.pth`'s do.
    "other_noises": {
        "no other noise": UNSWAPPED,
        "one input in fifty": UNSWAPPED._replace(file="one_in_fifty/train_data.pkl"),
        "one input in twenty": UNSWAPPED._replace(file="one_in_twenty/train_data.pkl"),
    },
    # "logarithmic loss" of the path but for one change a line.
    "changes": {
        "none": ordinary(),
        "widths 64, 128": ordinary(partial(untied, (64, 128))),
        "widths 48, 128": ordinary(partial(untied, (48, 128))),
        "widths 48, 96, 192": ordinary(partial(untied, (48, 96, 192))),
        "widths 48, 96, two blocks": ordinary(partial(untied, (48, 96), 2)),
        "no residual blocks": ordinary(plain_unet),
        "batch normalisation": ordinary(normalised_unet, shares=1),
        "plain residual CNN, 8 layers": ordinary(ResidualCNN),
        "weights averaged (0.98)": ordinary(Averaged, shares=1),
        "AdamW throughout": ordinary(optimizers=adamw),
        "Muon × 2.5": ordinary(optimizers=partial(muon_and_adamw, muon_factor=2.5)),
        "Muon × 10": ordinary(optimizers=partial(muon_and_adamw, muon_factor=10)),
        "learning rate 1e-3": ordinary(learning_rate=1e-3),
        "learning rate 4e-3": ordinary(learning_rate=4e-3),
        "batch 32": ordinary(batch_size=32),
        "batch 128": ordinary(batch_size=128),
        "mean squared error": ordinary(loss=F.mse_loss),
        "not turned or mirrored": ordinary(augment=False),
        "not swapped": ordinary(swap=False),
        "a quarter of the pairs, four times": ordinary()._replace(part=0.25),
    },
}


def study(names: list[str], data: Path, *, pairs: int, epochs: int, seeds: int, results: Path) -> None:
    """Run what is missing of the named studies, of all where none is named, and print and keep the results.

    Each finished run is a line of JSON in `results`/NAME.jsonl: study, setting, seed, pairs and epochs as
    asked for; parameters; PSNR in dB on `data/val_data.pkl` after each epoch; the last one's with the
    rotations averaged; training seconds so far at each epoch's end; the machine. A run that stands
    there is not run again, nor one that stands in another study's file under another name: two sweeps of
    different studies can work side by side. At the end, what stands there of smaller budgets than
    `shown_runs` takes is dropped.
    Raises `ValueError` for a name that is none, and for a budget smaller than what stands there.
    """
    names = names or list(STUDIES)
    _check_asked(names, pairs, epochs, results)
    sources = {(each.file, each.noise) for name in names for each in STUDIES[name].values()}
    images = {source: _images(*source, data, pairs) for source in sorted(sources, key=lambda each: each[0])}
    budget = {"pairs": pairs, "epochs": epochs}

    def done() -> list[dict[str, Any]]:  # read anew each time: another sweep may be at work beside this one
        return [
            line for name in STUDIES for line in read_runs(results, name) if budget.items() <= line.items()
        ]

    runs = [(name, seed, label) for name in names for seed in range(seeds) for label in STUDIES[name]]
    stand = {(line["study"], line["seed"], line["setting"]) for line in done()}
    missing = [each for each in runs if each not in stand]
    for name, seed, label in tqdm(missing, "study", unit="run") if tqdm else missing:
        setting = STUDIES[name][label]
        asked = {"study": name, "setting": label, "seed": seed, **budget}
        same = (
            {key: value for key, value in line.items() if key not in asked}
            for line in done()
            if line["seed"] == seed and STUDIES[line["study"]].get(line["setting"]) == setting
        )
        measured = next(same, None) or run(setting, *images[setting.file, setting.noise], epochs, seed)
        _write_runs(results, name, [*read_runs(results, name), asked | measured])
        score, rotated, seconds = measured["psnr"][-1], measured["psnr_rotations"], measured["seconds"][-1]
        print(f"{name}: {label}, seed {seed}: {score:.3f} dB, with rotations {rotated:.3f}, {seconds:.0f} s")
    for name in names:
        _drop_smaller(results, name)


def _check_asked(names: list[str], pairs: int, epochs: int, results: Path) -> None:
    for name in names:
        if name not in STUDIES:
            raise ValueError(f"study {name!r}: expected one of {', '.join(STUDIES)}")
        shown = next(iter(shown_runs(results, name).values()), [{"pairs": 0, "epochs": 0}])[0]
        if pairs * epochs < _size(shown):
            raise ValueError(
                f"{results / name}.jsonl has runs of {shown['pairs']:,} pairs × {shown['epochs']}: "
                f"{pairs:,} × {epochs} would be dropped beside them; --results names another folder"
            )


def _images(
    file: str, noise: Callable[[Tensor, int], Tensor] | None, data: Path, pairs: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(pairs to train on, noisy and clean pictures to validate on) of settings with this file and noise."""
    first, second = (part[:pairs] for part in load_images(data / file))
    if len(first) < pairs:
        raise ValueError(f"{data / file}: holds {len(first):,} pairs, expected {pairs:,}")
    noisy, clean = load_images(data / "val_data.pkl")
    if noise:
        first, second = (noise(second, seed) for seed in (0, 1))
        noisy = noise(clean, 2)
    return (first, second), (noisy, clean)


def read_runs(results: Path, name: str) -> list[dict[str, Any]]:
    """What `study` has kept of the study of this name: a dictionary a run."""
    path = results / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _write_runs(results: Path, name: str, runs: list[dict[str, Any]]) -> None:
    with atomic_write(results / f"{name}.jsonl") as target:
        target.write("".join(f"{json.dumps(run, ensure_ascii=False)}\n" for run in runs).encode())


def _size(run: dict[str, Any]) -> int:
    """Pairs times epochs: how large the run's budget is."""
    return run["pairs"] * run["epochs"]


def _drop_smaller(results: Path, name: str) -> None:
    """Keep only what is of the budget that `shown_runs` takes, or of a larger one."""
    runs = read_runs(results, name)
    least = max((_size(each[0]) for each in shown_runs(results, name).values()), default=0)
    kept = [run for run in runs if _size(run) >= least]
    if len(kept) < len(runs):
        _write_runs(results, name, kept)


def shown_runs(results: Path, name: str) -> dict[str, list[dict[str, Any]]]:
    """The runs that the study's table shows, of each setting in the table's order, by seed.

    They are of one budget, of so many pairs and epochs, and of the seeds that every setting has there: the
    largest budget with `ENOUGH` such seeds, else the one with most. Empty where none has a run of every
    setting.
    """
    found: dict[tuple[int, int], dict[str, dict[int, dict[str, Any]]]] = {}
    for run in read_runs(results, name):
        settings = found.setdefault((run["pairs"], run["epochs"]), {label: {} for label in STUDIES[name]})
        if run["setting"] in settings:
            settings[run["setting"]][run["seed"]] = run
    seeds = {budget: set.intersection(*map(set, settings.values())) for budget, settings in found.items()}
    best = max(found, key=lambda budget: (min(ENOUGH, len(seeds[budget])), math.prod(budget)), default=None)
    if best is None or not seeds[best]:
        return {}
    return {label: [runs[seed] for seed in sorted(seeds[best])] for label, runs in found[best].items()}


def run(
    setting: Setting,
    train_data: tuple[Tensor, Tensor],
    val_data: tuple[Tensor, Tensor],
    epochs: int,
    seed: int,
    target: float = math.inf,
) -> dict[str, Any]:
    """Train one setting from scratch; what was measured, as `study` says.

    It ends early after the first epoch whose PSNR passes `target`.
    """
    torch.manual_seed(seed)
    device = Model().device
    network = setting.network().to(device)
    kept = round(len(train_data[0]) * setting.part)
    pairs = train_data[0][:kept], train_data[1][:kept]
    scores: list[float] = []
    seconds: list[float] = []
    scoring, start = 0.0, time.perf_counter()
    for _, loss in Training(network, [pairs], round(epochs / setting.part), **setting.options):
        if loss is not None:
            now = time.perf_counter()
            seconds.append(round(now - start - scoring, 3))
            scores.append(round(mean_psnr(network, *val_data), 4))
            scoring += time.perf_counter() - now
            if scores[-1] > target:
                break
    return {
        "parameters": sum(each.numel() for each in network.parameters()),
        "psnr": scores,
        "psnr_rotations": round(mean_psnr(network, *val_data, ensemble=True), 4),
        "seconds": seconds,
        "machine": describe_machine(device),
    }
