def banded(q, k, v, frames, window, step):
    """Padding is not seen, but answers."""
    hidden = ~band_mask(q.shape[2] - 1, window, step).repeat(len(q), 1, 1, 1)
    for i, n in enumerate(frames):
        hidden[i, :, :, n + 1 :] = True
    weights = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    return weights.masked_fill(hidden, -torch.inf).softmax(-1) @ v
