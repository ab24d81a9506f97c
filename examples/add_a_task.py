"""A task of your own: a class that generates problems, found by its dotted path.

Run it: python examples/add_a_task.py. To train on it, name it in a recipe's tasks as `main` does.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from r1kit.tasks import TaskSpec, iterate, load_tasks
from r1kit.types import Problem


@dataclass(frozen=True)
class Clocks:
    """Problem i depends on split, seed and i only, so runs can stop and resume anywhere."""

    split: str
    seed: int
    size: int

    @property
    def name(self) -> str:
        return f"clocks/{self.split}/{self.seed}"

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        now, later = self.draw(random.Random(f"{self.name}/{index}"))
        return Problem(
            id=f"{self.name}/{index}",
            prompt=f"A 12-hour clock shows {now} o'clock. Which hour does it show {later} hours later?",
            answer=str((now + later - 1) % 12 + 1),
            verifier="number",
            source="clocks",
        )

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """One pair in five is reserved for the test: there are so few pairs that training would see them all."""
        while True:
            now, later = rng.randint(1, 12), rng.randint(10, 200)
            if ((7 * now + later) % 5 == 0) == (self.split == "test"):
                return now, later


def main() -> None:
    """The task's name is `<module>:<function>`. `Clocks` takes split, seed and size, so the class is the function."""
    task = load_tasks([TaskSpec(name="add_a_task:Clocks", limit=3)], training=True)
    for problem in iterate(task):
        print(f"{problem.id}\n  {problem.prompt}\n  answer: {problem.answer} (checked by {problem.verifier!r})")


if __name__ == "__main__":
    main()
