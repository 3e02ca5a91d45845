"""Logs: what they cost, and what every line has."""

from __future__ import annotations

import json
import subprocess
import sys


def test_logs_do_not_load_what_only_people_need() -> None:
    """A program that logs does not hold rich in memory, and whoever prints a table still gets it."""
    code = "import sys, edgerm.logs; print('rich' in sys.modules); import rich.table"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "False", "")


def test_every_line_of_json_is_whole() -> None:
    """A line has event, level, timestamp and logger, also one of the standard library; a request's lines name it."""
    code = (
        "import logging\nfrom edgerm import logs\nfrom edgerm.requests import serving_request\n"
        "logs.configure('json', 'info')\nlog = logs.get('here')\nlog.debug('not shown')\n"
        "log.info('plain', agent='ü')\n"
        "with serving_request('mine-1'):\n    log.info('inside', reason='why')\n"
        "    log.info('of another', request='r2')\n"
        "log.info('after', request='')\nlogging.getLogger('aiohttp').warning('told\\n%s', 'twice')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["plain", "inside", "of another", "after", "told\ntwice"]
    assert [line.get("request") for line in lines] == [None, "mine-1", "r2", None, None]
    assert [line["logger"] for line in lines] == ["here"] * 4 + ["aiohttp"]
    assert all(line["level"] in ("info", "warning") and line["timestamp"].endswith("Z") for line in lines)
