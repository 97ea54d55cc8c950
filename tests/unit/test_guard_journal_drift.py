import json
import random

import pytest

from guard.errors import BadRequest
from guard.journal.drift import FEWEST, drift, read_period
from guard.journal.records import Record

TIERS = ("safe", "conditionally_safe", "focused_attention", "unsafe")
PLAIN = "the train leaves at nine and the garden needs water soon please tell me more about bread".split()
OTHER = "wallet seed phrase token exchange ledger coin".split()


def record(rng, tier, *, sure=0.8, prompt=None, prompts="off", language="en"):
    said = {
        "tier": tier,
        "category": f"{tier[0]}_one",
        "tiers": {each: sure if each == tier else (1 - sure) / 3 for each in TIERS},
        "route": "forward",
        "language": language,
        "coverage": 1.0,
        "tokens": rng.randint(5, 60),
        "prompt": prompt,
        "prompts": prompts,
    }
    return Record(1, 0.0, "decision", "dec_1", json.dumps(said), "", "")


def period(seed, count=400, risky=0.1, words=(), **more):
    rng = random.Random(seed)
    records = []
    for _ in range(count):
        tier = "unsafe" if rng.random() < risky else "safe"
        prompt = " ".join(rng.choices([*PLAIN, *words], k=8)) if words is not None else None
        records.append(record(rng, tier, sure=rng.uniform(0.5, 1.0), prompt=prompt, **more))
    return read_period(records)


def found(before, after, **options):
    return {each.measure: each for each in drift(before, after, **options)}


def test_what_moved_is_named_and_the_rest_is_not():
    moved = found(period(0), period(1, risky=0.4))
    assert {name for name, each in moved.items() if each.alarm} == {"tier", "category"}
    before, after = moved["tier"].shares["unsafe"]
    assert before < 0.2 < 0.3 < after
    assert "words" not in moved, "no prompts are kept"
    assert moved["tier"].as_dict()["shares"]["unsafe"] == {"before": before, "after": after}


def sure(values):
    rng = random.Random(0)
    return read_period(record(rng, "safe", sure=value) for value in values)


def test_confidences_that_are_alike_to_four_digits_are_told_apart():
    rng = random.Random(0)
    low, high = ([rng.uniform(at, at + 4e-5) for _ in range(450)] + [0.99999] * 100 for at in (0.99966, 0.9997))
    moved = found(sure(low), sure(high))["confidence"]
    assert moved.alarm
    assert moved.psi > 5
    assert len(moved.shares) > 5, "each bin has a name of its own"
    assert not found(sure(low), sure(reversed(low)))["confidence"].alarm


def test_a_number_that_is_always_the_same_has_not_moved():
    moved = found(period(0), period(1, 2000))["coverage"]
    assert (moved.psi, moved.shares) == (0.0, {"up to 1": (1.0, 1.0)})


def test_words_are_looked_at_where_prompts_are_kept():
    kept = {"prompts": "redacted", "count": 120}
    same, other = found(period(0, **kept), period(1, **kept)), found(period(0, **kept), period(1, words=OTHER, **kept))
    assert not same["words"].alarm
    assert other["words"].alarm
    assert set(other["words"].shares) & set(OTHER)
    hashed = found(period(0, prompts="hashed"), period(1, prompts="hashed"))
    assert "words" not in hashed, "a hash has no words"


def test_alarms_are_false_no_more_often_than_asked():
    pairs = ((period(2 * at, 60), period(2 * at + 1, 60)) for at in range(40))
    alarms = sum(any(each.alarm for each in drift(*pair, alpha=0.1, least=0.0, permutations=99)) for pair in pairs)
    assert alarms <= 10, "40 times a chance of 1 in 10: more than 10 come twice in 1,000 runs"


def test_a_trifle_is_no_alarm_however_sure():
    before, after = period(0, 2500, words=None), period(1, 2500, risky=0.15, words=None)
    assert found(before, after)["tier"].adjusted <= 0.01
    assert not found(before, after)["tier"].alarm
    assert found(before, after, least=0.0)["tier"].alarm


def test_too_few_decisions_say_nothing():
    with pytest.raises(BadRequest, match=r"after has 3 judged.*longer"):
        drift(period(0), period(1, 3))
    unjudged = Record(1, 0.0, "decision", "d", json.dumps({"tier": None, "tiers": None}), "", "")
    assert read_period([unjudged] * FEWEST).decisions == 0


def test_a_level_at_which_nothing_could_be_an_alarm_is_refused():
    before, after = period(0), period(1, risky=0.9)
    with pytest.raises(BadRequest, match=r"--alpha 0.001: .* 8 measures .*at least 0.008"):
        drift(before, after, alpha=0.001)
    assert found(before, after, alpha=0.008)["tier"].alarm
    kept = [period(seed, risky=risky, prompts="full") for seed, risky in ((1, 0.1), (2, 0.9))]
    with pytest.raises(BadRequest, match=r"at least 0.009"):
        drift(*kept, alpha=0.008)
    assert found(*kept, alpha=0.009)["tier"].alarm


def test_it_is_the_same_each_time():
    assert drift(period(0), period(1, risky=0.2)) == drift(period(0), period(1, risky=0.2))
