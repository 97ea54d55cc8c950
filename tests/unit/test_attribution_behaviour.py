"""Behaviour: the keyword judge, the local responder, the figures, and runs that are interrupted and go on."""

import json
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from audit_cases import tiny_llama, tiny_tokenizer
from judge_cases import CASES, UNSEEN
from scipy.stats import binomtest

from attribution.answering import LocalResponder
from attribution.behaviour import Answer, Judgement, Outcome, measure
from attribution.intervals import share
from attribution.keyword_judge import KeywordJudge, judge_text
from attribution.prompts import text_sha256
from attribution.sampling import Sampling
from attribution.types import AttributionError, Prompt, PromptError

ANSWERS = Path(__file__).parents[2] / "guard" / "assets" / "answers"
HARMFUL = [Prompt(f"harmful {n}", "crime" if n % 2 else "drugs", True) for n in range(6)]
HARMLESS = [Prompt(f"harmless {n}", "", False) for n in range(4)]
REFUSAL = "I'm sorry, but I can't help with that."


# The keyword judge


def accuracies(cases):
    right = defaultdict(list)
    for language, outcome, text in cases:
        right[language].append(judge_text(text).outcome == outcome)
    return {language: sum(each) / len(each) for language, each in right.items()}


def test_keyword_judge_by_language():
    """On the answers that it was written with; `hard` are those that keywords cannot know."""
    found = accuracies(CASES)
    assert len(CASES) >= 60
    assert found.pop("hard") <= 0.5
    assert found.pop("en") >= 0.95
    assert min(found.values()) == 1.0, found
    assert len(found) >= 15


def test_keyword_judge_on_answers_that_it_was_not_written_with():
    found = accuracies(("all", outcome, text) for _, outcome, text in UNSEEN)
    assert found["all"] >= 0.85


def test_keyword_judge_knows_most_of_the_gateways_own_refusals():
    for path in sorted(ANSWERS.glob("*.yaml")):
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert judge_text(said["default"]["refuse"]).outcome is Outcome.REFUSED, path.name
        refusals = [each["refuse"] for each in said["categories"].values() if "refuse" in each]
        known = sum(judge_text(each).outcome is Outcome.REFUSED for each in refusals)
        assert known / len(refusals) >= 0.7, path.name


@pytest.mark.parametrize("apostrophe", ["'", "’", "‘", "ʼ", "´", "＇"])
def test_every_apostrophe_counts(apostrophe):
    assert judge_text(f"I can{apostrophe}t help with that.").outcome is Outcome.REFUSED


def test_reasons_name_no_words_of_the_answer():
    reasons = {judge_text(text).reason for _, _, text in CASES}
    assert not any(word in reason for reason in reasons for word in ("sorry", "recipe", "Canberra"))
    assert len(reasons) <= 30


def test_a_long_answer_is_judged_by_its_beginning():
    long = "The mixture is stirred, and after an hour it is put aside to cool. " * 3
    varied = " ".join(f"Part number {n} goes into slot {n * 7}." for n in range(2000))
    assert judge_text(f"{varied} I can't help with that.").outcome is Outcome.ANSWERED
    assert judge_text(f"I can't help with that. {long}").outcome is Outcome.REFUSED


# The local responder


@pytest.fixture(scope="module")
def tiny():
    return tiny_llama(), tiny_tokenizer()


def responder(tiny, **more):
    how = Sampling(**{"max_new_tokens": 12, **more.pop("sampling", {})})
    return LocalResponder(*tiny, identity="abc", sampling=how, **more)


def answers(responder, prompts):
    found = dict(responder.answer(prompts))
    return [found[place] for place in range(len(prompts))]


PROMPTS = [Prompt(text) for text in ("how", "bake me a cake", "a", "open the lock, please, and tell me the way")]


@pytest.mark.parametrize("template", ["chat", "plain", "none"])
def test_batches_and_padding_change_nothing(tiny, template):
    alone = answers(responder(tiny, template=template, batch=1), PROMPTS)
    assert alone == answers(responder(tiny, template=template, batch=3), PROMPTS)
    assert len({each[0].text for each in alone}) > 1


def test_greedy_is_what_the_model_does_by_itself(tiny):
    model, tokenizer = tiny
    (found,) = answers(responder(tiny, template="none"), PROMPTS[1:2])
    ids = torch.tensor([tokenizer(PROMPTS[1].text)["input_ids"]])
    for _ in range(12):
        with torch.inference_mode():
            following = model(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, following.view(1, 1)], dim=1)
        if following == tokenizer.eos_token_id:
            break
    assert found[0].text == tokenizer.decode(ids[0, -12:], skip_special_tokens=True).strip()


def test_samples_differ_by_sample_and_seed_but_not_by_batch(tiny):
    drawn = {"temperature": 1.0, "samples": 3}
    first = answers(responder(tiny, sampling=drawn, batch=2), PROMPTS)
    assert first == answers(responder(tiny, sampling=drawn, batch=12), PROMPTS)
    assert first == answers(responder(tiny, sampling=drawn, batch=5), PROMPTS)
    assert first != answers(responder(tiny, sampling={**drawn, "seed": 1}, batch=5), PROMPTS)
    assert all(len({answer.text for answer in each}) == 3 for each in first)


def test_a_draw_of_one_is_greedy_and_a_draw_follows_the_probabilities(tiny):
    from attribution.answering import _Choose

    greedy = answers(responder(tiny), PROMPTS)
    assert answers(responder(tiny, sampling={"temperature": 1.0, "top_k": 1}), PROMPTS) == greedy
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0, 5.0 - 8.0]]).repeat(4000, 1)
    picked = _Choose(Sampling(temperature=2.0, top_k=3), range(4000))(None, scores).argmax(-1)
    shares = [float((picked == token).float().mean()) for token in range(5)]
    wanted = torch.softmax(torch.tensor([2.0, 1.0, 0.0]) / 2.0, 0).tolist()
    assert shares[:3] == pytest.approx(wanted, abs=0.03)
    assert shares[3:] == [0.0, 0.0]


@pytest.mark.parametrize(
    "setting",
    [
        {"begin_suppress_tokens": list(range(100, 200))},
        {"guidance_scale": 2.0},
        {"encoder_repetition_penalty": 3.0},
        {"repetition_penalty": 5.0},
        {"max_time": 1e-5},
        {"num_beams": 3},
        {"do_sample": True, "temperature": 0.1, "top_p": 0.5},
    ],
)
def test_what_a_checkpoint_says_of_generation_makes_no_difference(tiny, setting, capfd):
    model = tiny_llama()
    for name, value in setting.items():
        setattr(model.generation_config, name, value)
    saved = model.generation_config
    assert answers(responder((model, tiny[1])), PROMPTS) == answers(responder(tiny), PROMPTS)
    assert model.generation_config is saved
    assert capfd.readouterr().err == ""


def test_the_end_tokens_of_a_checkpoint_count(tiny):
    model, (first, *_) = tiny_llama(), answers(responder(tiny, template="none"), PROMPTS[1:2])[0]
    ids = torch.tensor([tiny[1](PROMPTS[1].text)["input_ids"]])
    model.generation_config.eos_token_id = [1, int(model(ids).logits[0, -1].argmax())]
    ended = answers(responder((model, tiny[1]), template="none"), PROMPTS[1:2])[0][0]
    assert (ended.text, ended.finish) == ("", "stop")
    assert first.text


def test_an_answer_ends_at_the_end_of_sequence(tiny):
    model, tokenizer = tiny_llama(), tiny[1]
    with torch.no_grad():
        model.lm_head.weight[1] = 50 * model.lm_head.weight.abs().max()  # </s> wins or loses by a lot
        for sign in (1, -1):
            model.lm_head.weight[1] *= sign
            found = {answer.finish for each in answers(responder((model, tokenizer)), PROMPTS) for answer in each}
            assert found <= {"stop", "length"}
    short = answers(responder(tiny, sampling={"max_new_tokens": 1}), PROMPTS[:1])[0][0]
    assert short.finish == "length"


def test_what_a_model_cannot_do_is_refused(tiny):
    long = [Prompt("how"), Prompt("a" * 300)]
    with pytest.raises(PromptError, match=r"prompt 2 has 30\d tokens .* holds 256"):
        list(responder(tiny).answer(long))
    broken = tiny_llama()
    with torch.no_grad():
        broken.lm_head.weight[5, 0] = float("nan")
    with pytest.raises(AttributionError, match="NaN"):
        list(responder((broken, tiny[1])).answer(PROMPTS))
    with pytest.raises(AttributionError, match="batch 0"):
        responder(tiny, batch=0)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_what_to_take_less_of(tiny, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(type(tiny[0]), "generate", full)
    with pytest.raises(AttributionError, match="batch 4: there is not enough memory"):
        list(responder(tiny).answer(PROMPTS))
    error = RuntimeError("shapes")
    with pytest.raises(RuntimeError, match="shapes"):
        list(responder(tiny).answer(PROMPTS))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"temperature": -0.1}, "temperature -0.1"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_k": -1}, "top_k -1"),
        ({"samples": 0}, "samples 0"),
        ({"samples": 2}, "give a temperature"),
    ],
)
def test_sampling_that_makes_no_sense(settings, words):
    with pytest.raises(AttributionError, match=words):
        Sampling(**settings)


def test_the_model_is_the_same_afterwards_and_ablation_changes_answers(tiny):
    from attribution import ablate, heads
    from attribution.types import Ablation

    model = tiny[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    base = answers(responder(tiny), PROMPTS)
    all_heads = heads.all_heads(model)
    with ablate.ablate(model, all_heads, Ablation("value", 0.0)):
        without = answers(responder(tiny, batch=3), PROMPTS)
        assert without == answers(responder(tiny, batch=1), PROMPTS)
    with ablate.ablate(model, all_heads[:1], Ablation("query", 0.0)):
        assert answers(responder(tiny, batch=4), PROMPTS) == answers(responder(tiny, batch=1), PROMPTS)
    assert without != base
    assert answers(responder(tiny), PROMPTS) == base
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# The measure


class Scripted:
    """Says of each prompt what a test tells it to; may fail at one."""

    def __init__(self, says, *, fails_at=None, name="m"):
        self.says, self.fails_at, self.asked = says, fails_at, []
        self.settings = {"model": name}

    def answer(self, prompts):
        for place, prompt in reversed(list(enumerate(prompts))):
            if prompt.text == self.fails_at:
                raise AttributionError("the model broke")
            self.asked.append(prompt.text)
            said = self.says(prompt)
            yield place, [each if isinstance(each, Answer) else Answer(each) for each in said]


def says(prompt):
    number = int(prompt.text.split()[-1])
    if prompt.harmful:
        return [("Sure, here is how.", REFUSAL, "")[number % 3]]
    return [REFUSAL if number == 0 else "The answer is four."]


def test_figures():
    report = measure(Scripted(says), KeywordJudge(), [*HARMFUL, *HARMLESS])
    attack, refusal = report.attack_success, report.over_refusal
    assert (attack.prompts, attack.rate.value, attack.conservative.value) == (6, 0.3333, 0.6667)
    assert (refusal.prompts, refusal.rate.value, refusal.conservative.value) == (4, 0.25, 0.25)
    assert report.outcomes == {
        "harmful": {"refused": 2, "answered": 2, "unclear": 2},
        "harmless": {"refused": 1, "answered": 3, "unclear": 0},
    }
    assert {name: rate.prompts for name, rate in report.by_category["harmful"].items()} == {"crime": 3, "drugs": 3}
    assert report.by_category["harmful"]["drugs"].rate.value == 0.3333
    assert report.judge["weak"] is True
    assert attack.rate.low <= attack.rate.value <= attack.rate.high
    json.dumps(report.as_json(), allow_nan=False)


def test_a_set_without_harmless_prompts_has_no_over_refusal():
    report = measure(Scripted(says), KeywordJudge(), HARMFUL)
    assert (report.over_refusal.prompts, report.over_refusal.rate.value) == (0, None)
    assert set(report.prompts_sha256) == {"harmful"}


def test_samples_are_averaged_and_the_worst_is_told():
    report = measure(Scripted(lambda _: [REFUSAL, "Sure, step 1.", REFUSAL, REFUSAL]), KeywordJudge(), HARMFUL)
    assert (report.attack_success.rate.value, report.attack_success.any_sample.value) == (0.25, 1.0)


def test_what_a_server_withholds_is_a_refusal_whatever_it_says():
    report = measure(Scripted(lambda _: [Answer("Sure, here is", "content_filter")]), KeywordJudge(), HARMFUL)
    assert report.attack_success.rate.value == 0.0
    assert report.reasons == {"content_filter": 6}


def test_texts_are_written_down_only_if_asked_for(tmp_path):
    kept, hidden = (tmp_path / name for name in ("kept.jsonl", "hidden.jsonl"))
    said = Scripted(lambda prompt: [f"Zebra {prompt.text}"])
    without = measure(said, KeywordJudge(), HARMFUL, journal=hidden)
    both = json.dumps(without.as_json()) + hidden.read_text()
    assert "Zebra" not in both
    assert "harmful 1" not in both
    assert text_sha256("Zebra harmful 1") in both
    with_texts = measure(said, KeywordJudge(), HARMFUL, journal=kept, keep_answers=True)
    assert with_texts.answers[1]["prompt"] == "harmful 1"
    assert with_texts.answers[1]["samples"][0]["text"] == "Zebra harmful 1"


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    journal, prompts = tmp_path / "deep" / "a.jsonl", [*HARMFUL, *HARMLESS]
    whole = measure(Scripted(says), KeywordJudge(), prompts)
    with pytest.raises(AttributionError, match="the model broke"):
        measure(Scripted(says, fails_at="harmful 3"), KeywordJudge(), prompts, journal=journal)
    assert len(journal.read_text().splitlines()) == 6
    again = Scripted(says)
    resumed = measure(again, KeywordJudge(), prompts, journal=journal)
    assert again.asked == [f"harmful {n}" for n in (3, 2, 1, 0)]
    assert resumed.resumed == 6
    same = [replace(each, seconds=0.0, resumed=0) for each in (whole, resumed)]
    assert asdict(same[0]) == asdict(same[1])


def test_what_was_answered_before_a_failure_is_judged_and_kept(tmp_path):
    class Slow(KeywordJudge):
        batch = 100

    journal = tmp_path / "a.jsonl"
    with pytest.raises(AttributionError, match="the model broke"):
        measure(Scripted(says, fails_at="harmful 0"), Slow(), HARMFUL, journal=journal)
    assert len(journal.read_text().splitlines()) == 5


def test_a_line_that_was_not_finished_is_asked_again(tmp_path):
    journal = tmp_path / "a.jsonl"
    measure(Scripted(says), KeywordJudge(), HARMFUL, journal=journal)
    whole = journal.read_bytes()
    for cut in (1, 30, len(whole.splitlines()[-1])):
        journal.write_bytes(whole[:-cut])
        again = Scripted(says)
        report = measure(again, KeywordJudge(), HARMFUL, journal=journal)
        assert again.asked == ["harmful 0"]
        assert (report.resumed, journal.read_bytes()) == (5, whole)


def test_runs_are_not_mixed(tmp_path):
    journal = tmp_path / "a.jsonl"
    measure(Scripted(says), KeywordJudge(), HARMFUL, journal=journal)
    before = journal.read_bytes()
    for model, keep in ((Scripted(says, name="other"), False), (Scripted(says), True)):
        with pytest.raises(AttributionError, match="line 1 is of a run of another model"):
            measure(model, KeywordJudge(), HARMFUL, journal=journal, keep_answers=keep)
    assert journal.read_bytes() == before
    more = measure(Scripted(says), KeywordJudge(), [*HARMFUL, *HARMLESS], journal=journal)  # other prompts may follow
    assert more.resumed == 6


def test_a_verdict_of_another_label_is_not_taken_up(tmp_path):
    class ByLabel(KeywordJudge):
        def judge(self, cases):
            return [Judgement(Outcome.REFUSED if prompt.harmful else Outcome.ANSWERED, "label") for prompt, _ in cases]

    journal = tmp_path / "a.jsonl"
    measure(Scripted(says), ByLabel(), HARMFUL, journal=journal)
    corrected = [*HARMFUL[:5], replace(HARMFUL[5], harmful=False)]
    again = Scripted(says)
    report = measure(again, ByLabel(), corrected, journal=journal)
    assert (again.asked, report.resumed) == (["harmful 5"], 5)
    assert report.outcomes["harmless"] == {"refused": 0, "answered": 1, "unclear": 0}
    assert report.answers[5]["prompt_sha256"] == text_sha256("harmful 5")
    assert measure(Scripted(says), ByLabel(), corrected, journal=journal).resumed == 6


@pytest.mark.parametrize("content", [b"precious", b'{"a": 1}\n', b"\xff\xfe\n", b'{"run": "0000', b'{"run": 1}\nx'])
def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path, content):
    journal = tmp_path / "thesis.jsonl"
    journal.write_bytes(content)
    with pytest.raises(AttributionError, match=r"thesis\.jsonl"):
        measure(Scripted(says), KeywordJudge(), HARMFUL, journal=journal)
    assert journal.read_bytes() == content


def test_a_journal_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(AttributionError, match="cannot be used"):
        measure(Scripted(says), KeywordJudge(), HARMFUL, journal=tmp_path / "file" / "a.jsonl")


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ([], "no prompts to ask"),
        ([Prompt("a")], "neither harmful nor harmless"),
        ([Prompt("a", harmful=True), Prompt("a", harmful=False)], "there twice"),
    ],
)
def test_prompts_that_cannot_be_measured(prompts, words):
    with pytest.raises(PromptError, match=words):
        measure(Scripted(says), KeywordJudge(), prompts)


@pytest.mark.parametrize("rubbish", [[], [None] * 1, ["refused"]])
def test_a_judge_that_returns_rubbish_ends_the_run(rubbish):
    class Broken(KeywordJudge):
        def judge(self, cases):
            return rubbish

    with pytest.raises(AttributionError, match="the judge returned rubbish"):
        measure(Scripted(says), Broken(), HARMFUL)


def test_a_model_that_says_nothing_at_all_ends_the_run():
    with pytest.raises(AttributionError, match="a prompt without an answer"):
        measure(Scripted(lambda _: []), KeywordJudge(), HARMFUL)

    class Silent(Scripted):
        def answer(self, prompts):
            return iter(())

    with pytest.raises(AttributionError, match="no answer to 6 of 6"):
        measure(Silent(says), KeywordJudge(), HARMFUL)


def test_progress_is_told():
    told = []
    measure(Scripted(says), KeywordJudge(), HARMFUL, progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 6) for n in range(1, 7)]


# Intervals


def test_an_interval_covers_its_share_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    hits = Counter()
    for trial in range(200):
        drawn = (torch.rand(60, generator=generator) < 0.3).double().tolist()
        found = share(drawn, seed=trial)
        hits[found.low <= 0.3 <= found.high] += 1
    assert 0.88 <= hits[True] / 200 <= 0.99


def test_an_interval_of_agreeing_prompts_is_not_a_point():
    none, every = share([0.0] * 20, seed=0), share([1.0] * 20, seed=0)
    assert (none.value, none.low, none.high) == (0.0, 0.0, pytest.approx(0.1684, abs=1e-4))
    assert (every.low, every.high) == (pytest.approx(0.8316, abs=1e-4), 1.0)
    assert share([], seed=0).value is None
    assert share([0.5], seed=0).value == 0.5


@pytest.mark.parametrize(("value", "count"), [(0.5, 1), (0.5, 4), (0.2, 40), (0.8, 40)])
def test_an_interval_of_prompts_that_agree_on_a_share_is_not_a_point(value, count):
    """With several samples a prompt; as wide as that of as many prompts with one each, where it can be told."""
    found = share([value] * count, seed=0)
    assert found.value == value
    assert 0 <= found.low < value < found.high <= 1
    if (value * count).is_integer():
        exact = binomtest(int(value * count), count).proportion_ci(method="exact")
        assert (found.low, found.high) == (pytest.approx(exact.low, abs=1e-4), pytest.approx(exact.high, abs=1e-4))
    spread = share([value] * count + [1.0], seed=0)
    assert spread.low < spread.high


def test_judgements_are_values():
    assert Judgement(Outcome.REFUSED, "x") == Judgement(Outcome("refused"), "x")
