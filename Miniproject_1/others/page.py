"""A page in the browser: a picture denoised under a slider, and two shots of a scene trained on."""

import html
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from threading import Thread
from typing import Any

# Read when gradio is imported: it reports nothing, serves no tools, and no folder that the shell names.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["GRADIO_MCP_SERVER"] = "False"
os.environ["GRADIO_ALLOWED_PATHS"] = ""
import gradio as gr
import numpy as np
import torch
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .console import INTERRUPTED, stop_signals
from .denoise import Planes
from .machine import PHOTOGRAPHS, load_model, new_model
from .noises import gaussian
from .photographs import embedded_photographs, open_photograph, pixels_of
from .pictures import FORMATS, Picture, open_picture, upright, write_pictures, write_pixels

HOST = "127.0.0.1"
MOST_BYTES = 600 * 2**20  # of an upload: 89 million pixels of three colours and 16 bits have fewer
SHOWN = 4096  # pixels a side under the slider, at most
EXAMPLES = {"chelsea": 25, "coffee": 50, "astronaut": 15}  # scikit-image's photographs, the noise's σ
FULL_SIZE, COURSE, OWN = "photographs.pth", "bestmodel.pth", "a file of your own"
PROGRESS = gr.Progress(track_tqdm=True)  # shows the bars that `Planes` and `Model.predict` have
ABOUT = """# Noise2Noise
A denoiser that learned from noisy pictures alone. Your files stay on this computer.
Drag the line between noisy and denoised; the wheel, or two fingers, zoom to the pixels."""


def page(*, device: str | None = None) -> None:
    """Open a page on which pictures are denoised and two shots of a scene trained on.

    It is there until Ctrl-C, SIGTERM or the terminal's end, and only this computer can reach it. What is
    uploaded and made lies in a temporary folder, which is removed at the end. Raises `ValueError` for a
    device that is none here.
    """
    with stop_signals() as stopped:
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # no nohup
            signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
        with served(device) as url:
            print(f"{url}: the page; Ctrl-C ends it", flush=True)
            # Beside this: a browser in the terminal would only come back when it is left.
            Thread(target=webbrowser.open, args=[url], daemon=True).start()
            while not stopped:
                time.sleep(0.1)


@contextmanager
def served(device: str | None = None) -> Iterator[str]:
    """Within, the page is there; gives its address."""
    new_model(device)
    with TemporaryDirectory(prefix="miniproject-1-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_EXAMPLES_CACHE"] = folder
        # As it starts, the page asks itself something, which is no matter for a proxy.
        others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{others},{HOST},localhost"
        tabs = Work(Path(folder), device), Work(Path(folder), device)
        blocks = _blocks(*tabs)
        # Another site's name may lead here too: such a site could then read what is on the page.
        guards = [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]), Middleware(_own)]
        options: dict[str, Any] = {"run_history": False, "footer_links": [], "prevent_thread_lock": True}
        options |= {"theme": gr.themes.Default(font="sans-serif", font_mono="monospace")}  # else from the web
        options |= {"max_file_size": MOST_BYTES, "app_kwargs": {"middleware": guards}}
        _, url, _ = blocks.launch(server_name=HOST, share=False, quiet=True, **options)
        try:
            yield url
        finally:
            try:
                for work in tabs:
                    work.end()
            finally:
                blocks.close(verbose=False)


def _own(app: ASGIApp) -> ASGIApp:
    """`app`, but for what another site's page asks of it: that could fill the disk."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        here = f"http://{headers.get('host')}"
        if headers.get("origin", here) == here:
            await app(scope, receive, send)
        else:
            await PlainTextResponse("another site's request", 403)(scope, receive, send)

    return answer


class Work:
    """What the buttons of one tab do, in files below `folder`.

    visits: for each visitor, a list that gets an element where the work is to stop, and where its files lie;
    running: as many elements as there are works being done.
    """

    def __init__(self, folder: Path, device: str | None) -> None:
        self.folder, self.device = folder, device
        self.visits: dict[str | None, tuple[list[int], Path]] = {}
        self.running: list[int] = []

    def begin(self, request: gr.Request) -> None:
        """Before any work, and before it waits for its turn: what the visitor's last work was is stopped."""
        visit = self.visits.get(request.session_hash)
        stopped, folder = visit or ([], Path(mkdtemp(dir=self.folder)))
        stopped.append(1)
        self.visits[request.session_hash] = [], folder

    def stop(self, request: gr.Request) -> None:
        """End the visitor's work, also what still waits for another's; what is trained so far stays."""
        if visit := self.visits.get(request.session_hash):
            visit[0].append(1)

    def leave(self, request: gr.Request) -> None:
        """The visitor is gone: nothing is worked on, and nothing kept, for nobody."""
        if visit := self.visits.pop(request.session_hash, None):
            visit[0].append(1)
            shutil.rmtree(visit[1], ignore_errors=True)  # all else of it goes when the page ends

    def end(self) -> None:
        """End all work, and wait until it has: it could still write files."""
        while self.visits:
            self.visits.popitem()[1][0].append(1)
        while self.running:
            time.sleep(0.1)

    @contextmanager
    def _visit(self, request: gr.Request) -> Iterator[tuple[list[int], Path]]:
        """Within, (what says that this work is to stop, a new folder for it)."""
        if not (visit := self.visits.get(request.session_hash)) or visit[0]:
            raise KeyboardInterrupt
        try:
            yield visit[0], Path(mkdtemp(dir=visit[1]))
        finally:
            if request.session_hash not in self.visits:  # what was written since the visitor left
                shutil.rmtree(visit[1], ignore_errors=True)

    def denoise(
        self,
        picture: str | None,
        clean: str | None,
        weights: str,
        own: str | None,
        strength: float,
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> tuple[list[np.ndarray], str, str]:
        """(noisy and denoised as they are shown, what there is to say, the file), as `denoise` has them."""
        with self._errors_shown(), self._visit(request) as (stopped, place):
            if not picture or (weights == OWN and not own):
                raise ValueError("drop a file with weights first" if picture else "drop a picture first")
            path = {FULL_SIZE: PHOTOGRAPHS, COURSE: None}.get(weights, Path(own or ""))
            model, source, reference = load_model(path, self.device), Path(picture), clean and Path(clean)
            if reference:
                with open_picture(reference):
                    pass  # refuses one that is too large
            target = place / f"{source.stem}.denoised{source.suffix}"
            with open_picture(source) as file:
                planes = Planes(model, [file], target, reference or None, strength, stopped)
                write_pictures(file, iter(planes), target)
            bounds = planes.first[0].bounds  # the whole picture's
            return [upright(_middle(each), bounds) for each in planes.first], self._told(planes), str(target)

    def _told(self, planes: Planes) -> str:
        lines = [planes.noise()]
        try:
            lines += [planes.score()] if planes.reference else []
        except Exception as error:  # whatever is wrong with the clean picture, there is an answer
            lines.append(self._words(error))
        if max(planes.first[0].pixels.shape) > SHOWN:
            lines.append(f"only the middle is shown, at most {SHOWN}×{SHOWN} pixels; the file has all")
        return "\n".join(lines + planes.messages())

    def train(
        self, first: str | None, second: str | None, epochs: float, request: gr.Request
    ) -> Iterator[tuple[str, str | None, str | None]]:
        """(what `train` prints, its curve, the model's file once it is done), twice a second."""
        with self._errors_shown(), self._visit(request) as (stopped, place):
            if not first or not second:
                raise ValueError("drop two shots of one scene first")
            out, log, curve = place / "model.pth", place / "log.txt", place / "model.png"
            command = [sys.executable, "-m", str(__package__).partition(".")[0], "train"]
            for name, shot in (("first", first), ("second", second)):
                (place / name).mkdir()
                shutil.copy(shot, place / name / f"scene{Path(shot).suffix}")
                command.append(str(place / name))
            command += ["-o", str(out), "--epochs", f"{epochs:.0f}"]
            command += ["--device", self.device] if self.device else []
            with log.open("w") as file, _running(command, file) as process:
                while process.poll() is None and not stopped:
                    yield self._words(log.read_text()), str(curve) if curve.exists() else None, None
                    time.sleep(0.5)
            printed, interrupted, _ = self._words(log.read_text()).partition(INTERRUPTED)
            if not out.exists() and stopped:
                raise ValueError("stopped before its first step")
            failed = process.returncode and not interrupted
            if not failed:
                stopped.clear()  # what comes next is the model's answer
                printed += "stopped: the model is what it was then" if interrupted else ""
            files = [str(path) if path.exists() else None for path in (curve, out)]
            yield printed, files[0], files[1]
            if process.returncode < 0 and failed:
                raise ValueError(f"train was killed by signal {-process.returncode}; out of memory?")
            if failed:
                raise ValueError((printed.splitlines() or [f"train ended with {process.returncode}"])[-1])

    @contextmanager
    def _errors_shown(self) -> Iterator[None]:
        """Within, whatever goes wrong becomes a message on the page."""
        self.running.append(1)
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            words = "stopped" if isinstance(error, KeyboardInterrupt) else self._words(error)
            raise gr.Error(html.escape(words), duration=30, print_exception=False) from error
        finally:
            self.running.pop()

    def _words(self, said: Exception | str) -> str:
        """What was said, without the folders that only this page knows of."""
        here = re.escape(str(self.folder))
        words = re.sub(rf"{here}/\w+/\w+/(first|second)\b(/scene\.\w+)?", r"\1 shot", str(said))
        words = re.sub(rf"{here}/(\w+/){{1,2}}", "", words).replace("--clean", "clean picture")
        return words or (type(said).__name__ if isinstance(said, Exception) else "")


@contextmanager
def _running(command: list[str], log: Any) -> Iterator[subprocess.Popen]:
    """Within, the command runs; at the end it is asked to stop, as by Ctrl-C, where it still does."""
    quiet = os.environ | {"TQDM_DISABLE": "1"}
    with subprocess.Popen(command, stdout=log, stderr=log, env=quiet) as process:
        try:
            yield process
        finally:
            process.terminate()


def _middle(picture: Picture) -> Picture:
    top, left = (max(0, (length - SHOWN) // 2) for length in picture.pixels.shape[:2])
    return picture._replace(pixels=picture.pixels[top : top + SHOWN, left : left + SHOWN])


def _examples(folder: Path) -> list[list[str]]:
    """Two noisy shots and the clean picture of each."""
    generator, photographs = torch.Generator().manual_seed(0), embedded_photographs()
    files = []
    for name, sigma in EXAMPLES.items():
        clean = pixels_of(open_photograph(next(path for path in photographs if path.stem == name)))
        shots = [gaussian(clean, sigma, generator) for _ in range(2)]
        paths = [folder / f"{name}_{each}.png" for each in ("first", "second", "clean")]
        for path, pixels in zip(paths, [*shots, clean], strict=True):
            write_pixels(pixels, path)
        files.append([str(path) for path in paths])
    return files


def _blocks(first: Work, second: Work) -> gr.Blocks:
    examples = _examples(first.folder / "examples")
    with gr.Blocks(title="Noise2Noise", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as blocks:
        gr.Markdown(ABOUT)
        with gr.Tab("Denoise a picture"), gr.Row():
            _picture_tab(first, [[shot, clean] for shot, _, clean in examples])
        with gr.Tab("Train on two shots"), gr.Row():
            _shots_tab(second, [shots[:2] for shots in examples])
        for work in (first, second):
            blocks.unload(work.leave)
    return blocks


def _picture_tab(work: Work, examples: list[list[str]]) -> None:
    with gr.Column(scale=1):
        given = [_upload("Noisy picture"), _upload("Clean picture, to compare with (optional)")]
        shown = _shown(examples, given)
        weights = gr.Radio([FULL_SIZE, COURSE, OWN], value=FULL_SIZE, label="Weights")
        own = gr.File(label="Your weights, as train writes them", height=140, visible=False)
        strength = gr.Slider(0, 1, 1, step=0.05, label="Strength: how much of the noise goes")
        start = gr.Button("Denoise", variant="primary")
        gr.Button("Stop").click(work.stop, queue=False)
    with gr.Column(scale=2):
        results = _results()
    weights.change(lambda chosen: gr.File(visible=chosen == OWN), weights, own, show_progress="hidden")
    chosen = [*given, weights, own, strength]
    for event in (given[0].upload, start.click, shown.load_input_event.success):
        begun = event(work.begin, queue=False)
        begun.success(work.denoise, chosen, results, **_queued("denoise", results[0]))


def _shots_tab(work: Work, examples: list[list[str]]) -> None:
    with gr.Column(scale=1):
        shots = [_upload("First shot"), _upload("Second shot: nothing moved, same settings")]
        _shown(examples, shots)
        epochs = gr.Slider(1, 30, 8, step=1, label="Epochs, from photographs.pth on")
        start = gr.Button("Train", variant="primary")
        gr.Button("Stop").click(work.stop, queue=False)
        log = gr.Textbox(label="What train prints", lines=4, max_lines=12, interactive=False)
    with gr.Column(scale=2):
        curve = gr.Image(label="Curve", height=300, interactive=False)
        results = _results()
        model = _made("The model: for the other tab, or denoise --weights")
    begun = start.click(work.begin, queue=False)
    trained = begun.success(work.train, [*shots, epochs], [log, curve, model], **_queued("train", log))
    same = [shots[0], gr.State(None), gr.State(OWN), model, gr.State(1)]
    trained.success(work.denoise, same, results, **_queued("denoise", results[0]))


def _queued(kind: str, place: Any) -> dict[str, Any]:
    """Options of an event: one at a time of its kind; how far it is stands at the place."""
    return {"concurrency_id": kind, "trigger_mode": "multiple", "show_progress_on": place}


def _results() -> list[Any]:
    """The slider, what there is to say, and the file."""
    slider = gr.ImageSlider(label="Noisy | denoised", format="png")
    line = gr.Slider(0, 100, 50, step=1, label="Dividing line, for the keyboard")
    options: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    line.input(lambda at: gr.ImageSlider(slider_position=at), line, slider, **options)
    told = gr.Textbox(label="Noise and quality", lines=3, interactive=False)
    return [slider, told, _made("The whole file, in its own type and depth")]


def _upload(label: str) -> gr.File:
    return gr.File(label=label, file_types=list(FORMATS), height=140)


def _made(label: str) -> gr.File:
    return gr.File(label=label, interactive=False, height=100)


def _shown(examples: list[list[str]], fields: list[gr.File]) -> gr.Examples:
    fields[0].keep_in_cache.update(path for paths in examples for path in paths)  # else they go after a day
    names = [f"{name}, σ {sigma}" for name, sigma in EXAMPLES.items()]
    return gr.Examples(examples, fields, label="Examples, noise added", example_labels=names)
