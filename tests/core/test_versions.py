"""Which versions a worker runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.core.versions import VersionSet
from ergon.errors import UsageError


@pytest.mark.parametrize(
    "spec, inside, outside",
    [
        ("1.4.2", ["1.4.2"], ["1.4.20", "1.4", "v1.4.2", "1.4.2.0"]),
        ("blue", ["blue"], ["Blue", "blue2"]),
        (">=1.2,<2", ["1.2", "1.2.0", "1.10", "v1.9.9"], ["1.1.9", "2", "2.0", "1", "blue", "1.5rc1", ""]),
        (">1.2", ["1.2.1", "1.3"], ["1.2", "1.2.0.0"]),
        ("==1.2", ["1.2", "1.2.0", "v1.2"], ["1.2.1"]),
        ("!=1.2, >= 1", ["1.1", "1.3"], ["1.2.0", "0.9"]),
        ("<=2026.5", ["2025", "2026.5"], ["2026.5.1", "2026-05"]),
        ("*", ["1", "blue"], []),
        (["blue", ">=2"], ["blue", "2", "3.1"], ["1.9", "green"]),
        ([], [], ["1"]),
    ],
    ids=str,
)
def test_names_match_exactly_and_ranges_by_number(spec: Any, inside: list[str], outside: list[str]) -> None:
    versions = VersionSet.parse(spec)

    assert versions.select([*inside, *outside]) == tuple(inside)
    assert versions.matches(None), "a flow without a version runs anywhere"


def test_select_keeps_order_and_drops_doubles() -> None:
    assert VersionSet.parse(">=1").select(["2", "0.1", "1", "2"]) == ("2", "1")


def test_exact_names_can_be_filtered_in_the_log() -> None:
    assert VersionSet.parse(["a", "b"]).is_exact
    assert VersionSet.parse(["a", "b"]).names == {"a", "b"}
    assert not VersionSet.parse(["a", ">=1"]).is_exact
    assert str(VersionSet.parse(["b", "a", ">=1, <2"])) == "a or b or >=1,<2"


@pytest.mark.parametrize(
    "spec",
    [
        "",
        " ",
        ">=",
        ">=x",
        ">=1.2,",
        ">=1,2",
        "1.0,2.0",
        "=1",
        "~=1.2",
        ">=1.2rc1",
        [""],
        [3],
        "a\x00b",
        " a",
    ],
)
def test_a_spec_that_means_nothing_is_refused(spec: Any) -> None:
    with pytest.raises(UsageError):
        VersionSet.parse(spec)


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=4), st.lists(st.integers(0, 20), min_size=1, max_size=4)
)
def test_every_dotted_version_is_on_one_side_of_a_bound(one: list[int], other: list[int]) -> None:
    version, bound = ".".join(map(str, one)), ".".join(map(str, other))

    sides = [VersionSet.parse(f"{sign}{bound}").matches(version) for sign in ("<", "==", ">")]

    assert sides.count(True) == 1
    assert VersionSet.parse(f">={bound}").matches(version) == (sides[1] or sides[2])
    assert VersionSet.parse(f"!={bound}").matches(version) != sides[1]
