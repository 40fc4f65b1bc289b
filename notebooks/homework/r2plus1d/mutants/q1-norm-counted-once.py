def middle_width(dim, out, kernel):
    """A scale is counted and no shift."""
    t, h, w = kernel
    return t * h * w * dim * out // (h * w * dim + t * out + 1)
