# Completions for cmlpack, cmlfs and cmlrun in bash. Commands and options are read from --help, so that none is forgotten.
_cml() {
  local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words
  if [ "$COMP_CWORD" -eq 1 ]; then
    words=$("$program" --help 2> /dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z]*\) .*/\1/p')
    COMPREPLY=($(compgen -W "$words --help --version" -- "$word"))
  elif [[ $word == -* ]]; then
    words=$("$program" "$command" --help 2> /dev/null | sed -n 's/^  [- ].[, ] \(--[a-z][a-z-]*\).*/\1/p')
    COMPREPLY=($(compgen -W "$words" -- "$word"))
  elif [ "$COMP_CWORD" -eq 3 ] && [[ ${program##*/}/$command == cmlpack/@(cat|ls) ]]; then
    local IFS=$'\n'
    COMPREPLY=($(compgen -W "$("$program" ls -R "${COMP_WORDS[2]}" 2> /dev/null)" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -o filenames -F _cml cmlpack cmlfs cmlrun
