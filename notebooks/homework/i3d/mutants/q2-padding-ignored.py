def frames_seen(layers, unit, length):
    """The first unit that is read has the number u * stride."""
    seen = {unit}
    for kernel, stride, dilation in layers[::-1]:
        seen = {u * stride + j * dilation for u in seen for j in range(kernel)}
    return sorted(u for u in seen if 0 <= u < length)
