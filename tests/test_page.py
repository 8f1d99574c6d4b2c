"""The page, in a real browser."""

import json
import os
import re
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
import skimage.data
import torch
from conftest import ROOT, run, start
from PIL import Image, ImageCms

from Miniproject_1.others.noises import gaussian
from Miniproject_1.others.pictures import Picture, write_picture

# Asked for without an import: gradio takes seconds, and would change tqdm for all other tests.
pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="no gradio")
BROWSERS = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
BROWSER = next(BROWSERS, None) if find_spec("playwright") else None
MOST_BYTES = 400_000
COMMAND = f"""import sys, Miniproject_1.others.page as page; page.MOST_BYTES = {MOST_BYTES}
import Miniproject_1.others.denoise as denoise; denoise.PIXELS_AT_ONCE = 1  # many bands
import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a nohup before pytest is not meant for it
from Miniproject_1.__main__ import main; sys.argv[1:] = ["page", "--device", "cpu"]; sys.exit(main())"""
IN_THE_END = 300_000  # milliseconds, on a busy machine


def until(holds):
    """Wait for it."""
    end = time.monotonic() + IN_THE_END / 1000
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_there(group):
    """Whether any process of the group is."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def opened(folder, ended_by):
    """Within, a page is there; gives (its address, where it keeps its files, what it has complained of).

    The signal ends it, and all that it started; it leaves no file behind.
    """
    # Settings of a shell must open nothing, a proxy must not stand between, nor a browser hold up the page.
    blocks = "sh -c 'while kill -0 $PPID 2>/dev/null; do sleep 1; done' %s"
    loose = {"BROWSER": blocks, "GRADIO_SHARE": "True", "GRADIO_ALLOWED_PATHS": "/"}
    loose |= {"GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_SERVER_NAME": "0.0.0.0"}
    loose |= dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    files, told = folder / "page", folder / "told"
    files.mkdir()
    with told.open("w") as errors:
        environment = os.environ | loose | {"TMPDIR": str(files)}
        process = start("-c", COMMAND, env=environment, stderr=errors, start_new_session=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), told.read_text()
        yield line.split()[0].removesuffix(":"), files, told
    finally:
        process.send_signal(ended_by)
        try:
            assert process.wait(IN_THE_END / 1000) == 0
            until(lambda: not is_there(process.pid))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert not [path for path in files.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("page"), signal.SIGINT) as page:
        yield page


@pytest.fixture(scope="module")
def browser():
    if not BROWSER:
        pytest.skip("no browser, or no playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        options = [] if os.geteuid() else ["--no-sandbox"]  # which root has none of
        yield driver.chromium.launch(executable_path=BROWSER, args=options)


@pytest.fixture
def tab(page, browser):
    """The page in the browser; it may ask for nothing from elsewhere."""
    asked, context = [], browser.new_context()
    tab = context.new_page()
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page[0])
    tab.get_by_role("button", name="Denoise", exact=True).wait_for()
    yield tab
    context.close()
    here = urlsplit(page[0]).netloc
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {here}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A real photograph: noisy JPEG and TIFF of 16 bits with what describes them; clean; two small shots."""
    folder = tmp_path_factory.mktemp("pictures")
    clean = torch.from_numpy(skimage.data.chelsea()[60:180, 100:250].copy()).permute(2, 0, 1)
    generator = torch.Generator().manual_seed(0)
    noisy = gaussian(clean, 25, generator).permute(1, 2, 0).numpy()
    exif = Image.Exif()
    exif[274] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noisy).save(folder / "a cat & more.jpg", quality=95, icc_profile=profile, exif=exif)
    deep = noisy.astype(np.uint16) * 200 + np.random.default_rng(0).integers(0, 99, noisy.shape, np.uint16)
    write_picture(Picture(deep, None, {"icc_profile": profile}), folder / "deep.tif")
    deep_clean = clean.permute(1, 2, 0).numpy().astype(np.uint16) * 200
    write_picture(Picture(deep_clean, None, {}), folder / "clean.tif")
    for name in ("first", "second"):
        shot = gaussian(clean[:, 40:70, 40:70], 25, generator).permute(1, 2, 0).numpy()
        Image.fromarray(shot).save(folder / f"{name}.png")
    Image.fromarray(np.zeros((40 * 512, 64), np.uint8)).save(folder / "large.png")
    return folder


def upload(tab, label, path):
    """Drop a file where the label says."""
    field = tab.locator(".block:visible", has=tab.get_by_text(label, exact=True)).last
    field.locator("input[type=file]").set_input_files(path)
    field.get_by_role("link").wait_for()


def download(tab, label):
    """The bytes of the file that is offered under the label."""
    link = tab.locator(".block:visible", has=tab.get_by_text(label, exact=True)).last.get_by_role("link")
    link.wait_for(timeout=IN_THE_END)
    with tab.expect_download() as file:
        link.click()
    return file.value


@pytest.fixture
def command(run_here):
    """The command `denoise`; gives what it printed."""

    def command(*arguments):
        code, told = run_here("denoise", "--device", "cpu", *arguments)
        assert code == 0, told.err
        return told.out

    return command


def told(tab):
    return tab.get_by_label("Noise and quality").locator("visible=true").input_value()


def message(tab):
    """The message that comes up, which is then put away."""
    toast = tab.get_by_test_id("toast-body")
    toast.wait_for(timeout=IN_THE_END)
    text = toast.inner_text()
    tab.get_by_test_id("toast-close").click()
    toast.wait_for(state="detached")
    return text


WHOLE = "The whole file, in its own type and depth"
MODEL = "The model: for the other tab, or denoise --weights"


def test_a_picture_comes_back_as_denoise_writes_it(tab, pictures, tmp_path, command):
    upload(tab, "Noisy picture", pictures / "a cat & more.jpg")
    file = download(tab, WHOLE)
    said = command(pictures / "a cat & more.jpg", "-o", tmp_path / "cat.jpg")
    assert file.path().read_bytes() == (tmp_path / "cat.jpg").read_bytes()
    assert file.suggested_filename.endswith(".denoised.jpg")
    assert told(tab) and f": {told(tab)}\n" in said
    noisy, denoised = tab.get_by_test_id("imageslider-image").all()
    for each in (noisy, denoised):
        assert each.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [120, 150]  # upright
    assert noisy.get_attribute("src") != denoised.get_attribute("src")


def test_of_a_long_picture_the_middle_is_shown_and_the_file_has_all(tab, tmp_path, command):
    noisy = np.random.default_rng(0).integers(0, 256, (4_400, 8), np.uint8)
    Image.fromarray(noisy).save(tmp_path / "long.png")
    upload(tab, "Noisy picture", tmp_path / "long.png")
    file = download(tab, WHOLE)
    command(tmp_path / "long.png", "-o", tmp_path / "denoised.png")
    assert file.path().read_bytes() == (tmp_path / "denoised.png").read_bytes()
    assert "only the middle is shown, at most 4096×4096" in told(tab)
    shown = tab.get_by_test_id("imageslider-image").first
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [8, 4096]


def test_weights_strength_and_clean_picture_do_what_the_options_do(tab, pictures, tmp_path, command):
    upload(tab, "Clean picture, to compare with (optional)", pictures / "clean.tif")
    tab.get_by_label("bestmodel.pth").check()
    tab.get_by_role("spinbutton", name="Strength").fill("0.5")
    tab.get_by_role("spinbutton", name="Strength").press("Tab")
    upload(tab, "Noisy picture", pictures / "deep.tif")
    file = download(tab, WHOLE)
    options = ("--strength", 0.5, "--weights", ROOT / "Miniproject_1" / "bestmodel.pth")
    said = command(pictures / "deep.tif", "-o", tmp_path, "--clean", pictures / "clean.tif", *options)
    assert file.path().read_bytes() == (tmp_path / "deep.tif").read_bytes()
    lines = told(tab).splitlines()
    assert len(lines) == 2 and lines[1].startswith("PSNR") and all(line in said for line in lines)


def test_what_denoise_refuses_is_a_message(tab, page, pictures, tmp_path, canary):
    hostile, executed = canary
    torch.save(hostile, tmp_path / "hostile.pth")
    (tmp_path / "no.png").write_bytes(b"no picture")
    Image.new("1", (10_000, 9_999)).save(tmp_path / "bomb.png")
    tab.get_by_role("button", name="Denoise", exact=True).click()
    assert "drop a picture" in message(tab)
    for name, words in (("no.png", "no.png: cannot identify"), ("bomb.png", "bomb.png: 10000×9999 pixels")):
        upload(tab, "Noisy picture", tmp_path / name)
        said = message(tab)
        assert words in said and str(page[1]) not in said
        tab.get_by_role("button", name="Clear").first.click()
    tab.get_by_label("a file of your own").check()
    upload(tab, "Your weights, as train writes them", tmp_path / "hostile.pth")
    upload(tab, "Noisy picture", pictures / "first.png")
    assert "hostile.pth: cannot be read" in message(tab)
    assert not executed.exists()
    tab.get_by_label("photographs.pth").check()
    upload(tab, "Clean picture, to compare with (optional)", tmp_path / "bomb.png")
    tab.get_by_role("button", name="Denoise", exact=True).click()
    assert "bomb.png" in message(tab)
    assert "Traceback" not in page[2].read_text()


def train(tab, first, second):
    """Start a training on two shots."""
    tab.get_by_role("tab", name="Train").click()
    upload(tab, "First shot", first)
    upload(tab, "Second shot: nothing moved, same settings", second)
    tab.get_by_role("spinbutton", name="Epochs").fill("30")
    tab.get_by_role("spinbutton", name="Epochs").press("Tab")
    tab.get_by_role("button", name="Train", exact=True).click()


def test_two_shots_train_a_model_until_it_is_stopped(tab, pictures, tmp_path, command):
    train(tab, pictures / "first.png", pictures / "second.png")
    curve = tab.locator(".block:visible", has=tab.get_by_text("Curve", exact=True)).last
    curve.locator("img").wait_for(timeout=IN_THE_END)
    tab.get_by_role("button", name="Stop").click()
    model, file = download(tab, MODEL), download(tab, WHOLE)
    log = tab.get_by_label("What train prints").input_value()
    assert "epoch   1/30" in log and "epoch  30/30" not in log
    assert log.endswith("stopped: the model is what it was then")
    shutil.copy(model.path(), tmp_path / "model.pth")
    command(pictures / "first.png", "-o", tmp_path, "--weights", tmp_path / "model.pth")
    assert file.path().read_bytes() == (tmp_path / "first.png").read_bytes()
    command(pictures / "first.png", "-o", tmp_path / "untrained.png")
    assert file.path().read_bytes() != (tmp_path / "untrained.png").read_bytes()


def test_the_shot_that_is_wrong_is_named(tab, pictures, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no picture")
    train(tab, pictures / "first.png", tmp_path / "no.png")
    said = message(tab)
    assert "second shot: cannot identify" in said


def test_how_far_it_is_and_stop_also_for_what_waits(tab, page, browser, pictures):
    upload(tab, "Noisy picture", pictures / "large.png")
    progress = tab.get_by_text(re.compile(r"\b[1-9]\d?(\.\d)?%")).locator("visible=true").first
    progress.wait_for(timeout=IN_THE_END)
    with browser.new_context() as another:
        waits = another.new_page()
        waits.goto(page[0])
        upload(waits, "Noisy picture", pictures / "first.png")
        waits.get_by_text("queue: ").first.wait_for(timeout=IN_THE_END)
        waits.get_by_role("button", name="Stop").click()
        assert progress.is_visible()  # which is another visitor's
        tab.get_by_role("button", name="Stop").click()
        assert "stopped" in message(tab)
        assert "stopped" in message(waits)
        waits.get_by_role("button", name="Denoise", exact=True).click()
        download(waits, WHOLE)
        assert list(page[1].rglob("first.denoised.png"))
    until(lambda: not list(page[1].rglob("first.denoised.png")))  # nothing is kept for nobody


def test_an_end_while_it_trains_leaves_nothing(browser, pictures, tmp_path):
    with opened(tmp_path, signal.SIGHUP) as (url, *_), browser.new_context() as context:
        tab = context.new_page()
        tab.goto(url)
        train(tab, pictures / "first.png", pictures / "second.png")
        until(lambda: "photographs.pth" in tab.get_by_label("What train prints").input_value())


def line_at(tab, percent):
    """Wait until the line divides the picture there."""
    tab.wait_for_function(
        """([percent]) => {
            const middle = (box) => box.x + box.width / 2;
            const [line, picture] = ["slider", "imageslider-image"].map(
                (name) => document.querySelector(`[data-testid=${name}]`).getBoundingClientRect());
            return Math.abs((middle(line) - picture.x) / picture.width - percent / 100) < 0.03;
        }""",
        arg=[percent],
        timeout=IN_THE_END,
    )


LEFT = """import sys, time
from types import SimpleNamespace
from pathlib import Path
import gradio.route_utils
import Miniproject_1.others.page as page

folder, first, second = map(Path, sys.argv[1:])
work, request = page.Work(folder, "cpu"), SimpleNamespace(session_hash="visitor")
work.begin(request)
training = work.train(str(first), str(second), 30, request)
while "epoch   1/30" not in next(training)[0]:
    pass
assert list(folder.rglob("model.pth"))
work.leave(request)
training.close()  # as gradio does
assert not list(folder.rglob("*.*")), list(folder.rglob("*.*"))

page.os.environ["GRADIO_TEMP_DIR"] = str(folder)
blocks = page._blocks(work, work)
assert len(list(folder.rglob("*.png"))) == 9
gradio.route_utils.delete_files_created_by_app(blocks, -1)  # as after a day
assert len(list(folder.rglob("*.png"))) == 9
"""


def test_a_model_goes_with_its_visitor_and_the_examples_stay(pictures, tmp_path):
    (tmp_path / "work").mkdir()
    done = run("-c", LEFT, tmp_path / "work", pictures / "first.png", pictures / "second.png")
    assert done.returncode == 0, done.stderr


def test_the_keyboard_moves_the_line_and_a_phone_shows_all(tab, pictures):
    tab.set_viewport_size({"width": 390, "height": 844})
    upload(tab, "Noisy picture", pictures / "first.png")
    download(tab, WHOLE)
    line_at(tab, 50)
    tab.get_by_role("slider", name="Dividing line").press("ArrowLeft")
    for _ in range(20):
        tab.keyboard.press("ArrowLeft")
    line_at(tab, 29)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    colours = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        tab.reload()
        tab.get_by_role("button", name="Denoise", exact=True).wait_for()
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]


def ask(url, **options):
    """(status, bytes) of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def posted(url, content, headers=None):
    """(status, bytes) of the answer to an upload of these bytes."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"} | (headers or {})
    return ask(f"{url}gradio_api/upload", data=head + content + b"\r\n--x--\r\n", headers=headers)


def test_only_what_was_uploaded_can_be_read(page, tmp_path):
    url, folder, _ = page
    status, answer = posted(url, b"uploaded")
    (uploaded,) = json.loads(answer)
    assert status == 200
    assert uploaded.startswith(str(folder))
    assert ask(f"{url}gradio_api/file={uploaded}") == (200, b"uploaded")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    up = "../" * 20
    out = (f"{uploaded}/{up}{secret}", f"{up}{secret}", "../README.md", "README.md", "/etc/passwd")
    for path in (secret, ROOT / "README.md", *out):
        for route in ("gradio_api/file=", "gradio_api/file/", "static/", "assets/", "svelte/"):
            for way in (str(path), quote(str(path), safe=""), str(path).replace("../", "..%2f")):
                status, answer = ask(f"{url}{route}{way}")
                assert status >= 400 and answer != b"secret", (route, way)


def test_only_this_computer_gets_in_and_nothing_too_large(page):
    url, *_ = page
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", urlsplit(url).port)):
        pass  # which a server for everybody answers too
    assert ask(url)[0] == 200
    assert ask(url, headers={"Host": "example.com"})[0] == 400  # a name that was made to lead here
    for origin in ("http://example.com", "http://127.0.0.1:1", "null"):
        assert posted(url, b"x", {"Origin": origin})[0] == 403
    assert posted(url, b"x", {"Origin": url.rstrip("/")})[0] == 200
    assert posted(url, b"x" * (MOST_BYTES - 1_000))[0] == 200
    assert posted(url, b"x" * (MOST_BYTES + 1_000))[0] == 413
    settings = json.loads(ask(f"{url}config")[1])
    assert not settings["analytics_enabled"] and not settings["footer_links"]
