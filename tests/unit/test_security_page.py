"""The threat model names a test for each claim; every one of them is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/security.md").read_text("utf-8"))


def missing(named):
    return [f"{path}::{name}" for path, name in named if not (ROOT / path).exists() or name not in _tests(ROOT / path)]


def _tests(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_threat_model_names_is_there():
    assert len(NAMED) >= 10
    assert missing(NAMED) == []


def test_a_name_that_is_no_test_is_found():
    assert missing([("tests/unit/test_security_page.py", "test_nothing"), ("tests/unit/test_none.py", "test_x")])
