"""Generation by any server that implements OpenAI's chat completions: teachers, rewriters and judges."""

from r1kit.engines.openai.client import OpenAIEngine
from r1kit.engines.openai.server_settings import OpenAIEngineSettings
from r1kit.engines.openai.usage import Usage

__all__ = ["OpenAIEngine", "OpenAIEngineSettings", "Usage"]
