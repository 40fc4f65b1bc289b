def middle_width(dim, out, kernel):
    """The width is not rounded."""
    t, h, w = kernel
    return t * h * w * dim * out / (h * w * dim + t * out + 2)
