"""What an error about an id that is taken tells, and what it does not."""

from ergon.core.codec.objects import differing


def test_the_parameters_that_differ_are_named_and_their_values_kept_quiet() -> None:
    assert differing('{"user":"a","token":"s3cret"}', '{"user":"a","token":"other"}') == "`token`"


def test_a_parameter_that_only_one_has_differs() -> None:
    assert differing('{"a":1}', '{"a":1.0,"b":null}') == "`b`"


def test_of_an_object_the_fields_are_named() -> None:
    assert differing('{"self":{"id":1,"n":2},"x":1}', '{"self":{"id":1,"n":3},"x":2}') == "`self.n`, `x`"


def test_nothing_is_said_of_what_cannot_be_read() -> None:
    assert differing("[1]", '{"a":1}') == ""
