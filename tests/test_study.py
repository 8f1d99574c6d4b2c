"""The study: its networks, its runs and what it keeps of them."""

import json

import pytest
import torch
from conftest import run

from Miniproject_1.others.course import load_images
from Miniproject_1.others.study import runs
from Miniproject_1.others.study.networks import AppendixUNet
from Miniproject_1.others.study.runs import STUDIES, Setting, few_photons, shown_runs, study


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


def test_a_larger_budget_takes_over_once_it_is_complete(data, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "STUDIES", {"two": {"default": Setting(), "unswapped": Setting()}})
    monkeypatch.setattr(runs, "run", lambda *args: {"psnr": [1.0], "psnr_rotations": 1.0, "seconds": [1]})
    few = {"pairs": 64, "results": tmp_path}

    def shown():
        found = shown_runs(tmp_path, "two")
        assert list(found) in ([], ["default", "unswapped"])
        return [[(run["epochs"], run["seed"]) for run in settings] for settings in found.values()]

    def lines():
        return (tmp_path / "two.jsonl").read_text().splitlines()

    assert shown() == []
    study(["two"], data, epochs=1, seeds=3, **few)
    small = lines()
    assert shown() == [[(1, 0), (1, 1), (1, 2)]] * 2
    study(["two"], data, epochs=2, seeds=2, **few)  # too few seeds to replace what stands
    assert shown() == [[(1, 0), (1, 1), (1, 2)]] * 2 and lines()[: len(small)] == small
    study(["two"], data, epochs=2, seeds=3, **few)
    assert shown() == [[(2, 0), (2, 1), (2, 2)]] * 2
    large = lines()
    assert len(large) == 6 and not set(small) & set(large)
    with pytest.raises(ValueError, match="64 × 1 would be dropped"):
        study(["two"], data, epochs=1, seeds=1, **few)
    assert shown() == [[(2, 0), (2, 1), (2, 2)]] * 2 and lines() == large
    # Of a sweep for more seeds that was stopped, those count that every setting has.
    more = json.loads(large[0]) | {"seed": 3}
    (tmp_path / "two.jsonl").write_text("\n".join([*large, json.dumps(more)]))
    assert shown() == [[(2, 0), (2, 1), (2, 2)]] * 2


def test_few_photons_are_skewed_and_right_on_average(data, monkeypatch, tmp_path):
    clean = load_images(data / "val_data.pkl")[1]
    shots = few_photons(clean, 0)
    assert shots.dtype == torch.int16 and shots.max() > 255  # not clipped
    mean = clean.float().mean().item()
    assert shots.float().mean().item() == pytest.approx(mean, rel=0.01)
    level = torch.full((40, 3, 32, 32), 76, dtype=torch.uint8)
    shots = few_photons(level, 0).float()
    assert abs(shots.mean() - 76) < 1 and abs(shots.median() - 76) > 20
    assert torch.equal(few_photons(level, 0).float(), shots)
    assert not torch.equal(few_photons(level, 1).float(), shots)

    # What a run is given: two draws of the second pictures of the file, and a third of the clean ones.
    given = []
    setting = Setting(file="val_data.pkl", noise=few_photons)
    monkeypatch.setattr(runs, "STUDIES", {"one": {"skewed": setting}})
    measured = {"psnr": [1.0], "psnr_rotations": 1.0, "seconds": [1]}
    monkeypatch.setattr(runs, "run", lambda *args: given.append(args) or measured)
    study(["one"], data, pairs=64, epochs=1, seeds=1, results=tmp_path)
    (_, (first, second), (seen, target), *_) = given[0]
    assert torch.equal(target, clean) and first.shape == second.shape == seen.shape
    for one, other in ((first, second), (first, seen), (second, seen)):
        assert not torch.equal(one, other)
    assert all(each.float().mean().item() == pytest.approx(mean, rel=0.02) for each in (first, second))


def test_the_parts_lead_from_the_original_training_to_plain_unet(val_data):
    """One change a line; behind the last that trains otherwise, an untrained network changes nothing."""
    path, parts = STUDIES["path"], list(STUDIES["parts"].values())
    assert parts[0] == path["bfloat16, channels-last"] and parts[-1] == path["residual U-Net"]
    split = parts.index(path["turned, mirrored, swapped"])
    assert path["batch 64, AdamW 2e-3, cosine"] == parts[split - 1]
    noisy = val_data[0][:2].float()
    for setting in parts[split + 1 :]:
        assert torch.equal(setting.network()(noisy), noisy)
    counts = [sum(each.numel() for each in setting.network().parameters()) for setting in parts]
    assert len(set(counts[: split + 3])) == 1 and counts[-2] == counts[-1]


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
