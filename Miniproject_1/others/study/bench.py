"""Speed and memory, measured on this machine, beside the original report's way of training."""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...model import Model, Training, UNet, bfloat16
from ..course import load_images
from ..evaluate import evaluate
from ..machine import PHOTOGRAPHS, describe_machine, refuse_unwritable, write_json
from ..metrics import mean_psnr, psnr
from ..noises import gaussian
from ..photographs import centre_square, embedded_photographs, open_photograph, pixels_of
from ..pictures import write_pixels
from ..train import train
from .networks import AppendixUNet
from .runs import ORIGINAL, Setting, run

EPOCH = 50_000  # pairs in the course's epoch, for which it allows 300 seconds
TIMED = 6_400  # pairs that are timed: enough for the first steps not to matter
TARGET = 25.40  # dB on the validation images: where the original report's final model stands
ENOUGH = 11_000  # pairs, each seen once, that take this project past it
IMAGES = 1_000  # of the pictures that are predicted, for which the course allows 10 seconds
LARGE = ((10_000, 3, 32, 32), (1, 3, 4096, 4096))  # inputs whose prediction's memory is measured
SIZES = ((1_000, 1_000), (4_000, 3_000))  # width and height of the photographs that are timed
SIGMA = 25  # of the Gaussian noise on photographs
SCENES, OTHER = ("astronaut", "coffee", "motorcycle_left", "rocket"), "chelsea"  # trained on, and not
SCENE = 400  # pixels a side of their centres, at most
PLANES, PLANE = (2, 16), 1024  # of the stacks whose denoising's memory is measured; pixels a side
SHARD = 12_500  # pairs a file in the measurement of how training's memory grows with the number of files

# Each in a process of its own: a process remembers its peak for as long as it lives.
PREDICT = """
model = Model()
model.load_pretrained_model()
model.predict(torch.randint(0, 256, {shape}, dtype=torch.uint8))
"""
TRAIN = """
from collections import deque
from pathlib import Path
from Miniproject_1.model import Training, UNet
from Miniproject_1.others.sources import Shards
deque(Training(UNet((8, 16)), Shards(Path("{folder}")), 1), 0)
"""
DENOISE = """
from Miniproject_1.others.denoise import denoise
denoise(["{folder}/stack.tif"], Path("{folder}/denoised.tif"), force=True)
"""
WEIGHED = r"""
import re, resource, torch
from pathlib import Path
from Miniproject_1 import Model
{work}
status = Path("/proc/self/status")  # getrusage would, on Linux, begin at the parent's peak
if status.exists():
    kilobytes = int(re.search("VmHWM:\s*(\d+) kB", status.read_text())[1])
else:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(kilobytes / 2**20)
"""


def bench(data: Path, out: Path, *, parts: list[str], epochs: int) -> None:
    """Print speed and memory on `data`'s pictures and write them to `out` as JSON.

    parts: what is measured: "training", "prediction", "photographs", "scenes", "epoch", "busy", "target" or
        "memory"; all where none is named. The others stay in `out` as they were.
    epochs: after which the original way is stopped in "target"; with 0, what `out` has of it stays.

    Each part has both ways in one run: the original's (the appendix's U-Net, float32, Adam 1e-3, batches of
    100, nothing turned or mirrored) and this project's. "target" takes most of the time: the original is
    trained until its PSNR passes `TARGET`.
    Raises `ValueError` for a part that is none.
    """
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "training": lambda: training_rates(train_data, device),
        "prediction": lambda: prediction_rates(val_data[0], device),
        "photographs": photograph_seconds,
        "scenes": four_scenes,
        "epoch": lambda: whole_epochs(train_data, val_data),
        "busy": lambda: busy_rates(train_data, val_data[0], device),
        "target": lambda: to_target(train_data, val_data, epochs, result.get("target", {}).get("original")),
        "memory": lambda: peaks(train_data),
    }
    for part in parts:
        if part not in measures:
            raise ValueError(f"part {part!r}: expected one of {', '.join(measures)}")
    train_data, val_data = load_images(data / "train_data.pkl"), load_images(data / "val_data.pkl")
    refuse_unwritable(out)
    device = Model().device
    machine = describe_machine(device)
    result = json.loads(out.read_text()) if out.exists() else {}
    print(machine, flush=True)
    for part in parts or measures:
        result[part] = {"machine": machine, **measures[part]()}
        write_json(result, out)  # after each: the longest takes an hour


def training_rates(train_data: tuple[Tensor, Tensor], device: torch.device) -> dict[str, Any]:
    """Pairs a second of the original way, of its network in this project's loop, and of this project.

    Its network is fed batches of the original's size in both, so that a step is of as many pairs.
    """
    few = train_data[0][:TIMED], train_data[1][:TIMED]
    first = few[0][:640], few[1][:640]
    ways: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
        "original": (AppendixUNet, ORIGINAL),
        "appendix's U-Net, this loop": (AppendixUNet, {"batch_size": ORIGINAL["batch_size"]}),
        "this project": (UNet, {}),
        "this project, float32": (UNet, {"mixed_precision": False}),
    }
    rates = {}
    for name, (make, options) in ways.items():
        network = make().to(device)
        deque(Training(network, [first], 1, **options), 0)  # chooses kernels and fills caches
        rates[name] = len(few[0]) / _seconds(partial(deque, Training(network, [few], 1, **options), 0))
        show(f"training, {name}", f"{rates[name]:.0f} pairs/s: {EPOCH / rates[name]:.0f} s an epoch")
    loop, whole, exact = (f"{rates[name] / rates['original']:.2f}" for name in list(ways)[1:])
    show(
        "training, ratios to the original",
        f"{loop} on its own network, {whole} on this one, {exact} in float32",
    )
    used = {
        "original": {"bfloat16": False, "channels_last": False, "compile": False},
        "this project": {"bfloat16": bfloat16(device), "channels_last": True, "compile": False},
    }
    return {"used": used, "seed": 0, "pairs_per_second": rates}


def prediction_rates(images: Tensor, device: torch.device) -> dict[str, Any]:
    """Images a second: the original's network one way, and all that `predict` does."""
    images = images.repeat(-(-IMAGES // len(images)), 1, 1, 1)[:IMAGES]
    appendix, model = AppendixUNet().to(device), Model()
    model.load_pretrained_model()
    model.predict(images[:100])
    rates = {
        "original": IMAGES / _seconds(lambda: mean_psnr(appendix, images, images)),
        "this project": IMAGES / _seconds(lambda: model.predict(images)),
    }
    for name, rate in rates.items():
        show(f"prediction, {name}", f"{rate:.0f} images/s: 1,000 of 32×32 in {1000 / rate:.1f} s")
    return {"images_per_second": rates}


def photograph_seconds() -> dict[str, Any]:
    """Seconds for photographs under Gaussian noise: this project, and other tools on the first."""
    import cv2
    from bm3d import bm3d_rgb

    photograph = open_photograph(embedded_photographs()[0])
    model, seconds = Model(), {}
    model.load(PHOTOGRAPHS)
    for size in SIZES:
        clean = pixels_of(photograph.resize(size)).unsqueeze(0)
        noisy = gaussian(clean, SIGMA, torch.Generator().manual_seed(0))
        pixels = noisy[0].permute(1, 2, 0).contiguous().numpy()
        tools: dict[str, Callable[[], Any]] = {"this project": partial(model.predict, noisy)}
        if size == SIZES[0]:
            tools["BM3D"] = partial(bm3d_rgb, pixels / 255, SIGMA / 255)
            tools["OpenCV, non-local means"] = partial(cv2.fastNlMeansDenoisingColored, pixels, None, 10, 10)
        for tool, work in tools.items():
            name = f"{size[0] * size[1] / 1e6:g} megapixels, {tool}"
            seconds[name] = round(_seconds(work), 2)
            show(name, f"{seconds[name]:.1f} s")
    return {"sigma": SIGMA, "seconds": seconds}


def four_scenes() -> dict[str, Any]:
    """PSNR in dB on another photograph of what two noisy shots of four have taught, and of other tools.

    Trained with the command's defaults, in so many seconds; the other tools as in `evaluate`.
    """
    generator = torch.Generator().manual_seed(0)
    centres = {}
    for path in embedded_photographs():
        photograph = open_photograph(path)
        centres[path.stem] = pixels_of(centre_square(photograph, min(SCENE, *photograph.size)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shots, weights = [folder / "first", folder / "second"], folder / "weights.pth"
        for scene, shot in product(SCENES, shots):
            write_pixels(gaussian(centres[scene], SIGMA, generator), shot / f"{scene}.png")
        seconds = round(_seconds(lambda: train(shots, weights, epochs=3, seed=0)), 1)
        clean = centres[OTHER].unsqueeze(0)
        torch.save((gaussian(clean, SIGMA, generator), clean), folder / "val_data.pkl")
        rows = evaluate(folder, out=folder / "pictures.png", weights=weights)
    found = {name: round(row.psnr.item(), 3) for name, row in rows.items()}
    for name, score in found.items():
        show(f"four scenes, {name}", f"{score:.2f} dB")
    show("four scenes, training", f"{seconds:.0f} s")
    return {"sigma": SIGMA, "seconds": seconds, "psnr": found}


def whole_epochs(train_data: tuple[Tensor, Tensor], val_data: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """An epoch of a new model and of the pretrained one, which the course asks for, and PSNR around it."""
    pairs, (noisy, clean) = (train_data[0][:EPOCH], train_data[1][:EPOCH]), val_data
    result: dict[str, Any] = {"pairs": len(pairs[0]), "seed": 0}
    for name in ("new", "pretrained"):
        torch.manual_seed(0)
        model = Model()
        if name == "pretrained":
            model.load_pretrained_model()
        before = psnr(model.predict(noisy), clean).mean().item()
        seconds = _seconds(partial(model.train, *pairs, 1))
        after = psnr(model.predict(noisy), clean).mean().item()
        before, after, seconds = round(before, 4), round(after, 4), round(seconds, 1)  # printed as kept
        result[name] = {"before": before, "after": after, "seconds": seconds}
        show(f"an epoch, {name}", f"{seconds:.0f} s, {before:.3f} -> {after:.3f} dB")
    return result


def busy_rates(train_data: tuple[Tensor, Tensor], images: Tensor, device: torch.device) -> dict[str, Any]:
    """Pairs and images a second without and with another program that keeps one core busy throughout."""
    few = train_data[0][:TIMED], train_data[1][:TIMED]
    first, network, model = (few[0][:640], few[1][:640]), UNet().to(device), Model()
    images = images.repeat(-(-IMAGES // len(images)), 1, 1, 1)[:IMAGES]
    rates: dict[str, dict[str, float]] = {"training": {}, "prediction": {}}
    deque(Training(network, [first], 1), 0)
    model.predict(images[:100])
    for name in ("idle", "busy"):
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if name == "busy" else None
        try:
            rates["training"][name] = len(few[0]) / _seconds(partial(deque, Training(network, [few], 1), 0))
            rates["prediction"][name] = IMAGES / _seconds(lambda: model.predict(images))
        finally:
            if other:
                other.kill()
                other.wait()
    for name, rate in rates.items():
        part = rate["busy"] / rate["idle"]
        show(f"{name}, one core kept busy by another", f"{part:.2f} of {rate['idle']:.0f} a second")
    return rates


def to_target(
    train_data: tuple[Tensor, Tensor],
    val_data: tuple[Tensor, Tensor],
    epochs: int,
    original: dict[str, Any] | None,
) -> dict[str, Any]:
    """Both ways from scratch until `TARGET`, the original for so many epochs at most: what `run` measures.

    With no epochs at all, `original` is what an earlier call has measured of it.

    "pairs" of each are those of an epoch: all for the original, `ENOUGH` for this project.
    """
    # This project's schedule is made to end where its training does, so it is scored only there.
    few = train_data[0][:ENOUGH], train_data[1][:ENOUGH]
    ours = run(Setting(), few, val_data, 1, seed=0)
    if epochs:
        original = run(Setting(AppendixUNet, ORIGINAL), train_data, val_data, epochs, seed=0, target=TARGET)
        original |= {"pairs": len(train_data[0])}
    if not original:
        raise ValueError("--epochs 0: nothing is kept of the original way that could stay")
    results = {"this project": ours | {"pairs": len(few[0])}, "original": original}
    for name, reached in results.items():
        score, number = reached["psnr"][-1], len(reached["psnr"])
        how = "passes" if score > TARGET else "does not pass"
        text = f"{score:.3f} dB, epochs of {reached['pairs']:,} pairs: {number}"
        show(f"{how} {TARGET:.2f} dB, {name}", f"{text}, {reached['seconds'][-1]:.0f} s")
    if ours["psnr"][-1] > TARGET:
        least = "" if original["psnr"][-1] > TARGET else "at least "
        ratio = math.floor(10 * original["seconds"][-1] / ours["seconds"][-1]) / 10
        show(f"time to {TARGET:.2f} dB, ratio", f"{least}{ratio:.1f}")
    return {"db": TARGET, **results}


def peaks(train_data: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Peak memory in GiB of large predictions, of a training from one file and from eight, and of stacks."""
    import tifffile

    found = {f"predict {'×'.join(map(str, shape))}": peak_gib(PREDICT.format(shape=shape)) for shape in LARGE}
    with tempfile.TemporaryDirectory() as folder:
        shard = tuple(part[:SHARD].clone() for part in train_data)
        for number in range(8):
            torch.save(shard, Path(folder) / f"train_data_{number}.pkl")
            if number in (0, 7):
                text = f"train, files of {len(shard[0]):,} pairs: {number + 1}"
                found[text] = peak_gib(TRAIN.format(folder=folder))
        for planes in PLANES:
            stack = np.zeros((planes, PLANE, PLANE), np.uint16)
            tifffile.imwrite(Path(folder) / "stack.tif", stack, photometric="minisblack")
            text = f"denoise, planes of {PLANE}×{PLANE}: {planes}"
            found[text] = peak_gib(DENOISE.format(folder=folder))
    for text, peak in found.items():
        show(f"peak memory, {text}", f"{peak:.2f} GiB")
    return {"peak_gib": found}


def show(what: str, value: str) -> None:
    print(f"{what:52s} {value}", flush=True)


def peak_gib(work: str) -> float:
    """The most host memory, in GiB, that a new process which does this has had.

    Raises `RuntimeError` where it fails.
    """
    place = Path(__file__).parents[3]
    command = [sys.executable, "-c", WEIGHED.format(work=work)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.splitlines() or [""])[-1]
        raise RuntimeError(f"memory could not be measured: exit code {done.returncode}, {reason:.200}")
    return float(done.stdout.splitlines()[-1])


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
