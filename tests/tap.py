"""TAP for the checks that are written in Python: a line a check, the plan at the end."""
import sys

count = failed = 0


def check(name, good, found=None):
    """`found` is printed where the check fails, in one line."""
    global count, failed
    count += 1
    failed += not good
    print('ok' if good else 'not ok', count, '-', name, '' if good else f'# {found}'.replace('\n', '\\n')[:1000], flush=True)


def skip(name, why):
    check(f'{name} # SKIP {why}', True)


def skip_all(why):
    print('1..0 # SKIP', why)
    sys.exit(0)


def finish():
    print(f'1..{count}')
    sys.exit(failed > 0)
