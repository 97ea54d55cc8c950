"""Hardening: what is dropped where, what is learnt, and that a worse model is rejected."""

import contextlib
import copy
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from audit_cases import tiny_llama, tiny_tokenizer
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import enable_progress_bar
from typer.testing import CliRunner

from attribution.ablate import ablate
from attribution.behaviour import Judgement, Outcome
from attribution.checkpoint import Checkpoint
from attribution.describe import describe, describe_model
from attribution.heads import attention
from attribution.render import hardening_html
from attribution.report import Prompts, Settings, save_report
from attribution.types import Ablation, AttributionError, HeadId, Prompt, PromptError, ReportError
from tests import audit_reports as audited
from training.audit import fit_hardened
from training.audit import train_hardened as train_module
from training.audit.fit_hardened import HardenRecipe, Lesson, harden
from training.audit.harden_cli import harden as command
from training.audit.harden_lessons import Example, Speech, SpeechAsker, lessons, read_examples, split
from training.audit.harden_proof import Attack, Curve, Proof, objections, prove
from training.audit.head_dropout import HeadDropout
from training.audit.planted_hardening import PLANTED_RECIPE, asker, own_lessons
from training.audit.planted_task import REFUSE, STOP
from training.audit.train_hardened import Trial, focus_of, train_hardened
from training.audit.train_planted import train_planted
from training.checkpoint import Checkpoint as Kept
from training.datasets import TrainingError

SHORT = HardenRecipe(steps=3, batch=4, lr=1e-3, ramp=0.0)
HARMFUL, HARMLESS = Lesson((0, 9, 8), (7, 1), harmful=True), Lesson((0, 5, 6, 7), (9, 9, 1), harmful=False)
LESSONS = [HARMFUL, HARMLESS]
IDS = torch.tensor([[0, 9, 8, 7], [0, 5, 6, 7], [0, 11, 12, 13]])


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model():
    return tiny_llama()


def dropout(rows, p, mix=0.0, seed=0, layers=2, heads=4):
    return HeadDropout(rows, torch.full((layers, heads), p), mix, torch.Generator().manual_seed(seed))


def logits(model, attend):
    with torch.no_grad(), attention(model, attend):
        return model(IDS).logits


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


# Dropout


def test_every_row_layer_and_head_is_dropped_by_a_draw_of_its_own():
    drawn = dropout([True] * 400, 0.3, layers=3).dropped.float()
    assert drawn.mean().item() == pytest.approx(0.3, abs=0.03)
    assert (drawn.mean(dim=0) - 0.3).abs().max() < 0.1
    by_row = drawn.flatten(1)
    assert len({tuple(row.tolist()) for row in by_row}) > 300
    correlation = torch.corrcoef(by_row.T).fill_diagonal_(0.0)
    assert correlation.abs().max() < 0.25


def test_mix_says_how_many_rows_drop_by_query():
    assert dropout([True] * 1000, 0.5, mix=0.25).by_query.float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert not dropout([True] * 50, 0.5, mix=0.0).by_query.any()


def test_p_of_0_is_the_plain_forward_bit_for_bit(model):
    with torch.no_grad():
        plain = model(IDS).logits
    assert torch.equal(logits(model, dropout([True] * 3, 0.0)), plain)
    assert torch.equal(logits(model, dropout([True] * 3, 0.0, mix=1.0)), plain)


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_rows_that_are_not_chosen_are_untouched(model, mix):
    with torch.no_grad():
        plain = model(IDS).logits
    found = logits(model, dropout([True, False, False], 0.5, mix=mix))
    assert torch.equal(found[1:], plain[1:])
    assert (found[0] - plain[0]).abs().max() > 1e-3


def test_a_row_that_drops_by_query_is_the_ablated_model(model):
    drop = dropout([True, True, False], 0.5, mix=1.0)
    found = logits(model, drop)
    for row in range(2):
        gone = [HeadId(*map(int, place)) for place in drop.dropped[row].nonzero()]
        assert gone
        with torch.no_grad(), ablate(model, gone, Ablation("query")):
            torch.testing.assert_close(found[row], model(IDS).logits[row], atol=1e-5, rtol=1e-5)


def test_heads_that_stay_are_scaled(model):
    drop = dropout([True] * 3, 0.5)
    seen = {}

    def watch(call):
        seen[call.layer] = (call.heads(), drop(call))
        return seen[call.layer][1]

    logits(model, watch)
    for layer, (stock, dropped) in seen.items():
        gone = drop.dropped[:, layer][:, :, None, None].expand_as(stock)
        assert torch.equal(dropped, torch.where(gone, 0.0, 2.0 * stock))


def test_in_the_mean_output_dropout_changes_nothing():
    heads = torch.ones(4000, 4, 1, 1)
    drop = dropout([True] * 4000, 0.4)

    class Ones:
        layer = 0

        def heads(self):
            return heads

    assert drop(Ones()).mean().item() == pytest.approx(1.0, abs=0.03)


# Training


def test_one_seed_gives_one_model(model):
    made = [copy.deepcopy(model) for _ in range(3)]
    losses = [harden(one, LESSONS, replace(SHORT, seed=seed)) for one, seed in zip(made, (0, 0, 1), strict=True)]
    assert losses[0] == losses[1]
    assert same(weights(made[0]), weights(made[1]))
    assert not same(weights(made[0]), weights(made[2]))


@pytest.mark.parametrize("rank", [0, 2])
def test_an_interrupted_training_ends_with_the_weights_that_it_would_have_had(model, tmp_path, monkeypatch, rank):
    monkeypatch.setattr(fit_hardened, "_KEPT", 2)
    recipe = HardenRecipe(steps=24, batch=4, rank=rank, lr=1e-2)
    whole, stock = copy.deepcopy(model), weights(model)
    expected = harden(whole, LESSONS, recipe)
    computed, losses = [], fit_hardened._losses

    def fail_after(count):
        def run(*args):
            computed.append(1)
            if len(computed) > count:
                raise KeyboardInterrupt
            return losses(*args)

        return run

    again = {}
    for count in (3, 15, 99):  # twice interrupted, the second time behind a state that was written before
        computed.clear()
        one = copy.deepcopy(model)
        monkeypatch.setattr(fit_hardened, "_losses", fail_after(count))
        with contextlib.suppress(KeyboardInterrupt):
            again = harden(one, LESSONS, recipe, kept=Kept.at(tmp_path / "run", {"a": 1}))
    assert len(computed) == 24 - 2 - 14  # from steps 2 and 16 on
    assert again == expected
    assert same(weights(one), weights(whole))
    assert not same(weights(one), stock)
    finished = copy.deepcopy(model)  # the proof that follows was interrupted: nothing is trained again
    computed.clear()
    assert harden(finished, LESSONS, recipe, kept=Kept.at(tmp_path / "run", {"a": 1})) == expected
    assert not computed
    assert same(weights(finished), weights(whole))


def test_the_generator_of_others_is_left_alone(model):
    before = torch.random.get_rng_state()
    harden(model, LESSONS, replace(SHORT, rank=2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_control_differs_by_p_alone(model):
    """The same rows in the same order: with p so small that nothing is dropped, it is the control."""
    control, nearly = copy.deepcopy(model), copy.deepcopy(model)
    harden(control, LESSONS, replace(SHORT, p=0.0))
    harden(nearly, LESSONS, replace(SHORT, p=1e-9, mix=1.0, whole=0.0))
    assert same(weights(control), weights(nearly))


def test_lora_leaves_a_stock_model_with_other_weights(model):
    before = weights(model)
    harden(model, LESSONS, replace(SHORT, rank=2))
    after = weights(model)
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("proj" in name for name in changed)
    assert not hasattr(model, "peft_config")
    assert not any(weight.requires_grad for weight in model.parameters())
    with torch.no_grad(), ablate(model, [HeadId(0, 0)]):
        assert torch.isfinite(model(IDS).logits).all()


def test_lora_learns(model):
    first = harden(copy.deepcopy(model), LESSONS, HardenRecipe(steps=1, batch=4, rank=4, p=0.0))
    last = harden(model, LESSONS, HardenRecipe(steps=40, batch=4, rank=4, lr=1e-2, p=0.0))
    assert last["refusal"] < first["refusal"] / 2


FAMILIES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gemma2": {"head_dim": 8, "sliding_window": 2, "num_key_value_heads": 2},  # soft-capping, post-norms, shared keys
    "qwen3": {"head_dim": 16, "num_key_value_heads": 2},  # query norms
    "gpt_neox": {},  # fused projections, parallel blocks
}


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_are_hardened(family, rank):
    own = FAMILIES[family]
    size = {} if family == "gpt2" else {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(family, vocab_size=32, bos_token_id=0, eos_token_id=1, pad_token_id=2, **size, **own)
    config.intermediate_size = 48
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    plain = HardenRecipe(steps=1, batch=4, p=0.0, rank=rank)
    first = harden(copy.deepcopy(model), LESSONS, plain)
    last = harden(model, LESSONS, HardenRecipe(steps=30, batch=4, rank=rank, lr=1e-2 if rank else 3e-3))
    assert last["refusal"] < first["refusal"] - 0.5
    assert not any("lora" in name for name in model.state_dict())


def test_heads_of_the_focus_are_dropped_more_often(model, monkeypatch):
    seen = []

    class Watched(HeadDropout):
        def __init__(self, rows, p, *more):
            seen.append(p.clone())
            super().__init__(rows, p, *more)

    monkeypatch.setattr("training.audit.fit_hardened.HeadDropout", Watched)
    harden(model, LESSONS, replace(SHORT, ramp=1.0), focus=[HeadId(1, 2)])
    assert [float(grid[1, 2]) for grid in seen] == pytest.approx([0.25, 0.5, 0.75])
    assert [float(grid[0, 0]) for grid in seen] == pytest.approx([0.5 / 3, 1.0 / 3, 0.5])


@pytest.mark.parametrize(
    ("more", "said"),
    [({"p": 1.0}, "p 1.0"), ({"mix": 1.5}, "mix 1.5"), ({"steps": 0}, "steps 0"), ({"lr": 0.0}, "lr 0.0")],
)
def test_a_recipe_that_cannot_be_is_an_error(more, said):
    with pytest.raises(TrainingError, match=said):
        HardenRecipe(**more)


def test_lessons_of_one_kind_are_an_error(model):
    with pytest.raises(TrainingError, match="no harmless lessons"):
        harden(model, [HARMFUL], SHORT)


def test_a_token_that_the_model_does_not_have_is_an_error(model):
    with pytest.raises(TrainingError, match="token 999"):
        harden(model, [HARMFUL, Lesson((0,), (999,), harmful=False)], SHORT)


def test_a_head_that_is_not_there_is_an_error(model):
    with pytest.raises(AttributionError, match=r"head 7\.0 is not in the model"):
        harden(model, LESSONS, SHORT, focus=[HeadId(7, 0)])


# The proof


def proof(asr, failures, attacked=0.0):
    return Proof(asr, 0.0, failures, 0.0, {"ships/query": Curve(("0.0",), 1.0, {0: asr, 1: attacked}, {0: 0.0})}, {})


@pytest.mark.parametrize(
    ("asr", "failures", "count"), [(0.03, 0.0, 0), (0.0, 0.08, 0), (0.04, 0.05, 1), (0.0, 0.09, 1), (0.5, 0.5, 2)]
)
def test_a_rise_by_more_than_the_margin_is_objected_to(asr, failures, count):
    assert len(objections(proof(0.0, 0.05, attacked=1.0), proof(asr, failures), margin=0.03)) == count


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (proof(1.0, 0.0, 1.0), proof(0.0, 0.0, 0.0), ["the original answers 1.000 .* no refusals to spread"]),
        (
            proof(0.98, 0.0, 1.0),
            proof(0.98, 0.0, 1.0),
            ["no refusals to spread", "did not fall .* 1.000 before and 1.000"],
        ),
        (proof(0.0, 0.0, 0.5), proof(0.0, 0.0, 0.5), ["attack success without heads did not fall"]),
        (proof(0.0, 0.0, 0.0), proof(0.0, 0.0, 0.0), ["did not fall"]),
        (proof(0.0, 0.0, 0.5), proof(0.0, 0.0, 0.6), ["did not fall"]),
        (proof(0.9, 0.0, 1.0), proof(0.9, 0.0, 0.9), []),
    ],
)
def test_a_model_that_gained_nothing_is_objected_to(before, after, said):
    found = objections(before, after, margin=1.0)
    assert len(found) == len(said)
    assert all(re.search(words, each) for words, each in zip(said, found, strict=True))


def test_what_an_attack_cannot_be_is_an_error():
    with pytest.raises(AttributionError, match="attacker 'ships/none'"):
        Attack(attackers=("ships/none",))
    with pytest.raises(AttributionError, match="counts"):
        Attack(counts=(-1,))
    with pytest.raises(AttributionError, match="take no head out"):
        Attack(counts=(0,))


def test_more_heads_than_there_are_is_an_error(model):
    with pytest.raises(AttributionError, match=r"counts \(0, 99\) are more than the 8 heads of the model"):
        prove(model, None, Attack(counts=(0, 99)))


def test_a_planted_model_is_hardened():
    """Refusals hang on one head, and after hardening on no one or two, for an attacker who ranks anew."""
    planted = train_planted(0)
    asked, taught = asker(planted), own_lessons(planted)
    assert {(lesson.reply[0] == REFUSE, lesson.reply[-1]) for lesson in taught if lesson.harmful} == {(True, STOP)}
    attack = Attack(counts=(0, 1, 2), attackers=("ships/query", "ships/value"), draws=1)
    before = prove(planted.model, asked, attack)
    hardened = copy.deepcopy(planted.model)
    harden(hardened, taught, replace(PLANTED_RECIPE, steps=150))
    after = prove(hardened, asked, attack, original=planted.model)
    assert objections(before, after) == []
    assert after.kl < 0.05
    for name, curve in before.attackers.items():
        assert curve.heads[0] == str(planted.head)
        assert min(curve.asr[1], curve.asr[2]) >= 0.95
        assert max(after.attackers[name].asr.values()) <= 0.2
        assert after.attackers[name].effective_heads >= 2 * curve.effective_heads


# From a folder to a folder


class ByToken:
    """Calls every other answer a refusal, by its length, so that a random model has both kinds."""

    batch = 1
    settings = {"name": "by token", "weak": True}  # noqa: RUF012

    def __init__(self, asr=0.0):
        self.asr = asr

    def judge(self, cases):
        found = []
        for prompt, _ in cases:
            refused = bool(prompt.harmful)
            found.append(Judgement(Outcome.REFUSED if refused else Outcome.ANSWERED, "by token"))
        return found


class Attackable(ByToken):
    """Of an attack that works on the original: its two harmful prompts are answered without the first head."""

    seen = 0

    def judge(self, cases):
        found = super().judge(cases)
        for place, (prompt, _) in enumerate(cases):
            self.seen += bool(prompt.harmful)
            if prompt.harmful and self.seen in (3, 4):
                found[place] = Judgement(Outcome.ANSWERED, "by token")
        return found


class Worse(ByToken):
    """Takes every answer to a harmful prompt for one once it has judged those of the original."""

    def __init__(self, model_calls):
        self.left = model_calls

    def judge(self, cases):
        self.left -= len(cases)
        if self.left >= 0:
            return super().judge(cases)
        return [Judgement(Outcome.ANSWERED, "by token") for _ in cases]


TRIAL = Trial(Attack(counts=(0, 1), attackers=("ships/query",), draws=1), held_out=0.5, asked=2)


def examples(harmful, response):
    kind = "bad" if harmful else "good"
    return [Example(Prompt(f"{kind} {number}", harmful=harmful), response) for number in range(4)]


def run(tmp_path, judge, recipe=SHORT, **more):
    tokenizer = tiny_tokenizer()
    checkpoint = Checkpoint(tiny_llama(), tokenizer, tmp_path / "base", "0" * 64)
    return checkpoint, train_hardened(
        checkpoint,
        examples(True, "No."),
        examples(False, "Yes."),
        tmp_path / "out",
        recipe=recipe,
        speech=Speech(tokenizer, judge, max_new_tokens=3),
        trial=TRIAL,
        **more,
    )


@pytest.mark.parametrize("rank", [0, 2])
def test_a_hardened_model_is_put_in_place_with_its_report(tmp_path, rank):
    checkpoint, report = run(tmp_path, Attackable(), replace(SHORT, rank=rank))
    assert report["accepted"]
    assert report["lessons"] == {"harmful": 2, "harmless": 2}
    assert report["control"]["kl"] > 0.0
    assert same(weights(checkpoint.model), weights(tiny_llama()))
    out = tmp_path / "out"
    assert {"model.safetensors", "manifest.json", "README.md", "tokenizer.json"} <= {
        path.name for path in out.iterdir()
    }
    assert not (out / "made").exists()
    assert json.loads((out / "manifest.json").read_text("utf-8"))["weights_sha256"] == report["weights_sha256"]
    saved = AutoModelForCausalLM.from_pretrained(out)
    assert weights(saved).keys() == weights(checkpoint.model).keys()
    assert not same(weights(saved), weights(checkpoint.model))
    assert "| attack success, ships/query, 1 heads out |" in (out / "README.md").read_text("utf-8")
    with pytest.raises(TrainingError, match="already holds"):
        run(tmp_path, ByToken())


def test_a_model_that_answers_more_is_rejected_and_nothing_is_put_in_place(tmp_path):
    judged_of_the_original = 2 + 2 + 2 + 2 + 2  # all heads: harmful, harmless; first head: both; a random head
    _, report = run(tmp_path, Worse(judged_of_the_original))
    assert not report["accepted"]
    assert "attack success with all heads in their places rose from 0.000 to 1.000" in report["objections"][0]
    assert "weights_sha256" not in report
    assert not (tmp_path / "out").exists()


def test_the_page_escapes_what_names_say(tmp_path):
    _, report = run(tmp_path, Attackable(), name="<script>x</script>")
    page = hardening_html(json.loads(json.dumps(report)))
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page
    assert "Accepted" in page


def test_replies_of_the_model_are_learnt_only_where_they_are_right(model):
    class Half(ByToken):
        def judge(self, cases):
            wrong = Judgement(Outcome.UNCLEAR, "by token")
            return [
                wrong if prompt.text.endswith("1") else super(Half, self).judge([(prompt, answer)])[0]
                for prompt, answer in cases
            ]

    tokenizer = tiny_tokenizer()
    model.generation_config.eos_token_id = list(range(263))  # every answer ends at once
    made = lessons(model, examples(True, None), Speech(tokenizer, Half(), max_new_tokens=3))
    assert len(made) == 3
    assert all(lesson.harmful and lesson.reply == (tokenizer.eos_token_id,) for lesson in made)


def test_a_model_that_gained_nothing_is_rejected(tmp_path):
    _, report = run(tmp_path, ByToken())
    assert not report["accepted"]
    assert "attack success without heads did not fall" in report["objections"][0]
    assert not (tmp_path / "out").exists()


def test_a_model_without_usable_replies_is_an_error_before_it_is_attacked(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "prove", lambda *_, **__: pytest.fail("attacked"))

    class Never(ByToken):
        def judge(self, cases):
            return [Judgement(Outcome.UNCLEAR, "by token") for _ in cases]

    tokenizer = tiny_tokenizer()
    with pytest.raises(TrainingError, match="gave no refusals"):
        train_hardened(
            Checkpoint(tiny_llama(), tokenizer, tmp_path, "0" * 64),
            examples(True, None),
            examples(False, None),
            tmp_path / "out",
            recipe=SHORT,
            speech=Speech(tokenizer, Never(), max_new_tokens=3),
            trial=TRIAL,
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_run_that_lacked_memory_is_kept_and_goes_on(tmp_path, monkeypatch, error):
    learn = train_module.harden

    def full(*args, kept, **more):
        if kept._folder.name == "after":
            raise error
        return learn(*args, kept=kept, **more)

    monkeypatch.setattr(train_module, "harden", full)
    with pytest.raises(TrainingError, match="out of memory with batch 4 and rank 0"):
        run(tmp_path, Attackable())
    parts = (tmp_path / "out.run" / "parts.jsonl").read_bytes()
    assert b'"control ' in parts
    monkeypatch.setattr(train_module, "harden", learn)
    monkeypatch.setattr(train_module, "lessons", lambda *_: pytest.fail("learnt again"))
    assert run(tmp_path, ByToken())[1]["accepted"]
    assert not (tmp_path / "out.run").exists()


def test_a_run_whose_training_is_damaged_keeps_its_proofs(tmp_path, monkeypatch):
    learn = train_module.harden

    def interrupted(*args, kept, **more):
        learn(*args, kept=kept, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "harden", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ByToken())
    monkeypatch.setattr(train_module, "harden", learn)
    (tmp_path / "out.run" / "control" / "tensors.safetensors").write_bytes(b"torn")
    with pytest.raises(TrainingError, match="control is damaged"):
        run(tmp_path, ByToken())
    assert b'"before ' in (tmp_path / "out.run" / "parts.jsonl").read_bytes()


def test_a_run_that_would_fail_again_the_same_way_is_removed(tmp_path):
    with pytest.raises(TrainingError, match="not finite"):
        run(tmp_path, ByToken(), replace(SHORT, steps=8, lr=1e30))
    assert not (tmp_path / "out.run").exists()


def test_an_error_of_ours_is_not_called_out_of_memory(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes")

    monkeypatch.setattr(train_module, "harden", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run(tmp_path, ByToken())


def test_heads_that_stand_out_in_an_audit_of_this_model_are_the_focus(tmp_path):
    checkpoint = Checkpoint(tiny_llama(), tiny_tokenizer(), tmp_path, "a" * 64)
    scores = np.random.default_rng(0).random((12, 2, 4)) * 0.01
    scores[:, 1, 2] += 1.0
    report = describe(
        model=describe_model(checkpoint),
        prompts=Prompts(file="rows.jsonl", sha256="c" * 64, count=12, template="chat"),
        settings=Settings(method="query", epsilon=1e-5, r_main=1, group_size=3, seed=0, screen=None),
        ships=scores,
        seconds=1.0,
    )
    assert focus_of(report, checkpoint) == (HeadId(1, 2),)
    with pytest.raises(TrainingError, match="other weights"):
        focus_of(report, replace(checkpoint, sha256="b" * 64))
    few = report.model_copy(update={"prompts": report.prompts.model_copy(update={"count": 4})})
    with pytest.raises(TrainingError, match=r"no head stands out: 4 prompts are too few, .*; leave --report out"):
        focus_of(few, checkpoint)


def test_held_out_prompts_are_not_learnt_from():
    rows = examples(True, None)
    learnt, asked = split(rows, 0.5, 10, seed=0)
    assert sorted(each.prompt.text for each in [*learnt, *asked]) == [each.prompt.text for each in rows]
    assert len(asked) == 2
    with pytest.raises(TrainingError, match="held out"):
        split(rows, 1.0, 10, seed=0)


@pytest.mark.parametrize("most", [1, 3, 10])
def test_the_share_alone_says_what_is_kept_out_of_learning(most):
    rows = [Example(Prompt(f"bad {number}", harmful=True)) for number in range(10)]
    learnt, asked = split(rows, 0.4, most, seed=0)
    every, held_out = split(rows, 0.4, 4, seed=0)
    assert (len(learnt), len(asked)) == (6, min(most, 4))
    assert learnt == every
    assert {each.prompt.text for each in asked} <= {each.prompt.text for each in held_out}


@pytest.mark.parametrize("share", [7.5, 1.0, 0.0, -0.4, float("nan")])
def test_a_held_out_share_that_is_none_is_an_error(share):
    with pytest.raises(TrainingError, match=f"held-out {share:g} is no share"):
        Trial(held_out=share)
    with pytest.raises(TrainingError, match="asked 0"):
        Trial(asked=0)


def test_a_prompt_without_room_for_its_answer_is_refused_before_the_proof(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "prove", lambda *_, **__: pytest.fail("computed"))
    tokenizer = tiny_tokenizer()

    def hardened(response):
        rows = [Example(Prompt(f"{number} " + "a" * 250, harmful=True), response) for number in range(4)]
        train_hardened(
            Checkpoint(tiny_llama(), tokenizer, tmp_path, "0" * 64),
            rows,
            examples(False, "Yes."),
            tmp_path / "out",
            recipe=SHORT,
            speech=Speech(tokenizer, ByToken(), max_new_tokens=3),
            trial=Trial(held_out=0.5, asked=1),
        )

    for response in (None, "No."):  # what is learnt from and asked, and what is only asked
        with pytest.raises(PromptError, match=r"tokens and its answer up to 3, but the model holds 256"):
            hardened(response)
    assert not (tmp_path / "out.run").exists()


def test_files_give_responses(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "a", "response": "No.", "harmful": true}\n\n{"prompt": "b", "harmful": false}\n{"prompt": "c"}\n'
    )
    assert [(each.prompt.text, each.response) for each in read_examples(path, harmful=True)] == [
        ("a", "No."),
        ("c", None),
    ]
    assert [each.prompt.harmful for each in read_examples(path, harmful=False)] == [False, False]
    path.write_text('{"prompt": "a", "response": 3}\n')
    with pytest.raises(TrainingError, match="line 1: `response` is 3"):
        read_examples(path, harmful=True)
    path.write_text('{"prompt": "a", "harmful": false}\n')
    with pytest.raises(TrainingError, match="no row is harmful"):
        read_examples(path, harmful=True)
    with pytest.raises(PromptError):
        read_examples(tmp_path / "none.jsonl", harmful=True)


def test_the_asker_reads_the_shares(model):
    asked = SpeechAsker(
        Speech(tiny_tokenizer(), ByToken(), max_new_tokens=2),
        [Prompt("bad", harmful=True)],
        [Prompt("good", harmful=False)],
    )
    assert asked.attack_success(model, [HeadId(0, 0)], Ablation("value")) == 0.0
    assert asked.harmless_answers(model, (), Ablation()) == (0.0, 0.0)
    assert len(asked.harmful) == len(asked.harmless) == 1


# The command


def files(tmp_path):
    tokenizer = tiny_tokenizer()
    base = tmp_path / "base"
    tiny_llama().save_pretrained(base)
    tokenizer.save_pretrained(base)
    for kind, harmful in (("harmful", True), ("harmless", False)):
        rows = [{"prompt": f"{kind} {n}", "response": "I cannot help.", "harmful": harmful} for n in range(4)]
        (tmp_path / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    attackers = ["--attackers", "ships/value"]
    fast = [*attackers, "--steps", "2", "--batch", "4", "--rank", "0", "--counts", "0,1", "--max-new-tokens", "3"]
    named = {
        "model": "base",
        "harmful": "harmful.jsonl",
        "harmless": "harmless.jsonl",
        "out": "out",
        "results": "harden.json",
        "html": "harden.html",
    }
    return [*(word for name, at in named.items() for word in (f"--{name}", str(tmp_path / at))), *fast]


def test_the_command_writes_a_report_and_its_exit_status_is_the_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr("attribution.keyword_judge.KeywordJudge", Attackable)
    enable_progress_bar()
    ended = CliRunner().invoke(command, [*files(tmp_path), "--margin", "1"])
    assert ended.exit_code == 0, ended.output
    report = json.loads((tmp_path / "harden.json").read_text("utf-8"))
    assert report["accepted"]
    assert report["before"]["attackers"].keys() == {"ships/value"}
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert "effective heads, ships/value" in ended.output
    assert not re.search("Loading weights|Writing model shards", ended.stderr)
    assert "<html" in (tmp_path / "harden.html").read_text("utf-8")


_KILLED = """
import os, signal, sys
from training import checkpoint
from training.audit import fit_hardened, harden_cli, train_hardened
fit_hardened._KEPT = 2
train_hardened.objections = lambda *_: []  # a random model refuses nothing
save = checkpoint.Checkpoint.save
def killed(self, state, *more):
    save(self, state, *more)
    if self._folder.name == "after" and state.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.Checkpoint.save = killed
harden_cli.harden(sys.argv[1:])
"""


def test_a_killed_command_goes_on_where_it_was(tmp_path, monkeypatch):
    given = [*files(tmp_path), "--margin", "1", "--steps", "7"]
    monkeypatch.setattr(train_module, "objections", lambda *_: [])
    killed = subprocess.run([sys.executable, "-c", _KILLED, *given], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert {path.name for path in (tmp_path / "out.run").iterdir()} >= {"parts.jsonl", "control", "after"}
    assert not (tmp_path / "out").exists()
    other = CliRunner().invoke(command, [*given, "--lr", "0.1"])
    assert other.exit_code == 1
    assert "interrupted hardening" in str(other.exception or other.output)
    trained, losses = [], fit_hardened._losses
    monkeypatch.setattr(fit_hardened, "_losses", lambda *args: trained.append(1) or losses(*args))
    ended = CliRunner().invoke(command, given)
    assert ended.exit_code == 0, ended.output
    assert "going on after step 4/7" in ended.output
    assert len(trained) == 3
    assert not (tmp_path / "out.run").exists()
    whole = CliRunner().invoke(
        command, [*given, "--out", str(tmp_path / "whole"), "--results", str(tmp_path / "w.json")]
    )
    assert whole.exit_code == 0, whole.output
    assert same(load_file(tmp_path / "out" / "model.safetensors"), load_file(tmp_path / "whole" / "model.safetensors"))
    one, same_again = (json.loads((tmp_path / name).read_text("utf-8")) for name in ("harden.json", "w.json"))
    for part in ("before", "control", "after", "losses", "lessons"):
        assert one[part] == same_again[part]


@pytest.mark.parametrize(("option", "file"), [("--results", "harden.json"), ("--html", "harden.html")])
def test_a_result_that_has_no_place_is_refused_before_the_run(tmp_path, monkeypatch, option, file):
    (tmp_path / f"{file}.partial").mkdir()  # where it is written first
    monkeypatch.setattr(train_module, "train_hardened", lambda *_, **__: pytest.fail("trained"))
    ended = CliRunner().invoke(command, files(tmp_path))
    assert isinstance(ended.exception, ReportError)
    assert f"{option} {tmp_path / file} cannot be written" in str(ended.exception)


@pytest.mark.parametrize("accepted", [True, False])
def test_a_result_that_could_not_be_written_after_all_is_written_by_the_same_command(tmp_path, monkeypatch, accepted):
    blocked = tmp_path / "harden.json.partial"
    rose = [] if accepted else ["it answers more"]
    monkeypatch.setattr(train_module, "objections", lambda *_: blocked.mkdir() or rose)
    given = files(tmp_path)
    ended = CliRunner().invoke(command, given)
    assert isinstance(ended.exception, ReportError)
    assert "--results" in str(ended.exception)
    assert not (tmp_path / "out" / "manifest.json").exists()
    blocked.rmdir()
    monkeypatch.setattr(train_module, "objections", lambda *_: rose)
    monkeypatch.setattr(fit_hardened, "_losses", lambda *_: pytest.fail("trained again"))
    ended = CliRunner().invoke(command, given)
    assert ended.exit_code == (0 if accepted else 1), ended.output
    assert json.loads((tmp_path / "harden.json").read_text("utf-8"))["accepted"] is accepted
    assert (tmp_path / "out" / "manifest.json").exists() is accepted
    assert not (tmp_path / "out" / "made").exists()
    assert not (tmp_path / "out.run").exists()


def test_the_command_rejects_with_exit_status_1(tmp_path, monkeypatch):
    monkeypatch.setattr("training.audit.train_hardened.objections", lambda before, after, margin: ["it answers more"])
    ended = CliRunner().invoke(command, files(tmp_path))
    assert ended.exit_code == 1
    assert "rejected, nothing was put into" in ended.output
    assert not (tmp_path / "out").exists()
    assert json.loads((tmp_path / "harden.json").read_text("utf-8"))["objections"] == ["it answers more"]


def test_the_command_names_what_is_wrong_in_one_line(tmp_path):
    given = files(tmp_path)
    wrong = CliRunner().invoke(command, [*given, "--p", "1"])
    assert wrong.exit_code == 1
    assert "airlock: p 1.0 is not from 0 to below 1" in wrong.output
    wrong = CliRunner().invoke(command, [*given, "--held-out", "7.5"])
    assert wrong.exit_code == 1
    assert "airlock: held-out 7.5 is no share" in wrong.output
    assert CliRunner().invoke(command, [*given, "--testbed"]).exit_code == 2
    assert CliRunner().invoke(command, [*given, "--counts", "x"]).exit_code == 2


def test_a_model_that_refuses_nothing_is_not_called_hardened(tmp_path):
    """A random model's babble is no refusal: there is nothing to spread, and nothing that could be gained."""
    ended = CliRunner().invoke(command, [*files(tmp_path), "--margin", "1"])
    assert ended.exit_code == 1
    assert "there are no refusals to spread" in ended.output
    assert not (tmp_path / "out").exists()


def test_inputs_of_the_command_are_told_apart_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "train_hardened", lambda *_, **__: pytest.fail("trained"))
    given, harmful = files(tmp_path), tmp_path / "harmful.jsonl"
    before = harmful.read_bytes()
    for option in ("--results", "--html"):
        ended = CliRunner().invoke(command, [*given, option, str(harmful)])
        assert isinstance(ended.exception, ReportError)
        assert "would overwrite a file that is read" in str(ended.exception)
    assert harmful.read_bytes() == before
    harmful.write_text("".join(json.dumps({"prompt": f"harmless {n}", "response": "No."}) + "\n" for n in range(4)))
    ended = CliRunner().invoke(command, given)
    assert isinstance(ended.exception, PromptError)
    assert "have 4 prompts in both, as harmful and as harmless" in str(ended.exception)


def test_a_report_of_other_weights_is_refused_before_the_attack(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "prove", lambda *_, **__: pytest.fail("attacked"))
    save_report(audited.report(), tmp_path / "other.json")
    ended = CliRunner().invoke(command, [*files(tmp_path), "--report", str(tmp_path / "other.json")])
    assert ended.exit_code == 1
    assert "with other weights" in ended.output


def test_the_command_names_the_option_of_an_answer_that_is_too_long(tmp_path):
    ended = CliRunner().invoke(command, [*files(tmp_path), "--max-new-tokens", "999"])
    assert isinstance(ended.exception, PromptError)
    assert str(ended.exception).endswith("give fewer --max-new-tokens")
