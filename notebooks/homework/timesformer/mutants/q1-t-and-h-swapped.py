def space_first(space, time, x):
    """Height is taken for time."""
    t, h, w = x.shape[1:4]
    rows = space(rearrange(x, "b t h w d -> (b h) (t w) d"))
    x = x + rearrange(rows, "(b h) (t w) d -> b t h w d", t=t, h=h)
    rows = time(rearrange(x, "b t h w d -> (b t w) h d"))
    return x + rearrange(rows, "(b t w) h d -> b t h w d", t=t, w=w)
