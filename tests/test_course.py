"""Photographs to noisy pairs, and the course's files read and checked."""

import random

import pytest
import torch
from conftest import closed, run
from PIL import Image

from Miniproject_1.model import UNet
from Miniproject_1.others.course import load_images, noisy_views, write_pairs
from Miniproject_1.others.photographs import embedded_photographs, find_photographs


def test_same_seed_same_bytes(tmp_path):
    photographs = embedded_photographs()
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        write_pairs(photographs, tmp_path / name, pairs=40, val=8, seed=seed)
    for file in ("train_data.pkl", "val_data.pkl"):
        one, two, three = ((tmp_path / name / file).read_bytes() for name in ("one", "two", "three"))
        assert one == two
        assert one != three


def test_format_is_the_courses(data):
    for name, number in (("train_data.pkl", 1_280), ("val_data.pkl", 64)):
        content = torch.load(data / name, weights_only=True)
        assert isinstance(content, tuple)
        assert [(part.shape, part.dtype) for part in content] == [((number, 3, 32, 32), torch.uint8)] * 2


def test_noise_takes_one_pixel_of_each_block_uniformly_all_channels_together():
    # Each pixel of a block has a colour of its own, and the channels say the same in three ways.
    code = torch.arange(64).reshape(8, 8).repeat(4, 4)
    pixels = torch.stack([code, code + 100, 255 - code]).to(torch.uint8)
    photograph = Image.frombytes("RGB", (32, 32), pixels.permute(1, 2, 0).contiguous().numpy().tobytes())
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(500):
        a, b, clean = noisy_views(photograph, 4, generator)
        drawn += [a, b]
    drawn = torch.stack(drawn).to(torch.int64)
    assert torch.equal(drawn[:, 0] + 100, drawn[:, 1])
    assert torch.equal(255 - drawn[:, 0], drawn[:, 2])
    counts = torch.bincount(drawn[:, 0].flatten(), minlength=64)
    expected = drawn[:, 0].numel() / 64
    assert ((counts - expected).square() / expected).sum() < 120  # χ² with 63 degrees of freedom
    assert torch.equal(clean[0], torch.full((4, 4), 32, dtype=torch.uint8))  # the mean, 31.5, rounded
    one, other = drawn[0::2, 0].float().flatten(1), drawn[1::2, 0].float().flatten(1)
    correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
    assert correlation.abs() < 0.05


def test_noise_is_unbiased_for_blocks_that_are_no_whole_number_of_pixels():
    photograph = Image.open(embedded_photographs()[0]).convert("RGB").crop((100, 50, 280, 230))
    generator = torch.Generator().manual_seed(0)
    views = [noisy_views(photograph, 32, generator) for _ in range(400)]
    noisy = torch.stack([part for a, b, _ in views for part in (a, b)]).double()
    # Without a bias, the mean of n is off by σ²/n and by the rounding of the clean picture.
    expected = noisy.var(0) / len(noisy) + 1 / 12
    assert ((noisy.mean(0) - views[0][2]).square() / expected).mean().item() == pytest.approx(1, abs=0.15)


def test_crops_are_of_the_courses_blocks_from_photographs_of_any_size(tmp_path):
    # Red is the row and green the column, so that a pixel says which block it is of.
    side = 224
    ramp = torch.arange(side).expand(side, side)
    pixels = torch.stack([ramp.T, ramp, torch.zeros_like(ramp)], 2).byte()
    Image.fromarray(pixels.numpy()).save(tmp_path / "large.png")
    Image.fromarray(pixels.numpy()[:200, :200]).save(tmp_path / "small.png")
    photographs = [tmp_path / "large.png", tmp_path / "small.png"]
    made = write_pairs(photographs, tmp_path, pairs=30, val=0, crop=26)
    noisy_a, noisy_b = (part.int() for part in load_images(tmp_path / "train_data.pkl"))
    assert noisy_a.shape == (30, 3, 26, 26)
    corners = set()
    for noisy in (*noisy_a, *noisy_b):
        top = noisy[0] - 8 * torch.arange(26)[:, None]  # in the block at the crop's top, whatever its row
        left = noisy[1] - 8 * torch.arange(26)
        for place in (top, left):
            assert place.max() - place.min() == 7  # all places of a block are drawn from, and no other
        corners.add((int(top.min()), int(left.min())))
    assert (8, 8) in corners and len(corners) > 20  # the middle first, then anywhere in 224 - 208 pixels
    assert all(0 <= top <= 16 and 0 <= left <= 16 for top, left in corners)
    assert made.train_photographs == 1  # the other is too small

    Image.fromarray(pixels.repeat(3, 3, 1).numpy()).save(tmp_path / "huge.png")  # reduced as the course did
    write_pairs([tmp_path / "huge.png"], tmp_path, pairs=2, val=0, crop=32)
    assert load_images(tmp_path / "train_data.pkl")[0].shape == (2, 3, 32, 32)
    for size, words in ((32, "crop 32: too few"), (33, "crop must be 1 ... 32"), (0, "crop must be 1")):
        with pytest.raises(ValueError, match=words):
            write_pairs(photographs, tmp_path / "none", pairs=2, val=0, crop=size)


def test_further_pictures_of_a_photograph_are_other_crops_of_it(tmp_path):
    # Brightness is the place: the whole width is seen first, three quarters of it or more later.
    path = tmp_path / "ramp.png"
    Image.linear_gradient("L").save(path)
    write_pairs([path], tmp_path, pairs=20, val=0)
    noisy = load_images(tmp_path / "train_data.pkl")[0].float()
    ends = [(rows.min().item(), rows.max().item()) for rows in noisy.mean(dim=(1, 3))]
    spans = [high - low for low, high in ends]
    assert spans[0] == max(spans)
    assert min(spans) > 0.7 * spans[0]
    assert len(set(ends)) > 15


def test_the_second_picture_can_be_the_mean_of_several_shots(tmp_path):
    photograph = Image.open(embedded_photographs()[0]).convert("RGB").crop((100, 50, 356, 306))
    generator = torch.Generator().manual_seed(0)
    views = [noisy_views(photograph, 32, generator, shots=4) for _ in range(200)]
    one, mean_of_four = (torch.stack([view[i] for view in views]).double() for i in (0, 1))
    assert (mean_of_four.var(0).mean() / one.var(0).mean()).item() == pytest.approx(1 / 4, rel=0.03)
    # Rounding the mean must not shift it: errors against the clean picture average out.
    assert (mean_of_four.mean(0) - views[0][2]).mean().item() == pytest.approx(0, abs=0.1)
    with pytest.raises(ValueError, match="shots"):
        write_pairs(embedded_photographs(), tmp_path, pairs=2, val=0, shots=0)


def test_the_oracles_targets_are_the_clean_pictures(tmp_path):
    folder = embedded_photographs()[0].parent
    done = run("-m", "Miniproject_1", "pairs", folder, tmp_path, "--pairs", 40, "--val", 0, "--oracle")
    assert done.returncode == 0, done.stderr
    noisy_a, noisy_b = load_images(tmp_path / "train_data.pkl")
    noisy, clean = load_images(tmp_path / "oracle_data.pkl")
    assert torch.equal(noisy, noisy_a)
    # Clean lies nearer to either noisy picture than they lie to each other: a half of the squared distance.
    apart, from_clean = ((noisy_a.double() - x.double()).square().mean().item() for x in (noisy_b, clean))
    assert from_clean / apart == pytest.approx(0.5, abs=0.05)


@pytest.fixture
def album(tmp_path):
    """40 photographs of one colour each, two levels deep in three formats, and what is to be skipped."""
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    for number in range(40):
        place = folder / ("deep/er" if number % 2 else "")
        suffix = ("png", "jpg", "WEBP")[number % 3]
        image = Image.new("RGB", (140 + number, 180), (6 * number, 120, 255 - 6 * number))
        image.save(place / f"{number}.{suffix}", quality=95)
    Image.new("RGB", (127, 400)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes((folder / "deep" / "er" / "1.jpg").read_bytes()[:200])
    (folder / "noise.png").write_bytes(random.Random(0).randbytes(500))
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_command_splits_photographs_and_counts_what_it_skips(album, tmp_path):
    out = tmp_path / "out"
    done = run("-m", "Miniproject_1", "pairs", album, out, "--pairs", 96, "--val", 8)
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[-1]
    assert line.startswith("96 pairs from 32 photographs, 8 validation images from 8 others")
    assert line.endswith("2 unreadable, 1 with a side under 128 pixels, 1 duplicates")
    noisy_a, _ = load_images(out / "train_data.pkl")
    noisy, _ = load_images(out / "val_data.pkl")
    # One colour a photograph: its blue, to within the nearest multiple of 6, says which it was.
    blues = (part[:, 2].flatten(1).float().mean(1) for part in (noisy_a, noisy))
    train, val = ({round((255 - blue) / 6) for blue in part.tolist()} for part in blues)
    assert len(train) == 32
    assert len(val) == 8
    assert not train & val
    assert not list(out.glob(".*")), "temporary files are left"


def test_files_that_stand_are_kept_when_it_fails(album, tmp_path, data):
    before = (data / "train_data.pkl").read_bytes()
    for path in album.rglob("*.*"):
        if path.name != "0.png":
            path.unlink()
    done = run("-m", "Miniproject_1", "pairs", album, data)
    assert done.returncode == 1 and f"{data / 'train_data.pkl'} is there already" in done.stderr
    with pytest.raises(ValueError, match="1 usable photographs"):
        write_pairs(find_photographs(album), data)
    assert "Traceback" not in done.stderr
    assert (data / "train_data.pkl").read_bytes() == before
    missing = run("-m", "Miniproject_1", "pairs", tmp_path / "nowhere", tmp_path / "out")
    assert missing.returncode == 1
    assert "nowhere is not a folder" in missing.stderr


def test_a_failing_disk_leaves_the_files_that_stand(tmp_path, monkeypatch):
    (tmp_path / "train_data.pkl").write_bytes(b"kept")

    def fail_halfway(content, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail_halfway)
    with pytest.raises(OSError, match="No space"):
        write_pairs(embedded_photographs()[:3], tmp_path, pairs=4, val=2)
    assert [path.name for path in tmp_path.iterdir()] == ["train_data.pkl"]
    assert (tmp_path / "train_data.pkl").read_bytes() == b"kept"


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        (torch.zeros(2, 3, 32, 32),) * 2,
        (torch.zeros(2, 32, 32, dtype=torch.uint8),) * 2,
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8),) * 2,
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8),) * 3,
        (torch.zeros(0, 3, 32, 32, dtype=torch.uint8),) * 2,
        (
            torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
            torch.zeros(3, 3, 32, 32, dtype=torch.uint8),
        ),
        (torch.zeros(1, dtype=torch.uint8).expand(10**9, 3, 32, 32),) * 2,
        torch.zeros(2, 2, 3, 32, 32, dtype=torch.uint8),
        (torch.nested.nested_tensor([torch.zeros(3, 4, 4), torch.zeros(3, 5, 4)]).to(torch.uint8),) * 2,
        UNet((8, 16)).state_dict(),
    ],
)
def test_other_contents_are_refused(tmp_path, content):
    path = tmp_path / "train_data.pkl"
    torch.save(content, path)
    with pytest.raises(ValueError, match="train_data.pkl.*expected a tuple of two"):
        load_images(path)


@pytest.mark.parametrize("mmap", [False, True])
def test_damaged_and_hostile_files_are_refused(tmp_path, data, canary, mmap):
    path = tmp_path / "train_data.pkl"
    with pytest.raises(FileNotFoundError, match="train_data.pkl"):
        load_images(path, mmap=mmap)
    whole = (data / "val_data.pkl").read_bytes()
    for damaged in (*(whole[: len(whole) * tenths // 10] for tenths in range(10)), bytes(range(256)) * 9):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="train_data.pkl"):
            load_images(path, mmap=mmap)
    hostile, canary_file = canary
    torch.save((hostile, hostile), path)
    with pytest.raises(ValueError, match="train_data.pkl"):
        load_images(path, mmap=mmap)
    assert not canary_file.exists()
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match="train_data.pkl"):
        load_images(path, mmap=mmap)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_that_may_not_be_read_is_named(tmp_path, mmap):
    (tmp_path / "train_data.pkl").write_bytes(b"secret")
    with closed(tmp_path / "train_data.pkl") as path, pytest.raises(PermissionError, match="train_data.pkl"):
        load_images(path, mmap=mmap)
