def frames_seen(layers, unit, length):
    """Neighbours are always one frame apart."""
    seen = {unit}
    for kernel, _, dilation in layers[::-1]:
        places = range(-(kernel // 2), kernel // 2 + 1)
        seen = {u + j * dilation for u in seen for j in places}
    return sorted(u for u in seen if 0 <= u < length)
