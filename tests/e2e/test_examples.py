"""Every example runs, against real servers of this machine and the shipped models."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml
from e2e_cases import KEY_PATTERN, REPOSITORY, SAFE, UNSAFE, served, user
from openai import OpenAI

from guard.canned import canned_app
from guard.config import load_config
from guard.proxy import Gateway
from guard.upstream import Forwarder

EXAMPLES = REPOSITORY / "examples"


def example(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    """The guard of the examples, loaded once."""
    from guard import load_guard

    guard = load_guard(load_config(None, {"journal.path": None, "output.patterns": [KEY_PATTERN]}))
    yield guard
    guard.close()


@pytest.fixture
def given(engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`load_guard()` of an example gives the guard that is loaded already."""
    import guard

    asked = []
    monkeypatch.setattr(engine, "close", lambda: None)
    monkeypatch.setattr(guard, "load_guard", lambda *given: asked.append(given) or engine, raising=False)
    yield
    assert asked in ([], [()])  # without a file, so that it runs anywhere


def said(capsys) -> list[tuple[str, str]]:
    return [
        tuple(part.strip() for part in line.split("|", 1))
        for line in capsys.readouterr().out.splitlines()
        if "|" in line
    ]


def test_openai_client(given, judgement, capsys):
    with served(canned_app(), lifespan="off") as url:
        example("openai_client").main(f"{url}/v1")
    first, refused, *_ = lines = said(capsys)
    assert first == ("stop", "[canned] The capital of Australia is Canberra.")
    assert refused[0] == "content_filter"
    assert ("stream", "[canned] Rain on the tin roof, / the kettle hums to itself, / no one needs me yet.") in lines
    assert re.search(r"unsafe\S* dec_", lines[-1][1])


def test_moderations(engine, given, judgement, capsys):
    with served(Gateway(engine, Forwarder(engine.config.upstream))) as url:
        example("moderations").main(f"{url}/v1")
    passes, flagged = said(capsys)
    assert passes == ("passes", "")
    assert flagged[0] == "flagged"
    assert {"violence", "illicit/violent", "u_weapons_violence"} <= set(flagged[1].split(", "))


@pytest.mark.parametrize("name", ["fastapi_app", "starlette_app"])
def test_apps(engine, given, judgement, name):
    with served(canned_app(), lifespan="off") as upstream:
        arguments = (engine, f"{upstream}/v1") if name == "starlette_app" else (engine,)
        app = example(name).make_app(*arguments)
        for _ in range(2):  # started once more, it answers as before
            with served(app) as url:
                base = f"{url}/ai/v1" if name == "starlette_app" else f"{url}/v1"
                with OpenAI(base_url=base, api_key="k", max_retries=0) as client:
                    for text, reason in ((SAFE, "stop"), (UNSAFE, "content_filter")):
                        answer = client.chat.completions.create(model="m", messages=user(text))
                        assert answer.choices[0].finish_reason == reason


def test_langchain_agent(given, judgement, capsys):
    example("langchain_agent").main()
    passed, refused, poisoned, chain = said(capsys)
    assert passed == ("stop", "We open at nine.")
    assert refused[0] == poisoned[0] == "content_filter"
    assert chain == ("chain", "Canberra.")


def test_the_litellm_configuration_names_what_is_there():
    data = yaml.safe_load((EXAMPLES / "litellm_proxy.yaml").read_text("utf-8"))
    inside, over_http = (each["litellm_params"] for each in data["guardrails"])
    module, _, name = inside["guardrail"].rpartition(".")
    source = (REPOSITORY / (module.replace(".", "/") + ".py")).read_text("utf-8")
    assert f"class {name}(CustomGuardrail)" in source
    assert "airlock: Guard" in source
    assert over_http["guardrail"] == "generic_guardrail_api"


def test_every_example_is_run_here():
    tests = Path(__file__).read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.stem}"' in tests, path
