"""Node results, to the pixel. The numbers are those of torch: they were compared with it once (see the docstrings)."""

from __future__ import annotations

import pytest

from comfyui.simulator.nodes.spec import Output
from tests.unit.simulator.rasters import CLASSES, mask, picture, pixels, run, values

R, G, B, W, K = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def test_empty_image_has_its_color_and_batch():
    image = run("EmptyImage", width=3, height=2, batch_size=4, color=0x10203F)
    assert image.shape == (4, 2, 3, 3)
    assert pixels(image, 3) == [[(0x10, 0x20, 0x3F)] * 3] * 2


@pytest.mark.parametrize("value", range(0, 256, 5))
def test_every_color_survives_the_way_through_floats(value):
    assert pixels(run("EmptyImage", width=1, height=1, batch_size=1, color=value)) == [[(0, 0, value)]]


def test_invert_cuts_off_as_float32_does():
    """1 - 65/255 times 255 is just below 190 in float32, and ComfyUI does not round."""
    assert pixels(run("ImageInvert", image=picture([K, W, (65, 64, 1)]))) == [[W, K, (189, 191, 254)]]


def test_nearest_scaling_takes_the_pixel_under_the_centre():
    checks = picture([R, G], [B, W])
    doubled = run(
        "ImageScale", image=checks, upscale_method="nearest-exact", width=4, height=4, crop="disabled"
    )
    assert pixels(doubled) == [[R, R, G, G], [R, R, G, G], [B, B, W, W], [B, B, W, W]]
    narrowed = run(
        "ImageScale",
        image=picture([R, G, B]),
        upscale_method="nearest-exact",
        width=1,
        height=1,
        crop="disabled",
    )
    assert pixels(narrowed) == [[G]]


def test_area_scaling_averages_whole_pixels():
    """As torch's adaptive pooling: 3 pixels to 2 averages the first two and the last two."""
    scaled = run(
        "ImageScale", image=picture([K, W, W]), upscale_method="area", width=2, height=1, crop="disabled"
    )
    assert pixels(scaled) == [[(127, 127, 127), W]]


def test_bilinear_shrinking_does_not_average():
    scaled = run(
        "ImageScale",
        image=picture([K, K, W, K, K]),
        upscale_method="bilinear",
        width=1,
        height=1,
        crop="disabled",
    )
    assert pixels(scaled) == [[W]]


@pytest.mark.parametrize(
    ("width", "height", "size"), [(4, 0, (4, 2)), (0, 4, (8, 4)), (0, 0, (2, 1)), (5, 3, (5, 3))]
)
def test_a_zero_side_keeps_the_ratio(width, height, size):
    scaled = run(
        "ImageScale",
        image=picture([R, G]),
        upscale_method="lanczos",
        width=width,
        height=height,
        crop="disabled",
    )
    assert scaled.size == size


def test_center_crop_keeps_the_middle():
    wide = picture([K, R, G, K])
    assert pixels(run("ImageScale", image=wide, upscale_method="area", width=2, height=1, crop="center")) == [
        [R, G]
    ]


def test_scale_by_and_total_pixels_and_max_dimension():
    image = run("EmptyImage", width=100, height=50, batch_size=1, color=0)
    assert run("ImageScaleBy", image=image, upscale_method="area", scale_by=0.5).size == (50, 25)
    assert run("ImageScaleToMaxDimension", image=image, upscale_method="area", largest_size=20).size == (
        20,
        10,
    )
    assert run("ImageScaleToTotalPixels", image=image, upscale_method="area", megapixels=0.01).size == (
        145,
        72,
    )


def test_crop_stays_inside():
    image = picture([R, G, B], [K, W, K])
    assert pixels(run("ImageCrop", image=image, width=2, height=1, x=1, y=1)) == [[W, K]]
    assert pixels(run("ImageCrop", image=image, width=9, height=9, x=7, y=7)) == [[K]]


def test_rotation_is_clockwise():
    image = picture([R, G], [B, W])
    assert pixels(run("ImageRotate", image=image, rotation="90 degrees")) == [[B, R], [W, G]]
    assert pixels(run("ImageRotate", image=image, rotation="180 degrees")) == [[W, B], [G, R]]
    assert pixels(run("ImageRotate", image=image, rotation="none")) == [[R, G], [B, W]]


def test_flips():
    image = picture([R, G], [B, W])
    assert pixels(run("ImageFlip", image=image, flip_method="x-axis: vertically")) == [[B, W], [R, G]]
    assert pixels(run("ImageFlip", image=image, flip_method="y-axis: horizontally")) == [[G, R], [W, B]]


def test_batches_are_joined_repeated_and_parted():
    red, green = picture([R, R]), picture([G])
    both = run("ImageBatch", image1=red, image2=green)
    assert [pixels(both, at) for at in (0, 1)] == [[[R, R]], [[G, G]]]
    assert run("RepeatImageBatch", image=both, amount=3).shape[0] == 6
    assert pixels(run("ImageFromBatch", image=both, batch_index=1, length=5)) == [[G, G]]
    parts = run("RebatchImages", images=[both, both], batch_size=[3])
    assert [part.shape[0] for part in parts] == [3, 1]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("normal", 100), ("multiply", 78), ("screen", 221), ("difference", 100), ("overlay", 187)],
)
def test_blend_modes(mode, expected):
    low, high = picture([(200, 200, 200)]), picture([(100, 100, 100)])
    (pixel,) = pixels(run("ImageBlend", image1=low, image2=high, blend_factor=1.0, blend_mode=mode))[0]
    assert abs(pixel[0] - expected) <= 1


def test_unknown_blend_mode_fails_while_running():
    with pytest.raises(ValueError, match="zzz"):
        run("ImageBlend", image1=picture([R]), image2=picture([R]), blend_factor=1.0, blend_mode="zzz")


def test_blur_spreads_evenly_and_keeps_the_sum():
    dot = picture(*[[W if (x, y) == (3, 3) else K for x in range(7)] for y in range(7)])
    blurred = pixels(run("ImageBlur", image=dot, blur_radius=1, sigma=1.0))
    assert blurred[3][3] > blurred[3][2] == blurred[2][3] > blurred[2][2] > K
    assert blurred[0][0] == K


def test_blur_refuses_a_radius_as_large_as_the_picture():
    with pytest.raises(RuntimeError, match=r"padding \(31, 31\) at dimension 3 of input \[1, 3, 1, 2\]"):
        run("ImageBlur", image=picture([R, R]), blur_radius=31, sigma=1.0)


def test_sharpen_leaves_an_even_picture_alone():
    grey = run("EmptyImage", width=8, height=8, batch_size=1, color=0x808080)
    assert pixels(run("ImageSharpen", image=grey, sharpen_radius=1, sigma=1.0, alpha=1.0)) == pixels(grey)


def test_quantize_reduces_the_colors():
    image = picture([(0, 0, 0), (10, 10, 10), (250, 250, 250), (255, 255, 255)])
    reduced = pixels(run("ImageQuantize", image=image, colors=2, dither="none"))
    assert len(set(reduced[0])) == 2


def test_noise_is_the_same_for_the_same_seed():
    grey = run("EmptyImage", width=8, height=8, batch_size=1, color=0x808080)
    first, again, other = (
        pixels(run("ImageAddNoise", image=grey, seed=seed, strength=0.5)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_composite_puts_the_source_through_its_mask():
    ground = picture([K, K, K])
    assert pixels(
        run("ImageCompositeMasked", destination=ground, source=picture([W, W]), x=2, y=0, resize_source=False)
    ) == [[K, K, W]]
    half = run(
        "ImageCompositeMasked",
        destination=ground,
        source=picture([W, W]),
        x=0,
        y=0,
        resize_source=False,
        mask=mask([1.0, 0.5]),
    )
    assert pixels(half) == [[W, (127, 127, 127), K]]


def test_stitch_puts_a_band_between():
    stitched = run(
        "ImageStitch",
        image1=picture([R]),
        image2=picture([G]),
        direction="right",
        match_image_size=True,
        spacing_width=2,
        spacing_color="blue",
    )
    assert pixels(stitched) == [[R, B, B, G]]


def test_stitch_centres_pictures_of_other_sizes():
    stitched = run(
        "ImageStitch",
        image1=picture([R], [R], [R]),
        image2=picture([G]),
        direction="left",
        match_image_size=False,
        spacing_width=0,
        spacing_color="white",
    )
    assert pixels(stitched) == [[W, R], [G, R], [W, R]]


def test_padding_for_outpainting_is_grey_and_selected():
    image, selected = CLASSES["ImagePadForOutpaint"].run(
        image=picture([R]), left=0, top=0, right=1, bottom=0, feathering=0
    )
    assert pixels(image) == [[R, (127, 127, 127)]]
    assert values(selected) == [[0.0, 1.0]]


def test_alpha_is_the_inverse_of_the_mask():
    joined = run("JoinImageWithAlpha", image=picture([R, R]), alpha=mask([1.0, 0.0]))
    assert pixels(joined) == [[(255, 0, 0, 0), (255, 0, 0, 255)]]
    colors, alpha = CLASSES["SplitImageWithAlpha"].run(image=joined)
    assert pixels(colors) == [[R, R]]
    assert values(alpha) == [[1.0, 0.0]]


def test_masks_from_and_to_pictures():
    assert values(run("ImageToMask", image=picture([R, G]), channel="red")) == [[1.0, 0.0]]
    assert pixels(run("MaskToImage", mask=mask([1.0, 0.5]))) == [[W, (127, 127, 127)]]
    assert values(run("ImageColorToMask", image=picture([R, G, (255, 0, 1)]), color=0xFF0000)) == [
        [1.0, 0.0, 0.0]
    ]


def test_simple_mask_nodes():
    assert values(run("SolidMask", value=0.25, width=2, height=1)) == [[0.25, 0.25]]
    assert values(run("InvertMask", mask=mask([1.0, 0.25]))) == [[0.0, 0.75]]
    assert values(run("CropMask", mask=mask([0.0, 0.5, 1.0]), x=1, y=0, width=5, height=5)) == [[0.5, 1.0]]
    assert values(run("ThresholdMask", mask=mask([0.4, 0.5, 0.6]), value=0.5)) == [[0.0, 0.0, 1.0]]
    assert values(run("FeatherMask", mask=mask([1.0] * 4), left=2, top=0, right=0, bottom=0)) == [
        [0.5, 1.0, 1.0, 1.0]
    ]


def test_growing_and_shrinking_a_mask():
    dot = mask([0.0] * 3, [0.0, 1.0, 0.0], [0.0] * 3)
    assert values(run("GrowMask", mask=dot, expand=1, tapered_corners=True)) == [
        [0, 1, 0],
        [1, 1, 1],
        [0, 1, 0],
    ]
    assert values(run("GrowMask", mask=dot, expand=1, tapered_corners=False)) == [[1, 1, 1]] * 3
    assert values(run("GrowMask", mask=dot, expand=-1, tapered_corners=True)) == [[0, 0, 0]] * 3


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("multiply", [0.0, 0.25, 1.0]),
        ("add", [1.0, 1.0, 1.0]),
        ("subtract", [0.0, 0.0, 0.0]),
        ("and", [0.0, 1.0, 1.0]),
        ("or", [1.0, 1.0, 1.0]),
        ("xor", [1.0, 0.0, 0.0]),
    ],
)
def test_mask_composite(operation, expected):
    low, high = mask([0.0, 0.5, 1.0]), mask([1.0, 0.5, 1.0])
    assert values(run("MaskComposite", destination=low, source=high, x=0, y=0, operation=operation)) == [
        expected
    ]


def test_texts():
    assert run("StringConcatenate", string_a="a", string_b="b", delimiter="-") == "a-b"
    assert run("StringSubstring", string="abcdef", start=1, end=3) == "bc"
    assert run("CaseConverter", string="aB c", mode="Title Case") == "Ab C"
    assert run("StringTrim", string=" a ", mode="Left") == "a "
    assert run("StringReplace", string="aba", find="a", replace="c") == "cbc"
    assert run("StringContains", string="Abc", substring="aB", case_sensitive=False) is True
    assert run("StringCompare", string_a="abc", string_b="c", mode="Ends With", case_sensitive=True) is True
    assert run("RegexReplace", string="a1b2", regex_pattern=r"\d", replace="#", count=1) == "a#b2"


@pytest.mark.parametrize(
    ("source", "text"),
    [("x", "x"), (3, "3"), (2.5, "2.5"), (None, "None"), (True, "True"), ([1, "a"], '[1, "a"]')],
)
def test_preview_any_shows_text(source, text):
    assert CLASSES["PreviewAny"].run(source=source) == Output(ui={"text": [text]})


def test_a_raster_prints_like_a_tensor():
    assert str(picture([(0, 1, 46)])) == "tensor([[[[0.0000, 0.0039, 0.1804]]]])"
    assert str(mask([0.0, 1.0])) == "tensor([[[0., 1.]]])"
    large = str(run("EmptyImage", width=64, height=64, batch_size=1, color=0))
    assert large.startswith(
        "tensor([[[[0., 0., 0.],\n          [0., 0., 0.],\n          [0., 0., 0.],\n          ...,\n"
    )
