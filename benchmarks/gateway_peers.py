"""Other gateways for `benchmarks/gateway.py`, each in a venv under `runs/peers`; installing takes minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from packaging.requirements import Requirement

RUNS = Path("runs/peers")


@dataclass(frozen=True, slots=True)
class Peer:
    """A package and how it is installed.

    Attributes:
        name: of the venv's folder.
        package: with its version.
        extras: of the package.
        relaxed: requirements whose pins do not resolve everywhere; any version is taken.
    """

    name: str
    package: str
    extras: tuple[str, ...]
    relaxed: tuple[str, ...] = ()

    @property
    def bin(self) -> Path:
        """The folder of its programs."""
        return (RUNS / self.name / "bin").absolute()

    def install(self) -> None:
        """Make the venv, unless it is there and whole.

        Raises:
            OSError: pip failed; the message says where its log is.
        """
        done = RUNS / self.name / "installed"
        if done.exists() and done.read_text(encoding="utf-8") == self.package:
            return
        RUNS.mkdir(parents=True, exist_ok=True)
        log = RUNS / f"{self.name}.log"
        environment = {
            name: value for name, value in os.environ.items() if name not in ("PIP_CONSTRAINT", "PYTHONPATH")
        }
        with log.open("wb") as said:

            def run(*arguments: str) -> None:
                subprocess.run(arguments, env=environment, stdout=said, stderr=said, check=True)

            pip = (str(self.bin / "python"), "-m", "pip", "install", "--disable-pip-version-check", "-q")
            try:
                run(sys.executable, "-m", "venv", str(RUNS / self.name))
                run(*pip, "--no-deps", self.package)
                run(*pip, *self._requirements(environment))
            except subprocess.CalledProcessError as exc:
                raise OSError(f"{self.package} cannot be installed; {log} says why") from exc
        done.write_text(self.package, encoding="utf-8")

    def _requirements(self, environment: dict[str, str]) -> list[str]:
        """What the package asks for, by its metadata, for the extras, without the pins that are relaxed."""
        code = "import importlib.metadata as m, json, sys; print(json.dumps(m.requires(sys.argv[1]) or []))"
        name = self.package.partition("==")[0]
        said = subprocess.run(
            [str(self.bin / "python"), "-c", code, name], env=environment, capture_output=True, check=True
        )
        wanted = []
        for requirement in map(Requirement, json.loads(said.stdout)):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *self.extras)):
                extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
                pin = "" if requirement.name in self.relaxed else str(requirement.specifier)
                wanted.append(f"{requirement.name}{extras}{pin}")
        return wanted


LITELLM = Peer("litellm", "litellm==1.109.1", ("proxy",), ("certifi", "litellm-proxy-extras"))
NEMO = Peer("nemo", "nemoguardrails==0.24.1", ("server", "openai"))


def litellm_command(upstream: str, port: int, folder: Path) -> list[str]:
    """LiteLLM's proxy without database, logs, keys and guardrails, one worker."""
    parameters = {"model": "openai/m", "api_base": upstream, "api_key": "none"}
    settings = {
        "model_list": [{"model_name": "m", "litellm_params": parameters}],
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},  # else it does not start
    }
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return [str(LITELLM.bin / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]


def nemo_command(upstream: str, port: int, folder: Path) -> list[str]:
    """NeMo Guardrails' server in front of the same upstream, with no rail that calls a model."""
    rails = folder / "nemo" / "plain"
    rails.mkdir(parents=True, exist_ok=True)
    model = {"type": "main", "engine": "openai", "model": "m", "parameters": {"base_url": upstream, "api_key": "none"}}
    settings = {"models": [model], "rails": {"input": {"flows": []}}}
    (rails / "config.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    program = str(NEMO.bin / "nemoguardrails")
    choice = ["--config", str(rails), "--default-config-id", rails.name]
    return [program, "server", *choice, "--port", str(port), "--disable-chat-ui"]


if __name__ == "__main__":
    for peer in (LITELLM, NEMO):
        try:
            peer.install()
            print(f"{peer.package}: installed")
        except OSError as exc:
            print(f"{peer.package}: {exc}")
