def costs(dim, out, width, kernel, size, stride=(1, 1)):
    """The norm's parameters are left out."""
    (t, h, w), (frames, rows, columns) = kernel, size
    fewer = -(-frames // stride[0])
    places = -(-rows // stride[1]) * -(-columns // stride[1])
    whole, first, second = (
        t * h * w * dim * out,
        h * w * dim * width,
        t * width * out,
    )
    macs = (first * frames + second * fewer) * places
    return whole, first + second, whole * fewer * places, macs
