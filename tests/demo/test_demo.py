"""The demo as people meet it: the real command, real files, real kills, at any moment and by anyone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ergon.demo.screen import ergon_here

Start = Callable[..., subprocess.Popen[str]]
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Some hundred files in a few directories: enough that the demo has time for more than one kill."""
    for number in range(720):
        folder = tmp_path / "tree" / f"d{number % 8}" / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {number}.txt").write_bytes(os.urandom(300 + number))
    return tmp_path / "tree"


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "ergon", "demo", *map(str, arguments)],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finished(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=150)
    assert process.returncode == 0, out
    return out


def promises_kept(out: str) -> bool:
    return "BROKEN" not in out and out.count("   ok") == 4


def state(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "ergon-demo/demo.json").read_text())
    return found


def indexed(place: Path) -> int:
    ledger = place / "ergon-demo/ledger.jsonl"
    return ledger.read_bytes().count(b'["end"') if ledger.exists() else 0


def wait_for(found: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.01)


def test_the_demo_kills_its_worker_and_proves_that_nothing_was_lost_or_done_twice(
    demo, tree, tmp_path
) -> None:
    out = finished(demo(tree))

    assert promises_kept(out)
    # Four, but so small a tree may be done before the next kill is due.
    assert 2 <= out.count("SIGKILL to worker") <= 4
    assert "agrees with the manifest on 720 of 720 files" in out
    assert len(state(tmp_path)["deaths"]) == out.count("SIGKILL to worker")
    manifest = tmp_path / "ergon-demo/manifest.sha256"
    by_hand = subprocess.run(
        ["sha256sum", "--check", "--quiet", str(manifest)], cwd=tree, capture_output=True, check=False
    )
    assert (by_hand.returncode, by_hand.stdout) == (0, b"")
    assert len(manifest.read_text().splitlines()) == 720


def test_the_demo_works_in_its_own_log_whichever_the_environment_names(demo, tmp_path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(os.urandom(300))

    out = finished(demo("tree", ERGON_NAMESPACE="acme", ERGON_LOG=str(tmp_path / "other.db")))

    assert promises_kept(out)
    assert "unset ERGON_NAMESPACE" in out
    assert not list(tmp_path.glob("*.db"))


def test_a_small_tree_is_killed_more_than_once_too_and_the_number_it_tells_is_true(demo, tmp_path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(16):
        (tmp_path / f"tree/file {number}").write_bytes(os.urandom(300))

    out = finished(demo("tree"))

    kills = [death for death in state(tmp_path)["deaths"] if death["how"].startswith("our SIGKILL")]
    assert promises_kept(out)
    assert len(kills) == 4
    assert re.search(rf"killed with SIGKILL by this demo +{len(kills)}\b", out), out
    assert sum(bool(death["open_bodies"]) for death in kills) >= 2, "killed in the middle of a step"


def test_the_log_it_leaves_answers_ls_show_and_why(demo, tree, tmp_path) -> None:
    finished(demo(tree))

    def ergon(*arguments: str) -> str:
        command = [sys.executable, "-m", "ergon", *arguments, "--log", "ergon-demo/demo.db"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "index_tree\tcompleted" in ergon("ls")
    assert "├ ./  index_directory  completed" in ergon("show", "index")
    assert "write_draft" in ergon("show", "index")
    assert ergon("why", "index").startswith("flow 'index' has ended: completed")


def test_the_commands_it_names_work_where_it_was_started(demo, tree, tmp_path) -> None:
    lines = finished(demo(tree)).splitlines()
    begins = next(number for number, line in enumerate(lines) if "Look for yourself" in line)
    commands = [re.split(r"\s{3,}", line.strip())[0] for line in lines[begins + 1 : begins + 6]]

    shell = ["sh", "-ec", "\n".join(commands)]
    said = subprocess.run(
        shell,
        cwd=tmp_path,
        env={"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "index_tree\tcompleted" in said.stdout
    assert "flow 'index' has ended: completed" in said.stdout


@pytest.mark.parametrize("on_path", [True, False])
def test_ergon_is_named_by_its_path_unless_the_shell_finds_it(
    on_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / ".venv/bin/ergon"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    monkeypatch.setenv("PATH", str(script.parent) if on_path else str(tmp_path))

    assert ergon_here() == ("ergon" if on_path else ".venv/bin/ergon")


def test_a_demo_that_is_killed_goes_on_and_leaves_no_worker_behind(demo, tree, tmp_path) -> None:
    first = demo(tree)
    wait_for(lambda: indexed(tmp_path) > 20)
    first.kill()
    first.wait()
    log = tmp_path / "ergon-demo/worker.log"
    wait_for(lambda: log.read_text().rstrip().endswith("stopped"))
    before = indexed(tmp_path)

    out = finished(demo())

    assert "an earlier demo was stopped after" in out
    assert promises_kept(out)
    assert before >= 20
    assert "agrees with the manifest on 720 of 720 files" in out


def test_ctrl_c_stops_it_calmly_and_the_same_command_goes_on(demo, tree, tmp_path) -> None:
    first = demo(tree)
    wait_for(lambda: indexed(tmp_path) > 20)
    first.send_signal(signal.SIGINT)
    out, _ = first.communicate(timeout=60)

    assert first.returncode == 130
    assert "The same command goes on where it stood" in out
    assert "Traceback" not in out
    assert promises_kept(finished(demo(tree)))


def test_a_worker_killed_by_hand_is_started_again(demo, tree, tmp_path) -> None:
    process = demo(tree)
    wait_for(lambda: indexed(tmp_path) > 5)
    last = json.loads((tmp_path / "ergon-demo/ledger.jsonl").read_text().splitlines()[1])
    os.kill(int(last[2].partition("-")[0]), signal.SIGKILL)

    out = finished(process)

    assert "somebody else's SIGKILL" in out
    assert promises_kept(out)


def test_odd_names_odd_files_and_none_at_all(demo, tmp_path) -> None:
    """File names are bytes; what is no regular file is left out; nothing is followed or waited for."""
    tree = os.fsencode(tmp_path / "tree")
    for folder in (b"", b"/a b/ c", b"/d\xffir\n", b"/empty", b"/" + b"deep/" * 60):
        os.makedirs(tree + folder, exist_ok=True)
    names = [
        b"sp ace",
        b"new\nline",
        b"b\xff\xfe.bin",
        b"back\\slash",
        b"-dash",
        b"per%41cent",
        b"\xc3\xbcn\xc3\xaf ",
        b"none",
    ]
    for name in [*names, b"a b/ c/ x", b"d\xffir\n/f", b"deep/" * 60 + b"f"]:
        with open(tree + b"/" + name, "wb") as file:
            file.write(b"" if name == b"none" else name)
    with open(tree + b"/huge", "wb") as file:
        file.truncate(50_000_000)
    os.symlink(b".", tree + b"/loop")
    os.symlink(b"nowhere", tree + b"/dangling")
    os.mkfifo(tree + b"/pipe")

    out = finished(demo(tmp_path / "tree"))
    nothing = finished(demo(tmp_path / "tree/empty"))

    assert "agrees with the manifest on 12 of 12 files" in out
    assert promises_kept(out)
    assert "agrees with the manifest on 0 of 0 files" in nothing


def test_a_file_that_changes_meanwhile_is_reported_and_not_called_wrong(demo, tree, tmp_path) -> None:
    process = demo(tree)
    wait_for((tmp_path / "ergon-demo/manifest.draft").exists)
    (tree / "d0/deep/file 0.txt").write_text("something else")
    (tree / "d1/deep/file 1.txt").unlink()
    (tree / "new.txt").write_text("new")

    out = finished(process)

    assert "3 changed, came or went meanwhile: d0/deep/file 0.txt, d1/deep/file 1.txt, new.txt" in out
    assert "agrees with the manifest on 718 of 720 files" in out


def test_without_sha256sum_another_process_checks_and_the_demo_says_so(demo, tree, tmp_path) -> None:
    out = finished(demo(tree, PATH=str(tmp_path)))

    assert (
        "hashlib in a process of its own (there is no sha256sum here) agrees with the manifest on 720 of 720"
        in out
    )


def test_a_check_that_says_nothing_of_a_file_proves_nothing_and_fails(demo, tree, tmp_path) -> None:
    """Killed, out of memory, or not what its name says: silence is not consent."""
    silent = tmp_path / "programs" / "sha256sum"
    silent.parent.mkdir()
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)

    process = demo(tree, PATH=f"{silent.parent}:{os.environ['PATH']}")
    out, _ = process.communicate(timeout=150)

    assert process.returncode == 1
    assert "agrees with the manifest on 0 of 720 files" in out
    assert "720 were not checked: sha256sum gave no digest of them" in out
    assert "changed, came or went" not in out


def test_fresh_forgets_an_unfinished_demo_and_removes_nothing_but_its_own_files(demo, tree, tmp_path) -> None:
    first = demo(tree)
    wait_for(lambda: indexed(tmp_path) > 20)
    first.kill()
    first.wait()
    mine = tmp_path / "ergon-demo/mine.txt"
    mine.write_text("keep me")
    other = tmp_path / "other"
    other.mkdir()
    (other / "one").write_text("1")

    refused = demo(other)
    said, _ = refused.communicate(timeout=60)
    out = finished(demo(other, "--fresh"))

    assert refused.returncode == 2
    assert "--fresh" in said
    assert "agrees with the manifest on 1 of 1 files" in out
    assert mine.read_text() == "keep me"


def test_two_demos_do_not_play_in_one_place(demo, tree, tmp_path) -> None:
    first = demo(tree)
    wait_for(lambda: indexed(tmp_path) > 0)

    second = demo(tree)
    said, _ = second.communicate(timeout=60)

    assert second.returncode == 2
    assert "another demo is playing in" in said
    assert promises_kept(finished(first))


def test_a_directory_of_ones_own_is_never_taken_for_a_demos(demo, tree, tmp_path) -> None:
    place = tmp_path / "ergon-demo"
    place.mkdir()
    (place / "manifest.sha256").write_text("mine")

    process = demo(tree)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 2
    assert "which no demo wrote" in said
    assert (place / "manifest.sha256").read_text() == "mine"
