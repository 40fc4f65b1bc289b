def inflated(weight, bias, frames, clip, stride=(1, 1)):
    """The image kernel in the middle, zeros else: right for a still clip."""
    kernel = torch.zeros(*weight.shape[:2], frames, *weight.shape[2:]).to(weight)
    kernel[:, :, frames // 2] = weight
    k = weight.shape[-1] // 2
    clip = F.pad(clip, (0, 0, 0, 0, frames // 2, frames // 2), mode="replicate")
    return F.conv3d(
        clip, kernel, bias, (stride[0], stride[1], stride[1]), (0, k, k)
    )
