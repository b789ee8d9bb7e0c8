"""Networks from images to anything, of the kinds that are shipped to phones: detectors, U-Nets, generators, poses, segmenters.

Each takes one tensor and gives one, so that compare.py can measure it. make_networks.py has the table of sizes.
"""
import torch
import torch.nn.functional as F
from torch import nn

from networks import Attention, Seq, SqueezeExcite, Residual, conv, mlp, planes, separable


class Bottleneck(nn.Module):
    """CSP with n residual pairs, parts joined at the end (YOLO v5's C3; v8's C2f keeps each)."""
    def __init__(self, i, o, n=1, keep=False, add=True):
        super().__init__()
        h, act = o // 2, nn.SiLU
        self.keep, self.a, self.b = keep, conv(i, h, 1, act=act), conv(i, h, 1, act=act)
        pair = lambda: Seq(conv(h, h, 1 if not keep else 3, act=act), conv(h, h, act=act))
        self.body = nn.ModuleList(Residual(pair()) if add else pair() for _ in range(n))
        self.out = conv(h * (n + 2 if keep else 2), o, 1, act=act)

    def forward(self, x):
        parts = [self.b(x), self.a(x)]
        for body in self.body:
            parts.append(body(parts[-1]))
        return self.out(torch.cat(parts if self.keep else [parts[-1], parts[0]], 1))


class Yolo(nn.Module):
    """Backbone, pyramid both ways, heads on three scales with boxes decoded: v5 (anchors) or v8 (distributions of distances)."""
    def __init__(self, w=16, v8=False, classes=80):
        super().__init__()
        act, self.v8, self.classes = nn.SiLU, v8, classes
        c3 = lambda i, o, n=1, add=True: Bottleneck(i, o, n, v8, add)
        self.stem = Seq(conv(3, w, 3 if v8 else 7, 2, act=act), conv(w, w * 2, 3, 2, act=act), c3(w * 2, w * 2))
        self.p3, self.p4 = Seq(conv(w * 2, w * 4, 3, 2, act=act), c3(w * 4, w * 4, 2)), Seq(conv(w * 4, w * 8, 3, 2, act=act), c3(w * 8, w * 8, 2))
        self.p5, self.pool, self.join = Seq(conv(w * 8, w * 16, 3, 2, act=act), c3(w * 16, w * 16), conv(w * 16, w * 8, 1, act=act)), nn.MaxPool2d(5, 1, 2), conv(w * 32, w * 16, 1, act=act)
        self.u4, self.u3 = c3(w * 24, w * 8, 1, False), c3(w * 12, w * 4, 1, False)
        self.d3, self.d4 = conv(w * 4, w * 4, 3, 2, act=act), conv(w * 8, w * 8, 3, 2, act=act)
        self.n4, self.n5 = c3(w * 12, w * 8, 1, False), c3(w * 24, w * 16, 1, False)
        widths = (w * 4, w * 8, w * 16)
        if v8:
            self.box = nn.ModuleList(Seq(conv(c, 64, act=act), conv(64, 64, act=act), nn.Conv2d(64, 64, 1)) for c in widths)
            self.cls = nn.ModuleList(Seq(conv(c, 80, act=act), conv(80, 80, act=act), nn.Conv2d(80, classes, 1)) for c in widths)
            self.register_buffer("bins", torch.arange(16.))
        else:
            self.box = nn.ModuleList(nn.Conv2d(c, 3 * (5 + classes), 1) for c in widths)

    def decode(self, heads):
        places = lambda h, w: torch.stack(torch.meshgrid(torch.arange(h) + .5, torch.arange(w) + .5, indexing="ij")[::-1], -1).reshape(1, -1, 2)
        out = []
        for i, x in enumerate(heads):
            h, w = x.shape[2:]
            if self.v8:
                d = self.box[i](x).reshape(-1, 4, 16, h * w).transpose(1, 3).softmax(2)
                d = (d * self.bins[:, None]).sum(2)
                grid = places(h, w)
                out.append(torch.cat([(grid - d[..., :2]) * (8 << i), (grid + d[..., 2:]) * (8 << i), planes(self.cls[i](x)).sigmoid()], -1))
            else:
                y = self.box[i](x).reshape(-1, 3, 5 + self.classes, h, w).permute(0, 1, 3, 4, 2).sigmoid()
                xy, wh, rest = y.split((2, 2, y.shape[-1] - 4), -1)
                xy, wh = (xy * 2 + places(h, w).reshape(1, 1, h, w, 2)) * (8 << i), (wh * 2) ** 2 * 10
                out.append(torch.cat([xy, wh, rest], -1).reshape(-1, 3 * h * w, 5 + self.classes))
        return torch.cat(out, 1)

    def forward(self, x):
        p3 = self.p3(self.stem(x))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        pools = [p5]
        for _ in range(3):
            pools.append(self.pool(pools[-1]))
        p5 = self.join(torch.cat(pools, 1))
        half = p5[:, :p5.shape[1]]
        u4 = self.u4(torch.cat([F.interpolate(half, scale_factor=2.), p4], 1))
        u3 = self.u3(torch.cat([F.interpolate(u4, scale_factor=2.), p3], 1))
        n4 = self.n4(torch.cat([self.d3(u3), u4], 1))
        return self.decode([u3, n4, self.n5(torch.cat([self.d4(n4), p5], 1))])


class Ssd(nn.Module):
    """Depthwise separable backbone and heads on four scales, boxes and classes by softmax."""
    def __init__(self, w=32, classes=21, anchors=6):
        super().__init__()
        self.classes, sizes = classes, [(w, 2 * w, 1), (2 * w, 4 * w, 2), (4 * w, 4 * w, 1), (4 * w, 8 * w, 2), (8 * w, 8 * w, 1), (8 * w, 16 * w, 2), *[(16 * w, 16 * w, 1)] * 4]
        self.base = Seq(conv(3, w, 3, 2), *[separable(*s) for s in sizes])
        self.more = nn.ModuleList([Seq(conv(i, o // 2, 1), separable(o // 2, o, 2)) for i, o in ((16 * w, 16 * w), (16 * w, 8 * w), (8 * w, 8 * w))])
        widths = (16 * w, 16 * w, 8 * w, 8 * w)
        self.boxes = nn.ModuleList(Seq(conv(c, c, 3, g=c), nn.Conv2d(c, anchors * 4, 1)) for c in widths)
        self.names = nn.ModuleList(Seq(conv(c, c, 3, g=c), nn.Conv2d(c, anchors * classes, 1)) for c in widths)

    def forward(self, x):
        maps = [self.base(x)]
        for m in self.more:
            maps.append(m(maps[-1]))
        rows = lambda heads, n: torch.cat([h(m).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, n)) for h, m in zip(heads, maps)], 1)
        return torch.cat([rows(self.boxes, 4), rows(self.names, self.classes).softmax(-1)], -1)


class Fpn(nn.Module):
    """A pyramid over a small backbone with heads shared by the levels, group norms in them (RetinaNet, FCOS)."""
    def __init__(self, c=128):
        super().__init__()
        self.stages = nn.ModuleList([Seq(conv(3, 32, 3, 2), conv(32, 64, 3, 2), conv(64, 64)), Seq(conv(64, 128, 3, 2), conv(128, 128)), Seq(conv(128, 256, 3, 2), conv(256, 256)), Seq(conv(256, 512, 3, 2))])
        self.sides, self.smooth = nn.ModuleList(nn.Conv2d(i, c, 1) for i in (128, 256, 512)), nn.ModuleList(nn.Conv2d(c, c, 3, 1, 1) for _ in range(3))
        self.tower, self.head = Seq(*[Seq(nn.Conv2d(c, c, 3, 1, 1), nn.GroupNorm(32, c), nn.ReLU()) for _ in range(2)]), nn.Conv2d(c, 85, 3, 1, 1)

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        out, y = [], None
        for m, side, smooth in list(zip(maps[1:], self.sides, self.smooth))[::-1]:
            m = side(m)
            y = m if y is None else m + F.interpolate(y, size=m.shape[2:], mode="nearest")
            out.append(self.head(self.tower(smooth(y))))
        return planes(*out).sigmoid()


class BlazeFace(nn.Module):
    def __init__(self):
        super().__init__()
        class Blaze(nn.Module):
            def __init__(self, i, o, s=1):
                super().__init__()
                self.s, self.more, self.body = s, o - i, Seq(nn.Conv2d(i, i, 5, s, 2, groups=i), nn.Conv2d(i, o, 1))

            def forward(self, x):
                skip = F.max_pool2d(x, 2) if self.s == 2 else x
                return F.relu(self.body(x) + F.pad(skip, (0, 0, 0, 0, 0, self.more)))
        self.a = Seq(nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), Blaze(24, 24), Blaze(24, 28), Blaze(28, 32, 2), Blaze(32, 36), Blaze(36, 42), Blaze(42, 48, 2), Blaze(48, 56), Blaze(56, 64), Blaze(64, 72), Blaze(72, 88))
        self.b, self.ha, self.hb = Seq(Blaze(88, 96, 2), *[Blaze(96, 96) for _ in range(4)]), nn.Conv2d(88, 34, 1), nn.Conv2d(96, 102, 1)

    def forward(self, x):
        a = self.a(x)
        return torch.cat([self.ha(a).permute(0, 2, 3, 1).reshape(1, -1, 17), self.hb(self.b(a)).permute(0, 2, 3, 1).reshape(1, -1, 17)], 1)


class Unet(nn.Module):
    """Down by pooling, up by transposed convolution or by resizing; in one, two or three dims; with attention gates."""
    def __init__(self, i=3, o=2, w=32, depth=4, up="transposed", dims=2, gates=False):
        super().__init__()
        Conv, Norm, Pool, Up = (getattr(nn, f"{n}{dims}d") for n in ("Conv", "BatchNorm", "MaxPool", "ConvTranspose"))
        block = lambda a, b: Seq(Conv(a, b, 3, 1, 1), Norm(b), nn.ReLU(), Conv(b, b, 3, 1, 1), Norm(b), nn.ReLU())
        widths = [w * 2 ** n for n in range(depth)]
        self.down, self.pool = nn.ModuleList(block(a, b) for a, b in zip([i] + widths, widths)), Pool(2)
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[dims]
        rise = lambda c: Up(c, c // 2, 2, 2) if up == "transposed" else Seq(nn.Upsample(scale_factor=2, mode=mode if up == "linear" else "nearest"), Conv(c, c // 2, 1))
        self.up, self.side = nn.ModuleList(rise(c) for c in widths[:0:-1]), nn.ModuleList(block(c, c // 2) for c in widths[:0:-1])
        self.gate = nn.ModuleList(Seq(Conv(c, c // 4, 1), nn.ReLU(), Conv(c // 4, 1, 1), nn.Sigmoid()) for c in widths[:0:-1]) if gates else [None] * depth
        self.out = Conv(w, o, 1)

    def forward(self, x):
        skips = []
        for block in self.down:
            x = block(self.pool(x) if skips else x)
            skips.append(x)
        for up, side, gate, skip in zip(self.up, self.side, self.gate, skips[-2::-1]):
            x = torch.cat([skip, up(x)], 1)
            if gate is not None:
                x = x * gate(x)
            x = side(x)
        return self.out(x)


class DiffusionBlock(nn.Module):
    """Group norms and SiLU with a time embedding, then self attention, cross attention to 77 tokens, gated GELU: x has both."""
    def __init__(self, c=128, side=16, context=256, heads=4):
        super().__init__()
        self.side, self.c, self.context, self.heads = side, c, context, heads
        self.a, self.b = Seq(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, c, 3, 1, 1)), Seq(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, c, 3, 1, 1))
        self.time, self.norm, self.into, self.back = Seq(nn.SiLU(), nn.Linear(context, c)), nn.GroupNorm(32, c), nn.Conv2d(c, c, 1), nn.Conv2d(c, c, 1)
        self.n1, self.n2, self.n3, self.s, self.x = nn.LayerNorm(c), nn.LayerNorm(c), nn.LayerNorm(c), Attention(c, heads), Attention(c, heads, context=context)
        self.up, self.down = nn.Linear(c, 8 * c), nn.Linear(4 * c, c)

    def forward(self, x):
        n = self.c * self.side ** 2
        text = x[:, n:].reshape(1, -1, self.context)
        x = x[:, :n].reshape(1, self.c, self.side, self.side)
        x = x + self.b(self.a(x) + self.time(text[:, 0])[:, :, None, None])
        y = self.into(self.norm(x)).flatten(2).transpose(1, 2)
        y = y + self.s(self.n1(y))
        y = y + self.x(self.n2(y), text)
        h, g = self.up(self.n3(y)).chunk(2, -1)
        y = y + self.down(h * F.gelu(g))
        return x + self.back(y.transpose(1, 2).reshape(1, self.c, self.side, self.side))


class VaeDecoder(nn.Module):
    def __init__(self, w=64, latent=4):
        super().__init__()
        res = lambda c: Residual(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, c, 3, 1, 1), nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, c, 3, 1, 1))
        up = lambda i, o: Seq(nn.Upsample(scale_factor=2), nn.Conv2d(i, o, 3, 1, 1))
        self.into, self.mid, self.norm, self.attn = nn.Conv2d(latent, w * 4, 3, 1, 1), res(w * 4), nn.GroupNorm(32, w * 4), Attention(w * 4, 1)
        self.body = Seq(res(w * 4), up(w * 4, w * 2), res(w * 2), up(w * 2, w), res(w), up(w, w), res(w), nn.GroupNorm(32, w), nn.SiLU(), nn.Conv2d(w, 3, 3, 1, 1))

    def forward(self, z):
        x = self.mid(self.into(z))
        b, c, h, w = x.shape
        x = x + self.attn(self.norm(x).flatten(2).transpose(1, 2)).transpose(1, 2).reshape(b, c, h, w)
        return self.body(x)


def style(w=32):
    """Fast neural style: instance norms, reflected borders, nearest resizing."""
    layer = lambda i, o, k=3, s=1: Seq(nn.ReflectionPad2d(k // 2), nn.Conv2d(i, o, k, s), nn.InstanceNorm2d(o, affine=True))
    res = lambda c: Residual(layer(c, c), nn.ReLU(), layer(c, c))
    up = lambda i, o: Seq(nn.Upsample(scale_factor=2), layer(i, o), nn.ReLU())
    return Seq(layer(3, w, 9), nn.ReLU(), layer(w, 2 * w, 3, 2), nn.ReLU(), layer(2 * w, 4 * w, 3, 2), nn.ReLU(), *[res(4 * w) for _ in range(5)],
               up(4 * w, 2 * w), up(2 * w, w), nn.ReflectionPad2d(4), nn.Conv2d(w, 3, 9), nn.Tanh())


def gan(w=64):
    up = lambda i, o: Seq(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
    return Seq(nn.ConvTranspose2d(100, w * 8, 4), nn.BatchNorm2d(w * 8), nn.ReLU(), up(w * 8, w * 4), up(w * 4, w * 2), up(w * 2, w), nn.ConvTranspose2d(w, 3, 4, 2, 1), nn.Tanh())


def pix2pix(w=32):
    down = lambda i, o: Seq(nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(.2))
    up = lambda i, o: Seq(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
    return Seq(nn.Conv2d(3, w, 4, 2, 1), nn.LeakyReLU(.2), down(w, 2 * w), down(2 * w, 4 * w), down(4 * w, 8 * w), up(8 * w, 4 * w), up(4 * w, 2 * w), up(2 * w, w), nn.ConvTranspose2d(w, 3, 4, 2, 1), nn.Tanh())


def espcn(scale=3):
    return Seq(nn.Conv2d(1, 64, 5, 1, 2), nn.Tanh(), nn.Conv2d(64, 32, 3, 1, 1), nn.Tanh(), nn.Conv2d(32, scale ** 2, 3, 1, 1), nn.PixelShuffle(scale))


def edsr(c=64, n=6, attention=False):
    body = [Residual(nn.Conv2d(c, c, 3, 1, 1), nn.ReLU(), nn.Conv2d(c, c, 3, 1, 1), *([SqueezeExcite(c, 16)] if attention else []), scale=1 if attention else .1) for _ in range(n)]
    return Seq(nn.Conv2d(3, c, 3, 1, 1), Residual(*body, nn.Conv2d(c, c, 3, 1, 1)), nn.Conv2d(c, 4 * c, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(c, 3, 3, 1, 1))


def fsrcnn():
    return Seq(nn.Conv2d(1, 56, 5, 1, 2), nn.PReLU(56), nn.Conv2d(56, 12, 1), nn.PReLU(12), *[m for _ in range(4) for m in (nn.Conv2d(12, 12, 3, 1, 1), nn.PReLU(12))],
               nn.Conv2d(12, 56, 1), nn.PReLU(56), nn.ConvTranspose2d(56, 1, 9, 3, 4, 2))


class SrVgg(nn.Module):
    """Real-ESRGAN's compact network: convolutions with PReLU, the image resized beside them."""
    def __init__(self, c=64, n=8):
        super().__init__()
        self.body = Seq(nn.Conv2d(3, c, 3, 1, 1), nn.PReLU(c), *[m for _ in range(n) for m in (nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c))], nn.Conv2d(c, 48, 3, 1, 1), nn.PixelShuffle(4))

    def forward(self, x):
        return self.body(x) + F.interpolate(x, scale_factor=4., mode="nearest")


class Naf(nn.Module):
    """NAFNet's block: a norm along channels, gates by halves in place of activations."""
    def __init__(self, c):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.a, self.d, self.b, self.s = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3, 1, 1, groups=2 * c), nn.Conv2d(c, c, 1), Seq(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.up, self.down = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x):
        last = lambda norm, t: norm(t.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        a, b = self.d(self.a(last(self.n1, x))).chunk(2, 1)
        y = a * b
        x = x + self.b(y * self.s(y))
        a, b = self.up(last(self.n2, x)).chunk(2, 1)
        return x + self.down(a * b)


def nafnet(c=32):
    return Seq(nn.Conv2d(3, c, 3, 1, 1), Naf(c), nn.Conv2d(c, 2 * c, 2, 2), Naf(2 * c), nn.Conv2d(2 * c, 4 * c, 2, 2), Naf(4 * c), Naf(4 * c),
               nn.Conv2d(4 * c, 8 * c, 1, bias=False), nn.PixelShuffle(2), Naf(2 * c), nn.Conv2d(2 * c, 4 * c, 1, bias=False), nn.PixelShuffle(2), Naf(c), nn.Conv2d(c, 3, 3, 1, 1))


class Window(nn.Module):
    """SwinIR's layer: attention within windows of 8 x 8, shifted or not, with a bias by place, then convolutions."""
    def __init__(self, c=60, heads=6, shift=0):
        super().__init__()
        self.shift, self.n1, self.n2, self.attn, self.mlp = shift, nn.LayerNorm(c), nn.LayerNorm(c), Attention(c, heads, fused=False), mlp(c, 2 * c, c, act=nn.GELU)
        self.bias = nn.Parameter(torch.randn(1, heads, 64, 64) * .02)

    def forward(self, x):
        b, h, w, c = x.shape
        y = self.n1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = y.reshape(b, h // 8, 8, w // 8, 8, c).transpose(2, 3).reshape(-1, 64, c)
        y = self.attn(y, mask=self.bias).reshape(b, h // 8, w // 8, 8, 8, c).transpose(2, 3).reshape(b, h, w, c)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.n2(x))


class SwinIr(nn.Module):
    def __init__(self, c=60):
        super().__init__()
        self.a, self.body, self.b = nn.Conv2d(3, c, 3, 1, 1), Seq(Window(c), Window(c, shift=4), Window(c), Window(c, shift=4)), nn.Conv2d(c, c, 3, 1, 1)
        self.out = Seq(nn.Conv2d(c, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x):
        x = self.a(x)
        return self.out(x + self.b(self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))


class MobileOne(nn.Module):
    """Branches that were not re-parameterised: 3 x 3, 1 x 1 and the image itself, each with its batch norm, summed."""
    def __init__(self, i, o, s=1, g=1, branches=2):
        super().__init__()
        self.main, self.point = nn.ModuleList(conv(i, o, 3, s, g, None) for _ in range(branches)), conv(i, o, 1, s, g, None)
        self.same = nn.BatchNorm2d(i) if i == o and s == 1 else None

    def forward(self, x):
        y = self.point(x) + sum(m(x) for m in self.main)
        return F.relu(y + self.same(x) if self.same else y)


def mobileone(w=48):
    pair = lambda i, o, s: Seq(MobileOne(i, i, s, i), conv(i, o, 1))
    return Seq(MobileOne(3, w, 2), pair(w, w, 2), pair(w, w, 1), pair(w, 2 * w, 2), pair(2 * w, 2 * w, 1), pair(2 * w, 4 * w, 2), pair(4 * w, 4 * w, 1), pair(4 * w, 16 * w, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16 * w, 1000))


def repvgg(w=48):
    return Seq(MobileOne(3, w, 2, branches=1), MobileOne(w, w, 2, branches=1), MobileOne(w, w, branches=1), MobileOne(w, 2 * w, 2, branches=1), *[MobileOne(2 * w, 2 * w, branches=1) for _ in range(2)],
               MobileOne(2 * w, 4 * w, 2, branches=1), *[MobileOne(4 * w, 4 * w, branches=1) for _ in range(3)], MobileOne(4 * w, 16 * w, 2, branches=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16 * w, 1000))


def baseline_pose(w=64):
    up = lambda i, o: Seq(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
    res = lambda c: Seq(Residual(conv(c, c), conv(c, c, act=None)), nn.ReLU())
    return Seq(conv(3, w, 7, 2), nn.MaxPool2d(3, 2, 1), res(w), conv(w, 2 * w, 3, 2), res(2 * w), conv(2 * w, 4 * w, 3, 2), res(4 * w), up(4 * w, 128), up(128, 128), up(128, 128), nn.Conv2d(128, 17, 1))


class Hourglass(nn.Module):
    def __init__(self, c=64, depth=4):
        super().__init__()
        res = lambda: Seq(Residual(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1), nn.BatchNorm2d(c // 2), nn.ReLU(), nn.Conv2d(c // 2, c // 2, 3, 1, 1), nn.BatchNorm2d(c // 2), nn.ReLU(), nn.Conv2d(c // 2, c, 1)))
        self.side, self.low, self.high = res(), Seq(nn.MaxPool2d(2), res()), Seq(res(), nn.Upsample(scale_factor=2))
        self.mid = Hourglass(c, depth - 1) if depth > 1 else res()

    def forward(self, x):
        return self.side(x) + self.high(self.mid(self.low(x)))


class FastScnn(nn.Module):
    """Segmentation at an eighth of the size, a pyramid of pools, two branches joined, resized to the image."""
    def __init__(self, classes=19):
        super().__init__()
        inv = lambda i, o, s: Seq(conv(i, i * 6, 1), conv(i * 6, i * 6, 3, s, i * 6), conv(i * 6, o, 1, act=None))
        self.a, self.b = Seq(conv(3, 32, 3, 2), separable(32, 48, 2), separable(48, 64, 2)), Seq(inv(64, 64, 2), inv(64, 96, 2), inv(96, 128, 1))
        self.pools, self.join = nn.ModuleList(Seq(nn.AdaptiveAvgPool2d(n), conv(128, 32, 1)) for n in (1, 2, 4)), conv(128 + 96, 128, 1)
        self.high, self.low = conv(64, 128, 1, act=None), Seq(conv(128, 128, 3, g=128, d=4), conv(128, 128, 1, act=None))
        self.head = Seq(separable(128, 128), nn.Conv2d(128, classes, 1))

    def forward(self, x):
        size, a = x.shape[2:], self.a(x)
        up = lambda t, s: F.interpolate(t, size=s, mode="bilinear", align_corners=False)
        b = self.b(a)
        b = self.join(torch.cat([b] + [up(p(b), b.shape[2:]) for p in self.pools], 1))
        return up(self.head(F.relu(self.high(a) + self.low(up(b, a.shape[2:])))), size)


def enet(c=64):
    """Small convolutions: dilated, asymmetric, PReLU."""
    res = lambda *body: Seq(Residual(conv(c, c // 4, 1, act=nn.PReLU), *body, nn.Conv2d(c // 4, c, 1), nn.BatchNorm2d(c)), nn.PReLU())
    q = c // 4
    tall = Seq(nn.Conv2d(q, q, (5, 1), 1, (2, 0), bias=False), nn.Conv2d(q, q, (1, 5), 1, (0, 2)), nn.BatchNorm2d(q), nn.PReLU())
    return Seq(conv(3, 16, 3, 2, act=nn.PReLU), conv(16, c, 3, 2, act=nn.PReLU), res(conv(q, q, act=nn.PReLU)), res(conv(q, q, act=nn.PReLU, d=2)), res(tall), res(conv(q, q, act=nn.PReLU, d=4)), res(conv(q, q, act=nn.PReLU, d=8)),
               nn.ConvTranspose2d(c, 16, 3, 2, 1, 1), nn.BatchNorm2d(16), nn.PReLU(), nn.ConvTranspose2d(16, 19, 2, 2))


class U2(nn.Module):
    """U-squared's block: a U-Net of convolutions with batch norms as one residual layer, dilated at the bottom."""
    def __init__(self, i=3, m=16, o=64, depth=5):
        super().__init__()
        self.first, self.bottom = conv(i, o), conv(m, m, d=2)
        self.down, self.up = nn.ModuleList(conv(o if n == 0 else m, m) for n in range(depth)), nn.ModuleList(conv(2 * m, o if n == depth - 1 else m) for n in range(depth))

    def forward(self, x):
        x = self.first(x)
        maps, y = [], x
        for n, down in enumerate(self.down):
            y = down(F.max_pool2d(y, 2, ceil_mode=True) if n else y)
            maps.append(y)
        y = self.bottom(y)
        for up, m in zip(self.up, maps[::-1]):
            if y.shape[2:] != m.shape[2:]:
                y = F.interpolate(y, size=m.shape[2:], mode="bilinear", align_corners=False)
            y = up(torch.cat([y, m], 1))
        return x + y


class StyleGan(nn.Module):
    """Modulated convolutions as StyleGAN 2 has them, with noise; x is the latent vector."""
    def __init__(self, c=64, d=128):
        super().__init__()
        self.map, self.const = Seq(*[Seq(nn.Linear(d, d), nn.LeakyReLU(.2)) for _ in range(4)]), nn.Parameter(torch.randn(1, c, 16, 16))
        self.style, self.weights = nn.ModuleList(nn.Linear(d, c) for _ in range(4)), nn.ParameterList(torch.randn(c, c, 3, 3) * .05 for _ in range(4))
        self.noise, self.rgb = nn.ParameterList(torch.randn(1, 1, 16 << (n // 2), 16 << (n // 2)) * .1 for n in range(4)), nn.Conv2d(c, 3, 1)

    def forward(self, z):
        w, x = self.map(z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-8)), self.const
        for n, (style, weight, noise) in enumerate(zip(self.style, self.weights, self.noise)):
            s = style(w) + 1
            x = F.interpolate(x, scale_factor=2., mode="bilinear") if n == 2 else x
            gain = torch.rsqrt((weight.pow(2).sum((2, 3)) * s.pow(2)).sum(1) + 1e-8)
            x = F.leaky_relu(F.conv2d(x * s[:, :, None, None], weight, padding=1) * gain[None, :, None, None] + noise, .2)
        return self.rgb(x)


def autoencoder(w=32):
    return Seq(conv(1, w, 3, 2), conv(w, 2 * w, 3, 2), nn.Flatten(), mlp(2 * w * 49, 64, 2 * w * 49), nn.Unflatten(1, (2 * w, 7, 7)), nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(w, 1, 3, 2, 1, 1), nn.Sigmoid())


class RaftStep(nn.Module):
    """Optical flow's update: motion features, a convolutional GRU in two directions, a flow and a mask. x: all maps together."""
    def __init__(self, h=96):
        super().__init__()
        self.h, self.corr, self.flow, self.join = h, Seq(nn.Conv2d(196, 96, 1), nn.ReLU(), nn.Conv2d(96, 64, 3, 1, 1), nn.ReLU()), Seq(nn.Conv2d(2, 64, 7, 1, 3), nn.ReLU(), nn.Conv2d(64, 32, 3, 1, 1), nn.ReLU()), nn.Conv2d(96, 80, 3, 1, 1)
        gates = lambda k, p: nn.ModuleList(nn.Conv2d(h + 82 + 64, h, k, 1, p) for _ in range(3))
        self.row, self.column = gates((1, 5), (0, 2)), gates((5, 1), (2, 0))
        self.head, self.mask = Seq(nn.Conv2d(h, 128, 3, 1, 1), nn.ReLU(), nn.Conv2d(128, 2, 3, 1, 1)), Seq(nn.Conv2d(h, 128, 3, 1, 1), nn.ReLU(), nn.Conv2d(128, 576, 1))

    def forward(self, x):
        h, context, corr, flow = x.split((self.h, 64, 196, 2), 1)
        h = torch.tanh(h)
        x = torch.cat([F.relu(context), F.relu(self.join(torch.cat([self.corr(corr), self.flow(flow)], 1))), flow], 1)
        for z, r, q in (self.row, self.column):
            hx = torch.cat([h, x], 1)
            zz = torch.sigmoid(z(hx))
            h = (1 - zz) * h + zz * torch.tanh(q(torch.cat([torch.sigmoid(r(hx)) * h, x], 1)))
        return torch.cat([self.head(h), .25 * self.mask(h)], 1)


class Transformed(nn.Module):
    """A spatial transformer before a small network (coordinates by grid_sample)."""
    def __init__(self):
        super().__init__()
        self.where = Seq(conv(3, 16, 5, 2), conv(16, 16, 5, 2), nn.AdaptiveAvgPool2d(4), nn.Flatten(), mlp(256, 32, 6))
        self.net = Seq(conv(3, 32, 3, 2), conv(32, 64, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 43))
        self.where[-1][-1].weight.data.mul_(.05)
        self.where[-1][-1].bias.data.copy_(torch.tensor([1., 0, 0, 0, 1, 0]))

    def forward(self, x):
        return self.net(F.grid_sample(x, F.affine_grid(self.where(x).reshape(-1, 2, 3), x.shape, align_corners=False), align_corners=False))


class Siamese(nn.Module):
    """Tracking: one backbone over a template and a search image (both in x), a depthwise correlation as products, heads."""
    def __init__(self, c=64):
        super().__init__()
        self.net = Seq(conv(3, 32, 3, 2), conv(32, 64, 3, 2), conv(64, c, 3, 2), conv(c, c, act=None))
        self.head = Seq(conv(c, c, 1), nn.Conv2d(c, 5, 1))

    def forward(self, x):
        z, s = self.net(x[:, :, :64, :64]), self.net(x[:, :, 64:, :])
        w = torch.softmax(z.flatten(2).transpose(1, 2) @ s.flatten(2) * .05, 1)
        return self.head((z.flatten(2) @ w).reshape(s.shape) * s)
