def middle_width(dim, out, kernel):
    """The halves in the other order."""
    t, h, w = kernel
    return t * h * w * dim * out // (t * dim + h * w * out + 2)
