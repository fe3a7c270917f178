"""How the demo counts: from lines and events to claims. A count that cannot fail would prove nothing."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ergon.core.history import Event, EventKind
from ergon.demo.files import checksum_line, child_name, to_bytes, to_text
from ergon.demo.ledger import Line, Reader
from ergon.demo.tally import Books

NAMES = st.binary(min_size=1, max_size=60).filter(lambda raw: b"\0" not in raw and b"/" not in raw)


def begin(key: str, at: float, process: str) -> Line:
    return Line("begin", at, process, "f", key, "index_file", key)


def committed(op: str, at: float) -> Event:
    return Event(1, EventKind.STEP_COMPLETED, op, "index_file", "", "1", at, "", 1)


def books(lines: list[Line], events: list[Event]) -> Books:
    found = Books()
    found.add_lines(lines)
    found.add_events("f", events)
    return found


def test_a_body_cut_off_by_a_kill_may_begin_again() -> None:
    tally = books([begin("f/0:1", 1, "10-a"), begin("f/0:1", 3, "11-b")], [committed("0:1", 4)]).tally()

    assert tally.holds
    assert (tally.begun, tally.committed, len(tally.repeated)) == (2, 1, 1)


@pytest.mark.parametrize(
    "lines,events,broken",
    [
        ([begin("f/0:1", 1, "10-a"), begin("f/0:1", 3, "11-b")], [committed("0:1", 2)], "ran_after_commit"),
        ([begin("f/0:1", 1, "10-a"), begin("f/0:1", 2, "10-a")], [committed("0:1", 3)], "repeated_alive"),
        ([begin("f/0:1", 1, "10-a")], [committed("0:1", 2), committed("0:1", 3)], "committed_twice"),
        ([], [committed("0:1", 2)], "without_body"),
    ],
)
def test_each_broken_promise_is_seen(lines, events, broken: str) -> None:
    tally = books(lines, events).tally()

    assert not tally.holds
    assert len(getattr(tally, broken)) == 1


def test_a_line_cut_in_two_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    whole = b'["begin",1.0,"10-a","f","f/0:1","index_file","x"]'
    (tmp_path / "ledger.jsonl").write_bytes(b"\n" + whole + b"\n" + whole[:20] + b"\n" + whole)

    assert len(Reader(tmp_path).new_lines()) == 2


def test_a_line_still_being_written_counts_once_it_is_whole(tmp_path: Path) -> None:
    whole = b'["begin",1.0,"10-a","f","f/0:1","index_file","x"]'
    ledger = tmp_path / "ledger.jsonl"
    reader = Reader(tmp_path)

    ledger.write_bytes(b"\n" + whole[:20])
    before = reader.new_lines()
    ledger.write_bytes(b"\n" + whole)
    after = reader.new_lines()

    assert (len(before), len(after), len(reader.new_lines())) == (0, 1, 0)


@given(NAMES)
@example(b"no\xc2\xa0break")
@example(b"100%\xe2\x80\xae\xff\n")
def test_any_file_name_survives_as_printable_text(raw: bytes) -> None:
    text = to_text(raw)

    assert to_bytes(text) == raw
    assert text.isprintable()


@given(NAMES)
def test_any_directory_gives_a_flow_id_that_every_log_keeps(raw: bytes) -> None:
    from ergon.core.names import check_name

    assert check_name("flow id", child_name("index", to_text(raw * 9)))


def test_a_manifest_line_with_an_odd_name_is_escaped_as_sha256sum_does() -> None:
    assert checksum_line("ab", b"plain name") == b"ab  plain name\n"
    assert checksum_line("ab", b"new\nline\\") == b"\\ab  new\\nline\\\\\n"
