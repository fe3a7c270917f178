"""What a log says while its server is away."""

from __future__ import annotations

import asyncio
import logging

from ergon.storage import outage
from ergon.storage.redis import RedisExecutionLog
from tests.storage.kit import new_flow, until


async def test_it_says_once_that_its_server_is_away_and_once_that_it_is_back(own_server, caplog, monkeypatch):
    monkeypatch.setattr(outage, "SAY_AFTER_SECONDS", 0.2)
    caplog.set_level(logging.WARNING, "ergon.storage")
    async with RedisExecutionLog(own_server.url) as log:
        own_server.kill()
        writing = [asyncio.create_task(log.create(new_flow(f"f{n}"))) for n in range(3)]
        reading = asyncio.create_task(log.find("f1"))

        await until(lambda: caplog.messages)
        away = caplog.messages[0]
        own_server.start()
        await asyncio.gather(*writing, reading)

    assert away.startswith(f"log {log.url}: the server cannot be reached; check that it runs, and the URL")
    assert "and Ergon goes on trying" in away
    assert [message for message in caplog.messages[1:] if "goes on trying" in message] == []
    assert len([message for message in caplog.messages if "the server answers again" in message]) == 1


async def test_a_short_absence_is_not_worth_a_word(own_server, caplog):
    caplog.set_level(logging.WARNING, "ergon.storage")
    async with RedisExecutionLog(own_server.url) as log:
        own_server.restart()
        await log.create(new_flow("f1"))

    assert caplog.messages == []
