"""Metrics of ranked lists, and the baselines any recommender must beat.

Per household, with *hits* the recommended products it bought in the label weeks and *truth* all products it bought:
recall@k = hits / truth (not capped at k); NDCG@k with binary relevance and log2 discount (Järvelin & Kekäläinen, 2002);
novelty = mean of -log2(share of households that had bought the product) over the list (Zhou et al., 2010). Coverage is
the share of the catalogue that anybody is recommended.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bedplate.serve.state import Ids, groups
from bedplate.train.windows import Purchases

Lists = Mapping[int, Ids]
"""Household to its recommended products, best first."""
Values = npt.NDArray[np.float64]


def recall(lists: Lists, truth: Mapping[int, Ids], k: int) -> Values:
    """recall@k of every household of ``truth``, in its order."""
    return np.array([np.isin(lists[h][:k], t).sum() / len(t) for h, t in truth.items()])


def ndcg(lists: Lists, truth: Mapping[int, Ids], k: int) -> Values:
    """NDCG@k of every household of ``truth``, in its order."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)
    values = []
    for household, bought in truth.items():
        hit = np.isin(lists[household][:k], bought)
        values.append(discount[: len(hit)][hit].sum() / ideal[min(k, len(bought)) - 1])
    return np.array(values)


def novelty(lists: Lists, truth: Mapping[int, Ids], k: int, before: Purchases) -> Values:
    """Mean self-information in bits of every household's list; a product nobody had bought counts as bought once."""
    pairs = np.unique(np.stack([before.product, before.household], 1), axis=0)
    products, buyers = np.unique(pairs[:, 0], return_counts=True)
    total = len(np.unique(before.household))
    bits = -np.log2(buyers / total)
    values = []
    for household in truth:
        items = lists[household][:k]
        at = np.minimum(np.searchsorted(products, items), len(products) - 1)
        values.append(float(np.where(products[at] == items, bits[at], np.log2(total)).mean()) if len(items) else 0.0)
    return np.array(values)


def coverage(lists: Lists, truth: Mapping[int, Ids], k: int, before: Purchases) -> float:
    """Distinct recommended products as a share of all products sold before."""
    shown = np.unique(np.concatenate([lists[h][:k] for h in truth]))
    return len(shown) / len(np.unique(before.product))


# ----------------------------------------------------------------------------------------------------------- baselines


def popularity(before: Purchases, k: int) -> Ids:
    """The ``k`` products in most purchase lines, ties by id."""
    products, lines = np.unique(before.product, return_counts=True)
    return products[np.lexsort((products, -lines))][:k]


def baselines(
    before: Purchases, households: list[int], k: int, end: int, half_life_days: float = 60
) -> dict[str, Lists]:
    """The lists of each baseline for each household; ``end`` is the cut in microseconds since 1970.

    ``popularity``: the same products for all. ``last_basket``: what the latest basket held, in its order.
    ``own_most_bought``: the household's products by number of lines, ties by the latest purchase.
    ``own_recency_weighted``: the same with each line worth half after ``half_life_days``. The own lists are filled up
    with popular products when a household has bought fewer than ``k``.
    """
    popular = popularity(before, 2 * k)
    wanted = set(households)
    order = np.lexsort((before.time, before.household))
    owner, product, basket = before.household[order], before.product[order], before.basket[order]
    time = before.time[order]
    result: dict[str, dict[int, Ids]] = {
        name: {} for name in ("popularity", "last_basket", "own_most_bought", "own_recency_weighted")
    }
    for low, high in groups(owner):
        household = int(owner[low])
        if household not in wanted:
            continue
        mine, age = product[low:high], (end - time[low:high]) / 86_400e6
        items, member = np.unique(mine, return_inverse=True)
        lines = np.bincount(member)
        weight = np.bincount(member, weights=np.exp2(-age / half_life_days))
        latest = np.full(len(items), -1)
        np.maximum.at(latest, member, time[low:high])
        most = items[np.lexsort((items, -latest, -lines))]
        recent = items[np.lexsort((items, -weight))]
        basket_lines = mine[basket[low:high] == basket[high - 1]]
        _, first = np.unique(basket_lines, return_index=True)
        result["popularity"][household] = popular[:k]
        result["last_basket"][household] = basket_lines[np.sort(first)][:k]
        result["own_most_bought"][household] = filled(most, popular, k)
        result["own_recency_weighted"][household] = filled(recent, popular, k)
    return dict(result)


def filled(items: Ids, popular: Ids, k: int) -> Ids:
    """The first ``k`` of ``items``, then of ``popular`` without repeating one."""
    head = items[:k]
    return head if len(head) == k else np.concatenate([head, popular[~np.isin(popular, head)]])[:k]
