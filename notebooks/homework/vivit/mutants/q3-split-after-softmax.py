def three_kinds(qkv, along, over, full):
    """Softmax over the clip; what a head may not see is left out afterwards."""
    t, h, w = qkv.shape[1:4]
    n = along + over + full
    q, k, v = rearrange(qkv, "b t h w (qkv n d) -> qkv b n (t h w) d", qkv=3, n=n)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    token = torch.arange(t * h * w)
    step, place = token // (h * w), token % (h * w)
    weights[:, :along] *= place == place[:, None]
    weights[:, along : along + over] *= step == step[:, None]
    return rearrange(weights @ v, "b n (t h w) d -> b t h w (n d)", t=t, h=h)
