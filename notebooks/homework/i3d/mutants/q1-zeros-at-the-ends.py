def inflated(weight, bias, frames, clip, stride=(1, 1)):
    """Zeros before and after the clip."""
    kernel, k = (
        weight[:, :, None].repeat(1, 1, frames, 1, 1) / frames,
        weight.shape[-1] // 2,
    )
    padding = (frames // 2, k, k)
    return F.conv3d(clip, kernel, bias, (stride[0], stride[1], stride[1]), padding)
