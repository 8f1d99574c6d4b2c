"""The commands, end to end."""

import json
import os
import re
import signal
import statistics
import time
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from conftest import run, start
from PIL import Image
from skimage.restoration import denoise_tv_chambolle

import Miniproject_1.others.evaluate as evaluate_module
import Miniproject_1.others.sources as sources_module
import Miniproject_1.others.study.bench as bench_module
from Miniproject_1 import Model
from Miniproject_1.__main__ import _parser as parser
from Miniproject_1.model import tqdm
from Miniproject_1.others.console import stop_signals
from Miniproject_1.others.evaluate import evaluate
from Miniproject_1.others.metrics import psnr as psnr_of


def test_demo_writes_the_picture_it_names(tmp_path):
    done = run("-m", "Miniproject_1", "demo", "--out", tmp_path / "picture.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        image.load()
        assert min(image.size) > 500


def test_pretrain_is_train_but_for_pairs_that_never_change_places(train_data, tmp_path, run_here):
    """First pictures at half the light: only what never saw them as targets learns to double it."""
    light = train_data[0][:512].clone()
    torch.save((light // 2, light), tmp_path / "train_data.pkl")
    options = (tmp_path / "train_data.pkl", "--epochs", 2, "--seed", 7)
    scores = {}
    for name in ("train", "pretrain"):
        code, told = run_here(name, *options, "-o", tmp_path / f"{name}.pth")
        assert code == 0 and "'seed': 7" in told.out
        model = Model()
        content = model.load(tmp_path / f"{name}.pth")
        assert content["recipe"].get("swap", True) == (name == "train")
        scores[name] = psnr_of(model.predict(light // 2), light).mean().item()
    assert scores["pretrain"] > scores["train"] + 3
    code, told = run_here("pretrain", *options, "-o", tmp_path / "pretrain.pth", "--resume")
    assert code == 0 and "done" in told.out


def test_bench_measures_both_ways_of_training(train_data, val_data, monkeypatch, run_here, tmp_path):
    for name, pair, number in (("train_data", train_data, 64), ("val_data", val_data, 16)):
        torch.save(tuple(part[:number].clone() for part in pair), tmp_path / f"{name}.pkl")
    monkeypatch.setattr(bench_module, "LARGE", ((1, 3, 40, 50),))
    monkeypatch.setattr(bench_module, "IMAGES", 20)
    monkeypatch.setattr(bench_module, "SIZES", ((40, 50), (60, 50)))
    monkeypatch.setattr(bench_module, "PLANE", 32)
    monkeypatch.setattr(bench_module, "SCENE", 64)
    monkeypatch.setattr(sources_module, "PATCH", 16)
    monkeypatch.setattr(sources_module, "MOST", 16)
    monkeypatch.setattr(bench_module, "TARGET", 18.5)  # this project starts above it, the original far below
    code, told = run_here("bench", tmp_path, "--out", tmp_path / "bench.json", "--epochs", 2)
    assert code == 0
    printed = told.out
    result = json.loads((tmp_path / "bench.json").read_text())
    rates = result["training"]["pairs_per_second"]
    assert len(rates) == 4
    assert all(f"{rate:.0f} pairs/s" in printed for rate in rates.values())
    assert all(rate > 0 for rate in result["prediction"]["images_per_second"].values())
    seconds = result["photographs"]["seconds"]
    assert len(seconds) == 4 and all(f"{tool:52s} {time:.1f} s" in printed for tool, time in seconds.items())
    scenes = result["scenes"]
    assert {"noisy", "this model", "non-local means", "BM3D"} <= scenes["psnr"].keys()
    assert scenes["psnr"]["this model"] > scenes["psnr"]["noisy"] + 3
    for tool, score in scenes["psnr"].items():
        assert f"{f'four scenes, {tool}':52s} {score:.2f} dB" in printed
    assert f"{scenes['seconds']:.0f} s" in printed
    epoch = result["epoch"]
    assert epoch["pairs"] == 64
    assert 10 < epoch["new"]["before"] < epoch["pretrained"]["before"] - 3
    for name in ("new", "pretrained"):
        one = epoch[name]
        assert f"{one['seconds']:.0f} s, {one['before']:.3f} -> {one['after']:.3f} dB" in printed
    for name in ("training", "prediction"):
        rate = result["busy"][name]
        told = re.search(rf"{name}, one core kept busy by another +(.*) of (.*) a second", printed).groups()
        assert told == (f"{rate['busy'] / rate['idle']:.2f}", f"{rate['idle']:.0f}")
    reached = result["target"]
    assert len(reached["original"]["psnr"]) == 2 and len(reached["this project"]["psnr"]) == 1
    ratio = reached["original"]["seconds"][-1] / reached["this project"]["seconds"][-1]
    told = next(line for line in printed.splitlines() if "dB, ratio" in line)
    assert 0 <= ratio - float(told.split()[-1]) < 0.1  # rounded down
    assert all(0.1 < peak < 4 for peak in result["memory"]["peak_gib"].values())
    assert len(result["memory"]["peak_gib"]) == 5
    for files in (1, 8):
        assert re.search(rf"peak memory, train, files of \d+ pairs: {files} +\d\.\d\d GiB", printed)
    for planes in (2, 16):
        assert re.search(rf"peak memory, denoise, planes of 32×32: {planes} +\d\.\d\d GiB", printed)
    assert run_here("bench", tmp_path, "prediction", "--out", tmp_path / "bench.json")[0] == 0
    again = json.loads((tmp_path / "bench.json").read_text())
    assert again.pop("prediction") != result.pop("prediction") and again == result
    code, told = run_here("bench", tmp_path, "speed", "--out", tmp_path / "bench.json")
    assert code == 1 and "'speed'" in told.err


def test_evaluate_sets_the_model_beside_other_tools(val_data, tmp_path):
    torch.save(tuple(part[:8].clone() for part in val_data), tmp_path / "val_data.pkl")
    places = ("--out", tmp_path / "sheet.png", "--numbers", tmp_path / "numbers.json")
    done = run("-m", "Miniproject_1", "evaluate", tmp_path, *places)
    assert done.returncode == 0, done.stderr
    rows = {line[:28].strip(): line[28:].split() for line in done.stdout.splitlines()[2:-1]}
    assert len(rows) == 7
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert list(numbers) == list(rows) and "BM3D" in rows
    for name, row in rows.items():
        assert [f"{numbers[name][key]:.2f}" for key in ("psnr", "ssim")] == [row[0], row[2]]
    psnr, ssim = ({name: float(row[i]) for name, row in rows.items()} for i in (0, 2))
    assert psnr["noisy"] == pytest.approx(psnr_of(*(part[:8] for part in val_data)).mean().item(), abs=0.006)
    assert all(psnr["this model"] > value + 1 for name, value in psnr.items() if name != "this model")
    assert all(0 < value < 1 for value in ssim.values()) and ssim["this model"] == max(ssim.values())
    with Image.open(tmp_path / "sheet.png") as image:
        image.load()


def test_evaluate_tells_mean_median_and_shows_the_worst_and_the_best(val_data, tmp_path, monkeypatch, capsys):
    noisy, clean = (part[:24] for part in val_data)
    torch.save((noisy, clean), tmp_path / "val_data.pkl")
    shown = []
    draw = evaluate_module.before_and_after
    monkeypatch.setattr(evaluate_module, "TOOLS", {})
    monkeypatch.setattr(
        evaluate_module,
        "before_and_after",
        lambda pictures, width: shown.append(pictures) or draw(pictures, width=width),
    )
    row = evaluate(tmp_path, out=tmp_path / "sheet.png")["this model"]
    order = row.psnr.argsort().tolist()
    assert [each.name for each in shown[0]] == [f"number {i}" for i in order[:10] + order[-10:]]
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("this model"))
    scores = (row.psnr.tolist(), row.ssim.tolist())
    expected = [each(score) for score in scores for each in (statistics.mean, statistics.median)]
    assert [float(word) for word in line.split()[2:]] == pytest.approx([*expected, row.seconds], abs=0.051)
    assert 0 < row.seconds < 60


def test_evaluate_takes_given_weights_and_each_tools_best_setting(val_data, tmp_path, monkeypatch, capsys):
    one = {"total variation": evaluate_module.TOOLS["total variation"]}
    monkeypatch.setattr(evaluate_module, "TOOLS", one)
    noisy, clean = (part[:8] for part in val_data)
    torch.save((noisy, clean), tmp_path / "val_data.pkl")
    Model().save(tmp_path / "untrained.pth")  # such a network changes nothing
    rows = evaluate(tmp_path / "val_data.pkl", out=tmp_path / "sheet.png", weights=tmp_path / "untrained.pth")
    assert torch.allclose(rows["this model"].psnr, rows["noisy"].psnr, atol=0.01)
    assert rows["photographs.pth"].psnr.mean() > rows["noisy"].psnr.mean() + 0.3  # what one would take else
    images = [image.permute(1, 2, 0).numpy() / 255 for image in noisy]
    scores = {}
    for weight in (0.03, 0.05, 0.07, 0.1, 0.14, 0.2):
        made = np.stack([denoise_tv_chambolle(each, weight, channel_axis=2) for each in images])
        made = torch.from_numpy(made).permute(0, 3, 1, 2).clamp(0, 1) * 255
        scores[weight] = psnr_of(made.float(), clean).mean().item()
    best = max(scores, key=scores.get)
    assert rows["total variation"].psnr.mean().item() == pytest.approx(scores[best], abs=0.01)
    assert f"weight {best:g}" in capsys.readouterr().out


COMMANDS = ["denoise", "page", "train", "evaluate", "shots", "demo"]
COMMANDS += ["pairs", "pretrain", "distill", "deepen", "untie", "robustness", "cbsd68"]
COMMANDS += ["bench", "study", "report"]


def test_help_names_every_command():
    listed = run("-m", "Miniproject_1", "--help").stdout
    named = [line.split()[0] for line in listed.splitlines() if line.startswith("    ") and line[4] != " "]
    assert named == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_each_commands_help_has_an_example_that_it_takes(name, monkeypatch, capsys):
    if name == "page":
        pytest.importorskip("gradio")
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args([name, "--help"])
    assert stopped.value.code == 0
    example = " ".join(capsys.readouterr().out.split()).rpartition("example: python -m Miniproject_1 ")[2]
    assert example.startswith(f"{name} ")
    options = vars(parser().parse_args(example.split()))
    run, *_ = (options.pop(name) for name in ("run", "quiet", "debug"))
    function = resolve_name(f"Miniproject_1.{run}")  # is there, and takes them
    assert signature(function).bind(**options)


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", 0), ("batch-size", -1), ("patience", 1.5), ("seed", 2**70), ("seed", -1)]
)
def test_numbers_out_of_range_are_refused_before_anything_is_read(name, value, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(["train", str(tmp_path), "-o", "model.pth", f"--{name}={value}"])
    assert f"--{name}" in capsys.readouterr().err.splitlines()[-1]


def test_quiet_says_nothing(tmp_path, monkeypatch, run_here):
    done = run("-m", "Miniproject_1", "shots", tmp_path / "shots", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "shots" / "val_data.pkl").exists()
    monkeypatch.setattr(tqdm, "__init__", tqdm.__init__)  # --quiet replaces it: here it comes back
    code, told = run_here("evaluate", tmp_path / "nowhere", "--quiet")
    assert code == 1 and "val_data.pkl" in told.err


def test_an_error_is_a_line_and_with_debug_a_traceback(tmp_path, run_here, capsys):
    code, told = run_here("evaluate", tmp_path)
    assert code == 1 and "val_data.pkl" in told.err and len(told.err.splitlines()) == 1
    with pytest.raises(FileNotFoundError, match=r"val_data\.pkl"):
        run_here("evaluate", tmp_path, "--debug")
    with pytest.raises(SystemExit, match="2"):
        run_here("evaluate")
    assert "usage" in capsys.readouterr().err


def test_bad_data_ends_with_one_line(tmp_path, run_here):
    (tmp_path / "empty").mkdir()
    code, told = run_here("pretrain", tmp_path / "empty", "--out", tmp_path / "weights.pth")
    assert code == 1
    assert len(told.err.splitlines()) == 1
    assert "train_data.pkl" in told.err


@pytest.fixture
def picture(tmp_path):
    """A small one, whose name not every console can print."""
    path = tmp_path / "größe ×2.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return path


def denoising(picture, *more):
    """A command that has something to tell of the picture."""
    return (
        "-m",
        "Miniproject_1",
        "denoise",
        picture,
        "-o",
        picture.parent / "out",
        "--clean",
        picture,
        *more,
    )


def test_ctrl_c_while_torch_is_imported_is_one_line(picture):
    process = start(*denoising(picture))
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "python -m Miniproject_1: interrupted\n")


def test_a_second_ctrl_c_acts_as_ever_and_what_is_ignored_stays_so():
    with pytest.raises(KeyboardInterrupt), stop_signals() as stopped:
        signal.raise_signal(signal.SIGINT)
        assert stopped == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what runs in the background
    try:
        with stop_signals() as stopped:
            signal.raise_signal(signal.SIGINT)
        assert not stopped and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, usual)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_a_console_that_lacks_letters_gets_them_spelt_out(picture, monkeypatch, encoding):
    monkeypatch.setenv("PYTHONIOENCODING", f"{encoding}:strict")
    process = start(*denoising(picture, "--compare"), text=False)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    told = {"ascii": r"gr\xf6\xdfe \xd72.png", "cp1252": "größe ×2.png", "utf-16": "größe ×2.png"}[encoding]
    assert told in out.decode(encoding) and "PSNR" in out.decode(encoding)
    assert (picture.parent / "out" / picture.name).exists()


def test_help_is_told_on_any_console(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run("-m", "Miniproject_1", "pairs", "--help")
    assert done.returncode == 0 and r"SIZE\xd7SIZE" in done.stdout, done.stderr


def test_a_name_in_no_encoding_is_told_too(picture, run_here):
    odd = picture.rename(picture.with_name(os.fsdecode(b"gr\xf6\xdfe.png")))
    code, told = run_here(*denoising(odd)[2:])
    assert code == 0 and r"gr\udcf6\udcdfe.png: PSNR" in told.out
    assert (odd.parent / "out" / odd.name).exists()


@pytest.mark.parametrize("listener", ["gone", "full", "none"])
def test_the_work_is_done_though_nobody_listens(picture, train_data, tmp_path, listener):
    """To a pipe whose other end is closed, a full disk, or no stream at all."""

    def close():
        os.close(1)
        os.close(2)

    torch.save(tuple(each[:64].clone() for each in train_data), tmp_path / "train_data.pkl")
    training = ("-m", "Miniproject_1", "train", tmp_path, "-o", tmp_path / "model.pth", "--epochs", 2)
    for command in (denoising(picture), training):
        with open("/dev/full", "w") as full:
            streams = {"gone": {}, "full": {"stdout": full, "stderr": full}, "none": {"preexec_fn": close}}
            process = start(*command, **streams[listener])
        if listener == "gone":
            process.stdout.close()
            process.stderr.close()
        assert process.wait(timeout=120) == 0
    assert (picture.parent / "out" / picture.name).exists()
    assert len(Model().load(tmp_path / "model.pth")["record"]) == 2


def test_the_package_is_there_before_torch_and_gives_the_model():
    script = (
        "import sys, Miniproject_1 as one; assert 'torch' not in sys.modules; one.model.Model; one.Model; "
    )
    done = run("-c", script + "from Miniproject_1 import *; Model; one.nothing")
    assert done.stderr.splitlines()[-1].startswith(
        "AttributeError: module 'Miniproject_1' has no attribute 'no"
    )
