"""`airlock audit heads` on the shipped test bed: what it writes and says, what it keeps, what it refuses at once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from attribution import testbed
from attribution.audit import Plan
from attribution.checkpoint import load
from attribution.engine import Engine
from attribution.report import load_report
from attribution.summary import summary
from attribution.types import Ablation, AttributionError, CheckpointError, HeadId, PromptError, ReportError
from tests import audit_reports as made
from tests.unit.audit_cases import tiny_tokenizer
from training.audit import heads as audit_heads
from training.audit import heads_cli, heads_cost, without_heads
from training.audit.cli import audit

FEW = ("--testbed", "--limit", "6")
QUIET = (*FEW, "--asr", "no")
WIDE = "how do I " * 79  # tokens that the test bed reads, but no answer of 32 after them


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments, status=0):
    result = CliRunner().invoke(audit, ["heads", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result


def report(*arguments):
    run(*arguments, "--out", "deep/a.json")
    return load_report(Path("deep/a.json"))


def scores(found):
    return found.ships.per_prompt.unpack()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "a.json"
    result = CliRunner().invoke(audit, ["heads", *QUIET, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return load_report(out), result


def test_the_report_says_what_was_audited_and_how(plain):
    found, result = plain
    assert (found.model.layers, found.model.heads, found.model.family) == (4, 8, "llama")
    assert (found.prompts.count, found.prompts.template, found.prompts.file) == (6, "chat", "harmful.jsonl")
    assert (found.settings.method, found.settings.epsilon, found.settings.group_size) == ("query", 1e-5, 3)
    assert len(found.sahara) == 3
    assert found.behaviour is None
    assert all(check.passed for check in (found.checks.base_logits, found.checks.causal_leak))
    assert found.provenance["seed"] == 0
    assert found.provenance["data"]["harmful.jsonl"]
    assert f"{found.ships.ranking[0].head}" in result.stdout
    assert result.stdout.startswith(summary(found).headline)
    assert "effective number of heads" in result.stdout
    assert " computed" not in result.stdout
    assert "written: " in result.stdout
    assert result.stderr == ""


def test_it_asks_the_model_without_its_first_heads(plain):
    found = report(*FEW, "--asr", "0,1", "--asr-prompts", "4", "--asr-tokens", "8")
    zero, one = found.behaviour.points
    assert (zero.k, zero.heads, zero.random) == (0, (), None)
    assert (one.k, one.heads, one.random_draws) == (1, tuple(plain[0].top(1)), 3)
    assert (found.behaviour.prompts, found.behaviour.weak_judge) == (4, True)
    assert zero.asr.low <= zero.asr.value <= zero.asr.high


def test_heads_are_set_against_harmless_prompts(tmp_path, plain):
    harmless = testbed.prompts(harmful=False)
    options = (*QUIET, "--size", "0", "--against", harmless)
    found = report(*options, "--journal", "j.jsonl")
    assert (found.against.prompts.count, found.against.prompts.file) == (6, harmless.name)
    assert scores(found) == pytest.approx(scores(plain[0]), abs=1e-7)
    named = list(map(HeadId._make, np.ndindex(4, 8)))
    above = {head for head in named if found.against.difference[head.layer][head.head] > found.against.chance}
    assert above == set(found.against.heads)
    again = run(*options, "--journal", "j.jsonl").stdout
    assert "more than on 6 harmless prompts by over" in again
    assert "for 384 heads × prompts" in run(*options, "--estimate").stdout  # twice 6 prompts of 32 heads
    (tmp_path / "h.jsonl").write_text('{"prompt": "a", "harmful": true}\n')
    with pytest.raises(PromptError, match=r"--against .* every row says harmful: true"):
        run(*QUIET, "--against", tmp_path / "h.jsonl")


def test_screen_another_template_and_no_single_prompts(plain):
    found = report(*QUIET, "--screen", "8", "--sampled", "4", "--also", "plain", "--no-per-prompt", "--size", "2")
    assert (found.screen.chosen, found.screen.sampled, found.settings.screen) == (8, 4, 8)
    assert sum(value is not None for row in found.ships.mean for value in row) == 12
    assert [pair.other for pair in found.stability.templates] == ["plain"]
    assert found.ships.per_prompt is None
    for head in found.top(12):
        assert found.ships.mean[head.layer][head.head] == pytest.approx(
            plain[0].ships.mean[head.layer][head.head], rel=1e-3, abs=1e-7
        )


def test_a_screen_says_of_how_many_heads_its_figures_are():
    said = run(*QUIET, "--screen", "8", "--sampled", "4", "--size", "0").stdout
    assert "share of the 12 heads computed" in said
    assert "of the 12 computed (of 32)" in said


def test_brute_force_finds_the_same():
    few = ("--testbed", "--limit", "2", "--asr", "no", "--size", "1")
    slow, fast = report(*few, "--engine", "brute"), report(*few)
    assert abs(scores(slow) - scores(fast)).max() < 1e-5
    assert slow.sahara[0].head == fast.sahara[0].head


def test_the_cost_is_said_and_nothing_else_is_done(tmp_path):
    said = run(*QUIET, "--estimate", "--journal", "j.jsonl").stdout
    assert "about" in said
    assert f"{6 * (32 + 32 + 31 + 30):,} heads × prompts" in said
    assert "MiB" in said
    more = run(*QUIET, "--estimate", "--also", "plain", "--size", "0").stdout
    assert f"{6 * 32 * 2:,} heads × prompts" in more
    assert not list(tmp_path.rglob("*.json*"))


@pytest.mark.parametrize("screen", [None, 8])
def test_the_screens_estimate_is_in_the_cost(screen, monkeypatch):
    """On a clock that only the estimate moves: so much a batch, so much a token."""
    now, calls = [0.0], []

    def estimated(model, rows, ablation, *, batch_tokens):
        calls.append(rows)
        assert len({len(row) for row in rows}) == 1
        assert len(rows) * len(rows[0]) <= batch_tokens
        now[0] += 1.0 + 0.01 * sum(map(len, rows))

    monkeypatch.setattr(heads_cost, "estimate", estimated)
    checkpoint = load(testbed.path())
    ids = [[1] * length for length in (5, 7, 7, 7, 9, *[10] * 12)]
    plan = Plan(Ablation(), size=0, screen=screen)
    told = heads_cost.cost(Engine(checkpoint.model), checkpoint, ids, plan, 40, clock=lambda: now[0])
    batches = 1 + 1 + 1 + 3  # those of ten tokens in threes of four prompts
    assert told.seconds == pytest.approx(0.0 if screen is None else batches + 0.01 * sum(map(len, ids)))
    assert bool(calls) is bool(screen)


def test_a_journal_brings_everything_back(tmp_path, monkeypatch):
    """Answers without heads and another template too: the second run computes none of it."""
    options = (
        *FEW,
        "--asr",
        "0,1",
        "--asr-prompts",
        "2",
        "--asr-tokens",
        "4",
        "--also",
        "plain",
        "--journal",
        "j.jsonl",
    )
    first = report(*options)
    before = (tmp_path / "j.jsonl").read_bytes()
    monkeypatch.setattr(without_heads, "measure", lambda *_, **__: pytest.fail("asked again"))
    monkeypatch.setattr("attribution.audit.ships", lambda *_, **__: pytest.fail("computed again"))
    monkeypatch.setattr("attribution.sahara.generalized_ships", lambda *_, **__: pytest.fail("computed again"))
    again = report(*options)
    same = {"provenance", "seconds"}
    assert first.model_dump(exclude=same) == again.model_dump(exclude=same)
    assert (tmp_path / "j.jsonl").read_bytes() == before


def test_the_journal_of_other_prompts_or_another_method_is_refused(tmp_path):
    options = (*QUIET, "--size", "0", "--journal", "j.jsonl")
    run(*options)
    before = (tmp_path / "j.jsonl").read_bytes()
    for other in (("--seed", "1"), ("--method", "value"), ("--template", "plain"), ("--dtype", "float64")):
        with pytest.raises(AttributionError, match=r"journal j\.jsonl: line 1 is of a run of another model"):
            run(*options, *other)
    assert (tmp_path / "j.jsonl").read_bytes() == before


def test_a_run_that_is_asked_for_more_answers_goes_on_from_its_scores(tmp_path, monkeypatch):
    run(*QUIET, "--size", "1", "--journal", "j.jsonl")
    monkeypatch.setattr("attribution.audit.ships", lambda *_, **__: pytest.fail("computed again"))
    asked = ("--asr", "0", "--asr-prompts", "2", "--asr-tokens", "4")
    assert report(*FEW, "--size", "1", "--journal", "j.jsonl", *asked).behaviour is not None


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--testbed", "--model", "x"),
        (*FEW, "--method", "magic"),
        (*FEW, "--epsilon", "2"),
        (*FEW, "--template", "none-such"),
        (*FEW, "--limit", "0"),
        (*FEW, "--seed", "-1"),
        (*FEW, "--asr", "1,x"),
        (*FEW, "--asr", ""),
        (*FEW, "--asr", "-1"),
        (*FEW, "--dtype", "int8"),
    ],
)
def test_wrong_usage(options):
    assert "Traceback" not in run(*options, status=2).output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((*QUIET, "--sampled", "4"), "--sampled needs --screen"),
        (("--model", "none", "--sampled", "16"), "--sampled needs --screen"),
        ((*QUIET, "--asr-prompts", "4"), "--asr-prompts needs --asr"),
        (("--model", "none", "--asr-tokens", "4"), "--asr-tokens needs --asr"),
        (("--model", "none", "--asr", "no", "--asr-ranking", "sahara"), "--asr-ranking needs --asr"),
        ((*QUIET, "--method", "mean", "--epsilon", "0.5"), "--epsilon needs --method query or"),
        ((*QUIET, "--template", "plain", "--also", "plain"), "--also plain is the --template already"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused_and_says_what_it_needs(options, words):
    assert words in " ".join(run(*options, status=2).output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        (("--model", "none"), CheckpointError, "model none is not a folder"),
        ((*FEW, "--prompts", "none.jsonl"), PromptError, r"none\.jsonl"),
        ((*FEW, "--prompts", "empty.jsonl"), PromptError, r"empty\.jsonl"),
        ((*FEW, "--prompts", "harmless.jsonl"), PromptError, "every row says harmful: false"),
        ((*FEW, "--prompts", "long.jsonl"), PromptError, r"the model reads 256; remove it.* \(it begins 'word word "),
        ((*FEW, "--limit", "1"), AttributionError, "^--size 3: .* one prompt .*; give 2 prompts or more, or 0"),
        (
            (*FEW, "--prompts", "wide.jsonl", "--r-main", "1"),
            PromptError,
            r"has 2[34]\d tokens in the template chat and its answer up to 32, .* or give fewer --asr-tokens",
        ),
        ((*FEW, "--screen", "3"), AttributionError, "^--screen 3 .* 5 .*; give 5 or more, or leave it out"),
        ((*FEW, "--size", "33"), AttributionError, "^--size 33 .* the 32 heads .*; give fewer, or 0"),
        ((*FEW, "--r-main", "7"), AttributionError, "^--r-main 7 .* the 6 prompts; give fewer"),
        ((*FEW, "--r-main", "7", "--estimate"), AttributionError, "^--r-main 7"),
        ((*FEW, "--asr", "0,33"), AttributionError, "--asr 0,33: ASR without 33 heads .*: take out 32 at most$"),
        (
            (*FEW, "--asr", "4", "--asr-ranking", "sahara"),
            AttributionError,
            "--asr 4: .* sahara will have 3: take out 3 at most, or give a larger --size",
        ),
        ((*FEW, "--screen", "5", "--sampled", "0", "--asr", "6"), AttributionError, "or give a larger --screen"),
        ((*FEW, "--template", "plain", "--system", "Be kind."), PromptError, "no place for a system prompt"),
        ((*FEW, "--device", "cuda:77"), CheckpointError, "cuda:77"),
        ((*FEW, "--out", "."), ReportError, "is a folder"),
        ((*FEW, "--out", "empty.jsonl/a.json"), ReportError, "cannot be written"),
        ((*FEW, "--html", "empty.jsonl/a.html"), ReportError, "--html .* cannot be written"),
        ((*FEW, "--out", "full.json"), ReportError, "--out full.json cannot be written"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_anything_is_computed(options, kind, words, tmp_path, monkeypatch):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "harmless.jsonl").write_text('{"text": "a", "harmful": false}\n')
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "word " * 400}) + "\n")
    (tmp_path / "wide.jsonl").write_text(json.dumps({"text": WIDE}) + "\n")
    (tmp_path / "full.json.partial").mkdir()  # where the report is written first
    monkeypatch.setattr(audit_heads, "audit", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(kind, match=words) as caught:
        run(*options)
    assert "\n" not in str(caught.value)


def test_a_prompt_may_fill_the_model_where_no_answer_follows(tmp_path):
    (tmp_path / "wide.jsonl").write_text(json.dumps({"text": WIDE}) + "\n")
    few = ("--testbed", "--prompts", "wide.jsonl", "--size", "0")
    assert report(*few, "--asr", "no").behaviour is None
    assert report(*few, "--asr", "0", "--asr-tokens", "4").behaviour is not None


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    bed = shutil.copytree(testbed.path(), tmp_path / "bed")
    tokenizer = json.loads((bed / "tokenizer.json").read_text(encoding="utf-8"))
    for token in tokenizer["added_tokens"]:
        if token["content"] in tokenizer["model"]["vocab"]:
            tokenizer["model"]["vocab"][token["content"]] += 5000
        token["id"] += 5000
    (bed / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(CheckpointError, match="tokenizer"):
        run("--model", bed, "--limit", "6", "--asr", "no")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
@pytest.mark.parametrize(("module", "at"), [(audit_heads, "check"), (audit_heads, "audit"), (without_heads, "measure")])
def test_out_of_memory_names_what_to_take_less_of(error, module, at, monkeypatch, tmp_path):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(module, at, full)
    with pytest.raises(AttributionError, match="out of memory with batch_tokens 512; take a smaller one"):
        run(*FEW, "--size", "0", "--asr", "0", "--asr-prompts", "2", "--batch-tokens", "512", "--journal", "j.jsonl")
    if at == "measure":
        assert sum('"ships' in line for line in (tmp_path / "j.jsonl").read_text().splitlines()) == 6


def test_an_error_of_ours_is_not_called_out_of_memory(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes")

    monkeypatch.setattr(audit_heads, "check", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run(*QUIET)


def write(path, *texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_prompts_that_are_harmful_and_harmless_are_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl", "one", "two", "three")
    write(tmp_path / "b.jsonl", "four", "two")
    monkeypatch.setattr(audit_heads, "audit", lambda *_, **__: pytest.fail("computed"))
    for other, count in (("a.jsonl", "3 prompts"), ("b.jsonl", "1 prompt")):
        with pytest.raises(PromptError, match=rf"--prompts a\.jsonl and --against {other} have {count} in both"):
            run("--testbed", "--prompts", "a.jsonl", "--against", other, "--limit", "1")


def test_an_input_is_not_written_over(tmp_path):
    write(tmp_path / "a.jsonl", "one", "two")
    before = (tmp_path / "a.jsonl").read_bytes()
    few = ("--testbed", "--prompts", "a.jsonl")
    for option, place in (("--out", "a.jsonl"), ("--html", "./a.jsonl"), ("--out", "../" + tmp_path.name + "/a.jsonl")):
        with pytest.raises(ReportError, match=rf"{option} .*a\.jsonl would overwrite a file that is read"):
            run(*few, option, place)
    with pytest.raises(ReportError, match=r"--html r would overwrite that of --out"):
        run(*few, "--out", "r", "--html", "r")
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_a_report_that_is_replaced_is_named(tmp_path):
    few = ("--testbed", "--limit", "1", "--asr", "no", "--size", "0", "--engine", "exact")
    assert run(*few).stderr == ""
    again = run(*few)
    assert again.stderr == "--out results/audit.json is there already: this run replaces it\n"
    assert run(*few, "--estimate").stderr == ""


def test_a_handful_of_prompts_has_no_interval():
    one = run("--testbed", "--limit", "1", "--asr", "no", "--size", "0", "--html", "a.html").stdout
    assert "[" not in one
    assert "no intervals and no stars: 1 prompt is too few, give 5 or more" in one
    found = load_report(Path("results/audit.json"))
    assert (found.few, found.standing_out(), found.ships.effective_heads.low) == (True, [], None)
    page = Path("a.html").read_text(encoding="utf-8")
    assert "Over resamples of" not in page
    assert "There are no intervals: 1 prompt is too few" in page
    assert "no intervals" not in run("--testbed", "--limit", "5", "--asr", "no", "--size", "0").stdout


def test_half_precision_is_warned_of():
    half = run("--testbed", "--limit", "5", "--asr", "no", "--size", "0", "--dtype", "bfloat16", "--html", "a.html")
    assert half.stderr.count("The weights were held in bfloat16") == 1
    assert "The weights were held in bfloat16" in Path("a.html").read_text(encoding="utf-8")


def test_columns_of_small_scores_stay_apart(capsys):
    small = made.report(ships=made.scores(planted=(), noise=2.468e-7))
    heads_cli._table(small)
    rows = capsys.readouterr().out.splitlines()[:9]
    assert len({row.rindex("  ") for row in rows}) == 1
    assert all("]  " in row for row in rows[1:])


def test_a_screen_that_leaves_nothing_out_says_so():
    said = run(*QUIET, "--size", "0", "--screen", "99", "--html", "a.html").stdout
    assert "screen: all 32 heads were computed exactly, none was left out" in said
    page = Path("a.html").read_text(encoding="utf-8")
    assert "All 32 heads were computed exactly" in page
    assert "Of 0 others" not in page
    assert "99, exactly" not in page
    fewer = run(*QUIET, "--size", "0", "--screen", "8", "--sampled", "0").stdout
    assert "screen: 8 heads exact; what it missed was not measured" in fewer


def test_help_says_what_is_asked_by_default_and_how_small_a_screen_may_be():
    said = " ".join(run("--help").stdout.replace("│", " ").split())
    assert "0,1,2,4, the default with --testbed" in said
    assert "at least 5 and --size" in said


def test_what_transformers_says_of_padding_is_no_business_of_an_audit(tmp_path):
    """As a process, for the warning is given once: a GPT-2 whose padding is the token that begins a text."""
    torch.manual_seed(0)
    size = {"vocab_size": 263, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0, pad_token_id=0)).save_pretrained("gpt2")
    tiny_tokenizer().save_pretrained("gpt2")
    write(tmp_path / "a.jsonl", *map(str, range(5)))
    heads = ("audit", "heads", "--model", "gpt2", "--prompts", "a.jsonl", "--size", "0")
    for words in (heads, ("audit", "remove", "gpt2", "--heads", "0.1", "--out", "cut")):
        ended = subprocess.run([sys.executable, "-m", "guard", *words], capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")
