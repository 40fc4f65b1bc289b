def space_first(space, time, x):
    """Time attention is given x, not what space attention made of it."""
    t, h, w = x.shape[1:4]
    rows = space(rearrange(x, "b t h w d -> (b t) (h w) d"))
    y = x + rearrange(rows, "(b t) (h w) d -> b t h w d", t=t, h=h)
    rows = time(rearrange(x, "b t h w d -> (b h w) t d"))
    return y + rearrange(rows, "(b h w) t d -> b t h w d", h=h, w=w)
