"""Take models to a hub that speaks Hugging Face's protocol, and from there, by its own client."""

from __future__ import annotations

import errno
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from classifier.examples import ODDS, TEXTS
from classifier.fetch import SOURCES
from classifier.settings import ClassifierSettings
from classifier.types import E5_SMALL, MINILM, MPNET
from training.datasets import TrainingError
from training.tiers import model_folder

HUB_NAMES = {
    E5_SMALL: "intfloat/multilingual-e5-small",
    MINILM: "sentence-transformers/all-MiniLM-L6-v2",
    MPNET: SOURCES[MPNET].hub,
}
"""What the hub calls the encoders that the shipped models sit on."""
_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_FETCHED = (*model_folder.NEEDED, model_folder.HASHES, *_TOKENIZER, TEXTS, ODDS)


def push(folder: Path, repo: str, *, revision: str | None = None, private: bool = True, examples: bool = False) -> str:
    """Upload a model, with its tokenizer and the hashes of its files, and make the repository where there is none.

    Args:
        folder: of a whole model.
        repo: ``owner/name``.
        revision: branch; the main one by default.
        private: whether a repository that is made is closed to others.
        examples: whether its labelled examples, which are texts, go along.

    Returns:
        The address of the commit.

    Raises:
        TrainingError: the folder is not whole, or the hub does not take it.
    """
    from huggingface_hub import HfApi

    model_folder.check(folder)
    with _explained(repo), tempfile.TemporaryDirectory(prefix="airlock-push-") as copy:
        staged = Path(copy)
        for name in (*model_folder.NEEDED, *((TEXTS, ODDS) if examples else ())):
            if (folder / name).is_file():
                shutil.copy2(folder / name, staged / name)
        _for_others(staged)
        model_folder.write_hashes(staged)
        hub = HfApi()
        hub.create_repo(repo, private=private, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repo,
            folder_path=staged,
            revision=revision,
            commit_message=f"Airlock model, version {model_folder.version(staged)}",
        )
        return str(done.commit_url)


def pull(repo: str, out: Path, *, revision: str | None = None, version: str | None = None) -> str:
    """Download a model into a new folder, checked before it is there: safetensors alone, every file by its hash.

    Args:
        repo: ``owner/name``.
        out: the folder, which must not exist.
        revision: branch, tag or commit; the main branch by default.
        version: that the model must have. The hashes come from the hub too: only this tells that it is the model that
            was meant.

    Returns:
        Its version.

    Raises:
        TrainingError: it is not there, not whole, or not the one that was meant.
    """
    from huggingface_hub import snapshot_download

    if out.exists():
        raise TrainingError(f"{out} exists; give another --out or remove it")
    with _explained(repo), _folder_beside(out) as copy:
        fetched = copy / "model"
        snapshot_download(repo, revision=revision, local_dir=fetched, allow_patterns=list(_FETCHED))
        shutil.rmtree(fetched / ".cache", ignore_errors=True)  # of the hub's client
        try:
            model_folder.check_hashes(fetched)
            model_folder.check(fetched)
        except TrainingError as exc:
            raise TrainingError(str(exc).replace(str(fetched), repo)) from exc  # what was fetched is gone
        found = model_folder.version(fetched)
        if version is not None and found != version:
            raise TrainingError(f"{repo} holds version {found}, not {version}; name its --revision, or do not trust it")
        fetched.replace(out)
    return found


def _for_others(staged: Path) -> None:
    """Add what tools need that know nothing of this machine: the tokenizer, and the base by its name on the hub."""
    from classifier.encoder import load_encoder

    settings = ClassifierSettings.load(staged)
    load_encoder(settings.encoder).tokenizer.save_pretrained(staged)
    for extra in {path.name for path in staged.iterdir()} - set(_FETCHED):
        (staged / extra).unlink()
    path = staged / model_folder.ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = HUB_NAMES.get(settings.encoder, config["base_model_name_or_path"])
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, where what is in it can be moved to `out`."""
    with ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            copy = stack.enter_context(tempfile.TemporaryDirectory(prefix=".airlock-pull-", dir=out.parent))
        except OSError as exc:
            raise TrainingError(f"--out {out} cannot be made ({exc.strerror}); give another --out") from exc
        yield Path(copy)


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """One line for whatever keeps the hub from doing what is asked; never a token."""
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if HF_HUB_OFFLINE:
        raise TrainingError(f"{repo}: HF_HUB_OFFLINE is set, so no hub is asked; unset it")
    if not _NAME.fullmatch(repo):
        raise TrainingError(f"{repo!r} is no name that a hub has; give owner/name")
    unreached: type[BaseException] = HfHubHTTPError.__bases__[0]  # of the library by which the client speaks HTTP

    try:
        yield
    except HfHubHTTPError as exc:
        answer = getattr(exc, "response", None)  # none where a file is not in the client's own store either
        status = answer.status_code if answer is not None else "nothing"
        raise TrainingError(
            f"{repo}: the hub says {status}; look at the name, --revision, HF_ENDPOINT and the token in HF_TOKEN"
        ) from exc
    except (HFValidationError, unreached, OSError) as exc:
        if getattr(exc, "errno", None) == errno.ENOSPC:
            raise
        raise TrainingError(f"{repo}: {type(exc).__name__}: no hub was reached, or none of that name") from exc
