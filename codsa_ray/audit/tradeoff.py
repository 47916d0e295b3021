"""CoDSA's trade-off of a plan in three terms: variance of the fit, bias of the generator, mismatch to the target mix; fits nothing.

CoDSA (Tian & Shen 2025) bounds the excess risk of m synthetic rows shared out as alpha by an estimation error that falls with m, a
generation error weighted by alpha, and the distance of the training mix from the target. The bound's constants are not known, so each
term is defined here by what it costs in the units of the loss (nats, or squared units), to first order, and estimated from rows.
"""

import numpy as np
from scipy.special import log_softmax, logsumexp


def mismatch(weight: np.ndarray, mix: np.ndarray) -> float:
    """KL(mix || weight / sum of weight) in nats: the most that a model trained at these weights, and not corrected, can lose by them.

    By the chain rule the label's part of it, what log loss feels, is no more than the whole where rows within groups are as they should
    be. The exact offset takes it off again where a group is known when predicting. Infinite where a group of the mix has no weight.

    Args:
        weight: (G,) all training weight of each group, real and synthetic. mix: (G,) target mix.
    """
    held = mix > 0
    share = weight[held] / weight.sum()
    if np.any(share <= 0):
        return float("inf")
    return float(max(0.0, np.sum(mix[held] * np.log(mix[held] / share))))


def fit_variance(scores: np.ndarray, task: str) -> np.ndarray:
    """(n,) what one fit loses, at each row, against the average of many: the variance of the fit.

    Log loss: with p* the normalised geometric mean of the fits, mean loss - loss of p* = mean KL(p* || p_b) = -log sum_y exp(mean_b
    log p_b(y)) whatever the truth is (Heskes 1998). Squared error: the variance of the predictions. B fits show (B - 1) / B of it (exact
    for squared error, to second order for log loss), which is made up for.

    Args:
        scores: (B, n, C) log-probabilities, (B, n) log-odds of anomaly, or (B, n) predictions, of B >= 2 fits.
        task: classification, anomaly or regression.
    """
    if task == "regression":
        return np.asarray(scores.var(axis=0, ddof=1))
    if scores.ndim == 2:
        scores = np.stack([np.zeros_like(scores), scores], axis=2)
    pooled = logsumexp(log_softmax(scores, axis=2).mean(axis=0), axis=1)
    return np.asarray(np.maximum(-pooled, 0.0) * len(scores) / (len(scores) - 1))


def magnitude(shift: np.ndarray, se: np.ndarray) -> np.ndarray:
    """sqrt(max(shift^2 - se^2, 0)): the size of a difference with the noise part of its square taken off; NaN stays."""
    return np.asarray(np.sqrt(np.maximum(np.square(shift) - np.square(se), 0.0)))


def generation_bias(synthetic: np.ndarray, weight: np.ndarray, mix: np.ndarray, sizes: np.ndarray) -> float:
    """sum_g mix_g (share of group g's training weight that is synthetic) |loss on synthetic - loss on held-out rows of g|.

    To first order how far the synthetic rows move the balanced training loss from what real rows would give, at the model that real rows
    alone train. A group without an estimate counts 0.

    Args:
        synthetic: (G,) synthetic training weight. weight: (G,) all training weight. mix: (G,) target mix.
        sizes: (G,) `magnitude` of the loss differences.
    """
    share = np.divide(synthetic, weight, out=np.zeros(len(mix)), where=weight > 0)
    return float(np.sum(mix * share * np.nan_to_num(sizes)))
