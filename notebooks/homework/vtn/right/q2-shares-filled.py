def banded(q, k, v, frames, window, step):
    """Row after row of shares into zeros, then one product with the values."""
    b, head, n, d = q.shape
    shares = torch.zeros(b, head, n, n)
    for i, real in enumerate(frames):
        mask = band_mask(real, window, step)
        for token in range(1 + real):
            seen = mask[token].nonzero().flatten()
            products = k[i, :, seen] @ q[i, :, token, :, None] / d**0.5
            shares[i, :, token, seen] = products[..., 0].softmax(-1)
    return shares @ v
