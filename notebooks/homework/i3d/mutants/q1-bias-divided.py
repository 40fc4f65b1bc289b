def inflated(weight, bias, frames, clip, stride=(1, 1)):
    """The bias is divided by the number of slices, too."""
    kernel = weight[:, :, None].repeat(1, 1, frames, 1, 1) / frames
    k = weight.shape[-1] // 2
    clip = F.pad(clip, (0, 0, 0, 0, frames // 2, frames // 2), mode="replicate")
    steps = (stride[0], stride[1], stride[1])
    return F.conv3d(clip, kernel, bias / frames, steps, (0, k, k))
