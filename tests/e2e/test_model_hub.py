"""`airlock model push` and `pull` with the hub's own client, against a hub on this machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from e2e_cases import environment
from huggingface_hub import ModelCard

from classifier.settings import ClassifierSettings
from tests.classifier_cases import minilm, toy_classifier, toy_model
from tests.hub_double import Hub
from training.tiers.model_folder import describe, faults, version

REPO = "acme/toy"
TOKEN = "hf_notarealtoken"


@pytest.fixture
def hub():
    with Hub() as running:
        yield running


@pytest.fixture
def model(tmp_path):
    """What `airlock model …` prints, in a process of its own: the client reads its settings when it is imported."""

    def run(hub, *arguments, **variables):
        more = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(
            [sys.executable, "-c", "from training.tiers.model_cli import model; model()", *map(str, arguments)],
            env=environment(**(more | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | variables)),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def test_a_model_goes_to_a_hub_and_comes_back_the_same(hub, model, tmp_path):
    pushed = model(hub, "push", toy_model(), REPO)
    assert pushed.returncode == 0, pushed.stderr
    assert hub.private[REPO] is True, "nobody else reads it unless one says so"
    assert f"Bearer {TOKEN}" in hub.tokens
    there = hub.files[REPO]
    assert not [name for name in there if name.endswith((".bin", ".pt", ".pkl"))]
    assert (
        json.loads(there["adapter_config.json"])["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    )
    assert "tokenizer.json" in there
    there["evil.pkl"] = b"a pickle that somebody put there"

    pulled = model(hub, "pull", REPO, "--out", tmp_path / "back", "--version", version(toy_model()))
    assert pulled.returncode == 0, pulled.stderr
    back = tmp_path / "back"
    assert not (back / "evil.pkl").exists()
    assert "GET /acme/toy/resolve/" not in " ".join(asked for asked in hub.asked if "evil" in asked)
    assert (version(back), faults(back)) == (version(toy_model()), [])
    assert describe(back)["name"] == "toy"
    from classifier.model import TierClassifier

    texts = ["bread oven", "zorblax zorblax soup"]
    again = TierClassifier.load(back, minilm())
    loaded = TierClassifier.load(toy_model(), minilm())
    assert again.classify(texts) == loaded.classify(texts)
    assert ClassifierSettings.load(back).encoder == toy_classifier().settings.encoder
    card = ModelCard(there["README.md"].decode())
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert {"accuracy", "f1"} <= {result.metric_type for result in card.data.eval_results}

    there["head.safetensors"] = there["head.safetensors"][:-1] + b"x"
    refused = model(hub, "pull", REPO, "--out", tmp_path / "spoilt")
    assert refused.returncode == 1
    assert "head.safetensors: not what hashes.json names" in refused.stderr
    assert not (tmp_path / "spoilt").exists()
    there["hashes.json"] = b"no JSON"
    assert f"airlock: {REPO} has no sound hashes.json" in model(hub, "pull", REPO, "--out", tmp_path / "spoilt").stderr
    assert not list(tmp_path.glob(".airlock-pull-*"))


def test_what_cannot_be_fetched_is_one_line(hub, model, tmp_path):
    missing = model(hub, "pull", "acme/none", "--out", tmp_path / "none")
    offline = model(hub, "pull", REPO, "--out", tmp_path / "none", HF_HUB_OFFLINE="1")
    for done, told in ((missing, "acme/none"), (offline, "HF_HUB_OFFLINE")):
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("airlock: ")
        assert told in last
    assert not (tmp_path / "none").exists()


def test_a_name_or_a_place_that_cannot_be_is_one_line(hub, model, tmp_path):
    (tmp_path / "file").write_text("")
    for words, told in (
        (("push", toy_model(), "acme/my toy"), "airlock: 'acme/my toy' is no name that a hub has; give owner/name"),
        (("pull", "toy", "--out", "back"), "airlock: 'toy' is no name that a hub has; give owner/name"),
        (("pull", REPO, "--out", "file/back"), "airlock: --out file/back cannot be made (File exists); give another"),
    ):
        done = model(hub, *words)
        assert done.returncode == 1
        assert done.stderr.startswith(told), done.stderr
    assert hub.asked == []
