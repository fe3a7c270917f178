"""What a log says while its server is away."""

from __future__ import annotations

import asyncio
import logging

from ergon.storage import outage
from ergon.testing.conformance.kit import new_flow, until


async def test_it_says_once_that_its_server_is_away_and_once_that_it_is_back(log, line, caplog, monkeypatch):
    monkeypatch.setattr(outage, "SAY_AFTER_SECONDS", 0.2)
    caplog.set_level(logging.WARNING, "ergon.storage")
    line.is_down = True
    line.cut()
    writing = [asyncio.create_task(log.create(new_flow(f"f{n}"))) for n in range(3)]
    reading = [asyncio.create_task(log.find(f"f{n}")) for n in range(3)]

    await until(lambda: caplog.messages)
    away = caplog.messages[0]
    line.is_down = False
    await asyncio.gather(*writing, *reading)

    assert away.startswith(f"log {log.url}: ")
    assert "and Ergon goes on trying" in away
    assert [message for message in caplog.messages[1:] if "goes on trying" in message] == []
    assert len([message for message in caplog.messages if "the server answers again" in message]) == 1


async def test_a_cut_connection_is_not_worth_a_word(log, line, caplog):
    caplog.set_level(logging.WARNING, "ergon.storage")
    line.cut()
    await log.create(new_flow("f1"))

    assert caplog.messages == []
