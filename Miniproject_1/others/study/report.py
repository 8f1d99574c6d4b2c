"""`report.pdf`, rebuilt from the committed results: every number and figure in it comes from them."""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...model import BATCH_SIZE, LEARNING_RATE, MUON_FACTOR, SYMMETRIES, WARMUP, UNet, atomic_write
from .runs import ORIGINAL, STUDIES, read_runs
from .statistics import difference, varies_more
from .tables import write_tables

if TYPE_CHECKING:  # matplotlib is imported where figures are
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLUMN = 3.35  # inches: the width of a column of the report
LINES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (6, 1.5)))
MARKS = ("o", "s", "^", "D", "v", "P")
STYLE: dict[Any, Any] = {"font.size": 7.5, "svg.fonttype": "path", "svg.hashsalt": "report"}
OPTIONAL = ("bench", "changes")
BARS = ("path", "changes")  # studies of many settings, whose curves would hide each other
SPOKEN = {  # settings whose names the report says in more words
    "none": "ours, unchanged",
    "Muon × 2.5": f"Muon's rate × 2.5 (ours: {MUON_FACTOR})",
    "Muon × 10": f"Muon's rate × 10 (ours: {MUON_FACTOR})",
    "weights averaged (0.98)": "weights averaged, decay 0.98",
}

Runs = list[dict[str, Any]]


def report(results: Path, out: Path, *, pages: Sequence[Path] = ()) -> None:
    """Write the report as PDF and print where it is. Nothing is trained.

    results: folder with what `study`, `bench`, `robustness` and `demo` have kept, the lines that `pretrain`
        printed, and `published.json`. Without `bench`'s or the study `changes`, which take an hour each, what
        they would say is left out.
    pages: Markdown files, such as README.md, whose tables are written anew.
    Raises `FileNotFoundError` or `ValueError` where some of it is missing, `ModuleNotFoundError` where typst
    or matplotlib is. The PDF's keywords are a hash of the results, by which one that is out of date is known.
    """
    import typst
    from matplotlib import rc_context

    left_out = {name for name in OPTIONAL if not any(results.glob(f"{name}.json*"))}
    studies = {name: _settings(results, name) for name in STUDIES if name not in left_out}
    network = UNet()
    content = {
        "studies": {
            name: _compared({SPOKEN.get(label, label): _summary(runs) for label, runs in settings.items()})
            for name, settings in studies.items()
        },
        **{name: _json(results / f"{name}.json") for name in ("noises", "published")},
        "bench": None if "bench" in left_out else _json(results / "bench.json"),
        "weights": [json.loads(line) for line in _whole(results / "weights.jsonl").decode().splitlines()],
        "network": _shape(network),
        "set": {
            "learning_rate": LEARNING_RATE,
            "muon": MUON_FACTOR,
            "batch_size": BATCH_SIZE,
            "warmup": WARMUP,
            "original_batch_size": ORIGINAL["batch_size"],
        },
    }
    pictures = _whole(results / "pictures.png")
    text = json.dumps(content, ensure_ascii=False).encode()
    content["digest"] = hashlib.sha256(text + pictures).hexdigest()
    with tempfile.TemporaryDirectory() as folder, rc_context(STYLE):
        build = Path(folder)
        (build / "report.typ").write_bytes((HERE / "report.typ").read_bytes())
        (build / "results.json").write_text(json.dumps(content, ensure_ascii=False))
        for name, settings in studies.items():
            figure = bars(_scores(name, content)) if name in BARS else curves(settings)
            figure.savefig(build / f"{name}.svg")
        architecture(network).savefig(build / "architecture.svg")
        (build / "pictures.png").write_bytes(pictures)
        pdf = typst.compile(build / "report.typ")
    with atomic_write(out) as file:
        file.write(pdf)
    write_tables(results, pages)
    print(out.resolve())


def _settings(results: Path, name: str) -> dict[str, Runs]:
    """The runs of each setting of a study, in the order of its table."""
    runs = read_runs(results, name)
    settings = {label: [run for run in runs if run["setting"] == label] for label in STUDIES[name]}
    if missing := [label for label, found in settings.items() if not found]:
        raise ValueError(
            f"{results / name}.jsonl holds no run of: {', '.join(missing)}; "
            f"make them: python -m Miniproject_1 study {name} --data DATA"
        )
    budgets = {(run["pairs"], run["epochs"]) for run in runs}
    seeds = {tuple(sorted(run["seed"] for run in found)) for found in settings.values()}
    if len(budgets) > 1 or len(seeds) > 1:
        raise ValueError(
            f"{results / name}.jsonl: runs of different pairs, epochs or seeds cannot be compared"
        )
    return settings


def _whole(path: Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    return path.read_bytes()


def _json(path: Path) -> Any:
    return json.loads(_whole(path))


def _shape(network: UNet) -> dict[str, Any]:
    """What the report says of a network."""
    widths = [SYMMETRIES * each.out_channels for each in (network.head, *network.down)]
    parameters = sum(each.numel() for each in network.parameters())
    return {"widths": widths, "blocks": len(network.bottom), "parameters": parameters}


def _summary(runs: Runs) -> dict[str, Any]:
    """A setting's PSNR over seeds, after each epoch, and what it cost.

    The seconds are those of the fastest run: what else a machine does only ever adds to them.
    """
    runs = sorted(runs, key=lambda run: run["seed"])  # `each` of two settings are compared seed by seed
    epochs = [
        {"each": list(scores), "mean": statistics.mean(scores), "deviation": _deviation(scores)}
        for scores in zip(*(run["psnr"] for run in runs), strict=True)
    ]
    seconds = [run["seconds"][-1] for run in runs]
    return {
        "after": epochs,
        **epochs[-1],
        "rotations": statistics.mean(run["psnr_rotations"] for run in runs),
        "seconds": min(seconds),
        "slowest": max(seconds),
        **{key: runs[0][key] for key in ("parameters", "pairs", "epochs", "machine")},
        "seeds": len(runs),
    }


def _compared(settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The summaries with their names, and with what may be said of each beside each other one.

    At the end, and after each epoch that both have.
    """
    for label, one in settings.items():
        one["name"] = label
        one.update(_beside(one, settings))
        for epoch, scores in enumerate(one["after"]):
            reached = {
                name: other["after"][epoch] for name, other in settings.items() if epoch < len(other["after"])
            }
            scores.update(_beside(scores, reached))
    return settings


def _beside(one: dict[str, Any], others: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "above": {name: difference(one["each"], other["each"]) for name, other in others.items()},
        "varies_more": {name: varies_more(one["each"], other["each"]) for name, other in others.items()},
    }


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0


def curves(settings: dict[str, Runs]) -> Figure:
    """PSNR against epoch: a line a setting, the mean over seeds, in a band of their standard deviation."""
    figure, axes = _figure(0.84)
    for index, (label, runs) in enumerate(settings.items()):
        after = _summary(runs)["after"]
        epochs = range(1, len(after) + 1)
        mean, spread = ([each[key] for each in after] for key in ("mean", "deviation"))
        colour = _colour(index, len(settings))
        axes.plot(
            epochs,
            mean,
            color=colour,
            linestyle=LINES[index % len(LINES)],
            marker=MARKS[index % len(MARKS)],
            markersize=3,
            linewidth=1.2,
            label=label,
        )
        low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("PSNR, dB")
    axes.locator_params(axis="x", integer=True)
    # Beside the lines, wherever they go, and with strokes long enough to be told apart.
    figure.legend(loc="outside right center", fontsize=6.5, frameon=False, handlelength=3)
    return figure


def _scores(study: str, content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What `bars` shows: changes from the best to the worst; of the path, also where it goes on to."""
    scores = content["studies"][study]
    if study == "changes":
        return dict(sorted(scores.items(), key=lambda item: -item[1]["mean"]))
    own = [run for run in content["weights"] if run["parameters"] == content["network"]["parameters"]]
    runs = {
        f"bestmodel.pth, run {number}": {
            "mean": run["psnr"],
            "deviation": 0,
            "rotations": run["psnr"],  # an equivariant network answers what is turned alike
        }
        for number, run in enumerate(own, 1)
    }
    return scores | runs


def bars(scores: dict[str, dict[str, Any]]) -> Figure:
    """A bar each: the mean PSNR, with the seeds' deviation and what the mean of two answers gives."""
    figure, axes = _figure(0.45 + 0.12 * len(scores))
    means, deviations, rotations = (
        [each[key] for each in scores.values()] for key in ("mean", "deviation", "rotations")
    )
    error = {"linewidth": 0.8, "capsize": 1.5}
    axes.barh(range(len(scores)), means, xerr=deviations, color="0.8", height=0.7, error_kw=error)
    axes.plot(rotations, range(len(scores)), "D", color="black", markersize=2.5)
    low = min(mean - deviation for mean, deviation in zip(means, deviations, strict=True))
    high = max(means + rotations)
    # Room for each bar's number, left of what its seeds spread over.
    axes.set_xlim(low - 0.25 * (high - low) - 0.05, high + 0.05 * (high - low) + 0.02)
    for index, mean in enumerate(means):
        axes.text(axes.get_xlim()[0], index, f" {mean:.2f}", va="center", fontsize=6.5)
    axes.set_yticks(range(len(scores)), list(scores), fontsize=6.5)
    axes.invert_yaxis()
    axes.set_xlabel("validation PSNR in dB")
    return figure


def architecture(network: UNet) -> Figure:
    """The network as boxes: a box a stage with its blocks and channels, a row a level, from left to right."""
    widths, blocks, _ = _shape(network).values()
    bottom = len(widths) - 1
    last = 2 * bottom + 2
    figure, axes = _figure(0.15 + 0.45 * len(widths))
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
    return figure


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
