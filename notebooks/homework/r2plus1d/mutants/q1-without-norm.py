def middle_width(dim, out, kernel):
    """The formula of the paper, where norms do not count."""
    t, h, w = kernel
    return t * h * w * dim * out // (h * w * dim + t * out)
