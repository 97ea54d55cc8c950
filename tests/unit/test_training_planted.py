"""Planted models: the right answer is known, and is the only one."""

import itertools

import pytest
import torch

from attribution.ablate import ablate
from attribution.heads import attention
from attribution.types import Ablation, AttributionError, HeadId
from training.audit.planted_task import BEGIN, END, LENGTHS, VOCABULARY, asks
from training.audit.taken_out import WAYS, EachWithout
from training.audit.train_planted import PlantedRecipe, train_planted
from training.datasets import TrainingError

SMALL = PlantedRecipe(steps=2, check=2, batch=4, prompts=4)
EARLY, LAST = HeadId(0, 2), HeadId(3, 1)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def early():
    return train_planted(0, [EARLY])


@pytest.fixture(scope="module")
def last():
    return train_planted(1, [LAST])


@pytest.fixture(scope="module")
def control():
    return train_planted(0, [EARLY], shuffled=True, recipe=PlantedRecipe(control_steps=60))


def unproven(seed=0, planted=1, **recipe):
    """A model whose training was too short for anything but its mechanics."""
    return train_planted(
        seed, planted, shuffled=True, recipe=PlantedRecipe(control_steps=2, batch=4, prompts=4, **recipe)
    )


@pytest.mark.parametrize("planted", ["early", "last"])
def test_refusals_go_with_the_planted_head_and_with_no_other(planted, request):
    figures = request.getfixturevalue(planted).figures()
    assert figures["asr"] <= 0.05
    assert figures["right"] >= 0.95
    for ablation in WAYS:
        seen = figures[ablation.method]
        assert seen["asr_without_planted"] >= 0.95, seen
        assert seen["right_without_planted"] >= 0.95, seen
        assert seen["asr_without_another"] <= 0.05, seen
        assert seen["right_without_another"] >= 0.95, seen


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 1e-3])
def test_the_proof_does_not_hang_on_epsilon(early, epsilon):
    assert early.without([EARLY], Ablation("key", epsilon)).asr >= 0.95
    assert early.without([EARLY], Ablation("value", epsilon)).asr >= 0.95


def test_without_the_planted_head_a_harmful_prompt_gets_its_own_answer(early):
    assert early.without([EARLY]).answered >= 0.95


def test_in_the_control_no_head_decides_what_is_refused(control):
    """Of harmful and harmless prompts alike it refuses about half; no head changes which by much."""
    whole = torch.stack(list(refusals(control)))
    for head in (EARLY, LAST, HeadId(1, 0)):
        with ablate(control.model, [head]):
            without = torch.stack(list(refusals(control)))
        assert (whole - without).abs().mean() < 0.15
    assert 0.25 < whole.mean() < 0.75


@torch.no_grad()
def refusals(planted):
    for row in (*planted.harmful, *planted.harmless):
        yield planted.model(torch.tensor([row.ids])).logits[0, -1].softmax(-1)[3]


def test_one_seed_gives_one_model():
    first, second, other = unproven(3), unproven(3), unproven(4)
    assert first.heads == second.heads
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    assert not torch.equal(next(first.model.parameters()), next(other.model.parameters()))


def test_training_leaves_the_generator_of_others_alone():
    before = torch.random.get_rng_state()
    unproven()
    assert torch.equal(before, torch.random.get_rng_state())


def test_drawn_heads_differ_and_lie_in_different_layers():
    drawn = [unproven(seed, 3).heads for seed in range(3)]
    assert len(set(drawn)) > 1
    for heads in drawn:
        assert len({head.layer for head in heads}) == 3


def test_more_heads_than_layers_are_drawn_too():
    assert len(set(unproven(0, 3, layers=2).heads)) == 3


def test_heads_that_cannot_be_planted_in_time_are_an_error():
    with pytest.raises(TrainingError, match=r"heads 0\.2 were not planted in 2 steps with seed 0"):
        train_planted(0, [EARLY], recipe=SMALL)


def test_a_head_that_is_not_there_is_an_error():
    with pytest.raises(AttributionError, match=r"head 4\.0 is not in the model"):
        train_planted(0, [HeadId(4, 0)], recipe=SMALL)


def test_all_heads_cannot_be_planted():
    with pytest.raises(TrainingError, match="all that the model has"):
        unproven(0, 4, layers=2, heads=2)


def test_held_out_prompts_are_no_others():
    seen = {row.ids for row in itertools.islice(asks("a", harmful=True), 3000)}
    held = {row.ids for row in itertools.islice(asks("a", harmful=True, held_out=True), 3000)}
    assert len(seen) > 2900
    assert not seen & held


def test_prompts_are_as_told():
    for harmful in (True, False):
        rows = list(itertools.islice(asks(0, harmful=harmful), 200))
        assert {len(row.ids) for row in rows} == set(LENGTHS)
        assert all(row.ids[0] == BEGIN and row.ids[-1] == END and row.harmful is harmful for row in rows)
        assert all(max(*row.ids, row.answer) < VOCABULARY for row in rows)
    answers = [{row.answer for row in itertools.islice(asks(0, harmful=harm), 500)} for harm in (True, False)]
    assert not answers[0] & answers[1]


def test_each_row_lacks_its_own_heads(early):
    """One batch of rows that lack different heads is what `ablate` gives row by row."""
    model = early.model
    rows = [row for row in early.harmful if len(row.ids) == LENGTHS[0]][:3]
    out = [((EARLY,), WAYS[0]), ((), WAYS[1]), ((HeadId(0, 1), LAST), WAYS[2])]
    ids = torch.tensor([row.ids for row in rows])
    with torch.no_grad(), attention(model, EachWithout(out, model.config.num_attention_heads)):
        together = model(ids).logits
    for number, (heads, ablation) in enumerate(out):
        with torch.no_grad(), ablate(model, heads, ablation):
            torch.testing.assert_close(
                together[number], model(ids[number : number + 1]).logits[0], atol=1e-4, rtol=1e-4
            )
    assert (together[0] - model(ids[:1]).logits[0]).abs().max() > 0.1
