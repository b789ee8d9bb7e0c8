"""Arrays for cmlrun without NumPy."""
import struct
import zipfile


def write_npz(path, **arrays):
    """Nested lists of floats; shape from their nesting."""
    with zipfile.ZipFile(path, 'w') as z:
        for name, value in arrays.items():
            shape, flat = [len(value)], value
            while isinstance(flat[0], list):
                shape.append(len(flat[0]))
                flat = [x for row in flat for x in row]
            head = str({'descr': '<f4', 'fortran_order': False, 'shape': tuple(shape)}).encode()
            head += b' ' * (-(len(head) + 11) % 64) + b'\n'
            z.writestr(name + '.npy', b'\x93NUMPY\x01\x00' + struct.pack('<H', len(head)) + head + struct.pack(f'<{len(flat)}f', *flat))
    return path
