"""Which run a server takes weights from: one at a time, for as long as it lives.

A run claims a server for the folder in which it hands over weights, and holds that folder's lock until it ends. A
server sees the lock, because both sides mount the folder. So a second run is refused before it touches anything, and a
run that was killed keeps nobody out.
"""

from __future__ import annotations

from pathlib import Path

from r1kit.pipeline.guards import require_free

START = "start"  # what a server calls the weights that it was started with


class Claim:
    """The claim on one server, which reads below the folder `allowed` only."""

    def __init__(self, allowed: Path) -> None:
        self._allowed, self._folder = allowed.resolve(), Path()

    def take(self, name: str) -> None:
        """Claim for the run that hands over below the folder `name`.

        Raises `PermissionError` for one elsewhere, and `StoreError` while another run that has the claim is alive.
        """
        folder = self._below(name)
        if self._folder != Path() and folder != self._folder:
            require_free(self._folder)
        self._folder = folder

    def handed_over(self, name: str) -> Path:
        """The folder of a hand-over; raises `PermissionError` unless it is the claiming run's."""
        folder = self._below(name)
        if folder.parent != self._folder:
            raise PermissionError(f"the folder {name!r:.200} is not of the run that has claimed this server")
        return folder

    def _below(self, name: str) -> Path:
        folder = Path(name).resolve()
        if not folder.is_relative_to(self._allowed):
            text = f"the folder {name!r:.200} is not below {self._allowed}: this server reads weights only there"
            raise PermissionError(text)
        return folder
