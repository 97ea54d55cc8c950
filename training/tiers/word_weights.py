"""Other ways to weigh words, to hold that of `classifier.word_weights` against: occlusion, sampling, gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from classifier.encoder import Encoder
from classifier.model import TierClassifier
from classifier.network import network_of
from classifier.why import BUDGET, Decided
from classifier.word_weights import Score, Weights, weigh

Method = Callable[[Decided], Weights]
_STEPS = 16
_SURE = 1e-9
_DRAWN = 64


def methods(classifier: TierClassifier, encoder: Encoder, *, seed: int = 0) -> Mapping[str, Method]:
    """Each way by name, that of `airlock check --why` first."""
    return {
        "both_ends": lambda found: weigh(found.score, [len(w.tokens) for w in found.words], BUDGET).weights,
        "occlusion": lambda found: occlusion(found.score, len(found.words)),
        "sampled": lambda found: sampled(found.score, len(found.words), _DRAWN, seed=seed),
        "gradient_x_input": lambda found: gradients(classifier, encoder, found, 1),
        "integrated_gradients": lambda found: gradients(classifier, encoder, found, _STEPS),
    }


def occlusion(score: Score, words: int) -> Weights:
    """What each word adds to all others."""
    masks = np.vstack([np.ones((1, words), bool), ~np.eye(words, dtype=bool)])
    found = score(masks)
    added: Weights = found[0] - found[1:]
    return added


def sampled(score: Score, words: int, readings: int, *, seed: int) -> Weights:
    """The linear model that fits readings with random words left out, in pairs (ridge regression)."""
    rng = np.random.default_rng(seed)
    half = rng.random((readings // 2, words)) < rng.uniform(0.1, 0.9, (readings // 2, 1))
    masks = np.vstack([half, ~half])
    found = score(masks)
    design = masks - masks.mean(0)
    fitted: Weights = np.linalg.solve(design.T @ design + np.eye(words), design.T @ (found - found.mean()))
    return fitted


def gradients(classifier: TierClassifier, encoder: Encoder, found: Decided, steps: int) -> Weights:
    """Integrated gradients from padding (Sundararajan et al. 2017), or, in one step, gradient times input."""
    model, inputs = network_of(classifier.runtime), encoder.collate([found.ids])
    table = model.encoder.get_input_embeddings()
    whole = table(inputs["input_ids"]).detach()
    inside = slice(len(encoder.before), len(encoder.before) + len(found.ids))
    base = torch.zeros_like(whole)
    if steps > 1:
        base = whole.clone()
        base[0, inside] = table(torch.tensor(encoder.tokenizer.pad_token_id)).detach()
    shares = [1.0] if steps == 1 else [(step + 0.5) / steps for step in range(steps)]
    way = torch.cat([base + share * (whole - base) for share in shares]).requires_grad_(True)
    logits = model(attention_mask=inputs["attention_mask"].expand(len(shares), -1), inputs_embeds=way)
    inside_tier = torch.tensor(classifier.taxonomy.tier_indices) == int(found.verdict.tier)
    likely = torch.softmax(logits.double(), -1)[:, inside_tier].sum(-1).clamp(_SURE, 1 - _SURE)
    (slope,) = torch.autograd.grad(torch.logit(likely).sum(), way)
    tokens = (slope.mean(0, keepdim=True) * (whole - base)).sum(-1)[0, inside].detach().double().numpy()
    return np.array([tokens[list(word.tokens)].sum() for word in found.words])
