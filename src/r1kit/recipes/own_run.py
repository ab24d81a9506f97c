"""A run on a model and data of one's own: roles become tasks and files, and sizes follow from the model and device."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from r1kit.chat import ChatFormat, saved
from r1kit.models.facts import facts_of, outline_folder
from r1kit.models.hub import tokenizer_of
from r1kit.pipeline import External
from r1kit.recipes.builder import Builder
from r1kit.recipes.roles import MEASURED, Data, items_of, limited, of_role, specs_of
from r1kit.recipes.scale import Sizes
from r1kit.recipes.scales.gpu import GPU, ON_CPU, ON_GPU, GpuSizes
from r1kit.recipes.sizing import device_for, sizing
from r1kit.settings import SettingsError, nearest
from r1kit.stages.shared.sources import file_input
from r1kit.tasks import KNOWN, TaskSpec
from r1kit.tasks.task_spec import refuse_benchmark

FILE_FIELDS = ("name", "columns", "skip_invalid")  # of a file of rows; tasks have more
TASK_ROLES = ("problems", "eval")


@dataclass(frozen=True)
class OwnRun:
    """A builder with the sizes and the data of one part of the recipe. Its base is the model."""

    build: Builder
    sizes: GpuSizes
    data: Mapping[str, Any]
    teacher: str | None

    @classmethod
    def of(
        cls,
        recipe: str,
        model: str,
        data: Mapping[str, Any],
        *,
        overrides: Mapping[str, Any] | None,
        seed: int,
        hardware: str | None,
        devices: int,
        rehearse: bool,
        teacher: str | None,
        own_format: bool,
        measures: bool,
    ) -> Self:
        """`own_format`: prompts are as the model's chat template makes them (`saved.own`), not R1-Zero's; `measures`:
        the role `eval` is problems that measure the models before and after."""
        device, facts = device_for(hardware), facts_of(model)
        if own_format:
            facts = replace(facts, chat=own_chat(model))
        tasks = {role: specs_of(role, data[role]) if role in data else () for role in TASK_ROLES if measures}
        for spec in tasks.get("problems", ()):
            refuse_benchmark(spec)
        measured = tuple(limited(spec, MEASURED) for spec in tasks.get("eval", ()))
        size = sizing(model, facts, device, devices)
        used = Data(problems=tasks.get("problems", ()), eval=measured)
        sizes = GpuSizes(size, facts, used, ON_CPU if device.is_cpu else ON_GPU)
        by_heart = tasks.get("problems") or measured or (TaskSpec(name="tiny/reasoning"),)  # in a rehearsal
        zero, notes = Sizes(tasks=by_heart, chat=sizes.chat), (size.as_text(model, facts),)
        scale = replace(GPU, name="fitted", model=model, zero=zero, notes=notes)
        eval_sizes = {"eval": sizes.eval} if measured else {}
        return cls(Builder(recipe, scale, eval_sizes, overrides, seed, model, rehearse), sizes, data, teacher)

    def inputs(self, role: str, name: str, reading: Sizes | None = None) -> dict[str, External]:
        """The files of a role as inputs. Their rows are read as they are, or as the training data is (`reading`).

        Raises `SettingsError` for columns or skip_invalid that would have no effect.
        """
        inputs, own = self.files(role, name)
        if own and own != reading:
            reason = f"{' and '.join(own)} would have no effect"
            raise SettingsError(f"data.{role}: {reason}: leave it out, and give the file's columns their usual names")
        return inputs

    def files(self, role: str, name: str, skip: Container[str] = ()) -> tuple[dict[str, External], Sizes]:
        """The files of a role as inputs `name/0`, `name/1` ..., and settings that say how their rows are read.

        Items whose name is in `skip` are left out. Raises `DataError` for a name that is no file and no set of files.
        """
        inputs: dict[str, External] = {}
        reading = Sizes()
        for number, item in enumerate(items_of(self.data.get(role, ()))):
            if name_of(item) in skip:
                continue
            fields = {"name": item} if isinstance(item, str) else dict(item)
            if wrong := [field for field in fields if field not in FILE_FIELDS]:
                raise SettingsError(f"there is no setting data.{role}.{wrong[0]}: {nearest(wrong[0], FILE_FIELDS)}")
            with of_role(role):
                file = file_input(fields.pop("name", ""))
            if inputs and fields != reading:
                raise SettingsError(f"data.{role}: its files differ in columns or skip_invalid: give them alike")
            inputs[f"{name}/{number}"], reading = file, fields
        return inputs, reading

    def worked(self, role: str) -> tuple[TaskSpec, ...]:
        """The known sets of problems in a role. Their worked solutions become rows."""
        items = [item for item in items_of(self.data.get(role, ())) if name_of(item) in KNOWN]
        return tuple(limited(spec, self.sizes.amounts.traces) for spec in specs_of(role, items)) if items else ()


def name_of(item: Any) -> str:
    """The name of an item of a role."""
    return str(item.get("name", "")) if isinstance(item, Mapping) else str(item)


def own_chat(model: str) -> ChatFormat:
    """The format of a model's conversations, from its configuration and tokenizer."""
    folder = outline_folder(model)
    return saved.own(folder, tokenizer_of(folder, model))[0]
