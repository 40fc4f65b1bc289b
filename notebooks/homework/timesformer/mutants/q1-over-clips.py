def space_first(space, time, x):
    """The clips of a batch are one row."""
    b, h = x.shape[0], x.shape[2]
    rows = space(rearrange(x, "b t h w d -> t (b h w) d"))
    x = x + rearrange(rows, "t (b h w) d -> b t h w d", b=b, h=h)
    rows = time(rearrange(x, "b t h w d -> (h w) (b t) d"))
    return x + rearrange(rows, "(h w) (b t) d -> b t h w d", b=b, h=h)
