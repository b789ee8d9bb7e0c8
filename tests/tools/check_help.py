"""What --help tells of each command stands in its man page, and the shells complete it. Every command starts at
once. Speaks TAP."""
import os
import re
import shutil
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
from tap import check, finish, skip  # noqa: E402

build, source = os.environ['CML_BUILD'], os.environ['CML_SOURCE']
tools = os.path.join(build, 'tools')
completions = os.path.join(source, 'tools', 'completions')


def shell(*command):
    env = dict(os.environ, PATH=tools + ':' + os.environ['PATH'], TERM='dumb')
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env).stdout


def commands_of(program):
    words, listed = shell(program, '--help'), []
    for line in words[words.index('Commands:\n'):].splitlines()[1:]:
        if not line:
            break
        listed.append(line.split()[0])
    return listed


def options_of(program, command):
    """[('-i' or '', '--input'), ...]"""
    return re.findall(r'^  (?:(-\w), |    )(--[a-z-]+)', shell(program, command, '--help'), re.M)


def page_of(name):
    """A man page as its readers' options see it, or None; both mdoc and man macros are in use."""
    path = os.path.join(source, 'docs', 'man', name + '.1')
    if not os.path.exists(path):
        return None
    with open(path) as f:
        text = f.read().replace('\\-', '-')
    return re.sub(r'\bFl (-?\w)', r'-\1', re.sub(r' , -(?=\w)', ' , --', text))


def man_pages(program, command, options):
    page = page_of(f'{program}-{command}') or page_of(program)
    has = lambda word: re.search(rf'(?<![\w-]){re.escape(word)}(?![\w-])', page)
    lacks = [word for pair in options for word in pair if word and word not in ('--help', '--version', '-h') and not has(word)]
    check(f'man page: {program} {command} and its options', has(command) and not lacks, lacks)


def bash_gives(*words):
    script = f'. {completions}/cmlpack.bash; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _cml; printf "%s\\n" "${{COMPREPLY[@]}}"'
    return shell('bash', '-c', script, 'bash', *words).split()


def fish_gives(*words):
    found = shell('fish', '-N', '-c', f'source {completions}/cmlpack.fish; complete -C "{" ".join(words)}"')
    return [line.split('\t')[0] for line in found.splitlines()]


def zsh_gives(*words):
    """_describe takes an array of word:meaning; one of ours prints it."""
    script = (f'service=$1 words=("$@") CURRENT=$#; _describe() {{ print -l -- ${{(P)@[-1]}} }}; _files() {{ : }}; '
              f'body() {{ {open(os.path.join(completions, "_cmlpack")).read()} }}; body')
    return [line.split(':')[0] for line in shell('zsh', '-f', '-c', script, 'zsh', *words).splitlines()]


SHELLS = {'bash': bash_gives, 'zsh': zsh_gives, 'fish': fish_gives}


def completed(name, gives, programs):
    for program, commands in programs.items():
        found = gives(program, '')
        wrong = [] if set(commands) <= set(found) else [('commands', found)]
        for command, options in commands.items():
            found = gives(program, command, '--')
            if not options or not {long for _, long in options} <= set(found):
                wrong.append((command, found))
        check(f'{name}: completes {program}', commands and not wrong, wrong)


def starts(programs):
    """The best of many, since others may use the machine."""
    with open(os.path.join(tools, 'cmlpack'), 'rb') as f:
        if b'__asan_' in (words := f.read()) or b'__tsan_' in words or b'__ubsan_' in words:
            skip('every command starts in under 5 ms', 'sanitizers take longer to start')
            return
    times = {f'{program} {command}': min(timed(program, command, '--help') for _ in range(20))
             for program, commands in programs.items() for command in commands}
    slowest = max(times, key=times.get)
    check(f'every command starts in under 5 ms: {slowest} in {times[slowest] * 1000:.1f}', times[slowest] < 0.005, times)


def timed(*command):
    """Seconds of the processor, for where many others run the clock says little."""
    child = subprocess.Popen([os.path.join(tools, command[0]), *command[1:]], stdout=subprocess.DEVNULL)
    usage = os.wait4(child.pid, 0)[2]
    child.returncode = 0
    return usage.ru_utime + usage.ru_stime


def main():
    programs = {}
    for program in ('cmlpack', 'cmlrun', 'cmlfs'):
        if not os.path.exists(os.path.join(tools, program)):
            skip(program, 'it is not built')
            continue
        programs[program] = {command: options_of(program, command) for command in commands_of(program)}
        for command, options in programs[program].items():
            check(f'{program} {command} has help', ('-h', '--help') in options, options)
            man_pages(program, command, options)
    for name, gives in SHELLS.items():
        if shutil.which(name):
            completed(name, gives, programs)
        else:
            skip(f'{name}: completions', f'there is no {name} here')
    starts(programs)
    finish()


main()
