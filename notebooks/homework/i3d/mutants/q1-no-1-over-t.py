def inflated(weight, bias, frames, clip, stride=(1, 1)):
    """The slices are not divided."""
    kernel = weight[:, :, None].repeat(1, 1, frames, 1, 1)
    k = weight.shape[-1] // 2
    clip = F.pad(clip, (0, 0, 0, 0, frames // 2, frames // 2), mode="replicate")
    return F.conv3d(
        clip, kernel, bias, (stride[0], stride[1], stride[1]), (0, k, k)
    )
