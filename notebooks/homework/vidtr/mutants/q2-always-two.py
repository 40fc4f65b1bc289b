def pool_time(x, q, k, v, keep):
    """Two frames stay, whatever `keep` is."""
    shares = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
    best = shares.std(-1).mean((1, 2))[:, 1:].topk(2, dim=-1).indices
    stay = 1 + best.sort(dim=-1).values
    stay = torch.cat([torch.zeros_like(stay[:, :1]), stay], dim=1)
    x = x + rearrange(shares @ v, "b n head t d -> b t n (head d)")
    return stay, torch.stack([x[i, clip] for i, clip in enumerate(stay)])
