"""The names of modules that are files: an error is found by them after a restart, so they may not change."""

from pathlib import Path

from ergon.core.file_modules import names_of


def names(*paths: str) -> dict[str, str]:
    return {str(path): name for path, name in names_of(map(Path, paths)).items()}


def test_a_file_has_its_own_name_though_nobody_could_write_it_in_an_import() -> None:
    assert names("/srv/flows.py", "/srv/my-flows.py") == {
        "/srv/flows.py": "flows",
        "/srv/my-flows.py": "my-flows",
    }


def test_files_of_one_name_are_told_apart_whatever_their_order() -> None:
    found = names("/srv/a/flows.py", "/srv/b/flows.py")

    assert found == names("/srv/b/flows.py", "/srv/a/flows.py")
    assert len(set(found.values())) == 2
    assert all(name.startswith("flows_") for name in found.values())


def test_a_new_release_in_another_directory_changes_no_name() -> None:
    before = names("/srv/1/flows.py", "/srv/1/more/flows.py", "/srv/1/v2.1.py")
    after = names("/srv/2/flows.py", "/srv/2/more/flows.py", "/srv/2/v2.1.py")

    assert [before[path] for path in sorted(before)] == [after[path] for path in sorted(after)]


def test_a_name_that_import_would_take_for_another_module_is_not_used() -> None:
    found = names("/srv/queue.py", "/srv/shop.flows.py")

    assert found["/srv/queue.py"].startswith("queue_")
    assert found["/srv/shop.flows.py"].startswith("shop_flows_")
