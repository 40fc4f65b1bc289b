def frames_seen(layers, unit, length):
    """The layers are walked through from the clip upwards."""
    seen = {unit}
    for kernel, stride, dilation in layers:
        places = range(-(kernel // 2), kernel // 2 + 1)
        seen = {u * stride + j * dilation for u in seen for j in places}
    return sorted(u for u in seen if 0 <= u < length)
