"""The commands: `python -m Miniproject_1 COMMAND --help`."""

import argparse
import atexit
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from functools import partialmethod
from pathlib import Path
from pkgutil import resolve_name

from .others.console import INTERRUPTED, consoles, quick_exit

RESULTS = Path(__file__).parent / "others" / "study" / "results"
Command = Callable[[str, str, str, str], argparse.ArgumentParser]
DATA_HELP = "folder with the course's train_data.pkl and val_data.pkl"


def main() -> int:
    with consoles():
        status = _run()
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # all is done and printed
    return status


def _run() -> int:
    try:
        with quick_exit():
            options = vars(_parser().parse_args())
            run, quiet, debug = (options.pop(name) for name in ("run", "quiet", "debug"))
            command = resolve_name(f"{__package__}.{run}")
            tqdm = resolve_name(f"{__package__}.model:tqdm")
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere) if quiet else nullcontext():
            if quiet and tqdm:  # TQDM_DISABLE would come too late: it was read when this package was imported
                tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
            command(**options)
    except (OSError, ValueError, ArithmeticError, MemoryError, RuntimeError, ModuleNotFoundError) as error:
        if debug:
            raise
        remedy = "; python -m pip install '.[bench,denoise,page,report]' brings all that a command can need"
        missing = isinstance(error, ModuleNotFoundError) and error.name
        text = str(error) or type(error).__name__
        print(f"python -m Miniproject_1: {text}{remedy if missing else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(INTERRUPTED, *interrupt.args, sep="; ", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m Miniproject_1", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="print nothing but errors and warnings")
    common.add_argument("--debug", action="store_true", help="show where in the code an error came from")

    def command(name: str, run: str, text: str, example: str) -> argparse.ArgumentParser:
        """run: MODULE:FUNCTION, given the options; imported only then, as each needs libraries of its own."""
        example = f"example: python -m Miniproject_1 {name} {example}"
        parser = commands.add_parser(name, parents=[common], help=text, description=text, epilog=example)
        parser.set_defaults(run=run)
        return parser

    pictures = (_denoise, _page, _train, _evaluate, _shots, _demo)
    course = (_pairs, _pretrain, _distill, _deepen, _untie, _robustness, _cbsd68)
    study = (_bench, _study, _report)
    for add in (*pictures, *course, *study):
        add(command)
    return parser


def _denoise(command: Command) -> None:
    parser = command(
        "denoise", "others.denoise:denoise", "denoise picture files", "holiday/*.jpg -o denoised"
    )
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="picture files, folders of them, or patterns"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="folder, or the file's name where INPUT is one file (default: NAME.denoised.EXT beside each)",
    )
    parser.add_argument(
        "--burst",
        action="store_true",
        help="the INPUTs are shots of one scene: OUTPUT is the mean of their answers",
    )
    parser.add_argument(
        "--strength", type=float, default=1, help="how much of the noise goes, 0 to 1 (default 1)"
    )
    parser.add_argument(
        "--compare", action="store_true", help="also write both, side by side, to NAME.compare.png"
    )
    parser.add_argument(
        "--clean", metavar="REF", type=Path, help="clean picture or folder of such: print PSNR, SSIM"
    )
    parser.add_argument(
        "--large", action="store_true", help="also pictures of more than 89 million pixels; bombs too"
    )
    standing = parser.add_mutually_exclusive_group()
    standing.add_argument("--force", action="store_true", help="overwrite")
    standing.add_argument(
        "--skip-existing", action="store_true", help="go on with a batch: leave out what is there already"
    )
    _add_model(parser, "photographs.pth")


def _page(command: Command) -> None:
    parser = command("page", "others.page:page", "a page in the browser to try it on", "--device cpu")
    _add_device(parser)


def _train(command: Command) -> None:
    parser = command(
        "train",
        "others.train:train",
        "train on noisy pairs; can be stopped and gone on with",
        "first_shots second_shots -o model.pth",
    )
    _add_training(parser)


def _evaluate(command: Command) -> None:
    parser = command(
        "evaluate",
        "others.evaluate:evaluate",
        "PSNR and SSIM beside those of scikit-image's denoisers and BM3D",
        "data",
    )
    parser.add_argument(
        "data", metavar="DATA", type=Path, help="val_data.pkl as pairs and shots write it, or its folder"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("evaluate.png"), help="worst and best pictures (default %(default)s)"
    )
    parser.add_argument("--numbers", metavar="FILE", type=Path, help="for the means, as JSON")
    _add_model(parser, "bestmodel.pth")


def _shots(command: Command) -> None:
    parser = command(
        "shots",
        "others.shots:write_shots",
        "photographs -> two noisy shots of each, to try train on",
        "shots --sigma 25",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for first, second and val_data.pkl")
    parser.add_argument("--photos", type=Path, help="folder of photographs (default: scikit-image's)")
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument("--sigma", type=float, default=25, help="of Gaussian noise (default %(default)s)")
    noise.add_argument("--counts", type=float, help="Poisson noise instead, with so many counts at white")
    parser.add_argument("--seed", type=_whole_number(0), default=0, help="default %(default)s")


def _demo(command: Command) -> None:
    parser = command(
        "demo", "others.demo:demo", "a before/after picture of real photographs", "--out demo.png"
    )
    parser.add_argument("--out", type=Path, default=Path("demo.png"), help="PNG (default %(default)s)")
    parser.add_argument("--size", type=_whole_number(1), help="of the pictures, then more of them, in pixels")
    parser.add_argument("--seed", type=_whole_number(0), default=0, help="of the noise (default %(default)s)")


def _pairs(command: Command) -> None:
    parser = command(
        "pairs", "others.course:pairs", "photographs -> noisy pairs in the course's format", "photos data"
    )
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of JPEG, PNG, WebP files")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the two .pkl files")
    parser.add_argument("--pairs", type=int, default=50_000, help="noisy pairs (default %(default)s)")
    parser.add_argument(
        "--val",
        type=int,
        default=1_000,
        help="validation images (default %(default)s); 0: train on all, write no val_data.pkl",
    )
    parser.add_argument("--seed", type=_whole_number(0), default=0, help="default %(default)s")
    parser.add_argument(
        "--crop",
        type=int,
        metavar="SIZE",
        help="parts of the photographs: SIZE×SIZE blocks of the course's 8×8 pixels (default: the whole)",
    )
    parser.add_argument(
        "--shots",
        type=int,
        default=1,
        help="noisy pictures whose mean is a pair's second one, for pretrain (default %(default)s)",
    )
    parser.add_argument(
        "--other-noises",
        type=float,
        default=0,
        metavar="SHARE",
        help="of the pairs, 0 to 1, whose first picture has another noise; for pretrain (default 0)",
    )
    parser.add_argument(
        "--oracle", action="store_true", help="also write oracle_data.pkl, noisy and clean, for the study"
    )


def _pretrain(command: Command) -> None:
    parser = command(
        "pretrain",
        "others.train:train",
        "train as bestmodel.pth was: on pairs of which only the second picture's noise must have zero mean",
        "data -o weights.pth",
    )
    parser.set_defaults(swap=False)
    _add_training(parser)
    parser.add_argument(
        "--floor",
        type=float,
        default=argparse.SUPPRESS,
        help="of the PSNR loss: less where the targets have hardly any noise (default 1e-4)",
    )
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="DATA is a folder of photographs; both shots of each are simulated, under noise of many kinds",
    )


def _distill(command: Command) -> None:
    parser = command(
        "distill",
        "others.study.distill:distill",
        "a larger network's answers as targets, for pretrain",
        "data distilled --teacher teacher.pth",
    )
    parser.add_argument(
        "data", metavar="DATA", type=Path, help="folder with a train_data.pkl of noisy pictures and targets"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the train_data_*.pkl")
    parser.add_argument("--teacher", type=Path, required=True, help="weights of a network of ten blocks")
    parser.add_argument(
        "--tune",
        type=_whole_number(1),
        default=0,
        metavar="PAIRS",
        help="first fine-tune it on so many of DATA's pairs, and write OUT/teacher.pth",
    )
    _add_device(parser)


def _deepen(command: Command) -> None:
    text = "a network of one level more that answers as another does, for pretrain"
    _add_growth(command("deepen", "others.study.grow:deepen", text, "weights.pth deeper.pth"))


def _untie(command: Command) -> None:
    text = "a network with a filter for each channel that answers as another does, for pretrain"
    _add_growth(command("untie", "others.study.grow:untie", text, "weights.pth untied.pth"))


def _add_growth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", metavar="WEIGHTS", type=Path, help="weights, as train writes them")
    parser.add_argument("out", metavar="OUT", type=Path, help="file for those of the larger network")


def _robustness(command: Command) -> None:
    parser = command(
        "robustness",
        "others.robustness:robustness",
        "PSNR under the course's noise and others",
        "data --photos photos",
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with the course's val_data.pkl")
    parser.add_argument(
        "--photos",
        type=Path,
        help="photographs for blocks of other sizes: of these, what `pairs` with the same --val and --seed "
        "holds out",
    )
    parser.add_argument("--val", type=int, default=300, help="photographs held out (default %(default)s)")
    parser.add_argument("--seed", type=_whole_number(0), default=0, help="default %(default)s")
    parser.add_argument("--out", type=Path, help="file for the numbers, as JSON")
    _add_model(parser, "bestmodel.pth")


def _cbsd68(command: Command) -> None:
    parser = command(
        "cbsd68",
        "others.study.cbsd68:cbsd68",
        "PSNR on full-size photographs under Gaussian noise, as published, beside BM3D",
        "CBSD68 --out cbsd68.json",
    )
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of CBSD68's originals")
    parser.add_argument("--out", type=Path, default=Path("cbsd68.json"), help="default %(default)s")
    parser.add_argument("--bm3d", action="store_true", help="also measure BM3D, which takes minutes")
    _add_model(parser, "photographs.pth")


def _bench(command: Command) -> None:
    parser = command(
        "bench", "others.study.bench:bench", "speed and memory on this machine", "data --out bench.json"
    )
    parser.add_argument("data", metavar="DATA", type=Path, help=DATA_HELP)
    parser.add_argument(
        "parts",
        metavar="PART",
        nargs="*",
        help="training, prediction, photographs, scenes, epoch, busy, target, memory (default: all)",
    )
    parser.add_argument("--out", type=Path, default=Path("bench.json"), help="default %(default)s")
    parser.add_argument(
        "--epochs",
        type=_whole_number(0),
        default=10,
        help="after which the original way is stopped; 0: what is kept of it stays (default %(default)s)",
    )


def _study(command: Command) -> None:
    parser = command(
        "study",
        "others.study.runs:study",
        "compare networks and settings; goes on where it stopped",
        "path --data data --epochs 5 --seeds 5",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="see runs.py (default all)")
    parser.add_argument("--data", metavar="DATA", type=Path, required=True, help=DATA_HELP)
    parser.add_argument("--pairs", type=int, default=50_000, help="of DATA's (default %(default)s)")
    parser.add_argument("--epochs", type=_whole_number(1), default=1, help="default %(default)s")
    parser.add_argument(
        "--seeds", type=_whole_number(1), default=3, help="runs of each setting (default %(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of the .jsonl files (default %(default)s)"
    )


def _report(command: Command) -> None:
    parser = command(
        "report",
        "others.study.report:report",
        "report.pdf, and tables, from the kept results; trains nothing",
        "--out report.pdf",
    )
    parser.add_argument(
        "--pages", type=Path, nargs="*", default=[], help="Markdown files whose tables are written anew"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("report.pdf"), help="PDF (default %(default)s)")


def _whole_number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**63:
            raise argparse.ArgumentTypeError(f"expected a whole number, {least} or more, got {text}")
        return int(text)

    return parse


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA",
        type=Path,
        nargs="+",
        help="two folders of pictures or more that match by name, each with a shot of each scene (files of "
        "several planes: a scene a plane); or one with a folder for each scene, or with its shots named x_1, "
        "x_2, or with a file for each scene whose planes are the shots (stacks, animations, N×H×W arrays); "
        "or one of train_data*.pkl, or such a file",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        type=Path,
        required=True,
        help="for the model; the curve goes beside it",
    )
    parser.add_argument("--epochs", type=_whole_number(1), default=3, help="default %(default)s")
    parser.add_argument("--seed", type=_whole_number(0), default=0, help="default %(default)s")
    parser.add_argument(
        "--batch-size",
        type=_whole_number(1),
        default=argparse.SUPPRESS,
        help="over all processes (default: as in Model.train)",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        help="default 2e-3; from other weights 4e-5 for pairs and 5e-4 for pictures, and 0.4 or 0.25 "
        "of those weights is kept",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="WEIGHTS",
        help="go on from these; none: a new network (default: photographs.pth for pictures, else none)",
    )
    parser.add_argument(
        "--patience",
        type=_whole_number(1),
        metavar="EPOCHS",
        help="stop after so many without a better score on what is kept back, with the best one's weights",
    )
    parser.add_argument("--resume", action="store_true", help="go on with FILE, of this training")
    _add_device(parser)


def _add_model(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--weights", type=Path, help=f"what train wrote (default: {default})")
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")


if __name__ == "__main__":
    sys.exit(main())
