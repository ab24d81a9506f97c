"""Generation by any server that speaks OpenAI's chat completions: teachers, rewriters and judges."""

from r1kit.engines.remote.engine import OpenAIEngine
from r1kit.engines.remote.settings import ServerSettings
from r1kit.engines.remote.usage import Usage

__all__ = ["OpenAIEngine", "ServerSettings", "Usage"]
