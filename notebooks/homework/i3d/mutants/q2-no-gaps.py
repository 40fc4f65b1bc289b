def frames_seen(layers, unit, length):
    """All frames from the first to the last one."""
    first = last = unit
    for kernel, stride, dilation in layers[::-1]:
        wide = kernel // 2 * dilation
        first, last = first * stride - wide, last * stride + wide
    return list(range(max(first, 0), min(last, length - 1) + 1))
