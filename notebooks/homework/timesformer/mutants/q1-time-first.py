def space_first(space, time, x):
    """The order of the paper's block."""
    t, h, w = x.shape[1:4]
    rows = time(rearrange(x, "b t h w d -> (b h w) t d"))
    x = x + rearrange(rows, "(b h w) t d -> b t h w d", h=h, w=w)
    rows = space(rearrange(x, "b t h w d -> (b t) (h w) d"))
    return x + rearrange(rows, "(b t) (h w) d -> b t h w d", t=t, h=h)
