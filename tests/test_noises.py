"""The other noises, and what is made and measured with them."""

import json

import pytest
import torch
from conftest import run

from Miniproject_1.others.course import load_images, write_pairs
from Miniproject_1.others.noises import gaussian, poisson, salt_and_pepper
from Miniproject_1.others.photographs import embedded_photographs

GREY = torch.full((40, 3, 32, 32), 100, dtype=torch.uint8)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("noise", "strength", "deviation"),
    [(gaussian, 10, 10), (gaussian, 25, 25), (poisson, 30, 255 * (100 / 255 / 30) ** 0.5)],
)
def test_noise_has_the_strength_it_names(noise, strength, deviation, generator):
    images = noise(GREY, strength, generator)
    assert (images.dtype, images.shape) == (GREY.dtype, GREY.shape)
    assert images.float().mean().item() == pytest.approx(100, abs=0.5)
    assert images.float().std().item() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("whole_pixels", [True, False])
def test_salt_and_pepper_hit_the_share_they_name(whole_pixels, generator):
    images = salt_and_pepper(GREY, 0.1, generator, whole_pixels=whole_pixels)
    for value in (0, 255):
        assert (images == value).float().mean().item() == pytest.approx(0.05, abs=0.005)
    together = (images == images[:, :1]).all(dim=1).float().mean().item()
    assert together == 1 if whole_pixels else together < 0.95


def test_other_noises_go_into_the_first_picture_of_their_share_of_pairs(tmp_path):
    photographs = embedded_photographs()[:2]
    for share in (0, 0.5):
        write_pairs(photographs, tmp_path / str(share), pairs=200, val=0, other_noises=share)
    a, b = load_images(tmp_path / "0.5" / "train_data.pkl")
    plain_a, plain_b = load_images(tmp_path / "0" / "train_data.pkl")
    assert plain_a.shape == a.shape
    # Two pictures of a scene lie further apart than under the course's noise.
    apart, plain = (
        (x.float() - y.float()).square().mean((1, 2, 3)).sqrt() for x, y in ((a, b), (plain_a, plain_b))
    )
    assert apart.max() > 1.2 * plain.max() and apart.median() < plain.max()
    black_or_white_a, black_or_white_b = ((x == 0).all(1) | (x == 255).all(1) for x in (a, b))
    struck = (black_or_white_a & ~black_or_white_b).float().mean((1, 2))
    assert 0.02 < (struck > 0.06).float().mean() < 0.25  # an eighth has salt and pepper, of any strength
    with pytest.raises(ValueError, match="share"):
        write_pairs(photographs, tmp_path, pairs=2, other_noises=1.5)


def test_robustness_lists_every_noise(data, tmp_path):
    from PIL import Image

    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for path in embedded_photographs()[:4]:
        with Image.open(path) as image:
            image.convert("RGB").resize((256, 256)).save(photographs / f"{path.stem}.png")
    out = tmp_path / "noises.json"
    done = run("-m", "Miniproject_1", "robustness", data, "--photos", photographs, "--val", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["psnr"]
    assert len(rows) == 9
    assert rows["blocks of 16×16"]["images"] == 1
    assert all(f"{row['denoised']:.2f}" in done.stdout for row in rows.values())
    assert all(row["denoised"] > row["noisy"] for name, row in rows.items() if "σ 10" not in name)
