import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import guard
from classifier.taxonomy import Taxonomy
from guard import errors
from guard.answers import AnswerTexts
from guard.config import Config
from guard.policy import decide
from guard.types import Decision, Route
from tests.doubles import verdict

TAXONOMY = Path(__file__).parents[2] / "data/taxonomies/airlock.yaml"
HEAVY = ("torch", "transformers", "peft", "trl", "faiss", "sentence_transformers")
CLIENTS = ("openai", "langchain", "langchain_core", "litellm", "httpx", "httpx2")


def test_all_is_what_is_public_and_each_name_is_there():
    assert sorted(guard.__all__) == guard.__all__ == sorted(guard._HOMES)
    for name in guard.__all__:
        assert getattr(guard, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = guard.nothing
    shown = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == "guard.errors"
    }
    assert shown <= set(guard.__all__), "whoever may see an error can name it"
    assert all(issubclass(getattr(errors, name), errors.AirlockError) for name in shown)


@pytest.mark.parametrize(
    "statement",
    [
        "import guard",
        "from guard import GuardMiddleware, Guard, load_config",
        "import guard.proxy",
        "from guard import BlockedError, guarded",
    ],
)
def test_importing_the_gateway_loads_no_model_library(statement):
    script = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    found = json.loads(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60).stdout
    )
    assert "guard" in found
    assert not set(found) & {*HEAVY, *CLIENTS}


def test_the_page_of_the_gateway_names_every_module_once():
    root = Path(guard.__file__).parent
    modules = {path.stem for path in root.glob("*.py")} | {path.parent.name for path in root.glob("*/__init__.py")}
    page = (root.parent / "docs" / "guard.md").read_text("utf-8")
    named = re.findall(r"`(\w+)`", page.split("\n## The code\n")[1].split("\n## ")[0])
    assert sorted(named) == sorted(modules - {"__init__", "__main__"})


def routed(category):
    """The default route of a category."""
    found = verdict(category.tier, category.id, category.handling)
    rule = decide([rule.rule() for rule in Config().policy.rules], found).rule
    return rule.route, rule.name


def test_every_category_that_is_not_forwarded_has_a_text_of_its_own():
    texts = AnswerTexts()
    kinds = {Route.REFUSE: "refuse", Route.HAND_OVER: "hand_over", Route.GROUND: "abstain"}
    counted = 0
    for category in Taxonomy.load(TAXONOMY).categories:
        route, rule = routed(category)
        kind = kinds.get(route, "stopped")
        said = texts.text(kind, Decision(route, rule, verdict(category.tier, category.id)))
        default = texts.text(kind, Decision(route, rule))
        assert (said == default) is (route is Route.FORWARD), category.id
        counted += route is not Route.FORWARD
    assert counted > 20
