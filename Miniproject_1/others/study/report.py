"""`report.pdf`, rebuilt from the committed results: every number and figure in it comes from them."""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...model import (
    BATCH_SIZE,
    KEPT,
    LEARNING_RATE,
    MUON_FACTOR,
    SYMMETRIES,
    WARMUP,
    UNet,
    atomic_write,
    dihedral,
)
from ..demo import COLUMN
from ..machine import PHOTOGRAPHS, load_model
from .claims import ABOVE, CLAIMS, NEGLIGIBLE, between, judged
from .runs import COUNTS, ORIGINAL, STUDIES, shown_runs
from .statistics import deviation, difference, least_ratio, varies_more, verdict
from .tables import PUBLISHED, write_tables

if TYPE_CHECKING:  # matplotlib is imported where figures are
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
PAGE = 6.95  # inches: the width of both columns
LINES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (6, 1.5)))
MARKS = ("o", "s", "^", "D", "v", "P")
STYLE: dict[Any, Any] = {"font.size": 7.5, "svg.fonttype": "path", "svg.hashsalt": "report"}
OPTIONAL = ("skewed_loss", "parts", "new_model", "changes")  # studies without which the report says less
CURVES = {  # the original's questions, and what each asks
    "models": "network",
    "learning_rate": "learning rate of Adam",
    "batch_size": "pairs a batch",
    "activation": "activation",
    "loss": "loss",
    "initialisation": "initialisation",
}
SPOKEN = {  # settings whose names the report says in more words
    "this project": "small network",
    "none": "unchanged",
    "no residual blocks": "blocks without their addition",
    "Muon × 2.5": f"Muon's rate × 2.5 (not {MUON_FACTOR})",
    "Muon × 10": f"Muon's rate × 10 (not {MUON_FACTOR})",
    "weights averaged (0.98)": "exponential mean of weights",
    "no other noise": "no other noise, not swapped",
}
SET = {  # what the report says of how things were set
    "learning_rate": LEARNING_RATE,
    "kept": KEPT,
    "muon": MUON_FACTOR,
    "batch_size": BATCH_SIZE,
    "warmup": WARMUP,
    "original_batch_size": ORIGINAL["batch_size"],
    "negligible": NEGLIGIBLE,
    "counts": COUNTS,
}

Runs = list[dict[str, Any]]


def report(results: Path, out: Path, *, pages: Sequence[Path] = ()) -> None:
    """Write the report as PDF and print where it is. Nothing is trained.

    results: folder with what `study`, `bench`, `robustness`, `cbsd68`, `evaluate` and `demo` have kept, the
        lines that `pretrain` printed, and `published.json`. Without `bench`'s, or a study of `OPTIONAL`, what
        they would say is left out. Of each study, the runs are those of `shown_runs`.
    pages: Markdown files, such as README.md, whose tables are written anew.
    Raises `FileNotFoundError` or `ValueError` where some of it is missing, `ModuleNotFoundError` where typst
    or matplotlib is. The PDF's keywords are a hash of the results, by which one that is out of date is known.
    """
    import typst
    from matplotlib import rc_context

    studies = dict(_studies(results))
    content = _content(results, studies)
    pictures = _whole(results / "pictures.png")
    text = json.dumps(content, ensure_ascii=False).encode()
    content["digest"] = hashlib.sha256(text + pictures).hexdigest()
    with tempfile.TemporaryDirectory() as folder, rc_context(STYLE):
        build = Path(folder)
        (build / "report.typ").write_bytes((HERE / "report.typ").read_bytes())
        (build / "results.json").write_text(json.dumps(content, ensure_ascii=False))
        curves(content["studies"]).savefig(build / "curves.svg")
        if content["changes"]:
            forest(content["changes"]).savefig(build / "changes.svg")
        architecture(UNet(), torch.tensor(content["filter"])).savefig(build / "architecture.svg")
        (build / "pictures.png").write_bytes(pictures)
        pdf = typst.compile(build / "report.typ")
    with atomic_write(out) as file:
        file.write(pdf)
    write_tables(results, pages)
    print(out.resolve())


def _studies(results: Path) -> Iterator[tuple[str, dict[str, Runs]]]:
    """Each study that is shown, with the runs of each of its settings, in the order of its table."""
    for name, table in STUDIES.items():
        if settings := shown_runs(results, name):
            yield name, settings
        elif name not in OPTIONAL:
            raise ValueError(
                f"{results / name}.jsonl holds no runs of the same pairs, epochs and seed for all of: "
                f"{', '.join(table)}; make them: python -m Miniproject_1 study {name} --data DATA"
            )


def _content(results: Path, studies: dict[str, dict[str, Runs]]) -> dict[str, Any]:
    """All that `report.typ` reads."""
    others = {"slower": "without_bfloat16", "amx": "with_amx", "slower_amx": "with_slower_amx"}
    photographs = load_model(PHOTOGRAPHS, "cpu").network
    weights = [json.loads(line) for line in _whole(results / "weights.jsonl").decode().splitlines()]
    content = {name: _json(results / f"{name}.json") for name in ("noises", "published", "cbsd68", "shots")}
    return content | {
        "bench": _if_there(results / "bench.json"),
        **{name: _if_there(results / f"bench_{kind}.json") for name, kind in others.items()},
        "weights": [{"targets": "", "former_hours": 0} | run for run in weights],
        "published_photographs": PUBLISHED,
        "network": _shape(UNet()),
        "bestmodel": _shape(load_model(device="cpu").network),
        "photographs": _shape(photographs),
        "filter": _filter(photographs).tolist(),
        "set": SET,
        "studies": {
            name: {SPOKEN.get(label, label): _summary(runs) for label, runs in settings.items()}
            for name, settings in studies.items()
        },
        "claims": [judged(claim, studies[claim.study]) for claim in CLAIMS],
        "steps": _steps(studies["path"], last="batches of 32"),
        "parts": _parts(studies["parts"]) if "parts" in studies else {},
        "changes": _changes(studies["changes"]) if "changes" in studies else [],
        "differences": _differences(studies),
        "equal_updates": [_equal_updates(studies["batch_size"], *each) for each in ((50, 100), (100, 200))],
        "less_stable": _less_stable(studies["initialisation"]),
        "least_ratio": least_ratio(len(studies["initialisation"]["Xavier"])),
    }


def _if_there(path: Path) -> Any:
    return _json(path) if path.exists() else None


def _steps(settings: dict[str, Runs], last: str = "") -> list[dict[str, Any]]:
    """What each setting is above the one before it, up to `last`."""
    names = list(settings)
    names = names[: names.index(last) + 1] if last else names
    return [{"name": name, **between(settings[name], settings[before])} for before, name in pairwise(names)]


def _parts(settings: dict[str, Runs]) -> dict[str, list[dict[str, Any]]]:
    """Of each step of the path that `settings` take apart, what its parts add."""
    table, labels = list(STUDIES["parts"].values()), list(settings)
    places = [(name, table.index(setting)) for name, setting in STUDIES["path"].items() if setting in table]
    return {
        name: _steps({label: settings[label] for label in labels[start : end + 1]})
        for (_, start), (name, end) in pairwise(places)
        if end > start + 1
    }


def _changes(settings: dict[str, Runs]) -> list[dict[str, Any]]:
    """What each change is above none, from the best to the worst, and how many times the seconds it takes.

    verdict: on the claim that it is better.
    """
    seconds = {label: min(run["seconds"][-1] for run in runs) for label, runs in settings.items()}
    changes = []
    for label, runs in settings.items():
        if label != "none":
            found = between(runs, settings["none"])
            cost = seconds[label] / seconds["none"]
            name = SPOKEN.get(label, label)
            changes.append({"name": name, "cost": cost, "verdict": verdict(found, *ABOVE), **found})
    return sorted(changes, key=lambda change: -change["size"])


def _differences(studies: dict[str, dict[str, Runs]]) -> dict[str, dict[str, Any]]:
    """Those that the text speaks of."""
    path, loss, models = studies["path"], studies["loss"], studies["models"]
    found = {
        "bfloat16": between(path["bfloat16, channels-last"], path["original"]),
        "path": between(path["batches of 32"], path["original"]),
        "later_path": between(path["batches of 32"], path["bfloat16, channels-last"]),
        "clean": between(path["clean targets"], path["logarithmic loss"]),
        "loss": between(loss["L2"], loss["L1"]),
        "models": between(models["this project"], models["U-Net, 5 levels"]),
    }
    if "skewed_loss" in studies:
        found["skewed_loss"] = between(studies["skewed_loss"]["L2"], studies["skewed_loss"]["L1"])
    return {name: {"verdict": verdict(each, *ABOVE), **each} for name, each in found.items()}


def _equal_updates(settings: dict[str, Runs], small: int, large: int) -> dict[str, Any] | None:
    """Batches of two sizes, one twice the other, after the same number of updates: none after one epoch."""
    smaller, larger = settings[str(small)], settings[str(large)]
    epochs = larger[0]["epochs"] // 2
    if not epochs:
        return None
    found = difference(
        [run["psnr"][epochs - 1] for run in smaller], [run["psnr"][2 * epochs - 1] for run in larger]
    )
    return {"small": small, "large": large, "updates": smaller[0]["pairs"] * epochs / small, **found}


def _less_stable(settings: dict[str, Runs]) -> str:
    """Which of Xavier and Kaiming spreads more over the seeds; empty where that does not show."""
    xavier, kaiming = ([run["psnr"][-1] for run in settings[name]] for name in ("Xavier", "Kaiming"))
    if varies_more(xavier, kaiming):
        return "Xavier"
    return "Kaiming" if varies_more(kaiming, xavier) else ""


def _filter(network: UNet) -> Tensor:
    """Of the first convolution's stored filters, what turning changes most for its size: 3×3, mean colour."""
    filters = network.head.weight.detach().mean(1)
    orientations = torch.stack([dihedral(filters, way) for way in range(SYMMETRIES)])
    return filters[(orientations.var(0).sum((1, 2)) / filters.square().sum((1, 2))).argmax()]


def _whole(path: Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    return path.read_bytes()


def _json(path: Path) -> Any:
    return json.loads(_whole(path))


def _shape(network: UNet) -> dict[str, Any]:
    """What the report says of a network."""
    return network.shape | {"parameters": sum(each.numel() for each in network.parameters())}


def _summary(runs: Runs) -> dict[str, Any]:
    """A setting's PSNR over seeds, after each epoch, and what it cost.

    Seconds and machine are those of the fastest run: what else a machine does only ever adds to them.
    """
    epochs = [
        {"mean": statistics.mean(scores), "deviation": deviation(scores)}
        for scores in zip(*(run["psnr"] for run in runs), strict=True)
    ]
    fastest = min(runs, key=lambda run: run["seconds"][-1])
    return {
        "after": epochs,
        **epochs[-1],
        "finals": sorted(run["psnr"][-1] for run in runs),
        "rotations": statistics.mean(run["psnr_rotations"] for run in runs),
        "seconds": fastest["seconds"][-1],
        "machine": fastest["machine"],
        **{key: runs[0][key] for key in ("parameters", "pairs", "epochs")},
        "seeds": len(runs),
    }


def curves(studies: dict[str, dict[str, dict[str, Any]]]) -> Figure:
    """PSNR against epoch, a panel a question of the original's, all on the same axes.

    A line a setting: the mean over seeds, in a band of their standard deviation.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PAGE, 2.35), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    shown = {name: {label: each["after"] for label, each in studies[name].items()} for name in CURVES}
    means = sorted(each["mean"] for lines in shown.values() for after in lines.values() for each in after)
    # What fails to learn would press all others together: it may leave the panel.
    low, high = means[len(means) // 12], means[-1]
    for axes, (name, title) in zip(panels.flat, CURVES.items(), strict=True):
        for index, (label, after) in enumerate(shown[name].items()):
            below = max(each["mean"] for each in after) < low
            text = label + " (below)" if below else label
            _curve(axes, after, text, index, len(shown[name]), band=not below)
        axes.set_title(title, fontsize=7.5, pad=3)
        axes.spines[["top", "right"]].set_visible(False)
        # Beside the lines, wherever they go, and with strokes long enough to be told apart.
        axes.legend(
            loc="center left",
            bbox_to_anchor=(0.99, 0.5),
            fontsize=6,
            frameon=False,
            handlelength=2.4,
            handletextpad=0.4,
            borderpad=0,
        )
    panels[0, 0].set_ylim(low, high + 0.1 * (high - low))
    panels[0, 0].set_xticks(
        range(1, max(len(after) for lines in shown.values() for after in lines.values()) + 1)
    )
    figure.supxlabel("epoch", fontsize=7.5)
    figure.supylabel("PSNR, dB", fontsize=7.5)
    return figure


def _curve(
    axes: Axes, after: list[dict[str, float]], label: str, index: int, count: int, *, band: bool
) -> None:
    epochs = range(1, len(after) + 1)
    mean, spread = ([each[key] for each in after] for key in ("mean", "deviation"))
    colour = _colour(index, count)
    style: dict[str, Any] = {"linestyle": LINES[index % len(LINES)], "marker": MARKS[index % len(MARKS)]}
    axes.plot(epochs, mean, color=colour, label=label, markersize=2.5, linewidth=1.1, **style)
    if band:
        low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)


def forest(changes: list[dict[str, Any]]) -> Figure:
    """What each change is worth: a point, its 95 % interval and its number."""
    figure, axes = _figure(0.4 + 0.09 * len(changes))
    rows = range(len(changes))
    sizes, limits = ([each[key] for each in changes] for key in ("size", "limit"))
    axes.axvline(0, color="0.6", linewidth=0.8)
    style: dict[str, Any] = {"color": "black", "markersize": 3, "linewidth": 0.9, "capsize": 1.5}
    axes.errorbar(sizes, rows, xerr=limits, fmt="o", **style)
    for row, change in zip(rows, changes, strict=True):
        number = f"{change['size']:+z.2f}".replace("+0.00", "0.00").replace("-", "−")
        axes.text(1.01, row, number, va="center", fontsize=6.5, transform=axes.get_yaxis_transform())
    axes.set_yticks(rows, [each["name"] for each in changes], fontsize=6.5)
    axes.set_ylim(len(changes) - 0.4, -0.6)
    axes.set_xlabel("difference to the unchanged, dB")
    return figure


def architecture(network: UNet, kernel: Tensor) -> Figure:
    """Left the network as boxes, a row a level; right one stored filter and the eight that are made of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PAGE, 0.25 + 0.45 * len(network.down) + 0.45), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    _boxes(left, network)
    _orientations(right, kernel)
    return figure


def _boxes(axes: Axes, network: UNet) -> None:
    """A box a stage with its blocks and channels, from left to right."""
    widths, blocks = network.shape["widths"], network.shape["blocks"]
    bottom = len(widths) - 1
    last = 2 * bottom + 2
    axes.set_axis_off()
    axes.set_xlim(-0.4, last + 0.4)
    axes.set_ylim(-bottom - 0.4, 0.4)
    boxes: dict[int, Any] = {}

    def box(x: int, level: int, text: str, shade: str = "0.88") -> None:
        style = {"boxstyle": "round,pad=0.4", "facecolor": shade, "edgecolor": "black", "linewidth": 0.7}
        boxes[x] = axes.text(x, -level, text, ha="center", va="center", fontsize=6.5, bbox=style)

    def arrow(start: int, end: int, style: str = "-") -> None:
        patches = (boxes[each].get_bbox_patch() for each in (start, end))
        ends = dict(zip(("patchA", "patchB"), patches, strict=True), shrinkA=0, shrinkB=1)
        properties = {"arrowstyle": "->", "linewidth": 0.7, "linestyle": style, **ends}
        tip, tail = (boxes[each].get_position() for each in (end, start))
        axes.annotate("", tip, tail, arrowprops=properties)

    box(0, 0, "3×3", "white")
    box(last, 0, "3×3", "white")
    for level, width in enumerate(widths):
        for place in (1 + level, last - 1 - level):
            box(place, level, f"{blocks}·{width}")
    for place in range(last):
        arrow(place, place + 1)
    for level in range(bottom):
        arrow(1 + level, last - 1 - level, ":")


def _orientations(axes: Axes, kernel: Tensor) -> None:
    """The stored filter, and beside it the rows of its eight orientations."""
    from matplotlib.patches import Rectangle

    axes.set_axis_off()
    axes.set_aspect("equal")
    bound = kernel.abs().max().item()

    def show(picture: Tensor, left: float, bottom: float, side: float) -> None:
        place = (left, left + side, bottom, bottom + side)
        axes.imshow(picture, cmap="gray", vmin=-bound, vmax=bound, extent=place)
        axes.add_patch(Rectangle((left, bottom), side, side, fill=False, linewidth=0.7))

    show(kernel, 0, 0.35, 1.5)
    axes.text(0.75, 0.2, "stored", ha="center", va="top", fontsize=6.5)
    axes.annotate("", (2.4, 1.1), (1.65, 1.1), arrowprops={"arrowstyle": "->", "linewidth": 0.7})
    for way in range(SYMMETRIES):
        row, column = divmod(way, SYMMETRIES // 2)
        show(dihedral(kernel, way), 2.6 + 1.2 * column, 1.2 - 1.2 * row, 1)
    axes.set_xlim(-0.1, 2.6 + 1.2 * (SYMMETRIES // 2))
    axes.set_ylim(-0.1, 2.3)


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _colour(index: int, count: int) -> tuple[float, ...]:
    """Dark to light, so that lines differ in greyscale too."""
    from matplotlib import colormaps

    return colormaps["viridis"](0.75 * index / max(1, count - 1))
