"""Mismatched and collapsed: the trained policy is not the one that samples or is measured, or it fell apart."""

from __future__ import annotations

from collections.abc import Mapping

from r1kit.report.curve_svg import readable_number
from r1kit.report.health.course import best_and_last, from_to, percent
from r1kit.report.health.policy_checks import on_policy_gap
from r1kit.report.health.signals import Signals, Verdict

PROMPT = ("template", "system", "plain", "prefill", "options")  # of the chat settings; a template's date may differ


def sampler_differs(signals: Signals) -> Verdict | None:
    """On-policy, sampler and trainer compute the same log-probs."""
    gap, entropy = signals["sampler/logprob_gap_mean"], signals["policy/entropy"]
    if signals.stage.settings.get("staleness"):  # the sampler is an update behind, and that is corrected
        return None
    if not gap or not entropy or gap.last <= (limit := on_policy_gap(entropy)):
        return None
    return Verdict(
        name="mismatched",
        evidence=(
            f"log-probs of sampler and trainer differ by {readable_number(gap.last)} per token in the last quarter, by "
            f"{readable_number(gap.start)} at the first step",
            f"the limit is {readable_number(limit)}, with an entropy of {readable_number(entropy.last)} nats per token",
        ),
        remedy="check that every update reaches the sampler (adapters too), and use one precision and one temperature "
        "for both; r1kit's own engine samples with the trainer's tensors",
    )


def end_is_not_learned(signals: Signals) -> Verdict | None:
    """Completions go on after their answer, or no sample's last token is trained on."""
    cut, unstopped = signals["completion/truncated"], signals.unstopped
    evidence = []
    if not signals.end_is_trained:
        evidence.append("no sample in mask.json is trained on its last token")
    if unstopped > 0.5 and (cut is None or cut.last > 0.5):
        evidence += [f"{percent(unstopped)} of the completions that were cut off had finished their answer before"]
        evidence += [f"{percent(cut.last)} of completions are cut off"] if cut else []
    remedy = "the end token in training, in generation_config.json and in the tokenizer must be one: see mask.json"
    return Verdict(name="mismatched", evidence=tuple(evidence), remedy=remedy) if evidence else None


def prompts_differ(signals: Signals) -> Verdict | None:
    """An evaluation of the stage's model asks with another prompt than the stage trained on."""
    for evaluation in signals.evaluations:
        ours, theirs = (stage.settings.get("chat") for stage in (signals.stage, evaluation))
        if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
            continue
        names = [name for name in PROMPT if name in ours and name in theirs and ours[name] != theirs[name]]
        if names:
            evidence = [
                f"{name}: {ours[name]!r:.60} in training, {theirs[name]!r:.60} in {evaluation.name}" for name in names
            ]
            remedy = "evaluate with the prompt format of training: leave the evaluation's chat settings out"
            return Verdict(name="mismatched", evidence=tuple(evidence), remedy=remedy)
    return None


def not_finite(signals: Signals) -> Verdict | None:
    broken = signals.metrics.not_finite()
    if not broken:
        return None
    evidence = f"a value is not finite in {len(broken)} of {signals.steps} steps, first in step {broken[0]}"
    return collapse(evidence)


def fell_apart(signals: Signals) -> Verdict | None:
    """Without a rise of the reward, a third of the right answers is lost; or all groups fail in the same way."""
    if signals.is_rewarded:
        return None
    symptoms = degenerate(signals)
    for name, score in (("held-out", signals["probe/accuracy"]), ("training", signals.accuracy)):
        if score and score.fell(1 / 3) and score.fall > 0.05:
            return collapse(f"{name} accuracy {best_and_last(score, is_share=True)}", *symptoms[:2])
    zero = signals.zero_variance
    if not zero or zero.last <= 0.8 or signals.is_solved or not symptoms:
        return None
    equal = f"equal rewards in {percent(zero.last)} of groups, {percent(zero.start)} at the first step"
    return collapse(*symptoms[:2], equal)


def degenerate(signals: Signals) -> list[str]:
    """Signs that completions are noise or repeat themselves, compared with the first step."""
    signs = []
    cut, entropy, repeated = map(signals.__getitem__, ("completion/truncated", "policy/entropy", "hack/repetition"))
    if cut and cut.last > 0.8 and cut.start < 0.5:
        signs.append(f"{percent(cut.last)} of completions are cut off, {percent(cut.start)} at the first step")
    if entropy and not 0.1 * entropy.start <= entropy.last <= 1.5 * entropy.start:
        values = map(readable_number, (entropy.start, entropy.last))
        signs.append("entropy {} nats per token at the first step, {} in the last quarter".format(*values))
    if repeated and repeated.last > 0.5 and repeated.start < 0.3:
        signs.append(
            f"{percent(repeated.last)} of word trigrams are repeated, {percent(repeated.start)} at the first step"
        )
    return signs


def loss_rose(signals: Signals) -> Verdict | None:
    """Training on given rows or under a teacher must lower the loss, and on held-out rows not end above its start."""
    names = {"distill/divergence": "divergence from the teacher", "validation/loss": "held-out loss"}
    if not signals.reward:  # a policy gradient's loss says nothing
        names["optim/loss"] = "training loss"
    for metric, name in names.items():
        loss = signals[metric]
        if loss and loss.rose and loss.last > 1.05 * loss.start:
            return collapse(f"{name} {from_to(loss)}")
    return None


def collapse(*evidence: str) -> Verdict:
    remedy = (
        "lower the learning rate (a tenth, with warm-up) and continue from a checkpoint before the fall; in RL a KL "
    )
    return Verdict(name="collapsed", evidence=evidence, remedy=remedy + "term (algorithm=paper) helps too")
