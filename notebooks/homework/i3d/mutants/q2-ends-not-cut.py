def frames_seen(layers, unit, length):
    """Frames before and after the clip are seen."""
    seen = {unit}
    for kernel, stride, dilation in layers[::-1]:
        places = range(-(kernel // 2), kernel // 2 + 1)
        seen = {u * stride + j * dilation for u in seen for j in places}
    return sorted(seen)
