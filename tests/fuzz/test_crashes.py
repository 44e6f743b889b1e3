"""Commands that are killed at random moments leave the old output or a whole new one, and run again afterwards."""

from __future__ import annotations

import pytest

from fuzzing.crashes import COMMANDS, crash


@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_leaves_a_whole_output(command: str) -> None:
    report = crash(command, kills=2)
    assert not report.problems
    assert report.old + report.new == report.kills == 2
