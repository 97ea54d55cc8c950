"""Sets of prompts: read from JSONL, CSV or plain text, told apart by a hash, and rendered and tokenized for a model."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from attribution.types import Prompt, PromptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat", "plain", "none"]
TEMPLATES: tuple[Template, ...] = get_args(Template)
PLAIN = "## Query:{query}\n## Answer:"  # the plain template of arXiv 2410.13708
COLUMNS = ("text", "prompt", "question", "query", "goal")
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_SHOWN = 5  # of a long list, in a message
_BEGINNING = 40  # characters of a prompt, in a message

Row = tuple[int, Mapping[str, Any]]  # line of the file, what it says by column


def read_prompts(path: Path, *, column: str | None = None) -> list[Prompt]:
    """The prompts of a file, in its order.

    Args:
        path: JSONL (`.jsonl`, `.ndjson`) or CSV (`.csv`, `.tsv`, with a header) with a column of texts and, if wanted,
            `category` and `harmful` (true or false); or `.txt` with a prompt in each line.
        column: that holds the text; by default the first of `COLUMNS` that is there.

    Raises:
        PromptError: there is no such file, it cannot be read, a row has no text or is there twice, or there is no row.
    """
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise PromptError(f"prompts {path}: the name ends in none of {', '.join(_SUFFIXES)}; rename it by its format")
    text = _text(path)
    if kind == "text":
        if column is not None:
            raise PromptError(f"prompts {path}: a plain text file has no column {column!r}; leave the setting out")
        rows: list[Row] = [(n, {"text": line}) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    else:
        rows = list(_objects(path, text) if kind == "jsonl" else _records(path, text))
    if not rows:
        raise PromptError(f"prompts {path}: there are no prompts in it; give one a line")
    named = _column(path, rows, column)
    prompts = [_prompt(f"prompts {path}, line {number}", row, named) for number, row in rows]
    _refuse_repeats(path, [number for number, _ in rows], prompts)
    return prompts


def choose(prompts: Sequence[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    """Some prompts, chosen at random and left in their order; all of them without a limit.

    Raises:
        PromptError: the limit is less than 1.
    """
    if limit is not None and limit < 1:
        raise PromptError(f"limit {limit} leaves no prompts; give 1 or more, or leave it out for all of them")
    if limit is None or limit >= len(prompts):
        return list(prompts)
    return [prompts[place] for place in sorted(random.Random(seed).sample(range(len(prompts)), limit))]


def prompts_sha256(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of a set, in hex: of its texts, categories and labels, in their order."""
    rows = [[prompt.text, prompt.category, prompt.harmful] for prompt in prompts]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], template: Template, system: str | None = None
) -> list[list[int]]:
    """The token ids of each prompt, up to where the model is to write; the token that begins a text is there once.

    Args:
        tokenizer: of the model.
        prompts: some prompts.
        template: `chat`, the tokenizer's chat template; `plain`, the paper's; `none`, the text as it is, in which
            special tokens count as such.
        system: the system prompt, for `chat` only.

    Raises:
        PromptError: the tokenizer has no chat template, or its template takes no system prompt; a prompt holds one of
            the special tokens, which the model would take for the template's; a prompt has no tokens, or the same ones
            as another.
    """
    if template not in TEMPLATES:
        raise PromptError(f"template {template!r} is unknown; one of {', '.join(TEMPLATES)}")
    if system is not None and template != "chat":
        raise PromptError(f"template {template!r} has no place for a system prompt; use chat, or leave `system` out")
    if template == "chat" and not tokenizer.chat_template:
        raise PromptError(
            "the tokenizer has no chat template; use the template plain, or none for prompts rendered before"
        )
    if template != "none":
        _refuse_special(tokenizer, [*([("the system prompt", system)] if system else []), *_named(prompts)])
    encoded = [_ids(tokenizer, _rendered(tokenizer, prompt.text, template, system), template) for prompt in prompts]
    for place, ids in enumerate(encoded, 1):
        if not ids:
            raise PromptError(f"prompt {place} has no tokens; remove it")
    _refuse_same(encoded, prompts)
    return encoded


def beginning(prompt: str) -> str:
    """By what a prompt can be found in its file, for a message."""
    return f"it begins {prompt[:_BEGINNING]!r}"


def _rendered(tokenizer: PreTrainedTokenizerBase, text: str, template: Template, system: str | None) -> str:
    if template == "none":
        return text
    if template == "plain":
        return PLAIN.format(query=text)
    from jinja2.exceptions import TemplateError

    chat = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": text}]
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except (TemplateError, ValueError, TypeError) as exc:
        way_out = (
            "leave `system` out, if it takes none, or use the template plain" if system else "use the template plain"
        )
        raise PromptError(f"the tokenizer's chat template cannot be filled in ({exc}); {way_out}") from exc


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, template: Template) -> list[int]:
    bare: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if template == "chat" or not bare:  # a chat template writes the tokens that it wants
        return bare
    ids: list[int] = tokenizer(text)["input_ids"]
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if begin is not None and ids[:2] == [begin, begin] and bare[0] == begin:
        ids = ids[1:]
    if end is not None and ids[-1] == end and bare[-1] != end:  # the model is to go on, not to begin anew
        ids = ids[:-1]
    return ids


def _named(prompts: Sequence[Prompt]) -> Iterator[tuple[str, str]]:
    for place, prompt in enumerate(prompts, 1):
        yield f"prompt {place}", prompt.text


def _refuse_special(tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str]]) -> None:
    added = getattr(tokenizer, "added_tokens_decoder", {})  # some templates use tokens that no setting names
    special = sorted({*tokenizer.all_special_tokens, *(str(token) for token in added.values() if token.special)})
    for name, text in texts:
        for token in special:
            if token in text:
                raise PromptError(
                    f"{name} holds the special token {token!r}, which the model would take for the template's; remove "
                    f"it, or use the template none for prompts that are rendered already ({beginning(text)})"
                )


def _refuse_same(encoded: Sequence[Sequence[int]], prompts: Sequence[Prompt]) -> None:
    """Prompts that the model cannot tell apart would count twice; all are such if a chat template leaves them out."""
    first: dict[tuple[int, ...], int] = {}
    for place, ids in enumerate(encoded):
        if (other := first.setdefault(tuple(ids), place)) != place:
            raise PromptError(
                f"prompts {other + 1} and {place + 1} are the same {len(ids)} tokens to this model, and would count "
                f"twice; remove the second ({beginning(prompts[place].text)}), or use the template plain if the chat "
                "template leaves prompts out"
            )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise PromptError(f"prompts {path} is not UTF-8: byte {exc.start} cannot be read; convert it") from exc
    except OSError as exc:
        raise PromptError(f"prompts {path} cannot be read: {exc.strerror}; give a JSONL, CSV or text file") from exc


def _objects(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as exc:
                raise PromptError(f"prompts {path}, line {number}: not JSON ({exc}); write one object a line") from exc
            if not isinstance(row, dict):
                raise PromptError(f"prompts {path}, line {number}: not a JSON object; write one with a `text`")
            yield number, row


def _records(path: Path, text: str) -> Iterator[Row]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row:
                raise PromptError(
                    f"prompts {path}, line {reader.line_num}: more fields than the header has; quote texts with commas"
                )
            yield reader.line_num, row
    except csv.Error as exc:
        raise PromptError(f"prompts {path}, line {reader.line_num}: not CSV ({exc})") from exc


def _column(path: Path, rows: Sequence[Row], column: str | None) -> str:
    there = list(dict.fromkeys(str(name) for _, row in rows for name in row))
    found = [name for name in ([column] if column is not None else COLUMNS) if name in there]
    if not found:
        wanted = repr(column) if column is not None else " or ".join(COLUMNS)
        raise PromptError(f"prompts {path}: no column {wanted}; it has {', '.join(there)}: name the one with the texts")
    return found[0]


def _prompt(where: str, row: Mapping[str, Any], column: str) -> Prompt:
    text = row.get(column)
    if not isinstance(text, str | None):
        raise PromptError(f"{where}: `{column}` is {text!r}, not a text; write one")
    if not text or not text.strip():
        raise PromptError(f"{where}: `{column}` is empty; fill it in, or remove the row")
    category = row.get("category")
    if not isinstance(category, str | None):
        raise PromptError(f"{where}: `category` is {category!r}; write a name")
    return Prompt(text.strip(), (category or "").strip(), _harmful(where, row.get("harmful")))


def _harmful(where: str, said: object) -> bool | None:
    if said is None or isinstance(said, bool) or said == "":
        return said if isinstance(said, bool) else None
    if (known := _TRUTH.get(str(said).strip().lower())) is None:
        raise PromptError(f"{where}: `harmful` is {said!r}; write true or false, or leave it empty")
    return known


def _refuse_repeats(path: Path, lines: Sequence[int], prompts: Sequence[Prompt]) -> None:
    """A prompt that is there twice would count twice."""
    first: dict[str, int] = {}
    repeats = []
    for line, prompt in zip(lines, prompts, strict=True):
        if first.setdefault(prompt.text, line) != line:
            repeats.append(f"{line} (as {first[prompt.text]})")
    if repeats:
        more = f" and {len(repeats) - _SHOWN} more" if len(repeats) > _SHOWN else ""
        raise PromptError(
            f"prompts {path}: {len(repeats)} of {len(prompts)} rows repeat an earlier one: lines "
            f"{', '.join(repeats[:_SHOWN])}{more}; remove them, they would count twice"
        )
