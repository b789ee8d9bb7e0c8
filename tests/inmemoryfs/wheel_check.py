"""Blobs flattened by cmlpack restore with ExecuTorch's own code, and the other way round. Prints TAP.

ExecuTorch's compiled module is loaded by itself, from the wheel of the python that runs this: it needs no torch."""
import glob, importlib.util, os, subprocess, sys, tempfile


def load_wheel():
    found = importlib.util.find_spec("executorch")
    for folder in found.submodule_search_locations if found else []:
        for path in glob.glob(folder + "/backends/apple/coreml/executorchcoreml*.so"):
            spec = importlib.util.spec_from_file_location("executorchcoreml", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    return None


def make(top, empty_files):
    """Names in UTF-8 and with JSON's special characters, nested and empty folders, contents of many sizes."""
    files = {"metadata.json": b'{"inputNames":[]}', 'a/b/c/d/"quoted"': b"q", "a/back\\slash": b"\\" * 9, "\u00e9/\u65e5\u672c\U0001f600": b"u",
             "model.mlpackage/Data/weights/weight.bin": bytes(range(256)) * 1024, "tab\there": b"\0" * 100, "}]{[": b"}"}
    files.update({f"many/{i}": b"x" * i for i in range(1, 300)})
    if empty_files:  # ExecuTorch's own flattening crashes on these
        files.update({"empty": b"", "a/empty": b""})
    os.makedirs(top + "/nothing/here")
    for name, data in files.items():
        os.makedirs(os.path.dirname(f"{top}/{name}"), exist_ok=True)
        with open(f"{top}/{name}", "wb") as f:
            f.write(data)


def same(a, b):
    return subprocess.run(["diff", "-r", a, b], stdout=subprocess.DEVNULL).returncode == 0


def check(number, ok, words):
    print(f"{'ok' if ok else 'not ok'} {number} - {words}", flush=True)
    return ok


def main():
    cmlpack = os.path.abspath(os.environ["CML_BUILD"] + "/tools/cmlpack")
    wheel = load_wheel()
    if not wheel:
        print("1..0 # SKIP the executorch wheel is not installed for this python (set CML_PYTHON)")
        return 0
    ok, number = True, 0
    with tempfile.TemporaryDirectory() as top:
        os.chdir(top)
        make("ours", True)
        make("theirs", False)
        for alignment in ([], ["--align", "1"], ["--align", "64"], ["--align", "16384"]):
            number += 1
            subprocess.run([cmlpack, "flatten", "ours", "ours.bin", "--name", "lowered_module", *alignment], check=True)
            with open("ours.bin", "rb") as f:
                blob = f.read()
            out = f"out{number}"
            os.mkdir(out)
            restored = wheel.unflatten_directory_contents(blob, out)
            ok &= check(number, restored and same("ours", out + "/lowered_module"), f"ExecuTorch restores ours {' '.join(alignment)}")
        blob = wheel.flatten_directory_contents("theirs")
        for padding in (0, 1, 4096):
            number += 1
            with open("theirs.bin", "wb") as f:
                f.write(blob + bytes(padding))
            out = f"out{number}"
            subprocess.run([cmlpack, "unflatten", "theirs.bin", out], check=True)
            ok &= check(number, same("theirs", out), f"cmlpack restores ExecuTorch's with {padding} bytes behind")
    print(f"1..{number}", flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the module's destructors are not always safe
