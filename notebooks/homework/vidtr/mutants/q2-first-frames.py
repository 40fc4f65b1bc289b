def pool_time(x, q, k, v, keep):
    """The first frames stay."""
    b = len(x)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    frames = torch.arange(1, keep + 1).expand(b, -1)
    rows = torch.cat([torch.zeros(b, 1).long(), frames], dim=1)
    clip = torch.arange(b)[:, None]
    mixed = rearrange(weights @ v, "b n head t d -> b t n (head d)")
    return rows, x[clip, rows] + mixed[clip, rows]
