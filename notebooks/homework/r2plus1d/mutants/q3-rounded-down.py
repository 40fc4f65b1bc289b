def costs(dim, out, width, kernel, size, stride=(1, 1)):
    """Lengths are divided by the strides and rounded down."""
    (t, h, w), (frames, rows, columns) = kernel, size
    fewer, places = (
        frames // stride[0],
        (rows // stride[1]) * (columns // stride[1]),
    )
    whole, first, second = (
        t * h * w * dim * out,
        h * w * dim * width,
        t * width * out,
    )
    macs = (first * frames + second * fewer) * places
    return whole, first + second + 2 * width, whole * fewer * places, macs
