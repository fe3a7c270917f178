"""Which names namespaces may have, and how they are read from URLs and places."""

from __future__ import annotations

import pytest

from ergon import InvalidName, open_log
from ergon.core.namespaces import check_namespace, namespace_of, split_namespace, with_namespace
from ergon.errors import LogRefused


@pytest.mark.parametrize("name", ["", "a", "7", "acme", "team-7", "team_7", "a-b_c", "x" * 40])
def test_names_that_every_log_can_keep_apart(name):
    assert check_namespace(name) == name


@pytest.mark.parametrize(
    "name",
    ["Acme", "a b", "a.b", "a/b", "a:b", "a__b", "a--b", "a-_b", "_a", "a_", "-a", "a-", "é", "..", "a\0", "a\n", "*",
     "{a}", "a%", "'", "?", "\u0663", "x" * 41, None, 7, b"a"],
)  # fmt: skip
def test_other_names_are_refused_in_one_line_that_says_what_is_allowed(name):
    with pytest.raises(InvalidName, match=r"namespace=.*use 1 to 40 of a-z and 0-9") as refused:
        check_namespace(name)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("base", ["ergon", "ergon_", "a__b", "x__"])
@pytest.mark.parametrize("name", ["acme", "team_7", "a-b"])
def test_a_place_tells_its_base_and_its_namespace(base, name):
    assert namespace_of(with_namespace(base, name), base) == name
    assert with_namespace(base, "") == base


@pytest.mark.parametrize("place", ["ergon", "ergon__", "ergon_a", "ergon__A", "ergon__a__b", "other__a"])
def test_other_places_are_no_namespace_of_this_base(place):
    assert namespace_of(place, "ergon") is None


@pytest.mark.parametrize(
    "url, rest, name",
    [
        ("orders.db", "orders.db", None),
        ("orders.db?namespace=acme", "orders.db", "acme"),
        ("what?.db", "what?.db", None),
        ("what?.db?namespace=acme", "what?.db", "acme"),
        ("sqlite:///x.db?namespace=a%2Fb", "sqlite:///x.db", "a/b"),
        ("memory:?namespace=acme", "memory:", "acme"),
        ("redis://h/0?prefix=p&namespace=acme&db=1", "redis://h/0?prefix=p&db=1", "acme"),
        ("postgresql://h/d?namespace=", "postgresql://h/d", ""),
        ("postgresql://h/d?namespace=a&namespace=b", "postgresql://h/d", "b"),
    ],
)
def test_the_option_is_taken_out_of_any_url(url, rest, name):
    assert split_namespace(url) == (rest, name)


@pytest.mark.parametrize(
    "url", ["orders.db", "sqlite:orders.db", "memory:", "postgresql://h/d?schema=s", "redis://h/0?prefix=p"]
)
def test_a_namespace_is_the_one_given_else_the_urls_else_the_environments(url, monkeypatch):
    joined = f"{url}{'&' if '?' in url else '?'}namespace=in-url"
    monkeypatch.setenv("ERGON_NAMESPACE", "around")

    assert open_log(url, namespace="given").url.endswith("namespace=given")
    assert open_log(joined, namespace="given").url.endswith("namespace=given")
    assert open_log(joined).url.endswith("namespace=in-url")
    assert open_log(url).url.endswith("namespace=around")
    assert "namespace=" not in open_log(joined, namespace="").url
    assert open_log(open_log(joined).url).url == open_log(joined).url, "a URL leads to the same log again"


@pytest.mark.parametrize(
    "url",
    ["orders.db?namspace=acme", "sqlite:orders.db?schema=s", "orders.db?namespace=acme&mode=ro", "./a?b=1"],
)
def test_an_option_that_a_file_does_not_have_is_refused_and_makes_no_other_log(url):
    with pytest.raises(LogRefused, match=r"a file has no option '\w+', only \?namespace=NAME"):
        open_log(url)


@pytest.mark.parametrize(
    "url", ["what?.db", "a?b=", "what?1=2.db", "sqlite:orders.db%3Fnamspace=acme", "a=b.db"]
)
def test_a_file_may_have_a_question_mark_in_its_name(url):
    assert open_log(url).url


def test_a_bad_name_is_refused_wherever_it_comes_from(monkeypatch):
    with pytest.raises(InvalidName, match="namespace='No'"):
        open_log("orders.db", namespace="No")
    with pytest.raises(InvalidName, match="namespace='No'"):
        open_log("orders.db?namespace=No")
    monkeypatch.setenv("ERGON_NAMESPACE", "No")
    with pytest.raises(InvalidName, match="namespace='No'"):
        open_log("orders.db")
