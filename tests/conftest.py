"""What the tests share: a small data set of real photographs, and a fast way to run a command."""

import os
import signal
import subprocess
import sys
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from Miniproject_1 import Model
from Miniproject_1.__main__ import main
from Miniproject_1.others.course import load_images, write_pairs
from Miniproject_1.others.machine import PHOTOGRAPHS
from Miniproject_1.others.photographs import embedded_photographs

ROOT = Path(__file__).resolve().parents[1]

# A shell's background jobs ignore Ctrl-C, and so would the tests that run in one, and what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder in the course's format, made from scikit-image's photographs."""
    folder = tmp_path_factory.mktemp("data")
    write_pairs(embedded_photographs(), folder, pairs=1_280, val=64)
    return folder


@pytest.fixture(scope="session")
def train_data(data):
    return load_images(data / "train_data.pkl")


@pytest.fixture(scope="session")
def val_data(data):
    return load_images(data / "val_data.pkl")


@pytest.fixture
def pretrained():
    model = Model()
    model.load_pretrained_model()
    return model


@pytest.fixture
def photo_model():
    model = Model()
    model.load(PHOTOGRAPHS)
    return model


@pytest.fixture
def canary(tmp_path):
    """A pickled object that would make a file if it were unpickled without care, and that file."""
    path = tmp_path / "canary"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (path,)

    return Hostile(), path


@pytest.fixture
def run_here(monkeypatch, capsys):
    """A command in this process, where starting one is not what is tested: exit code, what it told."""

    monkeypatch.setattr(tqdm, "__init__", tqdm.__init__)  # --quiet replaces it

    def run_here(*arguments):
        monkeypatch.setattr("sys.argv", ["Miniproject_1", *map(str, arguments)])
        return main(), capsys.readouterr()

    return run_here


@contextmanager
def closed(path):
    """Within, the file of this path may not be read: not even by root, who is another user there."""
    path.chmod(0)
    path.parent.chmod(0o755)
    user = os.geteuid()
    with chdir(path.parent):  # the folders above it are closed to others
        os.seteuid(user or 65_534)
        try:
            yield Path(path.name)
        finally:
            os.seteuid(user)


def run(*arguments, cwd=ROOT):
    """Run Python in a process of its own; returns what it printed and its exit code."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def start(*arguments, **options):
    """Python in a process of its own that is still at work; its output comes through pipes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, **(pipes | options))


def stop_after_an_epoch(process, number=signal.SIGTERM):
    """Send the signal to a `train` command once it has told an epoch; what it had to say on stderr."""
    next(line for line in process.stdout if line.startswith("epoch"))
    process.send_signal(number)
    return process.communicate(timeout=120)[1]


def same_weights(model: torch.nn.Module, state: dict) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
