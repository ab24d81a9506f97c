"""Counts and costs of the requests to a server."""

from __future__ import annotations

from dataclasses import dataclass

from r1kit.engines.openai.responses import Reply


@dataclass
class Usage:
    """Counts since the engine was opened; tokens as the server counts them, prices per million tokens.

    `requests` counts all requests sent, `failures` those without a usable reply, `cached` replies from the cache,
    `uncounted` replies that came without token counts. `answered`: the server has answered, if only with an error.
    """

    prompt_price: float = 0.0
    completion_price: float = 0.0
    currency: str = "$"
    requests: int = 0
    failures: int = 0
    cached: int = 0
    uncounted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    saved: float = 0.0
    answered: bool = False

    @property
    def cost(self) -> float:
        """The cost of all requests sent, also of replies that could not be used."""
        return self._price(self.prompt_tokens, self.completion_tokens)

    def record_cached(self, reply: Reply) -> None:
        self.cached += 1
        self.saved += self._price(reply.prompt_tokens, reply.completion_tokens)

    def summary(self) -> str:
        """One line: `"120 requests (9 failed), 30 replies from the cache, 5,000 + 20,000 tokens, $0.42"`."""
        parts = [f"{self.requests:,} requests" + (f" ({self.failures:,} failed)" if self.failures else "")]
        if self.cached:
            parts.append(f"{self.cached:,} replies from the cache")
        parts.append(f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens")
        # a server of one's own has no prices: then a cost of 0.00 would say nothing
        if self.prompt_price or self.completion_price:
            saved = f" ({self.currency}{self.saved:,.2f} saved by the cache)" if self.saved else ""
            parts.append(f"{self.currency}{self.cost:,.2f}{saved}")
        if self.uncounted:
            parts.append(f"{self.uncounted:,} replies without a token count")
        return ", ".join(parts)

    def _price(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / 1e6
