"""The report is made of the results: what they say is what it prints."""

import json
import random

import pytest
from conftest import ROOT, run
from pypdf import PdfReader

from Miniproject_1.others.study.runs import STUDIES

MACHINE = "cpu: a machine of the tests"


@pytest.fixture
def results(tmp_path):
    """A folder of results, every PSNR another: made up, to be found again in the PDF."""
    rng = random.Random(0)
    folder = tmp_path / "results"
    folder.mkdir()

    def measured(epochs):
        psnr = [round(rng.uniform(10, 40), 4) for _ in range(epochs)]
        cost = {"parameters": rng.randrange(10**6), "seconds": [*range(epochs)], "machine": MACHINE}
        return {"psnr": psnr, "psnr_rotations": round(rng.uniform(10, 40), 4), **cost}

    for name, settings in STUDIES.items():
        lines = [
            {"study": name, "setting": label, "seed": seed, "pairs": 700, "epochs": 2} | measured(2)
            for label in settings
            for seed in range(3)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    to_target = {"this project": measured(1) | {"pairs": 800, "seconds": [50]}, "original": measured(3)}
    rates = {"original": 100, "appendix's U-Net, this loop": 300, "this project": 400}
    bench = {"training": {"machine": MACHINE, "pairs_per_second": rates}, "target": {"db": 25.4, **to_target}}
    (folder / "bench.json").write_text(json.dumps(bench))
    noises = {f"noise {i}": {"noisy": rng.uniform(10, 20), "denoised": rng.uniform(20, 40)} for i in range(9)}
    (folder / "noises.json").write_text(json.dumps({"black": 5.87, "psnr": noises}))
    original = {"U-Net": 24.5, "final model": 25.48, "black image": 6}
    published = {"psnr": {"a submission": 25.678}, "original_study": original}
    (folder / "published.json").write_text(json.dumps(published))
    return folder


def text_of(pdf):
    return "".join(page.extract_text() for page in PdfReader(pdf).pages)


def test_every_result_stands_in_the_report(results, tmp_path):
    out = tmp_path / "report.pdf"
    done = run("-m", "Miniproject_1", "report", "--results", results, "--out", out)
    assert done.returncode == 0, done.stderr
    text = text_of(out)
    for name, settings in STUDIES.items():
        lines = [json.loads(line) for line in (results / f"{name}.jsonl").read_text().splitlines()]
        for label in settings:
            last = [line["psnr"][-1] for line in lines if line["setting"] == label]
            assert f"{sum(last) / 3:.2f} ±" in text, (name, label)
    noises = json.loads((results / "noises.json").read_text())
    for row in noises["psnr"].values():
        assert f"{row['noisy']:.2f}" in text and f"{row['denoised']:.2f}" in text
    for number in ("5.87 dB", "25.68", "3.0 times", MACHINE):
        assert number in text
    assert len(PdfReader(out).pages) <= 5
    for name in ("bench.json", "changes.jsonl"):  # what takes longest may be left for later
        (results / name).unlink()
    assert run("-m", "Miniproject_1", "report", "--results", results, "--out", out).returncode == 0
    assert "Speed, in one run" in text and "Speed, in one run" not in text_of(out)


def test_the_committed_report_says_what_the_committed_results_do(tmp_path):
    out = tmp_path / "report.pdf"
    done = run("-m", "Miniproject_1", "report", "--out", out)
    assert done.returncode == 0, done.stderr
    assert text_of(out) == text_of(ROOT / "report.pdf")


@pytest.mark.parametrize("name", ["loss.jsonl", "noises.json"])
def test_missing_results_are_named_and_the_report_that_stands_is_kept(results, tmp_path, name):
    out = tmp_path / "report.pdf"
    out.write_text("kept")
    (results / name).unlink()
    done = run("-m", "Miniproject_1", "report", "--results", results, "--out", out)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and name in done.stderr
    assert out.read_text() == "kept"
