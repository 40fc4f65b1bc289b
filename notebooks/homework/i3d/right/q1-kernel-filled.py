def inflated(weight, bias, frames, clip, stride=(1, 1)):
    """Slice by slice into a kernel of zeros; the ends by hand."""
    o, i, k, _ = weight.shape
    kernel = torch.zeros(o, i, frames, k, k)
    for slice_ in range(frames):
        kernel[:, :, slice_] = weight / frames
    first = [clip[:, :, :1]] * (frames // 2)
    last = [clip[:, :, -1:]] * (frames // 2)
    longer = torch.cat([*first, clip, *last], dim=2)
    layer = torch.nn.Conv3d(
        i, o, (frames, k, k), (stride[0], stride[1], stride[1]), (0, k // 2, k // 2)
    )
    with torch.no_grad():
        layer.weight.copy_(kernel)
        layer.bias.copy_(bias)
    return layer(longer)
