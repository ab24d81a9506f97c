"""The engine of a training stage that samples on servers: prompts by HTTP, weights by disk, both checked.

A run claims its servers, which refuse weights of another one as long as it lives. After each hand-over the checksum of
what the server read, and holds, is compared with that of what the learner wrote. A server that calls its weights by
another name after a rollout was restarted.
"""

from __future__ import annotations

import queue
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit import ranks
from r1kit.engines import EngineError, Report
from r1kit.engines.remote.claim import START
from r1kit.engines.remote.completions import completions_of, request_body
from r1kit.engines.remote.server import QUICK_S, Facts, Server, ServerLost
from r1kit.engines.token_prompts import numbered_names, require_fitting, server_seed
from r1kit.types import Completion, Prompt, SamplingParams

if TYPE_CHECKING:
    from r1kit.models.handover import Handover
    from r1kit.models.load import Policy

NO_SERVER = "no server of servers.urls answers any more: start one, and run the same command again"
RAW = "its log-probs are those before the temperature: start vLLM with --logprobs-mode processed_logprobs"
REPLICAS = "it has {} replicas, of which one answers for all: start a server for each and name them all"


class ServerPool:
    """A `PolicyEngine` whose completions come from several servers with the same weights.

    A completion depends on seed, problem and sample, not on the server that samples it, up to rounding. A server that
    does not answer is left out until the next hand-over. `say` gets a line for people when one is lost or comes back.

    Hand-overs are below `folder`, whose lock the first rank holds as long as it uses the servers (`guards.locked`).
    """

    def __init__(
        self,
        servers: Sequence[Server],
        policy: Policy,
        folder: Path,
        *,
        concurrency: int = 64,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.servers, self.policy, self.folder, self.concurrency = servers, policy, folder, concurrency
        self.say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self.version: int | None = None
        try:
            self.facts = [server.facts() for server in servers]
            if ranks.is_first():
                for server in servers:
                    server.claim(folder)
        except ServerLost as error:
            raise EngineError(f"{error}: start it, or take its address out of servers.urls") from None
        for server, facts in zip(servers, self.facts, strict=True):
            if facts.replicas > 1:
                raise EngineError(f"{server.name}: {REPLICAS.format(facts.replicas)}")
            if facts.dtype != self.facts[0].dtype:
                first = f"{servers[0].name} in {self.facts[0].dtype}"
                raise EngineError(f"{server.name} computes in {facts.dtype}, and {first}: start all with one dtype")
        self.context = min(policy.context, *(facts.context for facts in self.facts))

    @property
    def tokenizer(self) -> Any:
        return self.policy.tokenizer

    @property
    def dtype(self) -> str:
        """The type in which the servers keep matrices, such as bfloat16."""
        return self.facts[0].dtype

    def load_weights(self, named_tensors: Iterable[tuple[str, Any]], version: int) -> None:
        """Hand the weights over to every server that answers; of several ranks, the first does it.

        Raises `EngineError` if a server refuses them, if it holds other weights afterwards, or if no server is left.
        """
        if ranks.is_first():
            self._load(named_tensors, version)
        states = ranks.gather([(server.version, server.is_lost) for server in self.servers])[0]
        for server, (name, is_lost) in zip(self.servers, states, strict=True):
            server.version, server.is_lost = name, is_lost
        self.version = version

    def _load(self, named_tensors: Iterable[tuple[str, Any]], version: int) -> None:
        import torch

        from r1kit.models import handover

        folder = self.folder / f"{version}"
        tensors = self._checkpoint_tensors(dict(named_tensors))
        try:
            written = handover.write(folder, tensors, getattr(torch, self.dtype))
            with ThreadPoolExecutor(len(self.servers)) as threads:
                list(threads.map(self._hand_over, self.servers, self.facts, repeat(written)))
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # the servers have read it, or never will
        self._require_server()

    def _checkpoint_tensors(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """vLLM wants the names of a saved model, which are not the module's where transformers fuses experts."""
        if all(facts.holds_checkpoint for facts in self.facts):
            return tensors
        from transformers.core_model_loading import revert_weight_conversion

        from r1kit.models.handover import distinct

        # a tied head goes first: the conversion sorts names, and vLLM wants the embeddings of the two
        converted: dict[str, Any] = dict(revert_weight_conversion(self.policy.model, dict(distinct(tensors))))
        return converted

    def _hand_over(self, server: Server, facts: Facts, written: Handover) -> None:
        was_lost = server.is_lost
        try:
            before = server.claim(self.folder)
            # another process may answer at this address now, with another model or other options
            if server.version and before != server.version and (now := server.facts()) != facts:
                raise EngineError(
                    f"{server.name} is {now} since it was started again, and was {facts}: start it as before"
                )
            try:  # paused, so that no completion is sampled by two versions
                server.post("/pause?mode=wait", {}, server.timeout_s)  # one that is late may pause it all the same
                answers = server.rpc("r1kit_load_weights", {"folder": str(written.folder.resolve())})
                check_loaded(server.name, facts, written, before, answers)
            finally:
                server.post("/resume", {}, QUICK_S)
            server.version = written.name
        except ServerLost as error:
            self._lose(server, error)
            return
        server.is_lost = False
        if was_lost:
            self.say(f"{server.name} is back")

    def _lose(self, server: Server, error: ServerLost) -> None:
        if not server.is_lost:
            server.is_lost = True
            left = sum(not each.is_lost for each in self.servers)
            self.say(f"{error}; {left} of {len(self.servers)} servers are left")

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        """Raises `PromptError`, before any work, if a prompt does not fit, and `EngineError` if no server is left or if
        one has other weights than it was given."""
        if self.version is None:
            raise EngineError("the servers have no weights of this run: call load_weights first")
        self._require_server()  # the last one can be lost after the previous rollout
        if params.temperature not in (0.0, 1.0):
            for server, facts in zip(self.servers, self.facts, strict=True):
                if facts.logprobs != "processed_logprobs":
                    raise EngineError(f"{server.name}: {RAW}")
        require_fitting(prompts, params.max_tokens, self.context)
        seeds = [server_seed(f"{params.seed}/{name}") for name in numbered_names(prompts)]
        rollout = _Rollout(self, prompts, seeds, self.policy.with_ends(params))
        groups = rollout.run(report)
        for server in self.servers:  # another client may have replaced the weights meanwhile
            self._require_version(server)
        return groups

    def ask(self, server: Server, prompt: Prompt, params: SamplingParams, seed: int) -> list[Completion]:
        """One prompt's completions from one server."""
        body = request_body(server.model, prompt, params, seed)
        answer = server.post("/v1/completions", body, server.timeout_s, prompt.problem_id)
        if answer.get("weight_version", server.version) != server.version:
            raise EngineError(_other_weights(server, answer["weight_version"]))
        assert self.version is not None, "checked before"
        return completions_of(answer, server.name, params, self.tokenizer, self.version)

    def _require_server(self) -> None:
        if all(server.is_lost for server in self.servers):
            raise EngineError(NO_SERVER)

    def _require_version(self, server: Server) -> None:
        """Raise `EngineError` if the server got other weights during the rollout."""
        if server.is_lost:
            return
        try:
            now = server.claim(self.folder)
        except ServerLost as error:
            self._lose(server, error)
            return
        if now != server.version:
            raise EngineError(_other_weights(server, now))


def check_loaded(name: str, facts: Facts, written: Handover, before: str, answers: Sequence[dict[str, Any]]) -> None:
    """Raise `EngineError` unless every worker of a server read and holds the weights that were written.

    A server that holds a checkpoint's weights must hold these very bits. vLLM fuses and shards them, so its own bits
    must have changed if the matrices did; `before` is the name of its weights until now.
    """
    swallowed = f"{name} did not take the weights of this step: "
    if not answers or any(answer.get("read") != written.checksum for answer in answers):
        raise EngineError(
            f"{swallowed}it read others than were written to {written.folder}: is that one folder for both?"
        )
    if facts.holds_checkpoint:
        if any(answer.get("held") != written.checksum for answer in answers):
            raise EngineError(f"{swallowed}its model has other weights afterwards")
    elif all(answer.get("held") == answer.get("before") for answer in answers):
        same = before == START or before.rpartition("-")[2] == written.matrices[:12]
        if not same:
            raise EngineError(f"{swallowed}its model still has the old weights")


def _other_weights(server: Server, version: Any) -> str:
    return (
        f"{server.name} has weights {version!r:.80} and was given {server.version!r}: it was restarted, or another "
        "client replaced them; give each run servers of its own, and run the same command again"
    )


class _Rollout:
    """The prompts of one `generate` call, each of which a thread sends to a server with a free place.

    Three queues connect the threads: prompts that wait, places at servers (`concurrency` of each), and answers.
    """

    def __init__(
        self, pool: ServerPool, prompts: Sequence[Prompt], seeds: Sequence[int], params: SamplingParams
    ) -> None:
        self.pool, self.prompts, self.seeds, self.params = pool, prompts, seeds, params
        alive = [server for server in pool.servers if not server.is_lost]
        self.places: queue.SimpleQueue[Server | None] = queue.SimpleQueue()  # None: no server is left
        for server in chain.from_iterable(repeat(alive, pool.concurrency)):  # in turn, so all begin at once
            self.places.put(server)
        self.waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(prompts)):
            self.waiting.put(index)
        self.answers: queue.SimpleQueue[tuple[int, list[Completion] | BaseException]] = queue.SimpleQueue()
        self.width = min(len(prompts), len(alive) * pool.concurrency)
        self.ended = False

    def run(self, report: Report | None) -> list[list[Completion]]:
        groups: list[list[Completion]] = [[] for _ in self.prompts]
        for _ in range(self.width):  # daemons: after a failure or Ctrl+C, nothing waits for answers in flight
            threading.Thread(target=self._work, daemon=True).start()
        total = len(self.prompts) * self.params.n
        try:
            for done in range(1, len(self.prompts) + 1):
                index, answer = self.answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                groups[index] = answer
                if report:
                    report(done * self.params.n, total)
        finally:
            self.ended = True
        return groups

    def _work(self) -> None:
        while not self.ended:
            try:
                index = self.waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self.answers.put((index, self._answer(index)))
            except BaseException as error:
                self.answers.put((index, error))

    def _answer(self, index: int) -> list[Completion]:
        """The completions of a prompt, from the first server that gives them."""
        while True:
            server = self.places.get()
            if server is None:
                self.places.put(None)  # for the other threads
                raise EngineError(NO_SERVER)
            if server.is_lost:
                continue
            try:
                completions = self.pool.ask(server, self.prompts[index], self.params, self.seeds[index])
            except ServerLost as error:
                self.pool._lose(server, error)
                if all(each.is_lost for each in self.pool.servers):
                    self.places.put(None)
                continue
            except BaseException:
                self.places.put(server)
                raise
            self.places.put(server)
            return completions
