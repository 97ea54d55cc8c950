"""Read files in a process of its own, which has a deadline and a bound on memory, no network and no environment."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from rag.formats import Content, read_file
from rag.types import KnowledgeError, Limits, Unfinished, Unreadable

_START_SECONDS = 60.0
_READY = b"ready\n"
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")  # no keys, no proxies
_REFUSED = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.spawn",
    "os.startfile",
    "pty.",
)


class ReadingProcess:
    """A process that reads one file after another; use it as a context. A file that breaks it costs a new process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> ReadingProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def read(self, path: Path, within: Path, sidecar: Path | None = None) -> list[Content]:
        """The documents of one file below a folder; see `rag.formats.read_file`.

        Raises:
            Unreadable: the file cannot be used.
            Unfinished: it takes longer than `Limits.seconds`, ended the process, or could not be read from the disk.
            KnowledgeError: the process cannot be started.
        """
        process = self._process or self._start()
        asked = {
            "path": os.fspath(path.absolute()),
            "within": os.fspath(within.absolute()),
            "sidecar": os.fspath(sidecar.absolute()) if sidecar else None,
            "limits": dataclasses.asdict(self._limits),
        }
        line, in_time = _ask(process, json.dumps(asked).encode() + b"\n", self._limits.seconds)
        if not in_time:
            self._stop()
            raise Unfinished(f"takes longer than {self._limits.seconds:g} seconds to read; split it or simplify it")
        if not line.endswith(b"\n"):
            raise Unfinished(f"is damaged, its reader failed ({self._stop()}); save it again from its program")
        reply: dict[str, Any] = json.loads(line)
        if "reason" in reply:
            raise (Unfinished if reply["unfinished"] else Unreadable)(reply["reason"])
        return [Content(**item) for item in reply["contents"]]

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in sys.path)
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-X", "utf8", "-W", "ignore", "-m", "rag.reading"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        line, _ = _ask(self._process, b"", _START_SECONDS)
        if line != _READY:
            raise KnowledgeError(f"the process that reads documents does not start: {self._stop()}")
        return self._process

    def _stop(self) -> str:
        """End the process; the last line that it wrote to stderr."""
        if self._process is None or self._errors is None:
            return ""
        self._process.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        self._process = self._errors = None
        return lines[-1][:200] if lines else f"exit status {status}"


def _ask(process: subprocess.Popen[bytes], line: bytes, seconds: float) -> tuple[bytes, bool]:
    """Write a line, wait for one: it, and whether it came in time; the process is killed if not."""
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        if process.stdin is None or process.stdout is None:  # both are pipes
            return b"", True
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(line)
            process.stdin.flush()
        answer = process.stdout.readline()
    finally:
        timer.cancel()
        timer.join()
    return answer, not late.is_set()


def _serve() -> None:
    """Answer requests, one JSON object on a line, until standard input ends. What is not foreseen ends the process."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # so that no library's output is taken for a reply
    sys.addaudithook(_refuse)
    replies.write(_READY)
    replies.flush()
    for line in sys.stdin.buffer:
        replies.write(json.dumps(_reply(json.loads(line))).encode() + b"\n")
        replies.flush()


def _reply(asked: dict[str, Any]) -> dict[str, Any]:
    limits = Limits(**asked["limits"])
    _bound_memory(limits.memory)
    sidecar = Path(asked["sidecar"]) if asked["sidecar"] else None
    try:
        contents = read_file(Path(asked["path"]), limits, sidecar, Path(asked["within"]))
    except Unreadable as exc:
        return {"reason": str(exc), "unfinished": isinstance(exc, Unfinished)}
    except RecursionError:
        return {"reason": "is nested too deeply; simplify it", "unfinished": False}
    except MemoryError:
        return {"reason": f"needs more than {limits.memory} bytes of memory to read; split it", "unfinished": False}
    return {"contents": [dataclasses.asdict(content) for content in contents]}


def _bound_memory(most: int) -> None:
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(ValueError, OSError):  # macOS keeps no such limit
            resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if event.startswith(_REFUSED):
        raise PermissionError(f"reading a document may neither use the network nor start a program: {event}")


if __name__ == "__main__":
    _serve()
