"""What a command prints, and how Ctrl-C ends it: neither may spoil what it does."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

INTERRUPTED = "python -m Miniproject_1: interrupted"


class Console:
    """A stream for text on which nothing fails.

    Letters that it lacks are written as `\\xe9`. What cannot be printed, as the other end of the pipe is
    closed, the disk is full or there is no such stream, is left out.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115, as long as the process lives

    def write(self, text: str) -> int:
        try:
            self._try(self.stream.write, text)
        except UnicodeEncodeError:
            encoding = self.stream.encoding
            self._try(self.stream.write, text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, function: Any, *arguments: str) -> None:
        try:
            function(*arguments)
        except OSError:
            # What the stream still holds would fail again when the process ends: it goes nowhere instead.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def consoles() -> Iterator[None]:
    """Within, standard output and standard error are `Console`s."""
    out, err = Console(sys.stdout), Console(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):  # type: ignore[type-var]
        try:
            yield
        finally:
            out.flush()
            err.flush()


@contextmanager
def quick_exit() -> Iterator[None]:
    """Within, while nothing is done yet but imports, Ctrl-C ends the process at once, with one line.

    As an exception, it would come up in the middle of some library, which may take it for a fault of its own.
    """
    if not _listens(signal.SIGINT):
        yield
        return

    def leave(number: int, frame: object) -> None:
        try:
            os.write(2, f"{INTERRUPTED}\n".encode())
        finally:
            os._exit(130)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Within, the first SIGINT or SIGTERM is only noted in the list; a second one acts as ever.

    One that the process ignores, as SIGINT in the background, it goes on to ignore.
    """
    noted: list[int] = []
    usual: dict[int, Any] = {}

    def note(number: int, frame: object) -> None:
        noted.append(number)
        for each, handler in usual.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():  # to others, no signals come
        heeded = (
            each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN
        )
        usual.update({each: signal.signal(each, note) for each in heeded})
    try:
        yield noted
    finally:
        for each, handler in usual.items():
            signal.signal(each, handler)


def _listens(number: int) -> bool:
    """Whether this thread gets the signal, and the process does not ignore it, as in the background."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(number) is signal.default_int_handler
    )
