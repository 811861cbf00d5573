"""Many teachers into one: the rules that say how several teachers' answers become one loss.

A rule is a pure function, or a module that learns, marked by `combines`. It gives either one target made of all
teachers' logits, or the weights, (teachers,) or (teachers, rows), by which the losses against each teacher are added
up; weights add up to 1 over the teachers. Its arguments are bound by name:

targets      what each teacher sent, one tensor per teacher (rules that give a target)
shares       fixed shares (teachers,) that add up to 1, float64, from the config's `weights`
temperature  of the loss
teachers     their names
classes      per teacher, the data's classes that its logits stand for, in order
everyone     {name: classes} of all teachers of the loss; the others speak of those who were not dropped on the way
labels       (rows,) int64, -1 where absent
logits       of each teacher, (rows, classes that it knows), float32
dice         a numpy generator of this step, the same for all workers

A rule that gives weights without `logits` is decided before teachers are asked: who has no weight is not asked.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEEDS = ("logits", "labels")
ATTRIBUTE = "combination"
NEVER = -1e30
"""A log-weight that is 0 in any sum, and finite: -inf would make gradients NaN."""
Rule = TypeVar("Rule", bound=Callable[..., Any])


@dataclass(frozen=True)
class RuleMetadata:
    """What a rule says of itself.

    paper       authors, year and arXiv id
    gives       `target`: one target of all logits; `weights`: how the losses against each teacher are added up
    per_sample  whether its weights differ from sample to sample, which asks for a loss with `reduction`
    arguments   the names that it takes
    """

    paper: str
    gives: Literal["target", "weights"]
    per_sample: bool
    arguments: tuple[str, ...]

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(name for name in NEEDS if name in self.arguments)

    @property
    def needs_answers(self) -> bool:
        """Whether its weights come from the logits of the teachers; else they are known before anybody is asked."""
        return self.gives == "weights" and "logits" in self.arguments


@dataclass(frozen=True)
class LearnedWeights:
    """Weights of a rule that learns. `objective`: a value per row; its gradient, by the rule's own parameters, is all
    that it adds to a student's training."""

    weights: Tensor
    objective: Tensor


def combines(*, paper: str, gives: Literal["target", "weights"], per_sample: bool = False) -> Callable[[Rule], Rule]:
    """Marks an ensemble rule; the rule itself stays as it is."""

    def attach(rule: Rule) -> Rule:
        parameters = inspect.signature(getattr(rule, "forward", rule)).parameters
        arguments = tuple(name for name in parameters if name != "self")
        setattr(rule, ATTRIBUTE, RuleMetadata(paper, gives, per_sample, arguments))
        return rule

    return attach


def rule_metadata(rule: Callable[..., Any]) -> RuleMetadata | None:
    """The metadata of a rule, or None for one that was never marked."""
    metadata = getattr(rule, ATTRIBUTE, None)
    return metadata if isinstance(metadata, RuleMetadata) else None


@combines(paper="common practice", gives="weights")
def mean_losses(*, shares: Tensor) -> Tensor:
    """The mean of the losses against each teacher.

    sum_k share_k loss_k.
    """
    return shares


@combines(paper="Ba and Caruana, 2013, arXiv 1312.6184", gives="target")
def mean_logits(targets: Sequence[Tensor], *, shares: Tensor) -> Tensor:
    """The mean of the logits.

    z = sum_k share_k z_k. `targets`: (rows, classes) each.
    """
    return torch.einsum("k,k...->...", shares.to(targets[0].dtype), torch.stack(list(targets)))


@combines(paper="Hinton, Vinyals and Dean, 2015, arXiv 1503.02531", gives="target")
def mean_probabilities(targets: Sequence[Tensor], *, shares: Tensor, temperature: float = 1.0) -> Tensor:
    """The mean of the probabilities at the loss's temperature.

    As the pseudo-logits z = T * logsumexp_k(log_softmax(z_k / T) + log share_k). `targets`: (rows, classes) each.
    """
    log_probabilities = torch.stack([torch.log_softmax(target / temperature, dim=1) for target in targets])
    log_shares = shares.to(log_probabilities.dtype).log().view(-1, *[1] * targets[0].ndim)
    return temperature * torch.logsumexp(log_probabilities + log_shares, dim=0)


@combines(paper="Zhang, Chen and Wang, 2021, arXiv 2201.00007", gives="weights", per_sample=True)
def confidence(*, logits: Sequence[Tensor], labels: Tensor, classes: Sequence[Sequence[int]]) -> Tensor:
    """Who is nearer to a sample's label counts more there (Zhang, Chen and Wang, 2021, arXiv 2201.00007).

    CA-MKD: w_k = (1 - softmax_k(CE_k)) / (K - 1), CE_k being the cross entropy of teacher k with the label, K the
    number of teachers that know the label's class; who does not know it has no weight. Where no teacher knows it, or
    the sample has no label, all count the same. The published code divides by the number of teachers besides: a weight
    published for it is to be divided by that here.
    """
    costs = -_label_log_probabilities(logits, labels, classes)
    known = costs < torch.inf
    doubts = torch.softmax(torch.where(known, costs, -torch.inf), dim=0)
    weights = torch.where(known, 1 - doubts, 0)
    return _scaled(torch.where(known.sum(dim=0) == 1, known.to(costs.dtype), weights))


@combines(paper="Kwon et al., 2020, Adaptive knowledge distillation based on entropy", gives="weights", per_sample=True)
def entropy(*, logits: Sequence[Tensor]) -> Tensor:
    """Who is surer of a sample counts more there.

    EBKD (Kwon et al., 2020, ICASSP): w_k = (1 - H_k / sum_j H_j) / (K - 1), H_k being the entropy of teacher k's
    probabilities, in parts of the largest that its number of classes allows. Where all are sure, all count the same.
    The published code divides by the number of teachers besides: a weight published for it is to be divided by that
    here.
    """
    entropies = torch.stack([_relative_entropy(one) for one in logits])
    if len(entropies) == 1:
        return torch.ones_like(entropies)
    tiny = torch.finfo(entropies.dtype).tiny
    return _scaled(1 - entropies / entropies.sum(dim=0).clamp(min=tiny))


@combines(paper="Fukuda et al., 2017, Efficient knowledge distillation from an ensemble of teachers", gives="weights")
def random(*, shares: Tensor, dice: np.random.Generator) -> Tensor:
    """One teacher per step, drawn by the shares; the others are not asked.

    The same for all losses of a step that draw from as many with the same shares. Fukuda et al., 2017, Interspeech.
    """
    drawn = int(dice.choice(len(shares), p=shares.tolist()))
    return F.one_hot(torch.tensor(drawn), len(shares)).to(shares)


@combines(paper="Hinton, Vinyals and Dean, 2015, arXiv 1503.02531 (specialists)", gives="weights", per_sample=True)
def label_routing(
    *,
    shares: Tensor,
    labels: Tensor,
    teachers: Sequence[str],
    classes: Sequence[Sequence[int]],
    everyone: Mapping[str, Sequence[int]] | None = None,
    routes: Mapping[str, Sequence[int]] | None = None,
) -> Tensor:
    """A sample is taught by the specialists of its class, by their shares; others are not asked about it.

    `routes`: the data's classes of each teacher; left out, those of its class map. Samples without a label, and of a
    class that is nobody's, are taught by all. Where the specialists of a class were dropped, whoever knows it teaches
    it, else nobody does.

    Raises:
        ValueError: routes of a teacher that is not heard, or no routes where all know the same classes.
    """
    known = everyone or dict(zip(teachers, classes, strict=True))
    own = _specialities(known, routes)
    by_row = shares.to(labels.device).unsqueeze(1)
    raw = by_row * torch.stack([_among(labels, own[name]) for name in teachers])
    orphaned = _among(labels, [one for name in own if name not in teachers for one in own[name]])
    knowing = torch.stack([_among(labels, known[name]) for name in teachers])
    raw = torch.where(raw.sum(dim=0) > 0, raw, by_row * (knowing | ~orphaned))
    return raw / raw.sum(dim=0).clamp(min=torch.finfo(raw.dtype).tiny)


@combines(paper="Jacobs et al., 1991, Adaptive mixtures of local experts", gives="weights")
class learned(nn.Module):
    """One weight per teacher, trained by the labels.

    w = softmax(a), first at the shares. As the gate of a mixture of experts (Jacobs et al., 1991), a follows the
    likelihood of the labels under the mixture, -log sum_k w_k p_k(y), over the samples whose class two teachers at
    least know (of those who know it); the student's own loss does not move it, or it would settle on whom it is
    easiest to follow. It is trained by the student's optimiser, weight decay and clipping included.
    """

    def __init__(self, *, shares: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(shares.float().log())

    def forward(
        self,
        *,
        logits: Sequence[Tensor],
        labels: Tensor,
        classes: Sequence[Sequence[int]],
        teachers: Sequence[str] = (),
        everyone: Mapping[str, Sequence[int]] | None = None,
    ) -> LearnedWeights:
        right = _label_log_probabilities(logits, labels, classes)
        known = right > -torch.inf
        heard = slice(None) if everyone is None else [list(everyone).index(name) for name in teachers]
        log_weights = torch.log_softmax(self.scores[heard], dim=0)
        of_knowing = torch.where(known, log_weights.unsqueeze(1), NEVER)
        mixture = torch.logsumexp(of_knowing + torch.where(known, right, 0), dim=0) - of_knowing.logsumexp(dim=0)
        return LearnedWeights(log_weights.detach().exp(), -mixture)


def own_labels(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """The column of each row's label among `classes`, which are in order; -1 where it is not among them."""
    known = torch.tensor(list(classes), dtype=labels.dtype, device=labels.device)
    columns = torch.searchsorted(known, labels).clamp(max=len(known) - 1)
    return torch.where(known[columns] == labels, columns, -1)


def shares_of(teachers: Sequence[str], weights: Mapping[str, float] | None, where: str) -> Tensor:
    """Each teacher's share from fixed weights (missing ones 1), scaled to add up to 1. `where` is their config key.

    Raises:
        ValueError: they are no mapping of numbers above 0.
    """
    given = {} if weights is None else weights
    if not isinstance(given, Mapping) or not all(isinstance(weight, (int, float)) for weight in given.values()):
        raise ValueError(f"{where}: expected a number for each teacher's name, got {weights!r}")
    raw = torch.tensor([float(given.get(teacher, 1.0)) for teacher in teachers], dtype=torch.float64)
    if not bool(((raw > 0) & (raw < torch.inf)).all()):
        raise ValueError(
            f"{where}: expected weights above 0, got {raw.tolist()}; leave a teacher without weight out of `teachers`"
        )
    return raw / raw.sum() if len(raw) else raw


def _specialities(
    known: Mapping[str, Sequence[int]], routes: Mapping[str, Sequence[int]] | None
) -> Mapping[str, Sequence[int]]:
    """The classes of each teacher that it is asked about, of those that it knows."""
    if routes is None and len({tuple(sorted(classes)) for classes in known.values()}) == 1 < len(known):
        raise ValueError("routes: all teachers know the same classes; say who teaches which, {teacher: [classes]}")
    strangers = set(routes or ()) - set(known)
    if strangers:
        raise ValueError(f"routes: {sorted(strangers)[0]!r} is none of the teachers {', '.join(known)}; leave it out")
    own = known if routes is None else {name: routes.get(name, ()) for name in known}
    for name, wanted in own.items():
        if unknown := set(wanted) - set(known[name]):
            raise ValueError(f"routes: {name!r} does not know class {min(unknown)}; it knows {sorted(known[name])}")
    return own


def _among(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Whether each row's label is one of `classes`."""
    return torch.isin(labels, torch.tensor(list(classes), dtype=labels.dtype, device=labels.device))


def _label_log_probabilities(logits: Sequence[Tensor], labels: Tensor, classes: Sequence[Sequence[int]]) -> Tensor:
    """(teachers, rows): log of what each gives to a row's label, -inf where it does not know the class."""
    rows = []
    for own, known in zip(logits, classes, strict=True):
        columns = own_labels(labels, known)
        chosen = torch.log_softmax(own, dim=1).gather(1, columns.clamp(min=0).unsqueeze(1))[:, 0]
        rows.append(torch.where(columns >= 0, chosen, -torch.inf))
    return torch.stack(rows)


def _relative_entropy(logits: Tensor) -> Tensor:
    log_probabilities = torch.log_softmax(logits, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1) / np.log(max(2, logits.shape[1]))


def _scaled(raw: Tensor) -> Tensor:
    """(teachers, rows) weights that add up to 1 over the teachers; equal ones where all are 0."""
    totals = raw.sum(dim=0)
    return torch.where(totals > 0, raw / totals.clamp(min=torch.finfo(raw.dtype).tiny), 1 / len(raw))
