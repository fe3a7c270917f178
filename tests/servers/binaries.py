"""What the servers of the tests share: finding a binary, running it, and ending it whatever becomes of the test run.

A server belongs to the process that started it. A guard, one small shell beside each server, holds the other end of a
pipe: when that pipe closes, because the server is stopped or because its owner was killed, the guard ends the server by
its process id and removes its folder.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.memory import memory

_GUARD: Final = """
read -r _
kill -"$2" "$1" 2>/dev/null
for _ in $(seq 100); do kill -0 "$1" 2>/dev/null || break; sleep 0.1; done
kill -KILL "$1" 2>/dev/null
rm -rf "$3"
"""


class NoServer(Exception):
    """No server can be had; the message says in one line what to install or to set."""


def package_folder(name: str) -> Path | None:
    """Where an installed package lies, without importing it: some run code at import."""
    spec = importlib.util.find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def short_folder(prefix: str, *, on_disk: bool = False) -> Path:
    """A new folder of nobody else's, with a path short enough for a unix socket.

    In memory where there is room, unless it is to be `on_disk`.
    """
    place = None if on_disk else memory()
    place = place or (Path("/tmp") if Path("/tmp").is_dir() else None)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    folder.chmod(0o755)
    if rights := without_root():
        os.chown(folder, rights["user"], rights["group"])
    return folder


def without_root() -> dict[str, Any]:
    """How to start a server that refuses to run as root: arguments for `Popen`, none when this is not root."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def reachable(folder: Path, program: str) -> Path:
    """The same binaries where the user of `without_root` may run them: an environment below /root hides them."""
    try:
        subprocess.run([folder / program, "--version"], check=True, capture_output=True, **without_root())
        return folder
    except PermissionError:
        pass
    site = next((parent for parent in folder.parents if parent.name == "site-packages"), folder.parents[1])
    package = folder.relative_to(site).parts[0]
    copies = Path(tempfile.mkdtemp(prefix="ergon-bin-"))
    copies.chmod(0o755)
    atexit.register(shutil.rmtree, copies, ignore_errors=True)
    for name in (package, f"{package}.libs"):
        if (site / name).exists():
            _copy(site / name, copies / name)
    return copies / folder.relative_to(site)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)
    except (OSError, shutil.Error):  # another file system
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True)


def free_port() -> int:
    """A port that nobody uses at this moment; whoever takes it may still find it taken and ask again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Guarded:
    """A running server and its guard."""

    def __init__(
        self, command: Sequence[str | Path], folder: Path, *, stop_signal: str = "TERM", **options: Any
    ) -> None:
        """`folder` is the server's, and goes with it; what it prints is in `output` there."""
        self.folder, self.output = folder, folder / "output"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, **without_root(), **options,
            )  # fmt: skip
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self.process.pid), stop_signal, str(folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the server and remove its folder. Stopping twice changes nothing."""
        atexit.unregister(self.stop)
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            self._guard.stdin.close()
            self.process.wait()
            self._guard.wait()

    def leave(self) -> None:
        """Dismiss the guard of a server that has ended, keeping its folder for the next start."""
        assert self.process.poll() is not None, "it still runs"
        atexit.unregister(self.stop)
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
