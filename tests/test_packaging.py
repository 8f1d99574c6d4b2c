"""What an installed copy can do, away from the repository."""

import os
import shutil
import subprocess
import sys

from conftest import ROOT


def test_the_wheel_holds_all_that_runs(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(
        ROOT / "Miniproject_1", source / "Miniproject_1", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    subprocess.run([*pip, *build], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    shutil.rmtree(source)

    def installed(*arguments):
        environment = os.environ | {"PYTHONPATH": str(site)}
        return subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )

    script = (
        "import torch, Miniproject_1; model = Miniproject_1.Model(); model.load_pretrained_model();"
        "print(Miniproject_1.__file__, tuple(model.predict(torch.zeros(1, 3, 8, 8)).shape))"
    )
    done = installed(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{site / 'Miniproject_1' / '__init__.py'} (1, 3, 8, 8)"
    # In an environment that has nothing but what the wheel itself asks for.
    script = (
        "import sys; sys.modules.update(dict.fromkeys('numpy PIL skimage matplotlib tqdm'.split()));"
        "import torch; torch.save(tuple(torch.randint(0, 256, (2, 128, 3, 32, 32)).byte()), 'pairs.pkl');"
        "from Miniproject_1.__main__ import main; sys.exit(main())"
    )
    done = installed(sys.executable, "-c", script, "train", "pairs.pkl", "-o", "model.pth", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.pth").exists()
    done = installed(sys.executable, "-c", script, "denoise", "picture.png", "-o", "out.png")
    assert done.returncode == 1 and "python -m pip install" in done.stderr.splitlines()[-1]
    done = installed(site / "bin" / "miniproject-1", "demo")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo.png").exists()
    assert (site / "Miniproject_1" / "others" / "study" / "report.typ").exists()
