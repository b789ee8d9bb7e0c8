#!/usr/bin/env python3
"""Many kinds of networks as pairs to measure: NAME-fp32.mlpackage, NAME-fp16.mlpackage, NAME.onnx, NAME-io.npz with an input and torch's output.

    make_networks.py --list
    make_networks.py --out DIR [--only NAME ...] [--again]

A name is one of the list, or tv:NAME or timm:NAME[@SIDE] for any classifier of torchvision or timm (its file is called NAME). Weights are
random with a fixed seed; batch norms have seen random images. What is there already stays, unless --again; networks that a
converter refuses are named at the end. Needs torch, coremltools, onnx, torchvision and, for some, timm.
"""
import argparse
import pathlib
import sys
import time
import traceback
import warnings

warnings.filterwarnings("ignore")
import coremltools as ct
import numpy as np
import torch
from torch import nn

for op in ("nms", "qnms"):  # torchvision registers shapes for these; its C++ operators do not load beside some torch
    torch.library.define(f"torchvision::{op}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import networks as n
import networks_images as v


class Out(nn.Module):
    """The main result of a network that gives a dictionary (torchvision's segmenters)."""
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)["out"]


def tv(name, side=224, batch=1, **options):
    import torchvision.models as models
    return lambda: models.get_model(name, weights=None, **options), (batch, 3, side, side)


def segmenter(name, side):
    import torchvision.models as models
    return lambda: Out(models.get_model(name, weights=None, weights_backbone=None, aux_loss=None)), (1, 3, side, side)


def video(name):
    import torchvision.models as models
    return lambda: models.get_model(name, weights=None), (1, 3, 8, 64, 64)


def timm(name, side=224, **options):
    def make():
        import timm as t
        return t.create_model(name, pretrained=False, **options)
    return make, (1, 3, side, side)


def of(make, *shape, ids=0):
    """A network of the files beside this one; ids: the input is of tokens below this in place of floats."""
    return make, shape, ids


TABLE = {
    # torchvision
    **{name: tv(name) for name in """alexnet vgg11_bn resnet18 resnet34 resnext50_32x4d wide_resnet50_2 densenet121 googlenet mobilenet_v3_small mobilenet_v3_large
        mnasnet0_5 mnasnet1_0 shufflenet_v2_x0_5 shufflenet_v2_x1_0 squeezenet1_0 regnet_x_400mf regnet_y_400mf regnet_y_1_6gf efficientnet_b1 efficientnet_v2_s
        convnext_tiny swin_t swin_v2_t vit_b_32 maxvit_t""".split()},
    "inception_v3": tv("inception_v3", 299, init_weights=False, aux_logits=False),
    "resnet18_b4": tv("resnet18", 128, 4),
    "mobilenet_v2_b8": tv("mobilenet_v2", 96, 8),
    **{name: segmenter(name, side) for name, side in (("lraspp_mobilenet_v3_large", 256), ("deeplabv3_mobilenet_v3_large", 256), ("fcn_resnet50", 128), ("deeplabv3_resnet50", 128))},
    **{name: video(name) for name in ("r3d_18", "mc3_18", "r2plus1d_18")},
    # timm
    **{name: timm(name, side) for name, side in (
        ("ghostnet_100", 224), ("ghostnetv2_100", 224), ("mobilenetv4_conv_small", 224), ("mobilenetv4_hybrid_medium", 224), ("mobileone_s1", 224), ("fastvit_t8", 256), ("fastvit_sa12", 256), ("efficientformer_l1", 224),
        ("efficientformerv2_s0", 224), ("mobilevit_s", 256), ("mobilevitv2_050", 256), ("edgenext_xx_small", 256), ("efficientvit_b0", 224), ("efficientvit_m2", 224), ("repvit_m0_9", 224), ("levit_128s", 224),
        ("tiny_vit_5m_224", 224), ("starnet_s1", 224), ("poolformer_s12", 224), ("convnextv2_atto", 224), ("inception_next_atto", 224), ("davit_tiny", 224), ("pvt_v2_b0", 224), ("twins_svt_small", 224), ("coatnet_nano_rw_224", 224),
        ("crossvit_9_240", 240), ("deit3_small_patch16_224", 224), ("cait_xxs24_224", 224), ("xcit_nano_12_p16_224", 224), ("beit_base_patch16_224", 224), ("eva02_tiny_patch14_224", 224), ("gmlp_s16_224", 224), ("resmlp_12_224", 224),
        ("mixer_s32_224", 224), ("convmixer_768_32", 96), ("hrnet_w18_small", 224), ("res2net50_26w_4s", 160), ("dla34", 160), ("vovnet39a", 160), ("ese_vovnet19b_dw", 224), ("rexnet_100", 224), ("tinynet_a", 192), ("lcnet_100", 224),
        ("hardcorenas_a", 224), ("fbnetc_100", 224), ("spnasnet_100", 224), ("mixnet_s", 224), ("tf_efficientnet_lite0", 224), ("efficientnet_es", 224), ("gernet_s", 224), ("repvgg_a0", 224), ("resnest14d", 160), ("skresnet18", 160),
        ("seresnet18", 160), ("ecaresnet26t", 160), ("cspdarknet53", 160), ("darknet53", 160), ("nf_regnet_b0", 192), ("dm_nfnet_f0", 128), ("botnet26t_256", 256), ("halonet26t", 256), ("lambda_resnet26t", 256), ("visformer_tiny", 224),
        ("nextvit_small", 160), ("caformer_s18", 160), ("mambaout_femto", 224), ("hgnetv2_b0", 224), ("shvit_s1", 224), ("xception41", 160), ("selecsls42b", 160), ("swiftformer_xs", 224), ("vit_tiny_patch16_224", 224), ("focalnet_tiny_srf", 160),
        ("nest_tiny", 224), ("volo_d1_224", 224), ("tnt_s_patch16_224", 224), ("sequencer2d_s", 160), ("convit_tiny", 224), ("hiera_tiny_224", 224), ("sam2_hiera_tiny", 224), ("vit_small_patch14_dinov2", 224))},
    # detectors
    "yolov5n": of(lambda: v.Yolo(), 1, 3, 320, 320), "yolov8n": of(lambda: v.Yolo(v8=True), 1, 3, 320, 320), "yolov5s_256": of(lambda: v.Yolo(32), 1, 3, 256, 256),
    "ssd_mobilenet": of(v.Ssd, 1, 3, 300, 300), "ssd_small": of(lambda: v.Ssd(16), 1, 3, 192, 192), "retina_fpn": of(v.Fpn, 1, 3, 256, 256), "blazeface": of(v.BlazeFace, 1, 3, 128, 128),
    # images to images
    "unet_bn": of(v.Unet, 1, 3, 128, 128), "unet_linear": of(lambda: v.Unet(up="linear", w=24), 1, 3, 160, 160), "unet_gates": of(lambda: v.Unet(up="nearest", gates=True, w=16), 1, 1, 192, 192),
    "unet_1d": of(lambda: v.Unet(4, 3, 32, 4, "transposed", 1), 1, 4, 1024), "unet_3d": of(lambda: v.Unet(1, 2, 16, 3, "transposed", 3), 1, 1, 32, 48, 48),
    "espcn": of(v.espcn, 1, 1, 160, 160), "edsr": of(v.edsr, 1, 3, 96, 96), "rcan": of(lambda: v.edsr(48, 8, True), 1, 3, 80, 80), "fsrcnn": of(v.fsrcnn, 1, 1, 120, 120), "srvgg": of(v.SrVgg, 1, 3, 96, 96),
    "nafnet": of(v.nafnet, 1, 3, 128, 128), "swinir": of(v.SwinIr, 1, 3, 64, 64), "style": of(v.style, 1, 3, 160, 160), "style_small": of(lambda: v.style(16), 1, 3, 256, 256), "dcgan": of(v.gan, 1, 100, 1, 1),
    "pix2pix": of(v.pix2pix, 1, 3, 128, 128), "stylegan": of(v.StyleGan, 1, 128), "sd_block": of(v.DiffusionBlock, 1, 128 * 256 + 77 * 256), "sd_block_320": of(lambda: v.DiffusionBlock(320, 32, 768, 8), 1, 320 * 1024 + 77 * 768),
    "vae_decoder": of(v.VaeDecoder, 1, 4, 24, 24), "fast_scnn": of(v.FastScnn, 1, 3, 256, 256), "enet": of(v.enet, 1, 3, 192, 192), "u2": of(v.U2, 1, 3, 160, 160), "pose": of(v.baseline_pose, 1, 3, 256, 192),
    "hourglass": of(lambda: nn.Sequential(n.conv(3, 64, 7, 2), nn.MaxPool2d(2), v.Hourglass(), nn.Conv2d(64, 16, 1)), 1, 3, 256, 256), "mobileone": of(v.mobileone, 1, 3, 160, 160), "repvgg": of(v.repvgg, 1, 3, 160, 160),
    "raft_step": of(v.RaftStep, 1, 96 + 64 + 196 + 2, 40, 56), "spatial_transformer": of(v.Transformed, 1, 3, 96, 96), "siamese": of(v.Siamese, 1, 3, 192, 128), "autoencoder": of(v.autoencoder, 4, 1, 28, 28), "siren": of(n.Siren, 4096, 2),
    # language
    "bert": of(n.Bert, 1, 128, ids=2000), "bert_long": of(lambda: n.Bert(384, 12, 3, n=384), 1, 384, ids=2000), "bert_b8": of(lambda: n.Bert(256, 4, 3, n=32, fused=False), 8, 32, ids=2000),
    "albert": of(lambda: n.Bert(share=True, post=False, n=64, fused=False), 1, 64, ids=2000), "gpt_prefill": of(lambda: n.Prefill(gated=False), 1, 64, ids=4000), "llama_prefill": of(n.Prefill, 1, 64, ids=4000),
    "llama_prefill_256": of(lambda: n.Prefill(n=256), 1, 256, ids=4000), "llama_step": of(n.Step, 1, 1024 + 2 * 2 * 256 * 256), "gpt_step": of(lambda: n.Step(512, 8, 8, 4, 128), 1, 512 + 2 * 4 * 128 * 512),
    "decoder_16": of(n.Decoder, 1, 116, 384), "decoder_step": of(lambda: n.Decoder(tokens=1), 1, 151, 384), "t5": of(n.T5, 1, 96, 256), "gru_tagger": of(n.Recurrent, 1, 64, ids=5000), "lstm_tagger": of(lambda: n.Recurrent(nn.LSTM), 1, 64, ids=5000),
    "gru_b8": of(lambda: n.Recurrent(nn.GRU, 64, 96, 2, False, 0), 8, 50, 64), "lstm_forecast": of(lambda: n.Recurrent(nn.LSTM, 8, 64, 2, False, 0, 1), 1, 168, 8), "rnn_tanh": of(lambda: n.Recurrent(nn.RNN, 40, 128, 1, False, 0), 1, 100, 40),
    "lstm_512": of(lambda: n.Recurrent(nn.LSTM, 256, 512, 1, False, 0), 1, 40, 256), "text_cnn": of(n.TextCnn, 1, 100, ids=5000), "mixer": of(n.Mixer, 1, 3, 224, 224),
    # sound
    "conformer": of(n.SpeechEncoder, 1, 200, 80), "whisper_encoder": of(n.WhisperEncoder, 1, 80, 300), "whisper_encoder_1500": of(lambda: n.WhisperEncoder(layers=1, n=3000), 1, 80, 3000), "spectrum": of(n.Spectrum, 1, 1, 16000),
    "kws_dscnn": of(n.kws_dscnn, 1, 1, 49, 10), "tc_resnet": of(n.tc_resnet, 1, 40, 98), "tcn": of(n.Tcn, 1, 32, 256), "wavenet": of(n.WaveNet, 1, 1, 2048), "tasnet": of(n.TasNet, 1, 1, 8000), "vocoder": of(n.vocoder, 1, 80, 64),
    "codec": of(n.codec, 1, 1, 8192), "crnn": of(n.Crnn, 1, 1, 32, 128), "crnn_gru": of(lambda: n.Crnn(nn.GRU), 1, 1, 32, 100), "speaker": of(n.Speaker, 1, 80, 200),
    # tables, series, points
    "dlrm": of(n.Dlrm, 16, 8, ids=1000), "deepfm": of(n.DeepFm, 32, 16, ids=5000), "mlp_small": of(lambda: n.mlp(64, 128, 128, 10), 1, 64), "mlp_wide": of(lambda: n.mlp(784, 1024, 1024, 10, act=nn.GELU), 32, 784), "mlp_batch": of(lambda: n.mlp(32, 256, 256, 256, 4, act=nn.SiLU), 512, 32),
    "patchtst": of(n.PatchTst, 1, 7, 344), "nbeats": of(n.NBeats, 8, 96), "pointnet": of(n.PointNet, 1, 3, 1024), "gcn": of(n.Gcn, 1, 3, 64, 25),
}


def named(name):
    """The table's row of a name, or one for tv:NAME[@SIDE], timm:NAME[@SIDE]."""
    house, _, rest = name.partition(":")
    if rest:
        rest, _, side = rest.partition("@")
        return rest, {"tv": tv, "timm": timm}[house](rest, int(side or 224))
    return name, TABLE[name]


def some(shape, ids=0):
    return torch.randint(1, ids, shape, dtype=torch.int32) if ids else torch.randn(shape)


def calibrate(net, shape):
    """Batch norms see random inputs, so that results keep to a range that float16 has."""
    if any("BatchNorm" in type(m).__name__ for m in net.modules()):
        net.train()
        with torch.no_grad():
            for _ in range(8):
                net(torch.randn(max(2, shape[0]), *shape[1:]))
    return net.eval()


def write(out, name, make, shape, ids=0):
    torch.manual_seed(0)
    net, x = calibrate(make(), shape), some(shape, ids)
    with torch.no_grad():
        y = net(x)
        traced = torch.jit.trace(net, x, check_trace=False)
    np.savez(out / f"{name}-io.npz", x=x.numpy(), y=y.numpy())
    for tag, precision in (("fp32", ct.precision.FLOAT32), ("fp16", ct.precision.FLOAT16)):
        m = ct.convert(traced, inputs=[ct.TensorType("x", shape=shape, dtype=np.int32 if ids else np.float32)], outputs=[ct.TensorType("y", dtype=np.float32)], compute_precision=precision,
                       minimum_deployment_target=ct.target.iOS17, skip_model_load=True)
        m.save(str(out / f"{name}-{tag}.mlpackage"))
    torch.onnx.export(net, (x,), str(out / f"{name}.onnx"), input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=pathlib.Path)
    ap.add_argument("--only", nargs="*", help="names, in place of all")
    ap.add_argument("--again", action="store_true", help="networks that are there already, too")
    ap.add_argument("--list", action="store_true", help="print names and shapes of inputs")
    args = ap.parse_args()
    if args.list:
        for name, row in TABLE.items():
            print(name, "x".join(map(str, row[1])))
        return 0
    if not args.out:
        ap.error("--out or --list is needed")
    args.out.mkdir(parents=True, exist_ok=True)
    refused = []
    for name in args.only or TABLE:
        name, row = named(name)
        if not args.again and (args.out / f"{name}.onnx").exists():
            continue
        start = time.time()
        try:
            write(args.out, name, *row)
            print(f"{name}: {time.time() - start:.0f} s", flush=True)
        except Exception as e:  # a converter's limits are no reason to leave out the others
            refused.append(name)
            print(f"{name}: {(traceback.format_exception_only(e)[0].strip().splitlines() or ['?'])[0][:200]}", file=sys.stderr, flush=True)
    if refused:
        print("refused:", *refused, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
