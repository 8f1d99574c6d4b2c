"""`python test.py` passes what keeps the contract and fails what does not."""

import re
import runpy
import shutil

import pytest
import torch
from conftest import ROOT, run

# Each faulty submission is the real one with the fault in place of a method, so that nothing but the fault
# can be what fails; with nothing replaced it passes. What a fault does not need is left out for its seconds:
# training, where it is predict's; the network's answer to the one large picture, where it is train's.
GOOD = "from Miniproject_1_real.model import Model as Real\n\nclass Model(Real):\n"
PREDICT = "    def train(self, a, b, epochs):\n        pass\n    def predict(self, x):\n        return "
TRAIN = (
    "    def predict(self, x):\n        return super().predict(x) if len(x) > 1 else x\n"
    "    def train(self, a, b, epochs):\n        "
)
LOSE = "        [weight.data.mul_(0.9) for weight in self.network.parameters()]\n"
BAD = {  # what replaces the method, the tests that must fail, and a pattern of what each must say
    "wrong shape": (PREDICT + "x[:, :, 1:]\n", "3456", "keep the shape"),
    "values out of range": (PREDICT + "x * 2\n", "3456", r"not \[0, 255\]"),
    "nan": (PREDICT + "x * float('nan')\n", "3456", "NaN"),
    "input unchanged": (PREDICT + "x.clone()\n", "46", "must beat (its input by 3 dB|the noisy input)"),
    "diverges": (
        TRAIN + "[weight.data.fill_(float('nan')) for weight in self.network.parameters()]\n",
        "56",
        "NaN",
    ),
    "gets worse": (
        TRAIN + "[weight.data.fill_(9) for weight in self.network.parameters()]\n",
        "56",
        "must (not spoil the pretrained model|beat the noisy input)",
    ),
    "spoils its own pretrained weights": (
        TRAIN + "self.load_pretrained_model()\n" + LOSE,
        "5",
        "must not spoil",
    ),
    "learns nothing": (TRAIN + "pass\n", "6", "must beat the noisy input"),
    "raises": ("    def __init__(self):\n        raise RuntimeError('no')\n", "23456", "RuntimeError: no"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory, train_data, val_data):
    """A part of the data, large enough for an epoch to teach something."""
    folder = tmp_path_factory.mktemp("small")
    torch.save(tuple(part[:512] for part in train_data), folder / "train_data.pkl")
    torch.save(tuple(part[:16] for part in val_data), folder / "val_data.pkl")
    return folder


def project(folder, body):
    """A project whose Model is the real one with `body` in place of some of its methods."""
    shutil.copytree(ROOT / "Miniproject_1", folder / "Miniproject_1_real")
    (folder / "Miniproject_1").mkdir()
    (folder / "Miniproject_1" / "__init__.py").write_text("")
    (folder / "Miniproject_1" / "model.py").write_text(GOOD + body)
    return folder


def test_passes_the_real_submission(data):
    done = run("test.py", "-d", data)
    assert done.returncode == 0, done.stderr
    *_, heading, noisy, pretrained, pretrained_after, new_after = done.stdout.splitlines()
    assert "50,000 pairs, at the rate of 1,280" in heading
    rows = [
        re.fullmatch(r"  (\D+?) +([\d.]+) dB(?: +([\d.]+) \(the course allows 300\))?", row).groups()
        for row in (noisy, pretrained, pretrained_after, new_after)
    ]
    names, scores, seconds = zip(*rows, strict=True)
    assert names == ("noisy input", "pretrained", "pretrained, after one epoch", "new model, after one epoch")
    assert float(scores[0]) < float(scores[3]) < float(scores[1])
    assert float(scores[2]) > float(scores[1]) - 0.1
    assert seconds[:2] == (None, None) and all(float(each) > 0 for each in seconds[2:])
    slow = [name for name, each in zip(names, seconds, strict=True) if each and float(each) > 300]
    assert re.findall(r"WARNING: (.*): \d+ s for 50,000 pairs here", done.stdout) == slow


def test_passes_another_project_and_warns(small, tmp_path):
    done = run("test.py", "-d", small, "-p", project(tmp_path, "    pass\n"))
    assert done.returncode == 0, done.stderr
    assert "WARNING" in done.stdout
    assert "bestmodel.pth is missing" in done.stdout
    assert "no report" in done.stdout


@pytest.mark.parametrize("fault", BAD)
def test_fails_a_model_that_breaks_the_contract(small, tmp_path, fault):
    body, tests, words = BAD[fault]
    done = run("test.py", "-d", small, "-p", project(tmp_path, body))
    assert done.returncode == 1, done.stdout
    assert set(re.findall(r"^(?:FAIL|ERROR): test_(\d)", done.stderr, re.MULTILINE)) == set(tests)
    said = re.findall(r"^\w*Error: .*", done.stderr, re.MULTILINE)
    assert len(said) == len(tests) and all(re.search(words, each) for each in said), said


def test_warns_of_values_in_0_1(small, tmp_path):
    done = run("test.py", "-d", small, "-p", project(tmp_path, PREDICT + "x / 255\n"))
    assert "looks like [0, 1]" in done.stdout
    assert done.returncode == 1


def judge_here(monkeypatch, *arguments):
    """`python test.py` in this process, where it does not come to judging; its exit code."""
    monkeypatch.setattr("sys.argv", ["test.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "test.py"), run_name="__main__")
    return ended.value.code


def test_fails_without_the_package(small, tmp_path, monkeypatch):
    done = run("test.py", "-d", small, "-p", tmp_path)
    assert done.returncode == 1
    assert "is not PROJECT's" in done.stderr, "another Miniproject_1 was judged instead"
    assert judge_here(monkeypatch, "-d", small, "-p", tmp_path / "nowhere") == 2


@pytest.mark.parametrize("damage", ["missing", "truncated", "hostile", "wrong shape"])
def test_unusable_data_ends_with_a_message(small, tmp_path, canary, monkeypatch, capsys, damage):
    hostile, canary_file = canary
    folder = tmp_path / "data"
    shutil.copytree(small, folder)
    path = folder / "val_data.pkl"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        torch.save((hostile, hostile) if damage == "hostile" else torch.zeros(3), path)
    assert judge_here(monkeypatch, "-d", folder) == 2
    told = capsys.readouterr().err
    assert "val_data.pkl" in told and "Traceback" not in told
    assert not canary_file.exists()


def test_makes_its_own_data_where_there_is_none(tmp_path):
    done = run(ROOT / "test.py", "-p", tmp_path, cwd=tmp_path)  # an empty project: only the data count
    assert done.returncode == 1
    assert "Ran 6 tests" in done.stderr
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "train_data.pkl",
        "val_data.pkl",
    ]


def test_says_how_to_install_what_its_own_data_needs(tmp_path):
    script = f"""
import runpy, sys
sys.modules["skimage"] = None
sys.argv = ["test.py"]
runpy.run_path({str(ROOT / "test.py")!r}, run_name="__main__")
"""
    done = run("-c", script, cwd=tmp_path)
    assert done.returncode == 2
    assert "python -m pip install scikit-image" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
