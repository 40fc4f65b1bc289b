def banded(q, k, v, frames, window, step):
    """One frame to each side, whatever the window."""
    found = torch.zeros_like(v)
    for i, n in enumerate(frames):
        a, b, c = (part[i, :, : n + 1] for part in (q, k, v))
        weights = a @ b.transpose(1, 2) / q.shape[-1] ** 0.5
        weights = weights.masked_fill(~band_mask(n, 2, step), -torch.inf)
        found[i, :, : n + 1] = weights.softmax(-1) @ c
    return found
