def banded(q, k, v, frames, window, step):
    """Shares are set to zero after the softmax."""
    found = torch.zeros_like(v)
    for i, n in enumerate(frames):
        a, b, c = (part[i, :, : n + 1] for part in (q, k, v))
        weights = (a @ b.transpose(1, 2) / a.shape[-1] ** 0.5).softmax(-1)
        found[i, :, : n + 1] = weights * band_mask(n, window, step) @ c
    return found
