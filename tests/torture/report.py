"""The evidence of a run: a JSON file, and one page for people."""

from __future__ import annotations

import html
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.crash.checker import Violation
from tests.torture.nemesis import Evidence
from tests.torture.verdict import summary


def write_report(
    evidence: Evidence, violations: list[Violation], reasons: list[str], folder: Path
) -> dict[str, Any]:
    """Write torture.json and torture.html into `folder`; return what is in them."""
    verdict = "red" if violations else "void" if reasons else "green"
    facts = {
        "verdict": verdict,
        "plan": asdict(evidence.plan),
        "repeat": command(evidence),
        "counts": summary(evidence),
        "lost": sum(violation.rule in ("I1", "I2", "I14") for violation in violations),
        "duplicated": sum(violation.rule in ("I4", "I5", "I3") for violation in violations),
        "violations": [str(violation) for violation in violations[:50]],
        "void because": reasons,
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "store": evidence.store,
    }
    (folder / "torture.json").write_text(json.dumps(facts, indent=2) + "\n")
    (folder / "torture.html").write_text(_page(facts))
    return facts


def command(evidence: Evidence) -> str:
    """How to repeat the run."""
    plan = evidence.plan
    bug = f" --bug {plan.bug}" if plan.bug else ""
    return (
        f"python -m tests.torture --seed {plan.seed} --kills {plan.kills} --seconds {plan.seconds:g} "
        f"--lease {plan.lease_seconds:g} --store {plan.store}{bug}"
    )


def _page(facts: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts["counts"].items()
    )
    bad = "".join(f"<li>{html.escape(text)}</li>" for text in facts["violations"] + facts["void because"])
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Ergon under torture</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
th {{ text-align: left; font-weight: normal; padding-right: 2rem; }} td {{ font-variant-numeric: tabular-nums; }}
</style>
<h1>Ergon under torture: {html.escape(facts["verdict"])}</h1>
<p>Workers and clients on one log were killed with SIGKILL and frozen with SIGSTOP while they worked.
A ledger outside of them noted every step execution and every acknowledged call. Afterwards the two were compared.</p>
<p><b>{facts["lost"]}</b> lost, <b>{facts["duplicated"]}</b> duplicated or changed.</p>
<table>{rows}</table>
{f"<h2>What was found</h2><ol>{bad}</ol>" if bad else ""}
<p>Python {facts["machine"]["python"]}, {html.escape(facts["store"])}, {html.escape(facts["machine"]["system"])}.
Repeat: <code>{html.escape(facts["repeat"])}</code></p>
</html>
"""
