def costs(dim, out, width, kernel, size, stride=(1, 1)):
    """A bias for every channel that a convolution makes."""
    (t, h, w), (frames, rows, columns) = kernel, size
    fewer = -(-frames // stride[0])
    places = -(-rows // stride[1]) * -(-columns // stride[1])
    whole, first, second = (
        t * h * w * dim * out,
        h * w * dim * width,
        t * width * out,
    )
    macs = (first * frames + second * fewer) * places
    return (
        whole + out,
        first + second + 3 * width + out,
        whole * fewer * places,
        macs,
    )
