def costs(dim, out, width, kernel, size, stride=(1, 1)):
    """The half over space is counted on the frames that are left."""
    (t, h, w), (frames, rows, columns) = kernel, size
    places = (
        -(-frames // stride[0]) * -(-rows // stride[1]) * -(-columns // stride[1])
    )
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
