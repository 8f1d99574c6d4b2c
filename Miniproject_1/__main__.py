"""The commands: `python -m Miniproject_1 COMMAND --help`."""

import argparse
import sys
from pathlib import Path

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

    pretrain = commands.add_parser("pretrain", help="make bestmodel.pth again")
    pretrain.add_argument("data", metavar="DATA", type=Path, help=DATA_HELP)
    pretrain.add_argument("--epochs", type=int, default=5, help="default %(default)s")
    pretrain.add_argument("--seed", type=int, default=0, help="default %(default)s")
    pretrain.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("bestmodel.pth"),
        help="file for the weights (default %(default)s)",
    )

    demo = commands.add_parser("demo", help="a before/after picture of real photographs")
    demo.add_argument("--out", type=Path, default=Path("demo.png"), help="PNG (default %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="of the noise (default %(default)s)")

    bench = commands.add_parser("bench", help="speed and memory on this machine")
    bench.add_argument("data", metavar="DATA", type=Path, help=DATA_HELP)

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
            )
            print(written.summary())
        elif arguments.command == "pretrain":
            from .others.pretrain import pretrain

            pretrain(arguments.data, arguments.out, epochs=arguments.epochs, seed=arguments.seed)
        elif arguments.command == "demo":
            from .others.demo import demo

            demo(arguments.out, seed=arguments.seed)
            print(arguments.out.resolve())
        elif arguments.command == "bench":
            from .others.bench import bench

            bench(arguments.data)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
