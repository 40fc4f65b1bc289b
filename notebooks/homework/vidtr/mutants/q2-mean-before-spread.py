def pool_time(x, q, k, v, keep):
    """The matrices are averaged before the deviation."""
    b = len(x)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    sigma = weights.mean((1, 2)).std(-1)
    frames = sigma[:, 1:].argsort(-1, descending=True)[:, :keep].sort(-1).values + 1
    rows = torch.cat([torch.zeros(b, 1).long(), frames], dim=1)
    clip = torch.arange(b)[:, None]
    mixed = rearrange(weights @ v, "b n head t d -> b t n (head d)")
    return rows, x[clip, rows] + mixed[clip, rows]
