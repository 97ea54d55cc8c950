"""Exports of a small trained model: what they say, what is refused, and what a start on them needs."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from typer.testing import CliRunner

from classifier import exported, processor
from classifier.chosen import Choice, open_exported
from classifier.export import FEWEST_TEXTS, Exporter, compare
from classifier.exported import MANIFEST, Drift, ExportCache
from classifier.inputs import ExportedTokenizer
from classifier.model import TierClassifier
from classifier.types import MINILM, ClassifierError
from guard import assemble_classifier
from guard.assemble_classifier import load_other
from guard.assemble_encoders import Encoders
from guard.cli import app
from guard.config import load_config
from tests.classifier_cases import TAXONOMY, filler, minilm, small_model, toy_entries, toy_model, write_rows

TEXTS = [entry["text"] for entry in toy_entries(45, "train", seed=5)]
KINDS = ("onnx", "openvino")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A cache with three runtimes, and one more in bf16 where the processor has that; not to be changed."""
    root = tmp_path_factory.mktemp("exports")
    exporter = an_exporter(root)
    names = (
        "onnx-fp32",
        "openvino-fp32",
        "openvino-int8",
        *(("openvino-bf16",) if processor.multiplies_bf16() else ()),
    )
    made = {name: exporter.export(*name.split("-")) for name in names}
    return root, made


def an_exporter(root):
    cache = ExportCache(root, toy_model(), minilm().sha256)
    return Exporter(
        TierClassifier.load(toy_model(), minilm()), minilm(), cache, texts=TEXTS[:200], calibration=TEXTS[200:216]
    )


@pytest.fixture
def copied(exports, tmp_path):
    """A copy of the cache, whose large files may be changed after `own`, and the folder of the model's exports."""
    root = Path(shutil.copytree(exports[0], tmp_path / "cache", copy_function=linked_if_large))
    return root, next(root.iterdir())


def linked_if_large(source, target):
    return (os.link if os.path.getsize(source) > 2**20 else shutil.copy2)(source, target)


def own(path):
    """Gives a file of `copied`, which may be a link to one of `exports`, content of its own."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return path


needs_bf16 = pytest.mark.skipif(not processor.multiplies_bf16(), reason="this processor has no products in bf16")


def opened(root, runtime="auto", precision="auto"):
    return open_exported(toy_model(), MINILM, lambda: minilm().sha256, Choice(runtime, precision, root))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "name", ["onnx-fp32", "openvino-fp32", "openvino-int8", pytest.param("openvino-bf16", marks=needs_bf16)]
)
def test_an_export_says_what_torch_says(exports, name):
    root, made = exports
    texts = [*TEXTS[:20], "", "😀", filler(90, 3), "zorblax \u202e zorblax", "a" * 300]
    expected = TierClassifier.load(toy_model(), minilm()).classify(texts)
    found = opened(root, *name.split("-")).classify(texts)
    assert compare(expected, found).bearable
    assert [verdict.coverage for verdict in found] == [verdict.coverage for verdict in expected]
    assert [verdict.model for verdict in found] == [verdict.model for verdict in expected]
    assert made[name].drift.texts == 200
    assert made[name].drift.largest < (0.001 if "fp32" in name else 0.02)
    assert made[name].milliseconds > 0


def test_an_export_leaves_encoder_and_adapter_as_they_were(exports):
    verdicts = TierClassifier.load(toy_model(), minilm()).classify(["zorblax zorblax"])
    assert verdicts == TierClassifier.load(toy_model(), minilm()).classify(["zorblax zorblax"])
    assert not any("lora" in name for name, _ in minilm().model.named_parameters())


def test_one_by_one_is_the_same_as_all_at_once(exports):
    classifier = opened(exports[0], "openvino", "int8")
    together = classifier.classify(TEXTS[:12])
    alone = [classifier.classify([text])[0] for text in TEXTS[:12]]
    assert compare(together, alone).largest < 1e-4


def test_int8_graphs_are_a_fraction_as_large(exports):
    folder = next(exports[0].iterdir())
    whole, small = ((folder / name / "graph.bin").stat().st_size for name in ("openvino-fp32", "openvino-int8"))
    assert small < 0.4 * whole
    assert "int8" in exports[1]["openvino-int8"].method


def test_auto_takes_the_fastest(copied):
    root, folder = copied
    for kind, milliseconds in (("openvino-fp32", 2.0), ("onnx-fp32", 1.0), ("openvino-int8", 3.0)):
        edit(folder / kind / MANIFEST, milliseconds=milliseconds)
    if processor.multiplies_bf16():
        edit(folder / "openvino-bf16" / MANIFEST, milliseconds=8.0)
    assert opened(root).runtime.name == "onnx-fp32"
    assert opened(root, precision="int8").runtime.name == "openvino-int8"
    edit(folder / "onnx-fp32" / MANIFEST, milliseconds=9.0)
    assert opened(root).runtime.name == "openvino-fp32"


def test_torch_is_taken_where_nothing_was_exported(tmp_path, caplog):
    with caplog.at_level("INFO", logger="airlock.classifier"):
        assert opened(tmp_path) is None
    assert "runs on torch: no verified runtime" in caplog.text
    assert f"classifier {toy_model()} runs on torch" in caplog.text
    assert "give it --language or --classifier" in caplog.text
    with pytest.raises(ClassifierError, match=r"`classifier\.runtime` = onnx.*nothing is exported to .*airlock export"):
        opened(tmp_path, "onnx")
    assert opened(tmp_path, "torch") is None


def test_a_model_of_classifiers_is_exported_and_served_from_there(tmp_path, caplog):
    settings = {
        "classifier": {"exports": str(tmp_path / "exports"), "runtime": "auto"},
        "classifiers": {"toy": {"model": str(small_model()), "when": {"tenant": "toy"}}},
    }
    (tmp_path / "airlock.yaml").write_text(json.dumps(settings))  # which is YAML too
    data = write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    options = ["export", "-c", str(tmp_path / "airlock.yaml"), "--data", str(data), "--runtime", "onnx"]
    options += ["--precision", "fp32", "--texts", "200", "--calibration", "1"]
    done = CliRunner().invoke(app, [*options, "--classifier", "toy"])
    assert done.exit_code == 0, done.output
    assert "accepted  onnx-fp32" in done.output
    config = load_config(tmp_path / "airlock.yaml")
    with caplog.at_level("INFO", logger="airlock.classifier"):
        assert load_other(config, "toy", Encoders(config)).runtime.name == "onnx-fp32"
    assert f"classifier {small_model()} runs on onnx-fp32" in caplog.text
    unknown = CliRunner().invoke(app, [*options, "--classifier", "toys"])
    assert str(unknown.exception) == "--classifier toys: `classifiers` has: toy"
    both = CliRunner().invoke(app, [*options, "--classifier", "toy", "--language", "en"])
    assert both.exit_code == 2
    assert "name two models" in both.output


def test_too_few_texts_are_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(assemble_classifier, "load_torch_classifier", lambda *_: pytest.fail("the model was loaded"))
    asked = CliRunner().invoke(app, ["export", "--texts", str(FEWEST_TEXTS - 1)])
    assert asked.exit_code == 2
    assert f"'--texts': Input should be greater than or equal to {FEWEST_TEXTS}\n" in asked.output
    data = write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS[:20]])
    said = CliRunner().invoke(app, ["export", "--data", str(data)])
    assert str(said.exception).startswith(f"--data {data} holds 20 different texts; an export is compared on at least")


def test_outside_a_checkout_own_texts_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = str(CliRunner().invoke(app, ["export"]).exception)
    assert said.startswith("--data: what it is compared on by default, data/queries/train.jsonl of a checkout, is not")
    assert said.endswith("give a JSONL file of your own with 1000 texts or more")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    own(path).write_bytes(content)


@pytest.mark.parametrize("damage", ["bit", "missing", "manifest", "version", "model", "drift", "tiers", "renamed"])
def test_what_is_damaged_or_does_not_belong_is_not_served(copied, damage, caplog):
    root, folder = copied
    place = folder / "onnx-fp32"
    drift = json.loads((place / MANIFEST).read_text())["drift"]
    match damage:
        case "bit":
            flip(place / "graph.data")
        case "missing":
            (place / "graph.onnx").unlink()
        case "manifest":
            (place / MANIFEST).write_text("{")
        case "version":
            edit(place / MANIFEST, libraries={"onnxruntime": "1.0"})
        case "model":
            edit(place / MANIFEST, made_from={"encoder": "f" * 64})
        case "drift":
            edit(place / MANIFEST, drift=drift | {"largest": 0.0201})
        case "tiers":
            edit(place / MANIFEST, drift=drift | {"tiers_changed": float("nan")})
        case "renamed":
            shutil.rmtree(place)
            (folder / "openvino-fp32").rename(place)
    with pytest.raises(ClassifierError, match=r"`classifier\.runtime` = onnx.*(run `airlock export`|: auto)"):
        opened(root, "onnx")
    for other in ("openvino-fp32", "openvino-int8", "openvino-bf16"):
        shutil.rmtree(folder / other, ignore_errors=True)
    assert opened(root) is None
    assert "not served: " in caplog.text


@pytest.mark.parametrize("name", ["checksums.npy", "tokenizer.json", "special.json"])
def test_damaged_inputs_stop_every_runtime_and_the_next_export_mends_them(copied, name):
    root, folder = copied
    flip(folder / "inputs" / name)
    assert opened(root) is None
    with pytest.raises(ClassifierError, match=rf"{name} is damaged; run `airlock export` again"):
        opened(root, "openvino")
    an_exporter(root).inputs()
    assert opened(root) is not None


def test_a_damaged_row_of_the_embeddings_is_found_when_a_text_reads_it(copied):
    root, folder = copied
    classifier = opened(root, "onnx")
    (token, *_), _ = classifier.tokenizer.split("zorblax")
    table = np.load(own(folder / "inputs" / "embeddings.npy"), mmap_mode="r+")
    table[token, 0] += 1
    table.flush()
    classifier.classify(["rose lawn"])
    with pytest.raises(
        ClassifierError, match=rf"row {token} of .*embeddings\.npy is damaged; run `airlock export` again"
    ):
        opened(root, "onnx").classify(["rose lawn", "zorblax"])


def test_a_table_that_is_cut_off_stops_the_start(copied):
    root, folder = copied
    path = own(folder / "inputs" / "embeddings.npy")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ClassifierError, match=r"embeddings\.npy is damaged; run `airlock export` again"):
        opened(root, "onnx")
    an_exporter(root).inputs()
    assert opened(root, "onnx") is not None


def test_what_rounds_otherwise_on_another_processor_is_served_only_where_it_was_proved(copied, caplog):
    root, folder = copied
    shutil.copytree(folder / "openvino-fp32", folder / "openvino-bf16", dirs_exist_ok=True)
    edit(folder / "openvino-bf16" / MANIFEST, precision="bf16", processor=["x86_64", "amx_bf16"], milliseconds=0.1)
    message = r"it was proved on a processor with x86_64 amx_bf16, this one has .*; run `airlock export` again"
    with pytest.raises(ClassifierError, match=message):
        opened(root, "openvino", "bf16")
    with caplog.at_level("WARNING", logger="airlock.classifier"):
        assert opened(root).runtime.name != "openvino-bf16"
    assert "not served: runtime openvino-bf16" in caplog.text
    edit(folder / "openvino-fp32" / MANIFEST, processor=["another"])
    assert opened(root, "openvino", "fp32").runtime.name == "openvino-fp32"


@needs_bf16
def test_in_bf16_only_products_are(exports):
    folder = next(exports[0].iterdir())
    kept = (folder / "openvino-bf16" / "graph.xml").read_text()
    assert kept.count('name="precise"') > 4
    assert "precise" not in (folder / "openvino-fp32" / "graph.xml").read_text()
    assert (folder / "openvino-bf16" / "graph.bin").read_bytes() == (
        folder / "openvino-fp32" / "graph.bin"
    ).read_bytes()
    moved = {name: exports[1][f"openvino-{name}"].drift.mean for name in ("fp32", "bf16")}
    assert moved["bf16"] > 10 * moved["fp32"]  # so bf16 it was
    assert "bf16" in exports[1]["openvino-bf16"].method


def test_what_a_processor_can_is_read_from_the_system(tmp_path, monkeypatch):
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPUINFO", told)
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    for text, found, bf16 in (
        (
            "model name: X\nflags\t\t: fpu avx2 fma amx_bf16\nflags: other\n",
            ("x86_64", "amx_bf16", "avx2", "fma"),
            True,
        ),
        ("Features\t: fp asimd i8mm\n", ("x86_64", "asimd", "i8mm"), False),
        ("", ("x86_64",), False),
        (None, ("x86_64",), False),
    ):
        told.unlink(missing_ok=True) if text is None else told.write_text(text)
        processor.features.cache_clear()
        assert processor.features() == found
        assert processor.multiplies_bf16() is bf16
        assert ("bf16" in exported.precisions("openvino")) is bf16
    processor.features.cache_clear()


def test_a_precision_that_a_runtime_lacks_is_named(tmp_path):
    with pytest.raises(ClassifierError, match="onnx has no bf16; it has fp32 and int8"):
        an_exporter(tmp_path).export("onnx", "bf16")
    said = CliRunner().invoke(app, ["export", "--runtime", "onnx", "--precision", "bf16"])
    assert said.exit_code != 0
    assert "no runtime has --precision bf16 here" in str(said.exception)


def test_a_runtime_that_has_no_such_precision_says_so_and_not_to_export(exports):
    with pytest.raises(
        ClassifierError, match=r"`classifier\.precision` = bf16: onnx has no bf16; it has fp32 and int8$"
    ):
        opened(exports[0], "onnx", "bf16")


def test_an_encoder_is_hashed_only_if_its_name_does_not_say_its_weights(exports):
    asked = []

    def sha256():
        asked.append(True)
        return minilm().sha256

    assert open_exported(toy_model(), MINILM, sha256, Choice(cache=exports[0])) is not None
    assert not asked
    assert open_exported(toy_model(), "/somewhere/minilm", sha256, Choice(cache=exports[0])) is not None
    assert asked


def test_another_adapter_has_exports_of_its_own(exports, tmp_path):
    other = Path(shutil.copytree(toy_model(), tmp_path / "other"))
    flip(other / "head.safetensors")
    assert ExportCache(exports[0], other, minilm().sha256).folder != next(exports[0].iterdir())
    assert open_exported(other, MINILM, lambda: minilm().sha256, Choice(cache=exports[0])) is None


def test_a_runtime_that_drifts_is_refused_with_the_figures_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(exported, "MAX_DRIFT", 0.0)
    manifest = an_exporter(tmp_path).export("onnx", "fp32")
    assert not manifest.drift.bearable
    folder = next(tmp_path.iterdir()) / "onnx-fp32"
    assert [path.name for path in folder.iterdir()] == [MANIFEST]
    assert json.loads((folder / MANIFEST).read_text())["drift"]["texts"] == 200
    with pytest.raises(ClassifierError, match=r"onnx-fp32 .* is not served: of 200 texts 0\.00% change their tier"):
        opened(tmp_path, "onnx")


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(exported, "_version", lambda name: "" if name == "openvino" else "1")
    with pytest.raises(
        ClassifierError, match=r"openvino is not installed; run `pip install 'llm-airlock\[openvino\]'`"
    ):
        opened(tmp_path, "openvino")


def test_too_few_texts_prove_nothing(tmp_path):
    cache = ExportCache(tmp_path, toy_model(), minilm().sha256)
    with pytest.raises(ClassifierError, match="199 texts to compare on; an export needs at least 200"):
        Exporter(TierClassifier.load(toy_model(), minilm()), minilm(), cache, texts=TEXTS[:199], calibration=[])


def test_nan_and_changed_tiers_are_no_bearable_drift():
    (verdict,) = TierClassifier.load(toy_model(), minilm()).classify(["rose lawn"])
    broken = dataclasses.replace(verdict, categories=dict.fromkeys(TAXONOMY.ids, float("nan")))
    assert compare([verdict], [broken]).largest == 1.0
    assert not Drift(1000, float("nan"), 0.0, 0.0, 0.0).bearable
    assert not Drift(1000, 0.02, 0.0, 0.0, 0.0051).bearable
    assert Drift(1000, 0.02, 0.0, 0.0, 0.005).bearable


def test_the_exported_tokenizer_reads_as_the_encoders_own(exports):
    tokenizer = ExportedTokenizer.load(next(exports[0].iterdir()) / "inputs", MINILM)
    for text in ["", "rose [SEP] lawn", "Ünïcödé 你好 😀😀", "x" * 500, "[UNK] [PAD]"]:
        assert tokenizer.split(text) == tuple(minilm().split(text))
    own = minilm()
    assert (tokenizer.before, tokenizer.after, tokenizer.unknown) == (own.before, own.after, own.unknown)


WARM = """
import sys
from guard.assemble import load_guard
from guard.config import load_config
import asyncio
from guard.types import Turn

guard = load_guard(load_config(None, {
    "classifier.model": sys.argv[1], "classifier.exports": sys.argv[2], "classifier.runtime": sys.argv[3],
    "knowledge.kind": "none", "journal.path": None, "output.input_only": [], "policy.rules": [
        {"name": "all", "when": {}, "route": "refuse"},
    ],
}))
decision = asyncio.run(guard.decide([Turn("user", "zorblax zorblax zorblax")]))
guard.close()
print(decision.verdict.category, sorted({"torch", "transformers", "peft", "scipy"} & set(sys.modules)))
"""


@pytest.mark.parametrize("runtime", KINDS)
def test_a_warm_start_imports_no_torch(exports, runtime):
    arguments = [sys.executable, "-c", WARM, str(toy_model()), str(exports[0]), runtime]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert run.stdout.split(" ", 1) == ["u_zorblax", "[]\n"], run.stderr


def test_embeddings_are_those_of_the_encoder(exports):
    table = np.load(next(exports[0].iterdir()) / "inputs" / "embeddings.npy", mmap_mode="r")
    own = minilm().model.get_input_embeddings().weight.detach().numpy()
    assert table.dtype == np.float16
    assert np.abs(table - own).max() < 1e-3


def test_the_command_exports_and_the_others_use_it(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])
    settings = tmp_path / "airlock.yaml"
    settings.write_text(json.dumps({"classifier": {"model": str(toy_model()), "exports": "exports"}}))
    runner = CliRunner()
    asked = ["export", "-c", str(settings), "--data", str(rows), "--runtime", "onnx", "--precision", "fp32"]
    made = runner.invoke(app, [*asked, "--texts", "200", "--calibration", "1", "--json"])
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout.splitlines()[-1])
    assert (told["accepted"], told["kind"], told["drift"]["texts"]) == (True, "onnx", 200)
    with mock.patch("classifier.encoder.load_encoder", side_effect=AssertionError("torch was loaded")):
        said = runner.invoke(app, ["classify", "zorblax zorblax zorblax", "-c", str(settings), "--json"])
    assert json.loads(said.stdout)["category"] == "u_zorblax", said.output


def test_few_texts_are_shared_between_comparing_and_int8(tmp_path):
    pytest.importorskip("onnx")
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS[:224]])
    settings = tmp_path / "airlock.yaml"
    settings.write_text(json.dumps({"classifier": {"model": str(small_model()), "exports": "exports"}}))
    asked = ["export", "-c", str(settings), "--data", str(rows), "--runtime", "onnx", "--precision", "int8", "--json"]
    for given, compared in (([], 200), (["--texts", "210", "--calibration", "10"], 210)):
        with mock.patch("classifier.export.quantized", return_value="not rounded, which is half of the time") as fitted:
            made = CliRunner().invoke(app, [*asked, *given])
        assert fitted.call_args.args[1], "int8 has texts of its own"
        assert json.loads(made.stdout.splitlines()[-1])["drift"]["texts"] == compared, made.output
    write_rows(rows, [{"text": text} for text in TEXTS[:200]])
    made = CliRunner().invoke(app, asked)
    assert isinstance(made.exception, ClassifierError)
    assert "than the 200 compared on, and there are no others; give more by `--data`" in str(made.exception)


@pytest.mark.parametrize(("option", "value"), [("--runtime", "tensorrt"), ("--precision", "fp8")])
def test_a_runtime_or_precision_that_is_unknown_is_named(option, value):
    said = CliRunner().invoke(app, ["export", option, value])
    assert said.exit_code == 2
    assert value in said.output
