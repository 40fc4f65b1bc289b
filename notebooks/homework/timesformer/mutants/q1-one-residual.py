def space_first(space, time, x):
    """Nothing is added after time attention."""
    t, h, w = x.shape[1:4]
    rows = space(rearrange(x, "b t h w d -> (b t) (h w) d"))
    x = x + rearrange(rows, "(b t) (h w) d -> b t h w d", t=t, h=h)
    rows = time(rearrange(x, "b t h w d -> (b h w) t d"))
    return rearrange(rows, "(b h w) t d -> b t h w d", h=h, w=w)
