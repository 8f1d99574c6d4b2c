"""The grader's harness: does a submission keep the contract, and how well does it denoise?

    python test.py [-d DATA] [-p PROJECT]

DATA holds `train_data.pkl` (noisy, noisy) and `val_data.pkl` (noisy, clean) in the course's format;
without it `./data` is used, and made from scikit-image's photographs where it does not exist.
PROJECT is the folder that holds the `Miniproject_1` to be judged; this one, unless said otherwise.
Exits with 0 if everything passed, 1 if a test failed, 2 if the data or the arguments are unusable.
"""

import argparse
import importlib
import sys
import time
import unittest
from pathlib import Path

import torch

try:
    from tqdm import tqdm
except ModuleNotFoundError:
    tqdm = None

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from Miniproject_1.others.course import load_images, write_pairs  # noqa: E402
from Miniproject_1.others.metrics import psnr  # noqa: E402
from Miniproject_1.others.photographs import embedded_photographs  # noqa: E402

SECONDS_AN_EPOCH = 300  # the course's limit, for 50,000 pairs on a CPU
PAIRS_AN_EPOCH = 50_000
GAIN = 3  # dB by which the pretrained model must beat its input
SPOILT = 0.5  # dB that an epoch may cost the pretrained model, at most
ROWS = NOISY, PRETRAINED, PRETRAINED_AFTER, NEW_AFTER = (
    "noisy input",
    "pretrained",
    "pretrained, after one epoch",
    "new model, after one epoch",
)


class Contract(unittest.TestCase):
    """Each test stands for a sentence of the assignment; `main` sets the class's attributes."""

    project: Path
    train_data: tuple[torch.Tensor, torch.Tensor]
    val_data: tuple[torch.Tensor, torch.Tensor]
    results: dict[str, tuple[float, float | None]]  # row of the table -> PSNR, seconds of training

    def setUp(self) -> None:
        torch.manual_seed(0)

    def model(self, pretrained: bool):
        """A fresh `Model` of the project under test."""
        module = importlib.import_module("Miniproject_1.model")
        place = Path(str(module.__file__)).resolve()
        self.assertTrue(place.is_relative_to(self.project), f"{place} is not PROJECT's")
        model = module.Model()
        if pretrained:
            model.load_pretrained_model()
        return model

    def predict(self, model, images: torch.Tensor) -> torch.Tensor:
        """`model.predict`, its output checked."""
        output = model.predict(images.to(torch.float32))
        self.assertIsInstance(output, torch.Tensor, "predict must return a tensor")
        self.assertEqual(output.shape, images.shape, "predict must keep the shape of its input")
        self.assertTrue(output.isfinite().all(), "predict returned NaN or infinity")
        low, high = output.min().item(), output.max().item()
        self.assertTrue(low >= 0 and high <= 255, f"output in [{low:.4g}, {high:.4g}], not [0, 255]")
        return output.cpu()

    def val_psnr(self, model) -> float:
        """Mean PSNR in dB of the model on the validation images, in minibatches of 100."""
        noisy, clean = self.val_data
        batches = list(zip(noisy.split(100), clean.split(100), strict=True))
        scores = [
            psnr(self.predict(model, batch), target)
            for batch, target in (tqdm(batches, "predicting", leave=False) if tqdm else batches)
        ]
        return torch.cat(scores).mean().item()

    def test_1_folder_structure(self) -> None:
        package = self.project / "Miniproject_1"
        for name in ("__init__.py", "model.py"):
            self.assertTrue((package / name).is_file(), f"{package / name} is missing")
        if not (package / "bestmodel.pth").is_file():
            warn(f"{package / 'bestmodel.pth'} is missing")
        if not [*self.project.glob("*.pdf"), *package.glob("*.pdf")]:
            warn(f"no report: {self.project / 'report.pdf'} is missing")

    def test_2_model_instantiates(self) -> None:
        self.model(pretrained=False)

    def train_an_epoch(self, model, row: str) -> float:
        """Train for one epoch, score, and add both to the table; the PSNR in dB."""
        noisy_a, noisy_b = self.train_data
        start = time.perf_counter()
        model.train(noisy_a, noisy_b, 1)
        seconds = time.perf_counter() - start
        score = self.val_psnr(model)
        self.results[row] = score, seconds
        return score

    def test_3_shape_and_range(self) -> None:
        output = self.predict(self.model(pretrained=False), 255 * torch.rand(1, 3, 512, 512))
        if output.max() <= 1:
            warn(f"the output looks like [0, 1]: its maximum is {output.max():.3f}; [0, 255] is expected")

    def test_4_pretrained(self) -> None:
        noisy = psnr(*self.val_data).mean().item()
        score = self.val_psnr(self.model(pretrained=True))
        self.results[NOISY], self.results[PRETRAINED] = (noisy, None), (score, None)
        self.assertGreaterEqual(score, noisy + GAIN, f"must beat its input by {GAIN} dB")

    def test_5_pretrained_after_an_epoch(self) -> None:
        model = self.model(pretrained=True)
        before = self.val_psnr(model)
        score = self.train_an_epoch(model, PRETRAINED_AFTER)
        self.assertGreater(score, before - SPOILT, "an epoch of training must not spoil the pretrained model")

    def test_6_new_model_after_an_epoch(self) -> None:
        score = self.train_an_epoch(self.model(pretrained=False), NEW_AFTER)
        noisy = psnr(*self.val_data).mean().item()
        self.assertGreater(score, noisy, "one epoch of training must beat the noisy input")


def warn(message: str) -> None:
    print(f"WARNING: {message}", flush=True)


def print_table(
    project: str, results: dict[str, tuple[float, float | None]], pairs: int, images: int
) -> None:
    """PSNR on so many images, and what an epoch takes, from training on so many pairs."""
    lines = []
    for row in ROWS:
        score, seconds = results.get(row, (None, None))
        line = f"  {row:28s} {'       -' if score is None else f'{score:5.2f} dB'}"
        if seconds is not None:
            epoch = seconds * PAIRS_AN_EPOCH / pairs
            line += f"   {epoch:7.1f} (the course allows {SECONDS_AN_EPOCH})"
            if epoch > SECONDS_AN_EPOCH:
                warn(
                    f"{row}: {epoch:.0f} s for {PAIRS_AN_EPOCH:,} pairs here, {SECONDS_AN_EPOCH} are allowed"
                )
        lines.append(line)
    rate = "" if pairs == PAIRS_AN_EPOCH else f", at the rate of {pairs:,}"
    print(f"\n{project}, {images:,} validation images, PyTorch {torch.__version__}")
    print(f"  {'':28s}     PSNR   seconds for {PAIRS_AN_EPOCH:,} pairs{rate}", *lines, sep="\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", "--data", type=Path, help="folder with train_data.pkl and val_data.pkl")
    parser.add_argument("-p", "--project", type=Path, default=HERE, help="folder with Miniproject_1")
    arguments = parser.parse_args()
    data, project = arguments.data or Path("data"), arguments.project.resolve()
    try:
        if arguments.data is None and not data.exists():
            print(f"making {data.resolve()} from scikit-image's photographs", flush=True)
            partial = Path("data.partial")  # so that ./data is whole or not there
            write_pairs(embedded_photographs(), partial, pairs=2_000, val=100)
            partial.rename(data)
        Contract.train_data = load_images(data / "train_data.pkl")
        Contract.val_data = load_images(data / "val_data.pkl")
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"test.py: {error}", file=sys.stderr)
        return 2
    if not project.is_dir():
        print(f"test.py: PROJECT: {project} is not a folder", file=sys.stderr)
        return 2
    if project != HERE:  # the package just imported has the same name as the one to be judged
        for name in [name for name in sys.modules if name.partition(".")[0] == "Miniproject_1"]:
            del sys.modules[name]
        sys.path.insert(0, str(project))
    Contract.project, Contract.results = project, {}
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Contract)
    outcome = unittest.TextTestRunner(verbosity=2).run(suite)
    print_table(project.name, Contract.results, len(Contract.train_data[0]), len(Contract.val_data[0]))
    return 0 if outcome.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
