"""The merge methods once more, in NumPy float64, written from the formulas and sharing no code.

Each takes the experts' task vectors as an array of shape (n, *shape) and returns the update. Loops are
meant to be obvious, not fast.
"""

import numpy as np


def task_arithmetic(deltas, scale="mean", lam=1.0, weights=None):
    n = len(deltas)
    weights = np.ones(n) if weights is None else np.asarray(weights, float)
    total = sum(w * d for w, d in zip(weights, deltas, strict=True))
    return lam * total / (weights.sum() if scale == "mean" else 1.0)


def trim(delta, density):
    flat = delta.ravel()
    k = max(1, int(density * flat.size))
    if density >= 1:
        return delta.copy()
    order = sorted(range(flat.size), key=lambda i: (-abs(flat[i]), i))
    kept = np.zeros_like(flat)
    kept[order[:k]] = flat[order[:k]]
    return kept.reshape(delta.shape)


def elect(weighted, weights, divisor="agreeing", lam=1.0):
    """TIES' election and average of weighted task vectors."""
    update = np.zeros(weighted[0].size)
    for place in range(update.size):
        entries = [t.ravel()[place] for t in weighted]
        sign = 1.0 if sum(entries) >= 0 else -1.0
        agreeing = [(e, w) for e, w in zip(entries, weights, strict=True) if e * sign > 0]
        if agreeing:
            bottom = {"agreeing": sum(w for _, w in agreeing), "n": sum(weights), "sum": 1.0}
            update[place] = lam * sum(e for e, _ in agreeing) / bottom[divisor]
    return update.reshape(weighted[0].shape)


def ties(deltas, density=0.1, divisor="agreeing", lam=1.0, weights=None):
    weights = [1.0] * len(deltas) if weights is None else weights
    weighted = [w * trim(d, density) for w, d in zip(weights, deltas, strict=True)]
    return elect(weighted, weights, divisor, lam)


def crumbs(delta, density, gamma, rescale):
    """Breadcrumbs of one task vector: ranks T to T + k - 1 by magnitude."""
    flat = delta.ravel()
    k = int(density * flat.size)
    first = min(int(gamma * flat.size), flat.size - k) if density < 1 else 0
    order = sorted(range(flat.size), key=lambda i: (-abs(flat[i]), i))[first : first + k]
    kept = np.zeros_like(flat)
    kept[order] = flat[order]
    if rescale == "l1" and abs(kept).sum() >= 1e-7:
        kept *= abs(flat).sum() / abs(kept).sum()
    return kept.reshape(delta.shape)


def breadcrumbs(deltas, density=0.15, gamma=0.01, rescale="none", **options):
    return task_arithmetic([crumbs(d, density, gamma, rescale) for d in deltas], **options)


def breadcrumbs_ties(deltas, density=0.15, gamma=0.01, rescale="none", weights=None, **options):
    weights = [1.0] * len(deltas) if weights is None else weights
    kept = [w * crumbs(d, density, gamma, rescale) for w, d in zip(weights, deltas, strict=True)]
    return elect(kept, weights, **options)


def multislerp(deltas):
    lengths = [np.linalg.norm(d) for d in deltas]
    mean = sum(d / length for d, length in zip(deltas, lengths, strict=True) if length)
    return np.mean(lengths) * mean / np.linalg.norm(mean)


def sce(deltas, select_topk=0.1, select="update", weight_floor=0.0, lam=1.0):
    deltas = np.asarray(deltas)
    chosen = np.ones(deltas[0].size, bool)
    if select_topk < 1:
        spread = [
            float(np.float32(np.var(entries))) for entries in deltas.reshape(len(deltas), -1).T
        ]
        k = int(np.count_nonzero(spread) * select_topk)
        chosen[sorted(range(len(spread)), key=lambda i: (-spread[i], i))[k:]] = False
    masked = deltas * chosen.reshape(deltas[0].shape)
    energy = np.array([np.mean(d**2) for d in masked])
    equal = energy.sum() == 0 or energy.sum() < weight_floor
    weights = np.full(len(deltas), 1 / len(deltas)) if equal else energy / energy.sum()
    used = masked if select == "update" else deltas
    update = np.zeros(deltas[0].shape)
    for place in np.ndindex(update.shape):
        entries = used[(slice(None), *place)]
        agree = entries > 0 if entries.sum() >= 0 else entries < 0
        if agree.any():
            update[place] = lam * (weights * entries)[agree].sum() / weights[agree].sum()
    return update


def model_stock_t(deltas, floor=0.0):
    n = len(deltas)
    cosines = []
    for i in range(n):
        for j in range(i + 1, n):
            a, b = deltas[i].ravel(), deltas[j].ravel()
            norms = max(np.linalg.norm(a) * np.linalg.norm(b), floor)
            cosines.append(np.clip(a @ b / norms, -1, 1) if norms > 0 else 0.0)
    c = np.mean(cosines)
    return n * c / (1 + (n - 1) * c)


def model_stock(deltas):
    return model_stock_t(deltas) * np.mean(deltas, axis=0)


def rank_tolerance(sigma, shape, eps):
    return max(shape) * eps * sigma[0]


def iso_c(deltas, lam=1.0, drop_eps=None):
    u, s, vt = np.linalg.svd(np.sum(deltas, axis=0), full_matrices=False)
    flat = np.full_like(s, s.mean())
    if drop_eps is not None:
        flat[s <= rank_tolerance(s, deltas[0].shape, drop_eps)] = 0
    return lam * (u * flat) @ vt


def iso_cts(deltas, common=0.8, lam=1.0, drop_eps=None):
    n, s = len(deltas), min(deltas[0].shape)
    own = min(round((s - int(s * common)) / n), s // n)
    u, sigma, vt = np.linalg.svd(np.sum(deltas, axis=0), full_matrices=False)
    keep = np.arange(s) < s - n * own
    if drop_eps is not None:
        keep &= sigma > rank_tolerance(sigma, deltas[0].shape, drop_eps)
    shared = u[:, keep]
    us, sigmas, vs = [shared], [sigma[keep]], [vt[keep].T]
    for delta in deltas:
        u, sigma, vt = np.linalg.svd(delta - shared @ shared.T @ delta, full_matrices=False)
        keep = np.arange(s) < own
        if drop_eps is not None:
            keep &= sigma > max(delta.shape) * drop_eps * np.linalg.norm(delta)
        us.append(u[:, keep])
        sigmas.append(sigma[keep])
        vs.append(vt[keep].T)
    length = lam * np.concatenate(sigmas).sum() / s
    return length * polar(np.hstack(us), drop_eps) @ polar(np.hstack(vs), drop_eps).T


def tsv_m(deltas, lam=1.0, drop_eps=None):
    n, s_min = len(deltas), min(deltas[0].shape)
    k = s_min // n
    us, ss, vs = [], [], []
    for delta in deltas:
        u, s, vt = np.linalg.svd(delta, full_matrices=False)
        keep = np.arange(len(s)) < k
        if drop_eps is not None:
            keep &= s > rank_tolerance(s, delta.shape, drop_eps)
        us.append(u[:, keep])
        ss.append(s[keep])
        vs.append(vt[keep].T)
    u, s, v = np.hstack(us), np.concatenate(ss), np.hstack(vs)
    return lam * polar(u, drop_eps) @ np.diag(s) @ polar(v, drop_eps).T


def wudi(deltas, lam=1.0):
    """Least squares by an SVD: M D_i^T / |D_i| = D_i D_i^T / |D_i| for every expert that moved."""
    moved = [d / np.linalg.norm(d) for d in deltas if d.any()]
    targets = [
        np.linalg.norm(d) * u @ u.T for d, u in zip(filter(np.any, deltas), moved, strict=True)
    ]
    found = np.linalg.lstsq(np.vstack(moved), np.hstack(targets).T, rcond=1e-5)[0]
    return lam * found.T


def consensus(deltas, merged, update, mask_lambda, k):
    flat = [d.ravel() for d in deltas]
    kept = np.zeros(update.size)
    for place, value in enumerate(update.ravel()):
        rest = [merged.ravel()[place] - d[place] for d in flat]
        wanted = [abs(d[place]) > mask_lambda * abs(r) for d, r in zip(flat, rest, strict=True)]
        kept[place] = value if sum(wanted) >= k else 0.0
    return kept.reshape(update.shape)


def consensus_ta(deltas, mask_lambda=0.4, k=2, scale="mean", lam=1.0):
    update = task_arithmetic(deltas, scale, lam)
    return consensus(deltas, np.sum(deltas, axis=0), update, mask_lambda, k)


def consensus_ties(deltas, *, density=0.2, mask_lambda=0.4, k=2, divisor="agreeing", lam=1.0):
    update = ties(deltas, density, divisor, lam)
    return consensus(deltas, ties(deltas, density, "sum"), update, mask_lambda, k)


def calibrate(update, deltas, alpha=None):
    n = len(deltas)
    alpha = 1 / n if alpha is None else alpha
    u, sigma, vt = np.linalg.svd(update, full_matrices=False)
    calibrated = np.zeros_like(update)
    for r in range(len(sigma)):
        counted = 0.0
        for delta in deltas:
            answer = u[:, r] @ delta
            none = np.linalg.norm(answer) <= 1e-10 * np.linalg.norm(delta)
            counted += max(alpha, 0.0 if none else sigma[r] * vt[r] @ answer / (answer @ answer))
        calibrated += n / counted * sigma[r] * np.outer(u[:, r], vt[r])
    return calibrated


def polar(x, drop_eps=None):
    """The polar factor; with drop_eps, of the range of x alone, by the pseudo-inverse square root."""
    if drop_eps is None:
        u, _, vt = np.linalg.svd(x, full_matrices=False)
        return u @ vt
    values, vectors = np.linalg.eigh(x.T @ x)
    top = np.sqrt(values.clip(0).max())
    kept = np.sqrt(values.clip(0)) > rank_tolerance(np.array([top]), x.shape, drop_eps)
    inverse_root = (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T
    return x @ inverse_root


def boost(update, beta, drop_eps=None):
    u, s, vt = np.linalg.svd(update, full_matrices=False)
    if s.sum() == 0:
        return update
    reached = np.cumsum(s) / s.sum() >= beta
    floor = s[int(np.argmax(reached))] if reached.any() else s[-1]
    raised = np.maximum(s, floor)
    if drop_eps is not None:
        raised[s <= rank_tolerance(s, update.shape, drop_eps)] = 0
    return (u * raised) @ vt
