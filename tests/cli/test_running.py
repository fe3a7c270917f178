"""`run` and `worker` as real processes: results, interruptions, signals from the operator and from the kernel."""

import contextlib
import json
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest


def test_run_prints_the_result_as_json_and_nothing_else_on_stdout(ergon) -> None:
    plain = ergon("run", "shop.py:count", "--input", '{"n": 4}')
    of_a_class = ergon("run", "shop.py:Order", "--input", '{"id": "o", "amount": 2.5}')

    assert plain.code == of_a_class.code == 0
    assert json.loads(plain.out) == 7
    assert json.loads(of_a_class.out) == "o: 2.50"


def test_run_takes_arguments_from_a_file_and_a_module_by_name(ergon, here: Path) -> None:
    (here / "input.json").write_text('{"n": 40}')

    assert json.loads(ergon("run", "shop:count", "--input", "@input.json").out) == 43


def test_the_same_id_returns_the_recorded_result_without_running_anything_again(ergon, here: Path) -> None:
    first = ergon("run", "shop.py:naps", "--input", '{"seconds": 0}', "--id", "nap")
    second = ergon("run", "shop.py:naps", "--input", '{"seconds": 0}', "--id", "nap")

    assert first.out == second.out == '"rested"\n'
    assert (here / "notes.txt").read_text() == "before\nafter\n"


def test_a_failed_flow_gives_one_line_and_exit_code_1_and_can_be_retried(ergon, here: Path) -> None:
    failed = ergon("run", "shop.py:fails_once", "--id", "f")
    (here / "mended").write_text("")
    repeated = ergon("run", "shop.py:fails_once", "--id", "f")
    retried = ergon("retry", "f")
    again = ergon("run", "shop.py:fails_once", "--id", "f")

    assert failed.code == 1
    assert failed.out == ""
    assert "flow 'f' failed: ValueError: broken, at shop.py:" in failed.err
    assert "`ergon retry f` tries it again)" in failed.err
    assert "runs here" in failed.err
    assert repeated.code == 1
    assert "flow 'f' has ended already" in repeated.err
    assert "flow 'f' failed: ValueError: broken" in repeated.err
    assert retried.code == 0
    assert again.out == '"fine"\n'
    assert (here / "notes.txt").read_text() == "charged\n"


def test_how_a_run_ends_is_said_once_and_how_its_child_failed_too(command) -> None:
    failed = command("run", "shop.py:fails_beside_a_child", "--id", "f")
    out, err = failed.communicate(timeout=30)

    assert (failed.returncode, out) == (1, "")
    assert err.count("ValueError: its own") == 1
    assert err.count("flow child failed: ValueError: the child's, at shop.py:") == 1


def test_a_run_that_is_interrupted_tells_how_its_flow_fails_after_all(command, here: Path) -> None:
    run = command("run", "shop.py:fails_late", "--id", "f")
    wait_for(lambda: notes(here) == ["begun"])
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=20)

    assert (run.returncode, out) == (1, "")
    assert "stopping: running steps have 10 s to end" in err
    assert "stays in the log" not in err
    assert err.count("failed: ValueError: late") == 1


def test_a_run_that_is_interrupted_prints_the_result_when_its_flow_completes_after_all(
    command, here: Path
) -> None:
    run = command("run", "shop.py:ends_late", "--id", "f")
    wait_for(lambda: notes(here) == ["begun"])
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=20)

    assert (run.returncode, out) == (0, '"well"\n')
    assert "stays in the log" not in err


def test_why_a_run_is_parked_is_said_once(command, ergon) -> None:
    first = command("run", "shop.py:changes", "--id", "f")
    told = [first.stderr.readline(), first.stderr.readline()]
    first.kill()
    first.wait()
    assert "waiting for signal" in told[1]
    ergon("signal", "f", "go", "--value", '"on"')
    parked = command("run", "shop.py:changes", "--id", "f")
    out, err = parked.communicate(timeout=30)

    assert (parked.returncode, out) == (1, "")
    assert err.count("is parked") == 1
    assert err.count("history has: step `deploys`") == 1
    assert "(`ergon resume f` lets it go on, with the code it needs)" in err


def test_advice_is_a_command_for_the_log_that_was_given(ergon, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ergon("run", "shop.py:fails_once", "--id", "f", "--log", "my shop.db")
    before_the_verb = ergon("--log", "my shop.db", "run", "shop.py:fails_once", "--id", "f")
    monkeypatch.setenv("ERGON_LOG", "my shop.db")
    by_environment = ergon("run", "shop.py:fails_once", "--id", "f")

    named = "(`ergon show f --log 'my shop.db'` has its history, `ergon retry f --log 'my shop.db'` tries it again)"
    assert named in given.err
    assert named in before_the_verb.err
    assert "(`ergon show f` has its history, `ergon retry f` tries it again)" in by_environment.err


def test_a_run_that_is_interrupted_goes_on_with_the_same_command(command, here: Path) -> None:
    line = ("run", "shop.py:naps", "--input", '{"seconds": 2}', "--id", "nap")
    first = command(*line)
    wait_for(lambda: steps_recorded(here) == 1)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=20)

    second = command(*line)
    result, _ = second.communicate(timeout=20)

    assert first.returncode == 130
    assert out == ""
    assert "--id nap goes on with it" in err
    assert "Traceback" not in err
    assert (second.returncode, result) == (0, '"rested"\n')
    assert notes(here) == ["before", "after"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_told_to_stop_lets_its_step_end(command, here: Path, number) -> None:
    line = ("run", "shop.py:works", "--input", '{"seconds": 1.0}', "--id", "w")
    first = command(*line)
    wait_for(lambda: notes(here) == ["slow begins"])
    first.send_signal(number)
    out, err = first.communicate(timeout=20)

    second = command(*line)

    assert (first.returncode, out) == (0, '"slow is done"\n'), "it ended with its step"
    assert "goes on with it" not in err
    assert "Traceback" not in err
    assert second.communicate(timeout=20)[0] == '"slow is done"\n'
    assert notes(here) == ["slow begins"]


def test_a_run_of_a_paused_flow_says_that_it_is_paused(command, ergon, here: Path) -> None:
    line = ("run", "shop.py:asks", "--input", '{"question": "?"}', "--id", "ask")
    first = command(*line)
    wait_for(lambda: "waiting for signal" in first.stderr.readline())
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=20)
    ergon("pause", "ask")

    second = command(*line)

    wait_for(lambda: "flow 'ask' is paused" in second.stderr.readline())


def test_a_run_told_twice_to_stop_ends_at_once(command, here: Path) -> None:
    process = command("run", "shop.py:works", "--input", '{"seconds": 50}', "--id", "w")
    wait_for(lambda: notes(here) == ["slow begins"])
    stderr = process.stderr
    assert stderr is not None
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: "Ctrl-C again: stop at once" in stderr.readline())
    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=8) == 130  # the drain would have taken 10 s
    assert "goes on with it" not in stderr.read()


@pytest.mark.parametrize(
    "line", [("worker", "shop.py", "--drain", "0.1"), ("run", "shop.py:spins", "--id", "s")]
)
def test_code_that_never_lets_go_of_the_event_loop_keeps_no_process_from_ending(
    command, here: Path, line
) -> None:
    with (here / "shop.py").open("a") as file:
        file.write("import ergon.cli.run\nergon.cli.run.DRAIN_SECONDS = 0.1\n")
    schedule_with("spins", {}, "s")
    process = command(*line)
    wait_for((here / "spinning").exists)

    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "of being told to, and is ended; open steps run again" in err


def test_a_run_that_is_killed_goes_on_with_the_same_command(command, here: Path) -> None:
    line = ("run", "shop.py:naps", "--input", '{"seconds": 1}', "--id", "nap")
    first = command(*line)
    wait_for(lambda: steps_recorded(here) == 1)
    first.kill()
    first.wait()

    second = command(*line)

    assert second.communicate(timeout=20)[0] == '"rested"\n'
    assert notes(here) == ["before", "after"]


def test_a_flow_that_waits_tells_why_and_takes_a_signal_sent_by_another_process(command, ergon) -> None:
    process = command("run", "shop.py:asks", "--input", '{"question": "?"}', "--id", "ask")
    assert process.stderr is not None
    told = [process.stderr.readline(), process.stderr.readline()]

    near = ergon("signal", "ask", "aproval", "--value", '"no"')
    sent = ergon("signal", "ask", "approval", "--value", '"yes"')

    assert process.communicate(timeout=20)[0] == '"yes"\n'
    assert 'waiting for signal "approval"' in told[1]
    assert "waits for signal 'approval', not 'aproval'" in near.err
    assert (sent.code, sent.out) == (0, "sent signal 'approval' to flow 'ask'\n")


@pytest.mark.parametrize("number,code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_worker_told_to_stop_lets_its_steps_end(command, ergon, here: Path, number, code) -> None:
    schedule_with("works", {"seconds": 1.0}, "w")
    worker = command("worker", "shop.py", "--drain", "20")
    wait_for(lambda: notes(here) == ["slow begins"])

    worker.send_signal(number)
    _, err = worker.communicate(timeout=20)
    finisher = command("run", "shop.py:works", "--input", '{"seconds": 1.0}', "--id", "w")

    assert worker.returncode == code
    assert "stopped" in err
    assert finisher.communicate(timeout=20)[0] == '"slow is done"\n'
    assert notes(here) == ["slow begins"]


def test_a_second_interrupt_stops_a_worker_at_once_and_its_step_runs_again_elsewhere(
    command, ergon, here
) -> None:
    schedule_with("works", {"seconds": 30.0}, "w")
    worker = command("worker", "shop.py")
    wait_for(lambda: notes(here) == ["slow begins"])

    worker.send_signal(signal.SIGINT)
    assert worker.stderr is not None
    wait_for(lambda: "stopping" in worker.stderr.readline())
    worker.send_signal(signal.SIGINT)

    assert worker.wait(10) == 130
    command("worker", "shop.py")
    wait_for(lambda: notes(here) == ["slow begins"] * 2)


def test_the_drain_deadline_holds_even_for_a_step_that_does_not_listen(command, ergon, here: Path) -> None:
    schedule_with("works", {"seconds": 30.0}, "w")
    worker = command("worker", "shop.py", "--drain", "0.2")
    wait_for(lambda: notes(here) == ["slow begins"])

    began = time.monotonic()
    worker.terminate()

    assert worker.wait(20) == 0
    assert time.monotonic() - began < 10
    assert "pending" in ergon("ls").out


def test_a_worker_until_eof_ends_with_whoever_started_it(command) -> None:
    worker = command("worker", "shop.py", "--until-eof", stdin=subprocess.PIPE)
    assert worker.stderr is not None
    wait_for(lambda: "runs" in worker.stderr.readline())

    assert worker.stdin is not None
    worker.stdin.close()
    worker.stdin = None

    assert worker.wait(20) == 0


@pytest.mark.parametrize("seconds", ["inf", "1e300"])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_worker_whose_steps_may_take_for_ever_ends_when_told_to_stop(
    command, seconds: str, processes: str
) -> None:
    worker = command("worker", "shop.py", "--drain", seconds, "--processes", processes)
    assert worker.stderr is not None
    wait_for(lambda: " runs " in worker.stderr.readline())

    worker.terminate()
    _, err = worker.communicate(timeout=30)

    assert worker.returncode == 0
    assert "Error" not in err


def test_a_worker_whose_code_computes_for_ever_ends_soon_after_whoever_started_it(
    command, here: Path
) -> None:
    """Its standard input ends, and nobody reads any more what it says."""
    schedule_with("spins", {}, "s")
    worker = command("worker", "shop.py", "--until-eof", "--drain", "0.1", stdin=subprocess.PIPE)
    wait_for((here / "spinning").exists)

    for pipe in (worker.stdin, worker.stdout, worker.stderr):
        pipe.close()
    worker.stdin = worker.stdout = worker.stderr = None

    assert worker.wait(20) == 130


def test_a_worker_until_eof_that_is_started_without_standard_input_stops(here: Path) -> None:
    line = shlex.join([sys.executable, "-m", "ergon", "worker", "shop.py", "--until-eof"])

    done = subprocess.run(
        ["sh", "-c", f"{line} <&-"], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().endswith("stopped")
    assert "Traceback" not in done.stderr


def test_a_worker_until_eof_stops_when_its_standard_input_cannot_be_read(here: Path) -> None:
    line = [sys.executable, "-m", "ergon", "worker", "shop.py", "--until-eof"]
    with (here / "output").open("w") as write_only:
        done = subprocess.run(line, stdin=write_only, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 0, done.stderr
    assert "standard input cannot be read" in done.stderr


def test_cancel_pause_resume_kill_and_delete_act_on_a_flow_of_another_process(command, ergon) -> None:
    worker = command("worker", "shop.py")
    for name in ("a", "b"):
        schedule_with("asks", {"question": "?"}, name)
        wait_for(lambda name=name: "waiting for signal" in ergon("why", name).out)

    assert "paused flow 'a'" in ergon("pause", "a", "--reason", "lunch").out
    assert ergon("why", "a").out == "flow 'a' was paused: lunch; resume it\n"
    assert "paused already" in ergon("pause", "a").out
    assert "resumed flow 'a' (it was paused)" in ergon("resume", "a").out
    assert "asked flow 'a' to cancel" in ergon("cancel", "a", "--reason", "enough").out
    wait_for(lambda: "cancelled" in ergon("why", "a").out)
    assert "(enough)" in ergon("why", "a").out
    assert "enough" in ergon("ls").out
    assert json.loads(ergon("show", "a", "--json").out)["reason"] == "enough"
    assert "cancel it first" in ergon("delete", "b").err
    assert "killed flow 'b'" in ergon("kill", "b").out
    assert "deleted flow 'b'" in ergon("delete", "b").out
    assert ergon("show", "b").code == 1
    assert worker.poll() is None


def test_only_log_names_the_log_then_the_environment_then_the_default(ergon, here: Path, monkeypatch) -> None:
    monkeypatch.setenv("ERGON_LOG", "environment.db")
    ergon("run", "shop.py:count", "--input", '{"n": 1}', "--log", "option.db")
    ergon("run", "shop.py:count", "--input", '{"n": 1}')
    monkeypatch.delenv("ERGON_LOG")
    ergon("run", "shop.py:count", "--input", '{"n": 1}')

    logs = {path.name for path in here.glob("*.db")}
    assert logs == {"option.db", "environment.db", "ergon.db"}


def schedule_with(name: str, arguments: dict[str, object], flow_id: str) -> None:
    """Start a flow as a program without its code would."""
    script = (
        "import asyncio, json, sys\n"
        "from ergon import Scheduler, SqliteExecutionLog\n"
        "async def main():\n"
        "    async with SqliteExecutionLog('ergon.db') as log:\n"
        "        await Scheduler(log).schedule_named(sys.argv[1], json.loads(sys.argv[2]), id=sys.argv[3])\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", script, name, json.dumps(arguments), flow_id], check=True)


def notes(here: Path) -> list[str]:
    path = here / "notes.txt"
    return path.read_text().splitlines() if path.exists() else []


def steps_recorded(here: Path) -> int:
    """Killed between its effect and its commit, a step rightly runs again."""
    if not (here / "ergon.db").exists():
        return 0
    with contextlib.closing(sqlite3.connect(here / "ergon.db")) as reading:
        try:
            return int(
                reading.execute("SELECT count(*) FROM events WHERE kind = 'step_completed'").fetchone()[0]
            )
        except sqlite3.OperationalError:  # the file is being made
            return 0


def wait_for(found, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.05)


def test_run_and_worker_refuse_a_log_that_survives_less_than_required(ergon) -> None:
    refused = ergon("run", "shop.py:count", "--input", '{"n": 1}', "--require", "D4")
    no_class = ergon("worker", "shop.py", "--require", "D9")
    enough = ergon("run", "shop.py:count", "--input", '{"n": 1}', "--require", "D1")

    assert refused.code == no_class.code == 2
    assert "D4 is required: a SQLite file is on one machine" in refused.err
    assert "'D9' is no durability class" in no_class.err
    assert enough.out == "4\n"
