"""Engines as settings: which model answers, and where it runs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from r1kit.engines.openai.server_settings import OpenAIEngineSettings
from r1kit.redaction import redacted_text
from r1kit.settings import Settings, SettingsError, import_function, unhashed
from r1kit.types import ComputeDtype


class ComputeSettings(Settings):
    """Where a local model runs, and the precision of its linear layers; weights and optimizer are fp32.

    `compute_dtype="auto"` is bf16 on a GPU, and on a CPU the faster one, by a measurement. On a CPU, a model of fewer
    than 20 million weights always computes in fp32.
    """

    device: str = unhashed("auto", description="auto, cpu, cuda or cuda:N")
    compute_dtype: ComputeDtype = Field("auto", description="auto, fp32 or bf16: precision of linear layers")


class DeviceSettings(ComputeSettings):
    """Where a local model runs, and how many completions it generates side by side (`max_rows`)."""

    max_rows: int = unhashed(128, ge=1, description="completions generated side by side")


class LocalEngineSettings(DeviceSettings):
    """A model that runs in this process: `LocalEngineSettings(model="runs/r1/model")`."""

    kind: Literal["local"] = "local"
    model: str = Field(min_length=1, description="folder or known name of the model")
    template: Literal["auto", "plain", "chat"] = Field(
        "auto", description="how messages become text; auto: the tokenizer's chat template if it has one, else plain"
    )
    template_options: dict[str, Any] | None = Field(
        None, description="variables of the chat template; None: those saved with the model"
    )


class OwnEngineSettings(Settings):
    """An engine of your own: `OwnEngineSettings(model="adder", path="add_an_engine:Calculator")`.

    `path` names a class or function, called as `path(model, **options)`, that returns an `Engine`.
    """

    kind: Literal["custom"] = "custom"
    model: str = Field(min_length=1, description="the name of the model, passed to the class or function")
    path: str = Field(min_length=1, description="dotted path of the class or function, module:Name")
    options: dict[str, Any] = Field({}, description="its keyword arguments")

    def source_file(self) -> Path:
        """The file with the engine's code. Raises `SettingsError` if it cannot be imported."""
        return Path(inspect.getfile(import_function(self.path, "engine")))


AnyEngineSettings = LocalEngineSettings | OpenAIEngineSettings | OwnEngineSettings
KINDS: dict[str, type[AnyEngineSettings]]
KINDS = {"local": LocalEngineSettings, "openai": OpenAIEngineSettings, "custom": OwnEngineSettings}


def parse_engine(values: Any) -> AnyEngineSettings:
    """Build the settings class that `kind` names ("local" if missing). Raises `SettingsError`."""
    if isinstance(values, AnyEngineSettings):
        return values
    if not isinstance(values, Mapping):
        text = redacted_text(repr(values))[:80]
        raise SettingsError(f'an engine is {text}: expected an object such as {{"model": "runs/r1/model"}}')
    kind = values.get("kind", "local")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SettingsError(f"kind is {kind!r}: expected one of {', '.join(map(repr, KINDS))}")
    # before pydantic reports it as unknown: the field exists, but for another kind
    for name in values:
        owners = [other for other, settings in KINDS.items() if name in settings.model_fields]
        if owners and kind not in owners:
            belongs = f"{name} is a setting of engines of kind {owners[0]!r}, but kind is {kind!r}"
            raise SettingsError(f"{belongs}: remove {name} or set kind to {owners[0]!r}")
    return KINDS[kind].parse(values)


# validated by `parse_engine`, so a nested engine gives the same errors as one on its own
EngineSettings = Annotated[AnyEngineSettings, BeforeValidator(parse_engine)]
