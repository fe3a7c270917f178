"""The conformance suite on a Redis Cluster of three masters, where a log has several parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ergon.storage.redis import RedisExecutionLog
from ergon.testing.conformance.suite import ALONE, SHARED, for_pytest
from tests.servers.redis import cluster, new_prefix

# What is in a value or a name is the same on one server: see `test_redis.py`.
VALUES = {"values", "hostile", "odd"}
globals().update(for_pytest([subject for subject in (*ALONE, *SHARED) if subject not in VALUES]))


class ClusterStore:
    """One prefix on the cluster of this test run."""

    def __init__(self) -> None:
        self.prefix = new_prefix()

    def open(self, namespace: str = "") -> RedisExecutionLog:
        return RedisExecutionLog(cluster().url, prefix=self.prefix, namespace=namespace)

    async def interrupt(self) -> None:
        for node in cluster().nodes:
            with node.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")

    def clear(self) -> None:
        for node in cluster().nodes:  # they are this process's own
            with node.client() as client:
                client.flushall()


@pytest.fixture
def store() -> Iterator[ClusterStore]:
    made = ClusterStore()
    yield made
    made.clear()
