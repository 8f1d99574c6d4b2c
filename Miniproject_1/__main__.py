"""The commands: `python -m Miniproject_1 COMMAND --help`."""

import argparse
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "others" / "study" / "results"
DATA_HELP = "folder with the course's train_data.pkl and val_data.pkl"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m Miniproject_1", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    pairs = commands.add_parser("pairs", help="photographs -> noisy pairs in the course's format")
    pairs.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of JPEG, PNG, WebP files")
    pairs.add_argument("out", metavar="OUT", type=Path, help="folder for the two .pkl files")
    pairs.add_argument("--pairs", type=int, default=50_000, help="noisy pairs (default %(default)s)")
    pairs.add_argument(
        "--val",
        type=int,
        default=1_000,
        help="validation images (default %(default)s); 0: train on all, write no val_data.pkl",
    )
    pairs.add_argument("--seed", type=int, default=0, help="default %(default)s")
    pairs.add_argument(
        "--shots",
        type=int,
        default=1,
        help="noisy pictures whose mean is a pair's second one, for pretrain (default %(default)s)",
    )
    pairs.add_argument(
        "--other-noises",
        type=float,
        default=0,
        metavar="SHARE",
        help="pairs whose first picture has another noise, for pretrain (default %(default)s)",
    )
    pairs.add_argument(
        "--oracle", action="store_true", help="also write oracle_data.pkl, noisy and clean, for the study"
    )

    pretrain = commands.add_parser("pretrain", help="make bestmodel.pth again")
    pretrain.add_argument("data", metavar="DATA", type=Path, help=DATA_HELP)
    pretrain.add_argument("--epochs", type=int, default=5, help="default %(default)s")
    pretrain.add_argument("--seed", type=int, default=0, help="default %(default)s")
    pretrain.add_argument("--learning-rate", type=float, default=2e-3, help="default %(default)s")
    pretrain.add_argument(
        "--widths", type=int, nargs="+", default=[48, 96, 192], help="of the levels (default 48 96 192)"
    )
    pretrain.add_argument("--blocks", type=int, default=2, help="a level and side (default %(default)s)")
    pretrain.add_argument(
        "--start", type=Path, metavar="WEIGHTS", help="go on from these, of as many blocks or fewer"
    )
    pretrain.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("bestmodel.pth"),
        help="file for the weights (default %(default)s)",
    )

    train = commands.add_parser("train", help="train from scratch; can be stopped and gone on with")
    train.add_argument("data", metavar="DATA", type=Path, help="folder of train_data*.pkl, or one such file")
    train.add_argument("--out", metavar="FILE", type=Path, required=True, help="for the model")
    train.add_argument("--epochs", type=int, default=5, help="default %(default)s")
    train.add_argument("--seed", type=int, default=0, help="default %(default)s")
    train.add_argument("--learning-rate", type=float, default=2e-3, help="default %(default)s")
    train.add_argument("--resume", action="store_true", help="go on with FILE")

    evaluate = commands.add_parser("evaluate", help="PSNR under the course's noise and others")
    evaluate.add_argument("data", metavar="DATA", type=Path, help="folder with the course's val_data.pkl")
    evaluate.add_argument(
        "--photos",
        type=Path,
        help="photographs for blocks of other sizes: of these, what `pairs` with the same --val and --seed "
        "holds out",
    )
    evaluate.add_argument("--val", type=int, default=300, help="photographs held out (default %(default)s)")
    evaluate.add_argument("--seed", type=int, default=0, help="default %(default)s")
    evaluate.add_argument("--out", type=Path, help="file for the numbers, as JSON")

    demo = commands.add_parser("demo", help="a before/after picture of real photographs")
    demo.add_argument("--out", type=Path, default=Path("demo.png"), help="PNG (default %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="of the noise (default %(default)s)")

    bench = commands.add_parser("bench", help="speed and memory on this machine")
    bench.add_argument("data", metavar="DATA", type=Path, help=DATA_HELP)
    bench.add_argument("--out", type=Path, default=Path("bench.json"), help="default %(default)s")

    study = commands.add_parser("study", help="compare networks and settings; goes on where it stopped")
    study.add_argument("names", metavar="NAME", nargs="*", help="see runs.py (default all)")
    study.add_argument("--data", metavar="DATA", type=Path, required=True, help=DATA_HELP)
    study.add_argument("--pairs", type=int, default=50_000, help="of DATA's (default %(default)s)")
    study.add_argument("--epochs", type=int, default=1, help="default %(default)s")
    study.add_argument("--seeds", type=int, default=3, help="runs of each setting (default %(default)s)")
    study.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="folder of the .jsonl files (default %(default)s)",
    )

    report = commands.add_parser("report", help="report.pdf from the kept results; trains nothing")
    report.add_argument("--results", type=Path, default=RESULTS, help="folder (default %(default)s)")
    report.add_argument("--out", type=Path, default=Path("report.pdf"), help="PDF (default %(default)s)")

    arguments = parser.parse_args()
    try:
        # Imported late: each command needs only its own libraries.
        if arguments.command == "pairs":
            from .others.pairs import find_photographs, write_pairs

            photographs = find_photographs(arguments.photos)
            written = write_pairs(
                photographs,
                arguments.out,
                pairs=arguments.pairs,
                val=arguments.val,
                seed=arguments.seed,
                shots=arguments.shots,
                other_noises=arguments.other_noises,
                oracle=arguments.oracle,
            )
            print(written.summary())
        elif arguments.command == "pretrain":
            from .others.pretrain import pretrain

            pretrain(
                arguments.data,
                arguments.out,
                epochs=arguments.epochs,
                seed=arguments.seed,
                learning_rate=arguments.learning_rate,
                widths=arguments.widths,
                blocks=arguments.blocks,
                start=arguments.start,
            )
        elif arguments.command == "train":
            from .others.train import train

            train(
                arguments.data,
                arguments.out,
                epochs=arguments.epochs,
                seed=arguments.seed,
                learning_rate=arguments.learning_rate,
                resume=arguments.resume,
            )
        elif arguments.command == "evaluate":
            from .others.evaluate import evaluate
            from .others.pairs import find_photographs, split_photographs

            photographs = []
            if arguments.photos:
                found = find_photographs(arguments.photos)
                photographs = split_photographs(found, val=arguments.val, seed=arguments.seed)[1]
            evaluate(arguments.data, photographs, arguments.out, seed=arguments.seed)
        elif arguments.command == "demo":
            from .others.demo import demo

            demo(arguments.out, seed=arguments.seed)
            print(arguments.out.resolve())
        elif arguments.command == "bench":
            from .others.bench import bench

            bench(arguments.data, arguments.out)
        elif arguments.command == "study":
            from .others.study.runs import STUDIES, study

            study(
                arguments.names or list(STUDIES),
                arguments.data,
                pairs=arguments.pairs,
                epochs=arguments.epochs,
                seeds=arguments.seeds,
                results=arguments.results,
            )
        elif arguments.command == "report":
            from .others.study.report import report as write_report

            write_report(arguments.results, arguments.out)
            print(arguments.out.resolve())
    except (OSError, ValueError, ArithmeticError, ModuleNotFoundError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
