"""The study: its networks, its runs and what it keeps of them."""

import json

import pytest
import torch
from conftest import run

from Miniproject_1.others.study import runs
from Miniproject_1.others.study.networks import AppendixUNet
from Miniproject_1.others.study.runs import STUDIES, Setting, study


def test_the_appendix_unet_has_the_papers_number_of_parameters():
    assert sum(each.numel() for each in AppendixUNet().parameters()) == 991_203


SETTINGS = [each for table in STUDIES.values() for each in table.values()]


@pytest.mark.parametrize("setting", [each for i, each in enumerate(SETTINGS) if each not in SETTINGS[:i]])
def test_every_setting_trains(setting, train_data, val_data):
    noisy, clean = (part[:8] for part in val_data)
    few = tuple(part[:16] for part in train_data)
    result = runs.run(setting, few, (noisy, clean), epochs=1, seed=0)
    assert len(result["psnr"]) == len(result["seconds"]) == round(1 / setting.part)
    assert all(0 < score < 40 for score in [*result["psnr"], result["psnr_rotations"]])


def test_a_sweep_goes_on_where_it_stopped(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        runs, "STUDIES", {"two": {"default": Setting(), "unswapped": Setting(options={"swap": False})}}
    )
    arguments = {"pairs": 64, "epochs": 2, "results": tmp_path}
    done = []

    def stop_at_the_third(*args, **kwargs):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(runs_run(*args, **kwargs))
        return done[-1]

    runs_run = runs.run
    monkeypatch.setattr(runs, "run", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        study(["two"], data, seeds=2, **arguments)
    first = (tmp_path / "two.jsonl").read_text()
    assert first.count("\n") == 2

    monkeypatch.setattr(runs, "run", runs_run)
    study(["two"], data, seeds=2, **arguments)
    text = (tmp_path / "two.jsonl").read_text()
    assert text.startswith(first)
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["setting"], line["seed"]) for line in lines] == [
        (setting, seed) for seed in (0, 1) for setting in ("default", "unswapped")
    ]
    assert all(len(line["psnr"]) == len(line["seconds"]) == 2 for line in lines)

    study(["two"], data, seeds=2, **arguments)
    assert (tmp_path / "two.jsonl").read_text() == text

    # The same setting under another study's name is known already.
    monkeypatch.setattr(runs, "STUDIES", runs.STUDIES | {"three": {"the default": Setting()}})
    monkeypatch.setattr(runs, "run", stop_at_the_third)
    study(["three"], data, seeds=2, **arguments)
    copies = [json.loads(line) for line in (tmp_path / "three.jsonl").read_text().splitlines()]
    assert [line["psnr"] for line in copies] == [
        line["psnr"] for line in lines if line["setting"] == "default"
    ]


def test_a_run_stops_once_it_has_passed_its_target(train_data, val_data):
    few = tuple(part[:64] for part in train_data)
    result = runs.run(Setting(), few, val_data, epochs=3, seed=0, target=0)
    assert len(result["psnr"]) == 1


def test_bad_arguments_are_refused_in_one_line(data, tmp_path):
    for arguments, words in (
        (("nonsense",), "nonsense"),
        (("models", "--pairs", 5_000), "1,280"),
        (("path",), "oracle_data.pkl"),
    ):
        done = run("-m", "Miniproject_1", "study", *arguments, "--data", data, "--results", tmp_path)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_same_seed_gives_the_same_score(train_data, val_data):
    few = tuple(part[:64] for part in train_data)
    first, second = (runs.run(Setting(), few, val_data, epochs=1, seed=3) for _ in range(2))
    assert torch.equal(torch.tensor(first["psnr"]), torch.tensor(second["psnr"]))
