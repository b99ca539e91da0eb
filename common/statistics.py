"""The statistics of accuracies: intervals of a share, two judgements of the same images, labels that cannot be right."""
import collections
import math

import numpy as np

NORMAL_975 = 1.959964  # 97.5 % quantile of the normal distribution, for two-sided 95 % intervals
# Judged classes below which nothing is said of the labels: a poor net may take a few classes each for one other as a whole, the
# more so as neighbours in ImageNet's order are alike.
ENOUGH_CLASSES = 5
MLPERF = 0.99  # part of the float model's Top-1 that MLPerf Inference asks of a quantised one


def accuracy_of(ranks, tops):
    """Top-k accuracies in percent, {"top1": ...}, of the ranks of the labels."""
    return {"top%d" % top: 100.0 * int(np.count_nonzero(ranks < top)) / len(ranks) for top in tops}


def interval(hits, total):
    """Wilson's 95 % interval of a share, in percent: (z^2/2n + p +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    share, square = hits / total, NORMAL_975 ** 2 / total
    half = NORMAL_975 * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return [min(100.0, max(0.0, 100 * (share + square / 2 + sign * half) / (1 + square))) for sign in (-1, 1)]


def gate_figure(gate):
    """The percentage that a gate measured, as a text: two digits, or more where those two would contradict the verdict."""
    short = "%.2f" % gate["measured"]
    return short if (float(short) >= gate["limit"]) == gate["passes"] else "%.15g" % gate["measured"]


def mcnemar(first, second):
    """McNemar's exact two-sided p: twice the binomial tail of the smaller count, in whole numbers."""
    term, tail, total = 1, 0, first + second
    for count in range(min(first, second) + 1):
        tail += term
        term = term * (total - count) // (count + 1)
    return min(1.0, 2 * tail / 2 ** total)


def compare_pairs(hits, before):
    """How many images went from right to wrong and back (boolean arrays), and what that says of the points lost.

    The interval is Agresti and Min's adjusted Wald (Statistics in Medicine 24, 2005, 729-740): 1/2 added to each cell. It may
    reach beyond the 100 points that there are to lose, and is cut there.
    """
    images, lost, won = len(hits), int(np.count_nonzero(before & ~hits)), int(np.count_nonzero(hits & ~before))
    more_lost, more_won, total = lost + 0.5, won + 0.5, images + 2
    middle = (more_lost - more_won) / total
    half = NORMAL_975 * math.sqrt(more_lost + more_won - (more_lost - more_won) ** 2 / total) / total
    return {"accuracy": 100.0 * int(np.count_nonzero(hits)) / images, "baseline": 100.0 * int(np.count_nonzero(before)) / images,
            "lost": 100.0 * (lost - won) / images, "right_to_wrong": lost, "wrong_to_right": won, "mcnemar_p": mcnemar(lost, won),
            "difference_interval95": [max(-100.0, 100 * (middle - half)), min(100.0, 100 * (middle + half))]}


def mlperf(accuracy, baseline):
    """MLPerf's verdict on two Top-1 accuracies in percent; where the baseline's is 0 there is nothing to lose."""
    return {"ratio": accuracy / baseline if baseline else 1.0, "limit": MLPERF, "passes": accuracy >= MLPERF * baseline}


def doubt(truth, best, classes):
    """What speaks for labels that count otherwise, where Top-1 is no better than chance, or None; of two arrays of classes."""
    total, chance = len(truth), 100 / classes
    lowest, highest = interval(np.count_nonzero(best == truth), total)
    if lowest > chance or len(np.unique(truth)) < min(ENOUGH_CLASSES, classes):
        return None
    for step, what in ((-1, "count from 1, not from 0"), (1, "are one too low, or the model counts a background class first")):
        shifted = np.count_nonzero(best == truth + step)
        if interval(shifted, total)[0] > highest and 100 * shifted / total >= min(5 * chance, 50):
            return "Top-1 is at chance, but %.2f%% with %+d to each class: the labels %s" % (100 * shifted / total, step, what)
    pairs = collections.Counter(zip(truth.tolist(), best.tolist()))
    of_truth, of_best = collections.Counter(), collections.Counter()  # the most images of a class that have one guess, and back
    for (label, guess), count in pairs.items():
        of_truth[label], of_best[guess] = max(of_truth[label], count), max(of_best[guess], count)
    matches = {guess: count for (label, guess), count in pairs.items() if count == of_truth[label] == of_best[guess]}
    matched = sum(matches.values())  # a guess once: a net that always says the same is no order
    if total >= 5 * len(of_truth) and 2 * matched >= total and interval(matched, total)[0] > highest:
        return ("Top-1 is at chance, but up to %.2f%% if each class had another number: the labels are in another order than the "
                "net's, such as the development kit's own, which tools/make_val_label.py puts right" % (100 * matched / total))
    return None
