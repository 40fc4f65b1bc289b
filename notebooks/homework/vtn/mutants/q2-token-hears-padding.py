def banded(q, k, v, frames, window, step):
    """Frames do not take from padding, the class token does."""
    hidden = ~band_mask(q.shape[2] - 1, window, step).repeat(len(q), 1, 1, 1)
    for i, n in enumerate(frames):
        hidden[i, :, 1:, n + 1 :] = True
    weights = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    found = weights.masked_fill(hidden, -torch.inf).softmax(-1) @ v
    for i, n in enumerate(frames):
        found[i, :, n + 1 :] = 0
    return found
