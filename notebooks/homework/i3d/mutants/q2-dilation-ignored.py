def frames_seen(layers, unit, length):
    """Units that are read lie side by side."""
    first = last = unit
    for kernel, stride, _ in layers[::-1]:
        first, last = first * stride - kernel // 2, last * stride + kernel // 2
    return list(range(max(first, 0), min(last, length - 1) + 1))
