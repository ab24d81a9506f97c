"""Divergences between a teacher's and a student's next-token distributions, with their gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_LOG_P = -100.0  # reverse KL takes smaller log-probs of the teacher for this: at probability 0 it is infinite


class SoftTargets(Protocol):
    """A teacher's distributions for n predicted tokens, at the temperature of the student's.

    They are over O outcomes: single tokens, or sets of tokens of which only the mass is known.
    """

    def outcomes(self, log_q: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probs [n, O] of the teacher and of the student, from the student's log-probs [n, V]."""

    def spread(self, values: Tensor, log_q: Tensor) -> Tensor:
        """[n, O] -> [n, V]: each outcome's value, divided among its tokens as the student divides its mass."""


@dataclass(frozen=True)
class Dense:
    """A teacher's whole distribution: its logits [n, U], of which the first `vocabulary` are real tokens.

    Models of one family often pad their embeddings to different round numbers; the padding of either side gets no
    probability from the teacher.
    """

    logits: Tensor
    vocabulary: int
    temperature: float

    def outcomes(self, log_q: Tensor) -> tuple[Tensor, Tensor]:
        assert len(self.logits) == len(log_q), "one teacher's distribution for each of the student's"
        log_p = (self.logits[:, : self.vocabulary] / self.temperature).log_softmax(-1)  # [n, vocabulary]
        return log_p, log_q[:, : self.vocabulary]

    def spread(self, values: Tensor, log_q: Tensor) -> Tensor:
        return F.pad(values, (0, log_q.shape[1] - self.vocabulary))


@dataclass(frozen=True)
class TopK:
    """The k likeliest tokens [n, k] with their log-probs, and the log of the mass of all others [n].

    There are k + 1 outcomes, the last of them "any other token": divergences are exact in the k and in the tail's mass,
    and a lower bound of those over all tokens, because they ignore the shape of the tail.
    """

    token_ids: Tensor
    logprobs: Tensor
    log_tail: Tensor

    def outcomes(self, log_q: Tensor) -> tuple[Tensor, Tensor]:
        log_p = torch.cat([self.logprobs, self.log_tail[:, None]], dim=1)
        return log_p, torch.cat([log_q.gather(1, self.token_ids), self._tail(log_q).logsumexp(1, True)], dim=1)

    def spread(self, values: Tensor, log_q: Tensor) -> Tensor:
        # -inf if k is the whole vocabulary: then no token is left to share the tail's value, which is 0
        tail = self._tail(log_q)  # [n, V]
        shares = (tail - tail.logsumexp(1, True)).exp().nan_to_num(0.0)
        return (shares * values[:, -1:]).scatter(1, self.token_ids, values[:, :-1])

    def _tail(self, log_q: Tensor) -> Tensor:
        return log_q.scatter(1, self.token_ids, float("-inf"))


def divergence(soft: SoftTargets, log_q: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The divergence [n] of the student's log-probs [n, V] from the teacher, and its gradient [n, V] by the logits.

    With p the teacher and q the student, beta 0 is the forward KL(p || q) and beta 1 the reverse KL(q || p). Between
    them it is the generalised JSD, beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q (Agarwal et
    al. 2024, equation 1). That tends to 0 for beta towards 0 or 1, so the two KLs are not its limits.
    """
    assert 0 <= beta <= 1, beta
    log_p, log_q_outcomes = soft.outcomes(log_q)  # [n, O] each
    p, q = log_p.exp(), log_q_outcomes.exp()
    # slope: dD / d(log q) [n, O], up to a multiple of q, which drops out below
    if beta == 0:
        value, slope = _expectation(p, log_p - log_q_outcomes), -p
    elif beta == 1:
        terms = _product(q, log_q_outcomes - log_p.clamp(min=MIN_LOG_P))
        value, slope = terms.sum(-1), terms
    else:
        log_m = torch.logaddexp(log_p + math.log(beta), log_q_outcomes + math.log1p(-beta))
        terms = _product(q, log_q_outcomes - log_m)
        value, slope = beta * _expectation(p, log_p - log_m) + (1 - beta) * terms.sum(-1), (1 - beta) * terms
    # through log q = log_softmax(logits): d(log q_i) / d(logit_j) = [i = j] - q_j
    gradient = soft.spread(slope, log_q).addcmul_(log_q.exp(), slope.sum(-1, True), value=-1)
    return value, gradient


def _product(weights: Tensor, values: Tensor) -> Tensor:
    """weights * values, with 0 * inf = 0: an outcome without probability adds nothing."""
    return torch.where(weights > 0, weights * values, 0.0)


def _expectation(weights: Tensor, values: Tensor) -> Tensor:
    """[n, O] -> [n]"""
    return _product(weights, values).sum(-1)
