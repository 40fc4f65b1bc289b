def three_kinds(qkv, along, over, full):
    """The root is that of the features of all heads of a kind."""
    b, t, h, w = qkv.shape[:4]
    kinds = (along, over, full)
    heads = rearrange(
        qkv, "b t h w (qkv n d) -> n qkv b t h w d", qkv=3, n=sum(kinds)
    )
    folds = ["(b h w) n t d", "(b t) n (h w) d", "b n (t h w) d"]
    result = []
    for part, fold in zip(heads.split(kinds), folds):
        q, k, v = rearrange(part, f"n qkv b t h w d -> qkv {fold}")
        weights = (q @ k.mT / (len(part) * q.shape[-1]) ** 0.5).softmax(-1)
        back = f"{fold} -> b t h w (n d)"
        result.append(rearrange(weights @ v, back, n=len(part), b=b, t=t, h=h, w=w))
    return torch.cat(result, dim=-1)
