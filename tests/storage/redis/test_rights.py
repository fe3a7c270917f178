"""The access list that the guide gives: enough for all that a log does, and for nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis

from ergon import LogRefused, list_namespaces
from ergon.core.commit import Commit, FlowFilter, Hint, Settled
from ergon.core.status import TaskStatus
from ergon.storage.redis import RedisExecutionLog
from ergon.storage.redis.scripts import scripts
from tests.servers.redis import RedisServer
from tests.storage.kit import (
    claim,
    claimed_flow,
    commit,
    event,
    new_flow,
    register,
    signal,
    until,
)

GUIDE = Path(__file__).parents[3] / "docs" / "redis.md"


def grant(server: RedisServer, *, root: str = "ergon", more: str = "") -> str:
    """Make the user of the guide; returns the URL with its password."""
    (line,) = re.findall(r"^user (ergon .*)$", GUIDE.read_text(), re.MULTILINE)
    line = line.replace("~{ergon:*", f"~{{{root}:*").replace("&ergon:", f"&{root}:") + more
    name, *rules = line.split()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", name, "reset", *rules)
    return f"redis://ergon:password@127.0.0.1:{server.port}/0"


async def test_the_rights_of_the_guide_are_enough(own_server):
    async with (
        RedisExecutionLog(grant(own_server), require="D3") as log,
        RedisExecutionLog(own_server.url) as other,
    ):
        heard: list[Hint] = []
        other.subscribe(heard.append)
        await register(log)
        lease = await claimed_flow(log, "p")
        child = new_flow("c", parent_id="p", parent_op="0:1")
        await commit(log, Commit("p", lease, (event(1),), children=(child,)))
        await log.send(signal("p"))
        await commit(log, Commit("p", lease, (event(2),), settled=Settled(TaskStatus.SUSPENDED)))
        assert {one.flow.id for one in await claim(log)} == {"p", "c"}
        log.keep_alive("w1", lease_seconds=30)
        await log.renew("w1", lease_seconds=30, doing={"p": "waits"})
        assert await log.count(FlowFilter()) == {TaskStatus.RUNNING: 2}
        assert await log.retire("w1") == 2
        await log.move("c", TaskStatus.PAUSED)
        await log.move("p", TaskStatus.CANCELLED)
        await log.move("c", TaskStatus.CANCELLED)
        assert await log.delete("p") is True
        assert await log.reap() == []
        await until(lambda: any(hint.elsewhere for hint in heard))


async def test_the_rights_of_the_guide_reach_no_other_key_and_change_no_setting(own_server):
    url = grant(own_server)
    with redis.Redis.from_url(url) as client:
        for refused in (
            lambda: client.set("other", "1"),
            lambda: client.eval("return redis.call('SET', 'other', '1')", 0),
            lambda: client.config_set("appendonly", "no"),
            client.flushall,
            lambda: client.keys("*"),
            client.script_flush,
            lambda: client.execute_command("SHUTDOWN"),
            client.acl_list,
            lambda: client.publish("other", "1"),
            lambda: client.client_kill_filter(_type="normal"),
        ):
            with pytest.raises(redis.RedisError, match=r"(?i)no permissions|NOPERM|permission"):
                refused()


async def test_rights_on_one_namespace_reach_no_other_and_not_the_log_beside_it(own_server):
    for name in ("acme", "globex"):
        async with RedisExecutionLog(own_server.url, namespace=name) as log:
            await log.create(new_flow(f"in-{name}"))
    assert "`~{ergon/acme:*` and `&ergon/acme:changes`" in GUIDE.read_text()
    url = grant(own_server, root="ergon/acme")

    async with RedisExecutionLog(url, namespace="acme") as log:
        heard: list[Hint] = []
        log.subscribe(heard.append)
        async with RedisExecutionLog(own_server.url, namespace="acme") as other:
            await other.send(signal("in-acme"))
        await register(log)
        assert [one.flow.id for one in await claim(log)] == ["in-acme"]
        await until(lambda: heard)
    for beside in ("globex", ""):
        with pytest.raises(LogRefused):
            await RedisExecutionLog(url, namespace=beside).connect()


async def test_namespaces_are_listed_with_the_right_to_go_through_keys_and_not_without(own_server):
    async with RedisExecutionLog(own_server.url, namespace="acme"):
        pass

    with pytest.raises(LogRefused, match="scan"):
        await list_namespaces(grant(own_server))
    assert await list_namespaces(grant(own_server, more=" +scan")) == ["acme"]


def test_the_guide_grants_each_command_that_a_script_calls():
    called = {
        name.lower()
        for script in scripts().values()
        for name in re.findall(r"redis\.p?call\('([A-Z]+)'", script.text)
    }

    assert called <= set(re.findall(r"\+(\S+)", GUIDE.read_text()))


def test_every_script_is_known_by_its_file_and_takes_no_text_as_code():
    for name, script in scripts().items():
        for word in ("loadstring", "load(", "dofile", "require"):
            assert word not in script.text, f"{name}.lua"
