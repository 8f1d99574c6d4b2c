"""The tables of README.md and docs/, written from results/: none of their numbers is copied by hand."""

import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ...model import atomic_write
from .runs import shown_runs
from .statistics import deviation

MARKED = re.compile(r"(?<=<!-- table: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
IMAGES = "validation images in the course's format"
# dB on CBSD68 at σ 15, 25 and 50. Zhang et al. 2018 (FFDNet, arXiv 1710.04026) and, for DRUNet, 2021 (arXiv
# 2008.13751).
PUBLISHED = {
    "CBM3D, given σ, as published": (33.52, 30.71, 27.38),
    "FFDNet, given σ, as published": (33.87, 31.21, 27.96),
    "DRUNet, given σ, as published": (34.30, 31.69, 28.51),
}


def write_tables(results: Path, pages: Iterable[Path]) -> None:
    """Write each page anew, each table between its marks `<!-- table: NAME -->` and `<!-- end -->`.

    Raises `ValueError` for a name that is none of `TABLES`.
    """

    def filled(mark: re.Match[str]) -> str:
        name, rest = mark.groups()
        if name not in TABLES:
            raise ValueError(f"table {name!r}: expected one of {', '.join(TABLES)}")
        return f"{name}{rest}{TABLES[name](results)}\n"

    for page in pages:
        text = MARKED.sub(filled, page.read_text())
        with atomic_write(page) as file:
            file.write(text.encode())


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _read(results: Path, name: str) -> Any:
    return json.loads((results / name).read_text())


def headline(results: Path) -> str:
    course = next(iter(_read(results, "noises.json")["psnr"].values()))
    epoch, slower = (_read(results, f"{name}.json")["epoch"] for name in ("bench", "bench_without_bfloat16"))
    new, pairs = epoch["new"], f"{epoch['pairs']:,}"
    took = f"{new['seconds']:.0f} s on 2 CPU cores ({slower['new']['seconds']:.0f} s without bfloat16)"
    rows = [
        ["noisy input", f"{course['noisy']:.2f} dB"],
        [f"a new model after one epoch of {pairs} pairs, {took}", f"{new['after']:.2f} dB"],
        ["the weights that it comes with, `bestmodel.pth`", f"**{course['denoised']:.2f} dB**"],
    ]
    return _table([f"{course['images']:,} {IMAGES}", "mean PSNR"], rows)


def noises(results: Path) -> str:
    measured = _read(results, "noises.json")["psnr"]
    rows = [[name, f"{row['noisy']:.2f}", f"{row['denoised']:.2f}"] for name, row in measured.items()]
    others = list(measured.values())[1:]
    means = (f"{statistics.mean(row[key] for row in others):.2f}" for key in ("noisy", "denoised"))
    return _table(["noise", "noisy", "denoised"], [*rows, [f"mean of the {len(others)} others", *means]])


def path(results: Path) -> str:
    rows = []
    for name, runs in shown_runs(results, "path").items():
        scores = [run["psnr"][-1] for run in runs]
        spread = f"{statistics.mean(scores):.2f} ± {deviation(scores):.2f}"
        rows.append([name, spread, f"{min(run['seconds'][-1] for run in runs):.0f}"])
        budget = f"{runs[0]['pairs']:,} pairs × {runs[0]['epochs']}, {len(runs)} seeds"
    header = [f"{budget}; each line adds one step to the one above", "mean PSNR ± standard deviation", "s"]
    return _table(header, rows)


def speed(results: Path) -> str:
    rows = []
    for file in sorted(results.glob("bench*.json")):
        bench = json.loads(file.read_text())
        rates, busy, epoch = bench["training"]["pairs_per_second"], bench["busy"], bench["epoch"]
        kept = (f"{busy[name]['busy'] / busy[name]['idle']:.0%}" for name in ("training", "prediction"))
        rows.append(
            [
                bench["epoch"]["machine"],
                f"{epoch['new']['seconds']:.0f} s",
                f"{epoch['pretrained']['seconds']:.0f} s",
                f"{epoch['pairs'] / rates['this project, float32']:.0f} s",
                f"{1000 / bench['prediction']['images_per_second']['this project']:.1f} s",
                " and ".join(kept),
            ]
        )
    header = ["machine", "epoch of 50,000 pairs, new model", "pretrained", "in `float32`, by its rate"]
    return _table([*header, "1,000 pictures", "speed of both kept beside a busy program"], rows)


def weights(results: Path) -> str:
    runs = [json.loads(line) for line in (results / "weights.jsonl").read_text().splitlines()]
    rows = [
        [
            run["what"],
            f"{run['pairs']:,} × {run['epochs']}",
            f"{run['seconds'] / 60:.0f}",
            f"{run['held_out']:.3f}",
            f"{run['psnr']:.3f}",
        ]
        for run in runs
    ]
    return _table(["run", "pairs × epochs", "minutes", "held-out photographs, dB", f"{IMAGES}, dB"], rows)


def shots(results: Path) -> str:
    rows = []
    for name, row in _read(results, "shots.json").items():
        setting = f" ({row['setting'].replace('_', ' ')})" if row["setting"] else ""
        numbers = [f"{row['psnr']:.2f}", f"{row['ssim']:.3f}", f"{row['seconds']:.1f}"]
        rows.append([f"{name}{setting}", *numbers])
    return _table(["six pictures that were kept back", "PSNR", "SSIM", "s"], rows)


def cbsd68(results: Path) -> str:
    measured = _read(results, "cbsd68.json")
    names = {"noisy": "noisy", "model": "`photographs.pth`, not given σ", "bm3d": "BM3D, given σ"}
    sigmas = list(measured["model"])
    rows = [
        [
            name,
            *(
                f"{measured[key][sigma]['psnr']:.2f}"
                if sigma in measured[key] and (key, sigma) != ("noisy", "0")  # which is the clean picture
                else ""
                for sigma in sigmas
            ),
        ]
        for key, name in names.items()
        if measured[key]
    ]
    rows += [[name, "", *(f"{score:.2f}" for score in scores)] for name, scores in PUBLISHED.items()]
    header = [f"{measured['pictures']} pictures of CBSD68", *(f"σ {sigma}" for sigma in sigmas)]
    return _table(header, rows)


def photographs(results: Path) -> str:
    seconds = _read(results, "bench.json")["photographs"]["seconds"]
    rows = [[*name.split(" megapixels, "), f"{time:.1f}"] for name, time in seconds.items()]
    return _table(["megapixels", "denoised by", "s on 2 CPU cores"], rows)


def scenes(results: Path) -> str:
    measured = _read(results, "bench.json").get("scenes", {"psnr": {}, "seconds": 0})
    rows = [[name, f"{score:.2f}"] for name, score in measured["psnr"].items()]
    return _table([f"trained for {measured['seconds']:.0f} s; another photograph", "PSNR"], rows)


TABLES: dict[str, Callable[[Path], str]] = {
    each.__name__: each
    for each in (headline, noises, path, speed, weights, shots, cbsd68, photographs, scenes)
}
