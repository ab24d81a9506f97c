"""Why the ranks of a stage ended without a result."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

from r1kit.pipeline.agent import Part, ranks_of
from r1kit.pipeline.rank_process import is_lost, log_of
from r1kit.ranks import RankError

RESUME = "the same command resumes from the newest checkpoint"


@dataclass(frozen=True, slots=True)
class Failures:
    """What is known of them: errors and exit codes by rank, and the numbers of parts whose agent is gone."""

    parts: tuple[Part, ...]
    errors: dict[int, Exception] = field(default_factory=dict)
    exitcodes: dict[int, int] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.exitcodes or self.lost)

    def cause(self, folder: Path, limit: float) -> Exception:
        """A rank or an agent that was killed, an error of a rank's own, or a rank that does not answer."""
        names = {rank: name for number in range(len(self.parts)) for rank, name in self._names(number).items()}
        for rank, exitcode in self.exitcodes.items():
            if exitcode < 0 and rank not in self.errors:
                memory = ", as the system does when memory runs out" if exitcode == -signal.SIGKILL else ""
                return RankError(f"{names[rank]} was killed by {signal.Signals(-exitcode).name}{memory}; {RESUME}")
        for number in self.lost:
            gone = ", ".join(self._names(number).values())
            return RankError(f"no connection to the agent of {gone}: its node or its process died; {RESUME}")
        for _, error in sorted(self.errors.items()):
            if not is_lost(error):
                return error
        silent = sorted(names.keys() - self.errors.keys())
        if silent and self.errors:
            late = ", ".join(f"{names[rank]} (log: {log_of(folder, rank)})" for rank in silent)
            return RankError(f"no answer for {limit:g} s from {late}: it hangs or is too slow; {RESUME}")
        codes = f"the ranks ended with exit codes {self.exitcodes}; {RESUME}"
        return next(iter(self.errors.values()), RankError(codes))

    def _names(self, number: int) -> dict[int, str]:
        """What messages call the ranks of a part."""
        count, node = sum(part.ranks for part in self.parts), self.parts[number].node
        where = f" on {node}" if node else ""
        return {rank: f"rank {rank} of {count}{where}" for rank in ranks_of(self.parts, number)}
