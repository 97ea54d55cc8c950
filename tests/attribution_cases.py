"""Tiny random causal models of all families that the audit is tested on, prompts for them, and what a run gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from attribution.brute import BruteForce
from attribution.engine import Engine
from attribution.types import Ablation, HeadId

_SIZE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
_TOKENS = {"max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
_GROUPED = {**_SIZE, **_TOKENS, "intermediate_size": 48, "num_key_value_heads": 2}
_SLIDING = {"sliding_window": 5}
_MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12}
_ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_ROUTED |= {"moe_intermediate_size": 24}
_GPT2 = {"vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _GROUPED),
    "llama_biased": ("Llama", {**_GROUPED, "attention_bias": True}),
    "mistral": ("Mistral", {**_GROUPED, **_SLIDING}),
    "qwen2": ("Qwen2", _GROUPED),
    "qwen3": ("Qwen3", {**_GROUPED, "head_dim": 16}),
    "gemma2": ("Gemma2", {**_GROUPED, **_SLIDING, "head_dim": 12}),
    "gemma3": ("Gemma3Text", {**_GROUPED, **_SLIDING, **_MIXED, "head_dim": 12}),
    "phi": ("Phi", _GROUPED),
    "phi3": ("Phi3", _GROUPED),
    "gpt_neox": ("GPTNeoX", {**_SIZE, **_TOKENS, "intermediate_size": 48}),
    "gpt_neox_serial": ("GPTNeoX", {**_SIZE, **_TOKENS, "intermediate_size": 48, "use_parallel_residual": False}),
    "gpt2": ("GPT2", _GPT2),
    "olmo2": ("Olmo2", _GROUPED),
    "granite": (
        "Granite",
        {**_GROUPED, "logits_scaling": 2.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0}
        | {"attention_multiplier": 0.2},
    ),
    "mixtral": ("Mixtral", {**_GROUPED, "num_local_experts": 4}),
}

# Families that nobody asked for and that are exact all the same: the table of docs/attribution.md.
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "apertus": ("Apertus", _GROUPED),
    "arcee": ("Arcee", _GROUPED),
    "cohere": ("Cohere", _GROUPED),
    "cohere2": ("Cohere2", {**_GROUPED, **_SLIDING}),
    "deepseek_v2": ("DeepseekV2", {**_GROUPED, **_LATENT, **_ROUTED, "num_key_value_heads": 4}),
    "deepseek_v3": ("DeepseekV3", {**_GROUPED, **_LATENT, **_ROUTED, "num_key_value_heads": 4}),
    "exaone4": ("Exaone4", {**_GROUPED, **_SLIDING}),
    "gemma": ("Gemma", {**_GROUPED, "head_dim": 12}),
    "gemma4": (
        "Gemma4Text",
        {**_GROUPED, "head_dim": 8, "global_head_dim": 8, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}
        | {"vocab_size_per_layer_input": 97, "layer_types": ["full_attention"] * 3},
    ),
    "glm": ("Glm", {**_GROUPED, "head_dim": 8}),
    "glm4": ("Glm4", {**_GROUPED, "head_dim": 8}),
    "gpt_bigcode": ("GPTBigCode", _GPT2),
    "llama4": ("Llama4Text", {**_GROUPED, "head_dim": 8, "num_local_experts": 2, "attention_chunk_size": 8}),
    "nemotron": ("Nemotron", _GROUPED),
    "olmo": ("Olmo", _GROUPED),
    "olmo3": ("Olmo3", {**_GROUPED, **_SLIDING}),
    "opt": ("OPT", {**_SIZE, "ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": 32}),
    "qwen2_moe": ("Qwen2Moe", {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 24}),
    "qwen3_moe": ("Qwen3Moe", {**_GROUPED, **_EXPERTS, "head_dim": 12}),
    "smollm3": ("SmolLM3", _GROUPED),
    "starcoder2": ("Starcoder2", _GROUPED),
}

# Families whose attention does not go through the interface, or not as the interface computes it: by hooks.
_ALONE = {"vocab_size": 97, "hidden_size": 32, "n_layer": 3, "n_head": 4}
_J = {"vocab_size": 97, "n_layer": 3, "n_positions": 64, "rotary_dim": 4, "bos_token_id": 1, "eos_token_id": 1}
_FALCON = {**_SIZE, "bias": True, "multi_query": True, "new_decoder_architecture": False, "alibi": False}
HOOKED: dict[str, tuple[str, dict[str, Any]]] = {
    "biogpt": ("BioGpt", {**_SIZE, "max_position_embeddings": 64, "intermediate_size": 48}),
    "bloom": ("Bloom", _ALONE),
    "codegen": ("CodeGen", {**_J, "n_embd": 64, "n_head": 8, "n_ctx": 64}),
    "falcon": ("Falcon", _FALCON),
    "falcon_alibi": ("Falcon", {**_FALCON, "multi_query": False, "alibi": True, "parallel_attn": False}),
    "falcon_grouped": ("Falcon", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "gpt_neo": (
        "GPTNeo",
        {"vocab_size": 97, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "max_position_embeddings": 64}
        | {"attention_types": [[["global", "local", "global"], 1]], "window_size": 4},
    ),
    "gpt_neox_japanese": (
        "GPTNeoXJapanese",
        {**_SIZE, **_TOKENS, "intermediate_multiple_size": 2},
    ),
    "gpt_oss": (
        "GptOss",
        {**_GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    ),
    "gptj": ("GPTJ", {**_J, "n_embd": 32, "n_head": 4}),
    "mpt": ("Mpt", {"vocab_size": 97, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64}),
    "stablelm": ("StableLm", _GROUPED),
    "xglm": (
        "XGLM",
        {"vocab_size": 97, "d_model": 32, "num_layers": 3, "attention_heads": 4, "ffn_dim": 48}
        | {"max_position_embeddings": 64},
    ),
}

SHARED = [5, 6, 7, 8, 9, 10, 11, 12, 13]
GROUP = (HeadId(1, 2), HeadId(2, 0))


def tiny(name: str, dtype: torch.dtype = torch.float64, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A random model of a family of the tables above, in evaluation mode."""
    kind, values = (FAMILIES | MORE | HOOKED)[name]
    return build(kind, dtype, seed, **{**values, **settings})


def build(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0, **values: Any) -> PreTrainedModel:
    """A random model of a configuration `<kind>Config`, its weights large enough that heads matter."""
    config = getattr(transformers, f"{kind}Config")(**values)
    config.initializer_range = 0.3
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and parameter.dim() == 1:
                parameter.normal_(0.0, 0.1)  # biases of zero would hide what is done with them
    assert isinstance(model, PreTrainedModel)
    return model.to(dtype)


def prompts(*lengths: int, shared: bool = False, seed: int = 0) -> list[list[int]]:
    """Random token ids."""
    random = torch.Generator().manual_seed(seed)
    return [
        [*(SHARED if shared else []), *torch.randint(2, 97, (length,), generator=random).tolist()] for length in lengths
    ]


def each(runner: Engine | BruteForce, ids: list[list[int]], how: Ablation, group: tuple[HeadId, ...] = ()) -> Tensor:
    """States without each head, (layers, heads, prompts, width); NaN where a head is in the group."""
    layers, heads = runner.shape
    found: Tensor | None = None
    for batch in runner.without_each(ids, how, group=group):
        if found is None:
            shape = (layers, heads, len(ids), batch.states.shape[-1])
            found = torch.full(shape, torch.nan, dtype=batch.states.dtype)
        for row, head in enumerate(batch.heads):
            assert found[batch.layer, head, list(batch.prompts)].isnan().all()
            found[batch.layer, head, list(batch.prompts)] = batch.states[row]
    assert found is not None
    return found


def golden(name: str) -> dict[str, Any]:
    """Numbers of the reference implementation: `mha` or `gqa`."""
    found: dict[str, Any] = json.loads((Path(__file__).parent / "data/ships_sahara.json").read_text("utf-8"))[name]
    return found


def golden_model(numbers: dict[str, Any]) -> PreTrainedModel:
    """The tiny Llama that the reference implementation was run on."""
    config = {key: value for key, value in numbers["config"].items() if key != "model_type"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    random = np.random.Generator(np.random.PCG64(1234))
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            drawn = torch.from_numpy(random.standard_normal(parameter.shape, dtype=np.float32))
            parameter.copy_(1 + 0.1 * drawn if "norm" in name else 0.15 * drawn)
    return model
