"""Programs with quantised activations and weights (W8A8), beside the same networks in floats and ONNX Runtime's QDQ models, in turns.

    bench_integers.py CMLRUN FOLDER [small,res18,mobile,encoder]

Makes the models in FOLDER where they are not there yet: torch networks with random weights, converted by coremltools, quantised by
linear_quantize_activations and linear_quantize_weights (CMLRUN predicts for the calibration), and by onnxruntime's quantize_static.
Prints a line of a table for each network and number of threads: the fastest run of each, in ms.
"""
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def conv(i, o, k=3, s=1, g=1, act=None):
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o), *([act()] if act else []))


class Inverted(nn.Module):
    def __init__(self, i, o, t, s):
        super().__init__()
        self.skip = s == 1 and i == o
        self.body = nn.Sequential(*([conv(i, i * t, 1, act=nn.ReLU6)] if t > 1 else []), conv(i * t, i * t, 3, s, i * t, nn.ReLU6), conv(i * t, o, 1))

    def forward(self, x):
        return x + self.body(x) if self.skip else self.body(x)


class Basic(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.a, self.b = conv(i, o, 3, s, act=nn.ReLU), conv(o, o)
        self.down = conv(i, o, 1, s) if s != 1 or i != o else nn.Identity()

    def forward(self, x):
        return F.relu(self.b(self.a(x)) + self.down(x))


class Layer(nn.Module):
    def __init__(self, d=384, heads=6):
        super().__init__()
        self.heads, self.n1, self.n2 = heads, nn.LayerNorm(d), nn.LayerNorm(d)
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        b, t, d = x.shape
        y = self.n1(x)
        q, k, v = (f(y).reshape(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.n2(x))))


def small():
    r = nn.ReLU
    return nn.Sequential(conv(3, 32, 3, 2, act=r), conv(32, 64, act=r), nn.MaxPool2d(2), conv(64, 128, act=r), conv(128, 128, act=r), nn.MaxPool2d(2),
                         conv(128, 256, act=r), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 256), r(), nn.Linear(256, 10)), (1, 3, 96, 96)


def mobile():
    layers, i = [conv(3, 32, 3, 2, act=nn.ReLU6)], 32
    for t, c, n, s in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
        for k in range(n):
            layers.append(Inverted(i, c, t, s if k == 0 else 1))
            i = c
    return nn.Sequential(*layers, conv(i, 1280, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)), (1, 3, 224, 224)


def res18():
    blocks = [Basic(i, o, s) for i, o, s in [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]]
    return nn.Sequential(conv(3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)), (1, 3, 224, 224)


def encoder():
    return nn.Sequential(*[Layer() for _ in range(4)], nn.Linear(384, 100)), (1, 128, 384)


def make(name, cmlrun, folder):
    import coremltools as ct
    import coremltools.optimize.coreml as cto
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static

    def predict(model, inputs):
        with tempfile.TemporaryDirectory() as d:
            model.save(d + "/m.mlpackage")
            np.savez(d + "/in.npz", **inputs)
            subprocess.run([cmlrun, "predict", d + "/m.mlpackage", "--input", d + "/in.npz", "--output", d + "/out.npz"], check=True)
            return dict(np.load(d + "/out.npz"))

    class Reader(CalibrationDataReader):
        left = 2

        def get_next(self):
            self.left -= 1
            return {"x": torch.randn(shape).numpy()} if self.left >= 0 else None

    torch.manual_seed(0)
    net, shape = globals()[name]()
    net.train()
    with torch.no_grad():
        net(torch.randn((4,) + shape[1:]))  # statistics for the normalisations
    net.eval()
    x = torch.randn(shape)
    ct.models.MLModel.predict = predict
    base = os.path.join(folder, name)
    model = ct.convert(torch.jit.trace(net, x), inputs=[ct.TensorType(name="x", shape=shape)], convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17)
    model.save(base + ".mlpackage")
    config = cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig(mode="linear_symmetric"))
    cto.linear_quantize_weights(cto.linear_quantize_activations(model, config, [{"x": x.numpy()}]), config).save(base + "-w8a8.mlpackage")
    torch.onnx.export(net, x, base + ".onnx", input_names=["x"], output_names=["y"], dynamo=False, opset_version=17)
    quant_pre_process(base + ".onnx", base + "-pre.onnx", skip_symbolic_shape=True)
    for kind, end in ((QuantType.QInt8, "-s8"), (QuantType.QUInt8, "-u8")):
        quantize_static(base + "-pre.onnx", base + end + ".onnx", Reader(), quant_format=QuantFormat.QDQ, activation_type=kind, weight_type=QuantType.QInt8, per_channel=True)
    np.save(base + ".npy", x.numpy())


def peer(path, x, threads):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def fastest(f, seconds):
    f()
    best, end = 1e9, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        f()
        best = min(best, time.perf_counter() - begin)
    return best * 1e3


def ours(cmlrun, model, threads, *more):
    text = subprocess.run([cmlrun, "bench", model, "--threads", str(threads), "--seconds", "0.3", *more], capture_output=True, text=True, check=True).stdout
    return float(re.search(r"fastest ([\d.]+) ms", text).group(1))


def main():
    cmlrun, folder = sys.argv[1:3]
    names = sys.argv[3].split(",") if len(sys.argv) > 3 else ["small", "res18", "mobile", "encoder"]
    os.makedirs(folder, exist_ok=True)
    for name in names:
        if not os.path.exists(os.path.join(folder, name + ".npy")):
            make(name, cmlrun, folder)
    columns = ["ORT float", "ORT int8", "ORT uint8", "cml float16", "W8A8 in floats", "W8A8"]
    print("| network, threads | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for threads in (1, 2):
        for name in names:
            base, best = os.path.join(folder, name), {}
            x = np.load(base + ".npy")
            runs = [lambda f=peer(base + end + ".onnx", x, threads): fastest(f, 0.25) for end in ("", "-s8", "-u8")]
            runs += [lambda: ours(cmlrun, base + ".mlpackage", threads), lambda: ours(cmlrun, base + "-w8a8.mlpackage", threads, "--passes", "-integers"),
                     lambda: ours(cmlrun, base + "-w8a8.mlpackage", threads)]
            for _ in range(2):
                for column, run in zip(columns, runs):
                    best[column] = min(best.get(column, 1e9), run())
            print(f"| {name}, {threads} | " + " | ".join(f"{best[c]:.2f}" for c in columns) + " |", flush=True)


main()
