"""Losses that use the rewards of responses, by the options of `longpo train`.

A pair has the reward gap g = chosen_reward - rejected_reward >= 0, in the unit of the data set's rewards. d is the
argument of LLaMA-Factory's loss: the difference of both responses' log-probabilities, minus that of the reference
model where there is one.

- Weight (`--pair-weight gap`): the preference loss of a pair is multiplied by g / G, where G is the mean gap of the
  training pairs, so that the mean weight is 1. The terms of supervised learning (`pref_ftx`, ORPO's) have no weight.
- Margin (`--pair-margin SCALE`): beta d becomes beta d - SCALE g, so sigmoid DPO's loss is
  -log sigmoid(beta d - SCALE g). This is DPO with an offset (ODPO, Amini et al., arXiv 2402.10571) of alpha f(g), with
  alpha = SCALE and the identity as f. In SimPO (arXiv 2405.14734), SCALE g is added to the constant margin gamma.
- Listwise (`--pref-loss listwise`): Plackett-Luce over all responses of a prompt, ranked by reward (Rafailov et al.,
  arXiv 2305.18290, appendix A.3). With s_i = beta log(pi(y_i | x) / pi_ref(y_i | x)) the loss of a prompt is
  sum over i of -log(exp(s_i) / (exp(s_i) + sum of exp(s_j) over all j with a lower reward)).
  Responses with the same reward are not compared with each other. With two responses this is sigmoid DPO's loss. The
  reward of a response that is in several pairs is the mean of its rewards there.
"""

from typing import TYPE_CHECKING

import torch

from lf_longpo.errors import UserError
from lf_longpo.plugin.train.options import TrainOptions
from lf_longpo.plugin.train.pair_collator import REWARDS

if TYPE_CHECKING:
    from datasets import Dataset


def listwise_losses(scores: torch.Tensor, rewards: torch.Tensor, prompts: torch.Tensor, number: int) -> torch.Tensor:
    """The Plackett-Luce loss of each prompt, see the module.

    Args:
        scores: (R,) of each response: beta times its log-ratio to the reference model.
        rewards: (R,).
        prompts: (R,) number of the prompt of each response.
        number: of prompts, N.

    Returns:
        (N,).
    """
    lower = (prompts[:, None] == prompts[None]) & (rewards[:, None] > rewards[None])
    rivals = lower | torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    terms = scores[None].masked_fill(~rivals, -torch.inf).logsumexp(1) - scores
    return scores.new_zeros(number).index_add(0, prompts, terms)


def response_means(values: torch.Tensor, sides: torch.Tensor, number: int) -> torch.Tensor:
    """The mean of the values of each response over the sides that it is on.

    Args:
        values: (2P,) of each side.
        sides: (2P,) the response of each side.
        number: of responses, R.

    Returns:
        (R,).
    """
    sums = values.new_zeros(number).index_add(0, sides, values)
    return sums / torch.bincount(sides, minlength=number)


def mean_gap(pairs: "Dataset", options: TrainOptions) -> float:
    """The mean reward gap of the training pairs; 1 where no option needs rewards.

    Args:
        pairs: LLaMA-Factory's tokenised pairs.
        options: of `longpo train`.

    Raises:
        UserError: the pairs have no rewards, or no gap.
    """
    if not options.needs_rewards:
        return 1.0
    if missing := [column for column in REWARDS if column not in pairs.column_names]:
        raise UserError(
            f"the tokenised data set has no {' and no '.join(missing)}, which {options.of_pairs} needs; tokenise it "
            "again with longpo train and this option, into a new tokenized_path"
        )
    chosen, rejected = (sum(pairs[column]) for column in REWARDS)
    if chosen <= rejected:
        raise UserError(f"all pairs have equal rewards; remove {options.of_pairs}, or use pairs that differ")
    return (chosen - rejected) / len(pairs)
