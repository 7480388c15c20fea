"""Fixtures of tests/gate for the commands that compare versions."""

from tests.gate import conftest as gate

judged_template, judged = gate.judged_template, gate.judged
