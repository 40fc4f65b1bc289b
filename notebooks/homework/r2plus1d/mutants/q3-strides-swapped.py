def costs(dim, out, width, kernel, size, stride=(1, 1)):
    """The stride of time in space, and the other way round."""
    (t, h, w), (frames, rows, columns) = kernel, size
    places = -(-rows // stride[0]) * -(-columns // stride[0])
    fewer = -(-frames // stride[1])
    one = t * h * w * dim * out
    over_space, over_time = h * w * dim * width, t * width * out
    adds = over_space * frames * places + over_time * fewer * places
    return one, over_space + over_time + 2 * width, one * fewer * places, adds
