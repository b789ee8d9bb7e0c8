# Completions for cmlpack, cmlfs and cmlrun in fish. Commands and options are read from --help, so that none is forgotten.
function __cml_commands
  set -l words (commandline -opc)
  $words[1] --help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z]*\)  *\(.*\)/\1\t\2/p'
end
function __cml_options
  set -l words (commandline -opc)
  $words[1] $words[2] --help 2>/dev/null | sed -n 's/^  [- ].[, ] \(--[a-z][a-z-]*\) *\(.*\)/\1\t\2/p'
end
function __cml_paths # within the file: cmlpack cat FILE PATH
  set -l words (commandline -opc)
  $words[1] ls -R $words[3] 2>/dev/null
end
for program in cmlpack cmlfs cmlrun
  complete -c $program -n 'test (count (commandline -opc)) -eq 1' -f -a '(__cml_commands)'
  complete -c $program -n 'string match -q -- "-*" (commandline -ct)' -f -a '(__cml_options)'
end
complete -c cmlpack -n 'test (count (commandline -opc)) -eq 3; and contains -- (commandline -opc)[2] cat ls' -f -a '(__cml_paths)'
