"""Audits of heads: interrupted ones that go on, journals that are refused, screens and what they miss."""

import json
import resource
from collections import Counter

import pytest
import torch
from audit_cases import tiny_llama

from attribution import audit as module
from attribution import ships as ships_module
from attribution import testbed
from attribution.audit import Findings, Plan, audit, check_plan, work
from attribution.checkpoint import load
from attribution.engine import Engine
from attribution.journal import Journal
from attribution.prompts import choose, encode, read_prompts
from attribution.sahara import sahara
from attribution.screen import estimate
from attribution.ships import ships
from attribution.statistics import spearman
from attribution.types import Ablation, AttributionError, HeadId

HOW = Ablation()
IDS = [[0, 7 + n, 40 + 3 * n, 9, *range(20, 20 + n % 5)] for n in range(9)]
SHAPE = (2, 4)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch):
    monkeypatch.setattr(module, "_GROUP", 2)


class Counting:
    """An engine that knows how many heads × prompts it ran, by step, and may fail."""

    def __init__(self, model, fails_after=None):
        self.engine, self.fails_after = Engine(model), fails_after
        self.model, self.shape = model, self.engine.shape
        self.ran = Counter()
        self.prompts = Counter()

    def states(self, ids, **more):
        return self.engine.states(ids, **more)

    def logits(self, states):
        return self.engine.logits(states)

    def without_each(self, ids, ablation=None, *, group=(), heads=None):
        for batch in self.engine.without_each(ids, ablation, group=group, heads=heads):
            if self.fails_after is not None and sum(self.ran.values()) >= self.fails_after:
                raise KeyboardInterrupt
            self.ran[len(group)] += len(batch.heads) * len(batch.prompts)
            self.prompts.update(tuple(ids[place]) for place in batch.prompts)
            yield batch


def run(model, plan, path=None, identity="a", fails_after=None, ids=IDS, told=None, guess=None):
    counting = Counting(model, fails_after)
    with Journal(path, {"run": identity}, SHAPE) as journal:
        found = audit(counting, ids, plan, estimate=guess, journal=journal, progress=told)
    return counting, found


def same(one: Findings, other: Findings):
    assert torch.equal(one.ships.nan_to_num(-1), other.ships.nan_to_num(-1))
    assert [step.head for step in one.steps] == [step.head for step in other.steps]
    for step, again in zip(one.steps, other.steps, strict=True):
        assert torch.equal(step.degrees.nan_to_num(-1), again.degrees.nan_to_num(-1))
    assert one.screened == other.screened


# What is computed


def test_an_audit_is_ships_and_sahara(model):
    _, found = run(model, Plan(HOW, size=2))
    engine = Engine(model)
    torch.testing.assert_close(found.ships, ships(engine, IDS, HOW), atol=1e-7, rtol=1e-4)
    assert [step.head for step in found.steps] == [step.head for step in sahara(engine, IDS, HOW, size=2)]
    assert found.screened is None


def test_sahara_can_be_left_out(model):
    counting, found = run(model, Plan(HOW, size=0))
    assert found.steps == ()
    assert not found.ships.isnan().any()
    assert sum(counting.ran.values()) == 8 * len(IDS)


def tables(exact, guess):
    """A runner whose exact scores are known, and their estimate; both (layers, heads)."""
    exact, guess = torch.tensor(exact, dtype=torch.float64), torch.tensor(guess, dtype=torch.float64)
    return exact, lambda ids: guess.expand(len(ids), *guess.shape)


@pytest.mark.parametrize(
    ("guess", "sampled", "missed"),
    [
        ([[9, 8, 7, 6], [5, 4, 3, 2]], 3, 0),  # the estimate is right
        ([[2, 3, 4, 5], [6, 7, 8, 9]], 3, 3),  # upside down: the first three are all among the others
        ([[9, 8, 0, 6], [5, 4, 7, 2]], 3, 1),  # the third is taken for the last
        ([[9, 8, 0, 6], [5, 4, 7, 2]], 0, 0),  # nobody looked
        ([[1, 1, 1, 1], [1, 1, 1, 1]], 3, 0),  # equal ones in order
    ],
)
def test_the_miss_rate_counts_sampled_heads_of_the_exact_top(guess, sampled, missed, monkeypatch):
    exact, estimated = tables([[80, 70, 60, 5], [4, 3, 2, 1]], guess)

    def known(runner, ids, ablation=None, *, heads=None, progress=None):
        scores = torch.full((len(ids), *SHAPE), torch.nan, dtype=torch.float64)
        for head in heads:
            scores[:, head.layer, head.head] = exact[head]
        return scores

    monkeypatch.setattr(module, "ships", known)
    plan = Plan(HOW, size=0, screen=5, sampled=sampled, top=3)
    found = audit(Counting(tiny_llama()), IDS[:3], plan, estimate=estimated)
    screened = found.screened
    assert (screened.chosen, screened.sampled, screened.missed, screened.top) == (5, sampled, missed, 3)
    assert screened.miss_rate == (missed / sampled if sampled else None)
    first = sorted(range(8), key=lambda at: (-guess[at // 4][at % 4], at))[:5]
    computed = {at for at in range(8) if not found.ships[0].flatten()[at].isnan()}
    assert set(first) <= computed
    assert len(computed) == 5 + sampled


def test_heads_that_tie_with_the_last_of_the_top_are_not_missed(monkeypatch):
    exact, estimated = tables([[0, 0, 0, 0], [0, 0, 0, 0]], [[9, 8, 7, 6], [5, 4, 3, 2]])
    monkeypatch.setattr(module, "ships", lambda runner, ids, *_, **__: exact.expand(len(ids), *SHAPE).clone())
    plan = Plan(HOW, size=0, screen=4, sampled=4, top=3)
    screened = audit(Counting(tiny_llama()), IDS[:3], plan, estimate=estimated).screened
    assert screened.missed == 0
    assert screened.spearman is None  # nothing to rank


def test_a_screen_of_a_model_computes_its_heads_exactly_and_no_others(model):
    plan = Plan(HOW, size=2, screen=5, sampled=2)
    counting, found = run(model, plan, guess=lambda ids: estimate(model, ids, HOW))
    whole = ships(Engine(model), IDS, HOW)
    computed = ~found.ships[0].isnan()
    assert computed.sum() == 7
    torch.testing.assert_close(found.ships[:, computed], whole[:, computed], atol=1e-7, rtol=1e-4)
    chosen = {HeadId(*divmod(int(at), 4)) for at in estimate(model, IDS, HOW).mean(0).flatten().argsort()[-5:]}
    assert all(computed[head] for head in chosen)
    assert {step.head for step in found.steps} <= chosen
    assert sum(counting.ran.values()) == work(SHAPE, len(IDS), plan)


def test_another_seed_samples_other_heads(model):
    guess = lambda ids: estimate(model, ids, HOW)  # noqa: E731
    computed = {
        tuple((~run(model, Plan(HOW, 0, screen=5, sampled=1, seed=seed), guess=guess)[1].ships[0].isnan()).flatten())
        for seed in range(6)
    }
    assert len(computed) > 1


@pytest.mark.parametrize(
    "plan",
    [
        Plan(HOW, size=0),
        Plan(HOW, size=3),
        Plan(HOW, size=2, screen=5, sampled=2),
        Plan(HOW, size=1, screen=6, sampled=50),
        Plan(HOW, size=5, screen=100, sampled=1),
    ],
)
def test_work_is_what_progress_reports(model, plan):
    told = []
    counting, _ = run(model, plan, told=told.append, guess=lambda ids: estimate(model, ids, HOW))
    assert sum(told) == sum(counting.ran.values()) == work(SHAPE, len(IDS), plan)


# Bad plans: refused before anything is computed


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(HOW, size=9), "group size 9 is not between 0 and the 8 heads"),
        (Plan(HOW, size=-1), "group size -1"),
        (Plan(HOW, r_main=10), "r_main 10 is not between 1 and the 9 prompts"),
        (Plan(HOW, r_main=0), "r_main 0"),
        (Plan(HOW, screen=5), "needs an estimate"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(model, plan, words):
    counting = Counting(model)
    with pytest.raises(AttributionError, match=words):
        audit(counting, IDS, plan)
    assert not counting.ran


def test_more_directions_than_the_model_is_wide_are_refused_before_anything_is_computed(model):
    ids = [[0, 7, at] for at in range(20, 60)]
    counting = Counting(model)
    with pytest.raises(AttributionError, match="r_main 33 is not between 1 and 32, the width of the model"):
        audit(counting, ids, Plan(HOW, r_main=33))
    assert not counting.ran
    check_plan(counting, ids, Plan(HOW, r_main=32))
    check_plan(counting, ids, Plan(HOW, size=0, r_main=33))  # nothing is compared


def test_a_screen_smaller_than_what_is_looked_for_is_refused():
    with pytest.raises(AttributionError, match="screen 4 computes fewer heads than the 5"):
        Plan(HOW, screen=4)


# The estimate, on a model that was trained


@pytest.fixture(scope="module")
def bed():
    checkpoint = load(testbed.path())
    rows = choose(read_prompts(testbed.prompts(harmful=True)), 16, 0)
    return checkpoint.model, encode(checkpoint.tokenizer, rows, "chat")


@pytest.mark.parametrize("method", ["query", "value", "mean"])
def test_the_estimate_ranks_heads_of_a_trained_model(bed, method):
    model, ids = bed
    how = Ablation(method)
    guess, exact = estimate(model, ids, how), ships(Engine(model), ids, how)
    each = [spearman(one.flatten(), other.flatten()) for one, other in zip(guess, exact, strict=True)]
    assert sum(each) / len(each) >= 0.9
    top = set(exact.mean(0).flatten().argsort(descending=True)[:5].tolist())
    assert len(top & set(guess.mean(0).flatten().argsort(descending=True)[:10].tolist())) >= 4
    shuffled = guess.flatten(1)[:, torch.randperm(32, generator=torch.Generator().manual_seed(0))]
    wrong = [spearman(one, other.flatten()) for one, other in zip(shuffled, exact, strict=True)]
    assert abs(sum(wrong) / len(wrong)) < 0.5


def test_the_estimate_is_exact_for_small_changes(model):
    """ε near 1 moves a head's output by little, where the Fisher form is the KL."""
    how = Ablation("value", 0.999)
    guess, exact = estimate(model, IDS[:3], how, tokens=263), ships(Engine(model.double()), IDS[:3], how)
    model.float()
    torch.testing.assert_close(guess, exact, rtol=0.03, atol=1e-12)


def test_the_estimate_does_not_hang_on_batches_or_order(model):
    whole = estimate(model, IDS, HOW)
    torch.testing.assert_close(estimate(model, IDS, HOW, batch_tokens=1), whole, rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(estimate(model, IDS[::-1], HOW).flip(0), whole, rtol=1e-3, atol=1e-9)


def test_the_estimate_leaves_the_model_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told = []
    estimate(model, IDS, HOW, progress=told.append)
    assert sum(told) == len(IDS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert model.config._attn_implementation == "sdpa"


def test_an_estimate_of_no_tokens_is_refused(model):
    with pytest.raises(AttributionError, match="screen tokens 0"):
        estimate(model, IDS, HOW, tokens=0)


# Interruptions

PLAN = Plan(HOW, size=3)
SCREENED = Plan(HOW, size=2, screen=5, sampled=2)


@pytest.mark.parametrize("plan", [PLAN, SCREENED])
@pytest.mark.parametrize("after", [0, 20, 60, 90, 120])
def test_an_interrupted_run_goes_on_with_equal_results(model, tmp_path, plan, after):
    guess = lambda ids: estimate(model, ids, HOW)  # noqa: E731
    whole, expected = run(model, plan, guess=guess)
    if after >= sum(whole.ran.values()):
        pytest.skip("it would be finished by then")
    path = tmp_path / "deep" / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(model, plan, path, fails_after=after, guess=guess)
    kept = [json.loads(line)["part"] for line in path.read_text().splitlines()]
    told, estimates = [], []
    again, found = run(model, plan, path, told=told.append, guess=lambda ids: estimates.append(1) or guess(ids))
    same(found, expected)
    assert len(estimates) == (plan.screen is not None and "estimate" not in kept)
    done = sum(part.startswith("ships") for part in kept)
    single = 8 if plan.screen is None else 7
    assert again.ran[0] >= single * (len(IDS) - done)
    first = [] if any(part == "step 0" for part in kept) else [0]
    assert again.ran[0] == single * (len(IDS) - done) + len(first) * (plan.screen or 8) * len(IDS)
    assert sum(told) == work(SHAPE, len(IDS), plan)


@pytest.mark.parametrize(("after", "lines"), [(75, 0), (110, 1), (160, 0), (185, 1)])
def test_a_run_interrupted_within_a_step_of_sahara_goes_on_there(model, tmp_path, monkeypatch, after, lines):
    monkeypatch.setattr(ships_module, "_PART", 1)  # a layer
    whole, expected = run(model, PLAN)
    path = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(model, PLAN, path, fails_after=after)
    kept = [json.loads(line)["part"] for line in path.read_text().splitlines()]
    steps = sum(part.startswith("step") and "part" not in part for part in kept)
    assert sum(part.startswith(f"step {steps} part") for part in kept) == lines
    told = []
    again, found = run(model, PLAN, path, told=told.append)
    same(found, expected)
    assert sum(told) == work(SHAPE, len(IDS), PLAN)
    done = (
        sum(8 - step for step in range(steps)) * len(IDS)
        + lines * 4 * len(IDS)
        - lines * _grouped_below(expected, steps)
    )
    assert sum(again.ran.values()) == sum(whole.ran.values()) - 8 * len(IDS) - done


def _grouped_below(found, steps):
    """Heads × prompts of the first layer that were in the group by then, and so not computed."""
    return sum(step.head.layer == 0 for step in found.steps[:steps]) * len(IDS)


def test_a_finished_run_computes_nothing_again(model, tmp_path):
    _, expected = run(model, PLAN, tmp_path / "a.jsonl")
    before = (tmp_path / "a.jsonl").read_bytes()
    again, found = run(model, PLAN, tmp_path / "a.jsonl")
    same(found, expected)
    assert not again.ran
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_what_stands_in_the_journal_is_what_counts(model, tmp_path):
    """So nothing is computed in secret: a score that was changed there is the one that is found."""
    path = tmp_path / "a.jsonl"
    run(model, Plan(HOW, size=0), path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["value"][0][0] = 123.0
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, found = run(model, Plan(HOW, size=0), path)
    assert found.ships[int(lines[0]["part"].split()[1]), 0, 0] == 123.0


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_torn_last_line_is_computed_again(model, tmp_path, cut):
    path = tmp_path / "a.jsonl"
    _, expected = run(model, PLAN, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    again, found = run(model, PLAN, path)
    same(found, expected)
    assert set(again.ran) == {2}  # the last step only
    assert path.read_bytes() == whole


def test_a_journal_torn_in_its_first_line_starts_anew(model, tmp_path):
    path = tmp_path / "a.jsonl"
    _, expected = run(model, PLAN, path)
    whole = path.read_bytes()
    for content in (b"", whole[:5], whole[:40]):
        path.write_bytes(content)
        same(run(model, PLAN, path)[1], expected)


def test_the_journal_of_another_run_is_refused_and_kept(model, tmp_path):
    path = tmp_path / "a.jsonl"
    run(model, PLAN, path)
    before = path.read_bytes()
    with pytest.raises(AttributionError, match=r"a\.jsonl.* of another model, other prompts, other settings"):
        run(model, PLAN, path, identity="b")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"precious\n", b'{"a": 1}\n', b"\xff\xfe\n", b"[]\n", b"thesis", b"null\n"])
def test_a_file_that_is_no_journal_stays_as_it_is(model, tmp_path, content):
    path = tmp_path / "thesis.jsonl"
    path.write_bytes(content)
    with pytest.raises(AttributionError, match=r"journal .*thesis\.jsonl"):
        run(model, PLAN, path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("ships 0", [[1.0]]),
        ("ships 0", "x"),
        ("ships 0", [[1, 2, 3, "x"], [1, 2, 3, 4]]),
        ("ships 0", [1, 2]),
        ("step 0", {"head": "x", "degrees": [[1.0] * 4] * 2}),
        ("step 0", [1]),
        ("step 0", {"head": "9.9", "degrees": [[1.0] * 4] * 2}),
        ("step 0 part 0", {"9.9": 1.0}),
        ("step 0 part 0", {"0.0": float("nan")}),
        ("step 0 part 0", [1]),
    ],
)
def test_a_damaged_journal_is_named(model, tmp_path, monkeypatch, part, value):
    monkeypatch.setattr(ships_module, "_PART", 1)
    path = tmp_path / "a.jsonl"
    run(model, Plan(HOW, size=1), path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["part"] == part:
            line["value"] = value
    unread = "step 0" if "part" in part else ""  # a finished step's parts are not looked at
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line["part"] != unread))
    with pytest.raises(AttributionError) as caught:
        run(model, Plan(HOW, size=1), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["folder", "below a file"])
def test_a_journal_that_cannot_be_opened_is_named(model, tmp_path, place):
    path = tmp_path / "folder"
    if place == "folder":
        path.mkdir()
    else:
        path.write_text("x")
        path = path / "a.jsonl"
    with pytest.raises(AttributionError, match="cannot be used"):
        run(model, PLAN, path)


def test_a_journal_belongs_to_one_run_at_a_time(model, tmp_path):
    path = tmp_path / "a.jsonl"
    with Journal(path, {"run": "a"}, SHAPE) as journal:
        journal.add_answers("0", {"asr": 0.5})
        before = path.read_bytes()
        for identity in ("a", "b"):
            with pytest.raises(AttributionError, match=r"a\.jsonl is in use by another run; wait until it ends"):
                run(model, PLAN, path, identity=identity)
        assert path.read_bytes() == before
        journal.add_answers("1", {"asr": 0.25})
    with Journal(path, {"run": "a"}, SHAPE) as journal:
        assert (journal.answers("0"), journal.answers("1")) == ({"asr": 0.5}, {"asr": 0.25})


def test_a_journal_that_was_refused_is_free_again(model, tmp_path):
    path = tmp_path / "a.jsonl"
    run(model, Plan(HOW, size=0), path)
    with pytest.raises(AttributionError, match="of another model"):
        run(model, Plan(HOW, size=0), path, identity="b")
    run(model, Plan(HOW, size=0), path)


@pytest.mark.parametrize("room", [0, 100, 2000])
def test_a_full_disk_keeps_what_was_written(model, tmp_path, room):
    """The kernel refuses to let the file grow; what is in it is whole lines, and the run goes on once there is room."""
    path = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(model, PLAN, path, fails_after=20)
    before = path.read_bytes()
    assert before
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, hard))
    try:
        with pytest.raises(AttributionError, match=r"cannot be used: .*what it holds is kept"):
            run(model, PLAN, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = path.read_bytes()
    assert after.startswith(before)
    assert after.endswith(b"\n")
    assert [json.loads(line) for line in after.splitlines()]
    same(run(model, PLAN, path)[1], run(model, PLAN)[1])
