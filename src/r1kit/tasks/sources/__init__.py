"""Where tasks come from. To add a kind of source: one file with a `Source`, and one entry in `SOURCES`."""

from __future__ import annotations

from r1kit.tasks.sources.file import FileSource
from r1kit.tasks.sources.function import FunctionSource
from r1kit.tasks.sources.gym import GymSource
from r1kit.tasks.sources.hub import HubSource
from r1kit.tasks.sources.public import KnownSource
from r1kit.tasks.sources.request_files import RequestSource
from r1kit.tasks.sources.shuffled import ShuffledSource
from r1kit.tasks.sources.source import Source
from r1kit.tasks.sources.tiny_world import TinySource

# The first source that claims a name loads it. Files come last: they claim every name.
SOURCES: tuple[Source, ...] = (
    *(ShuffledSource(), TinySource(), GymSource(), HubSource(), RequestSource(), FunctionSource(), KnownSource()),
    FileSource(),
)


def source_of(name: str) -> Source:
    """The source that loads the task `name`."""
    return next(source for source in SOURCES if source.claims(name))
