def middle_width(dim, out, kernel):
    """Kernels are taken for square ones."""
    t, d, _ = kernel
    return t * d * d * dim * out // (d * d * dim + t * out + 2)
