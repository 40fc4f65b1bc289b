def costs(dim, out, width, kernel, size, stride=(1, 1)):
    """Counted as if there were no strides."""
    (t, h, w), (frames, rows, columns) = kernel, size
    places = frames * rows * columns
    whole, first, second = (
        t * h * w * dim * out,
        h * w * dim * width,
        t * width * out,
    )
    return (
        whole,
        first + second + 2 * width,
        whole * places,
        (first + second) * places,
    )
