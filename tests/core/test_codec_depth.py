"""How deeply a text is nested is found without nesting calls."""

from __future__ import annotations

import pytest

from ergon.core.codec.depth import nested_too_deeply
from ergon.core.codec.encode import encode
from ergon.core.codec.walk import DEPTH_MAX


def nested(depth: int) -> str:
    return '[{"a":' * (depth // 2) + "1" + "}]" * (depth // 2)


def test_what_is_nested_deeper_than_the_bound_is_told_from_what_is_not() -> None:
    assert not nested_too_deeply(nested(DEPTH_MAX))
    assert nested_too_deeply(nested(DEPTH_MAX + 2))
    assert nested_too_deeply(nested(100_000).encode())


@pytest.mark.parametrize("text", ["[" * 2_000, '"[{' * 2_000, "\\" * 3 + "[" * 2_000, 'a"]\\"' * 2_000])
def test_brackets_in_strings_count_for_nothing(text: str) -> None:
    assert not nested_too_deeply(encode([text, {text: [text]}]))
    shut_in_strings = '["]",' * 2_000 + "1" + "]" * 2_000
    assert nested_too_deeply(shut_in_strings)


def test_many_parts_beside_one_another_are_not_nested() -> None:
    assert not nested_too_deeply(encode([{"row": [number]} for number in range(5_000)]))
