"""What the training scripts are built of."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    scripts = ("train_autoencoder", "train_unet", "train_transformer", "judge_samples")
    for name in ("_training", "_training_data", *scripts):
        sys.modules.pop(name, None)


def named(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array([*pairs, *[(-1, -1)] * (5 - len(pairs))], np.int8)


def test_every_word_of_a_caption_is_one_token():
    from _training_data import PROMPT_TOKENS, build_tokenizer, prompt_of

    tokenizer = build_tokenizer()
    prompt = prompt_of(named((0, 0), (3, 4), (8, 6), (6, 1), (2, 5)))
    assert prompt == "red sphere and green torus and grey pyramid and purple box and yellow capsule"
    assert len(tokenizer.tokenize(prompt)) == len(prompt.split()) == PROMPT_TOKENS - 2
    assert prompt_of(named((0, 0), (3, 4)), colours=False) == "sphere and torus"
    assert prompt_of(named()) == ""


def test_scenes_are_rendered_once(tmp_path, monkeypatch):
    import _training_data

    monkeypatch.setattr(_training_data, "_SHARD", 4)
    monkeypatch.setattr(_training_data, "SIZE", 16)
    first = _training_data.training_scenes(tmp_path, 6, seed=0)
    files = sorted(tmp_path.rglob("*.npz"))
    times = [file.stat().st_mtime_ns for file in files]
    again = _training_data.training_scenes(tmp_path, 6, seed=0)
    assert [file.stat().st_mtime_ns for file in files] == times
    assert len(files) == 2
    assert first.images.shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(first.images, again.images)
    whole = _training_data.render_shard("pretraining", 0, 0, 6, _training_data._MIXTURE)
    np.testing.assert_array_equal(first.named, whole.named)


def test_interrupted_training_ends_where_unbroken_training_does(tmp_path):
    from _training import Schedule, Trainer, generator_of

    def run(folder: Path, interrupt: int | None = None) -> torch.Tensor:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        module = nn.Linear(3, 1)
        trainer = Trainer("line", folder, {"line": module}, Schedule(steps=8, peak=1e-2), batch=4, device="cpu")

        def loss_of(step: int) -> torch.Tensor:
            if step == interrupt:
                raise KeyboardInterrupt
            inputs = torch.randn(4, 3, generator=generator_of(0, step))
            return (module(inputs) - inputs.sum(1, keepdim=True)).pow(2).mean()

        trainer.run(loss_of, save_every=3)
        return module.weight.detach()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", interrupt=5)
    torch.testing.assert_close(run(tmp_path / "broken"), run(tmp_path / "unbroken"), rtol=0, atol=0)


def test_losses_are_written(tmp_path):
    from _training import Schedule, Trainer

    module = nn.Linear(2, 1)
    trainer = Trainer("line", tmp_path, {"line": module}, Schedule(steps=4, peak=1e-3), batch=8, device="cpu")
    trainer.run(lambda step: module(torch.ones(8, 2)).pow(2).mean(), lambda: 0.25, validate_every=4, note_every=2)
    header, first, last = (tmp_path / "line-loss.csv").read_text().splitlines()
    assert header == "step,images,processor_s,rate,loss,validation_loss"
    assert first.startswith("2,16,")
    assert last.startswith("4,32,")
    assert last.endswith(",0.25000")


def test_rate_rises_stays_and_falls():
    from _training import Schedule

    schedule = Schedule(steps=1_000, peak=2.0, warm_up=100, cool_down=0.5)
    assert schedule.rate(0) == pytest.approx(0.02)
    assert schedule.rate(300) == 2.0
    assert schedule.rate(750) == pytest.approx(1.0)
    assert schedule.rate(999) == pytest.approx(0.004)


def test_standard_latents_change_no_picture():
    import train_autoencoder

    vae = train_autoencoder.build(seed=0).eval()
    images = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), np.uint8)
    with torch.no_grad():
        pictures = train_autoencoder.as_input(images)
        before = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
        spread = vae.encode(pictures).latent_dist
        train_autoencoder.standardise(vae, images)
        after = vae.encode(pictures).latent_dist
        torch.testing.assert_close(vae.decode(after.mode()).sample, before, atol=1e-4, rtol=1e-3)
        assert after.mean.mean((0, 2, 3)).abs().max() < 1e-3
        assert (after.mean.std((0, 2, 3)) - 1).abs().max() < 1e-3
        ratio = after.std / spread.std
        torch.testing.assert_close(ratio, ratio[:1, :, :1, :1].expand_as(ratio), atol=1e-3, rtol=1e-3)


def test_one_zero_token_stands_for_many(tmp_path):
    import train_autoencoder
    import train_transformer

    train_autoencoder.build(seed=0).save_pretrained(tmp_path / "vae")
    pipeline = train_transformer.build_pipeline(tmp_path, seed=0)
    transformer = pipeline.transformer
    for parameter in transformer.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    noisy, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([100.0, 900.0])
    embedded, zero, pooled = torch.randn(2, 16, 128), torch.zeros(2, 1, 128), torch.randn(2, 128)
    with torch.no_grad():
        many = torch.cat([embedded, zero.expand(2, 50, 128)], 1)
        expected = transformer(noisy, many, pooled, timesteps).sample
        processor = train_transformer.OneForMany()
        processor.stand_for(50, "cpu")
        transformer.set_attn_processor(processor)
        shortened = transformer(noisy, torch.cat([embedded, zero], 1), pooled, timesteps).sample
    torch.testing.assert_close(shortened, expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 0.01


def test_pipelines_load_as_they_are(tmp_path):
    import train_autoencoder
    import train_transformer
    import train_unet
    from diffusers import DiffusionPipeline

    train_autoencoder.build(seed=0).save_pretrained(tmp_path / "vae")
    for name, module in (("unet", train_unet), ("transformer", train_transformer)):
        module.build_pipeline(tmp_path, seed=0).to(dtype=torch.float16).save_pretrained(tmp_path / name)
        pipeline = DiffusionPipeline.from_pretrained(tmp_path / name, dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(["red box", ""], num_inference_steps=1, output_type="np").images
        assert images.shape == (2, 64, 64, 3)
    embedded = pipeline.encode_prompt("red box", None, None)[0]
    assert embedded.shape == (1, 16 + 256, 128)
    assert embedded[:, 16:].abs().max() == 0  # the T5 says nothing


def test_four_resolutions_and_enough_blocks(tmp_path):
    import train_autoencoder
    import train_transformer
    import train_unet

    train_autoencoder.build(seed=0).save_pretrained(tmp_path / "vae")
    assert len(train_unet.build_pipeline(tmp_path, 0).unet.config.block_out_channels) == 4
    assert len(train_transformer.build_pipeline(tmp_path, 0).transformer.transformer_blocks) >= 8


def test_samples_are_judged_by_what_their_pixels_show():
    import judge_samples

    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    labels[0, :4, :4], labels[1, :3, :3] = 1, 2  # 16 pixels of a sphere, 9 of a box
    found = judge_samples.kinds_of(labels)
    assert found[0].tolist() == [True] + [False] * 6
    assert not found[1].any()  # too few
    labels[1, 32:, :], labels[1, :8, :10] = 3, 4
    assert judge_samples.kinds_of(labels)[1].tolist() == [False, False, True] + [False] * 4  # a crumb beside it
    truth = torch.arange(8).repeat_interleave(8)
    assert judge_samples.mean_overlap(truth, truth) == 1.0
    wrong = torch.where(truth == 7, 0, truth)
    assert judge_samples.mean_overlap(wrong, truth) == pytest.approx((6 + 0.5 + 0) / 8)
    logits = judge_samples.Segmenter()(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 8, 64, 64)
