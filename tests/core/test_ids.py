"""Ids that flows get when nobody gives them one."""

from __future__ import annotations

from uuid import RFC_4122, UUID

from ergon.core.ids import new_flow_id


def test_an_id_is_a_uuid_of_version_7_that_holds_the_time() -> None:
    for id in (new_flow_id(1_780_000_000.123) for _ in range(200)):
        uuid = UUID(id)
        assert (str(uuid), uuid.version, uuid.variant) == (id, 7, RFC_4122)
        assert uuid.int >> 80 == 1_780_000_000_123


def test_ids_are_ordered_by_time_and_differ_within_a_millisecond() -> None:
    earlier, later = ([new_flow_id(now) for _ in range(1000)] for now in (1e9, 1e9 + 0.001))

    assert max(earlier) < min(later)
    assert len({*earlier, *later}) == 2000
