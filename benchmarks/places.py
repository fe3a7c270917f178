"""Where a side keeps its logs: files in its folder, or apart from each other on a server."""

from __future__ import annotations

from pathlib import Path

from benchmarks.model import Params


def place(params: Params, name: str) -> str:
    """The URL of the side's log of this name."""
    url: str | None = params.get("url")
    if url is None:
        return str(Path(params["folder"]) / f"{name}.db")
    option = "schema" if url.startswith("postgres") else "prefix"
    return f"{url}{'&' if '?' in url else '?'}{option}={name}"
